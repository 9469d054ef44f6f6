//! Values too long for a row: compressed, or stored in the table's TOAST table
//! and replaced by pointers. The server's own helpers for table access methods
//! (`access/toast_helper.h`) do the work on a row's values; what is decided
//! here is in which order, with the sizes of our rows. `am/README.md`, "Long
//! values", argues when what is stored and deleted.

mod check;

use std::ffi::c_char;

use pgrx::pg_sys::{self, ffi::pg_guard_ffi_boundary as guarded};

pub use check::StoredValues;

use crate::row::{POINTER_BYTES, Pointer, TableLayout, datum_bytes, has_pointers, is_pointer};

/// Rows up to this size stay as they are, as in heap: four of them fit a page.
const ROW_BYTES_MAX: usize = 2032;

/// What a row takes besides key and payload, as heap counts its tuple's header.
/// Our entry's head and slot take no more.
const HEAD_BYTES: usize = 24;

/// `MaxHeapTupleSize`.
const HEAP_ROW_BYTES_MAX: usize = 8160;

/// Storage letters of `pg_attribute.attstorage`.
const EXTENDED: u8 = b'x';
const MAIN: u8 = b'm';
const PLAIN: u8 = b'p';

/// What the server's helpers note of one column: `ToastAttrInfo`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Column {
    old_external: *mut pg_sys::varlena,
    size: i32,
    flags: u8,
    compression: c_char,
}

/// `ToastTupleContext`. `shim.c` asserts that both are laid out so.
#[repr(C)]
struct Context {
    relation: pg_sys::Relation,
    values: *mut pg_sys::Datum,
    isnull: *mut bool,
    old_values: *mut pg_sys::Datum,
    old_isnull: *mut bool,
    flags: u8,
    columns: *mut Column,
}

const _: () = assert!(size_of::<Column>() == 16 && size_of::<Context>() == 56);

/// `TOAST_NEEDS_DELETE_OLD`.
const NEEDS_DELETE_OLD: u8 = 0x01;
/// `TOASTCOL_INCOMPRESSIBLE`.
const INCOMPRESSIBLE: u8 = 0x20;

unsafe extern "C-unwind" {
    // All guarded.
    fn toast_tuple_init(context: *mut Context);
    fn toast_tuple_find_biggest_attribute(
        context: *mut Context,
        for_compression: bool,
        check_main: bool,
    ) -> i32;
    fn toast_tuple_try_compression(context: *mut Context, column: i32);
    fn toast_tuple_externalize(context: *mut Context, column: i32, options: i32);
    fn toast_tuple_cleanup(context: *mut Context);
    fn toast_delete_datum(relation: pg_sys::Relation, value: pg_sys::Datum, speculative: bool);
}

/// Whether a row of these sizes has to be shortened, if it can be.
#[inline(always)]
pub fn is_long(key_bytes: usize, payload_bytes: usize) -> bool {
    HEAD_BYTES + key_bytes + payload_bytes > ROW_BYTES_MAX
}

/// Whether a table needs a TOAST table: some value of it may be stored there,
/// and rows may be too long without.
///
/// # Safety
/// `relation` is open.
pub unsafe fn needs_table(relation: pg_sys::Relation) -> bool {
    // SAFETY: an open relation has a descriptor of natts columns.
    let (columns, forms) = unsafe {
        let descriptor = (*relation).rd_att;
        let columns = usize::try_from((*descriptor).natts).unwrap_or(0);
        (columns, (*descriptor).attrs.as_slice(columns))
    };
    let mut bytes = 0;
    let mut is_toastable = false;
    for form in forms.iter().filter(|form| !form.attisdropped) {
        let align = crate::row::align_bytes(form.attalign);
        bytes = usize::next_multiple_of(bytes, usize::from(align));
        if let Ok(length @ 1..) = usize::try_from(form.attlen) {
            bytes += length;
            continue;
        }
        is_toastable |= form.attstorage as u8 != PLAIN;
        // SAFETY: a plain function of the catalogs.
        let longest = unsafe { pg_sys::type_maximum_size(form.atttypid, form.atttypmod) };
        bytes += usize::try_from(longest).unwrap_or(ROW_BYTES_MAX);
    }
    is_toastable && HEAD_BYTES + columns.div_ceil(8) + bytes > ROW_BYTES_MAX
}

/// A row that may be too long, or may hold pointers to other tables' values.
#[derive(Clone, Copy)]
pub struct LongRow<'r> {
    /// All columns of the table.
    pub values: &'r [pg_sys::Datum],
    /// Which are null.
    pub isnull: &'r [bool],
    /// Bytes of its key.
    pub key_bytes: usize,
    /// The pointers of the row that it supersedes, whose values it shares
    /// where it has the same pointer.
    pub old: &'r [Pointer],
    /// Whether everybody sees the row at once, and so what is stored for it.
    pub is_frozen: bool,
}

/// The payload of a row whose values were compressed and stored out of line
/// until it was short enough, or no more could be done. The caller is asked
/// before anything is stored, once; if it fails, nothing was.
///
/// # Safety
/// `relation` is open; the row's values are of its columns; `layout` is the
/// table's.
pub unsafe fn shorten<E>(
    relation: pg_sys::Relation,
    layout: &TableLayout,
    row: LongRow<'_>,
    payload: &mut Vec<u8>,
    mut before_store: impl FnMut() -> Result<(), E>,
) -> Result<(), E> {
    let attributes = layout.attributes();
    let mut values = row.values.to_vec();
    // The key's columns are left alone, and dropped ones go: the helpers pass
    // over nulls.
    let mut isnull: Vec<bool> = row
        .isnull
        .iter()
        .zip(attributes)
        .map(|(null, attribute)| *null || attribute.in_key || attribute.dropped)
        .collect();
    let mut old_values = vec![pg_sys::Datum::null(); values.len()];
    let mut old_isnull = vec![true; values.len()];
    for pointer in row.old {
        old_values[pointer.column] = pointer.bytes.as_ptr().into();
        old_isnull[pointer.column] = false;
    }
    let mut columns = vec![
        Column {
            old_external: std::ptr::null_mut(),
            size: 0,
            flags: 0,
            compression: 0,
        };
        values.len()
    ];
    let mut context = Context {
        relation,
        values: values.as_mut_ptr(),
        isnull: isnull.as_mut_ptr(),
        old_values: old_values.as_mut_ptr(),
        old_isnull: old_isnull.as_mut_ptr(),
        flags: 0,
        columns: columns.as_mut_ptr(),
    };
    // SAFETY: all arrays have a place for each column of the relation and
    // outlive the context, which alone is used to reach them until the end.
    unsafe {
        guarded(|| toast_tuple_init(&mut context));
        // What the row shares with the old one no more goes when the new one
        // stands, not before (rule 25).
        context.flags &= !NEEDS_DELETE_OLD;
        let mut shortening = Shortening {
            context: &mut context,
            overhead: overhead(layout, row),
            longest: engine::page::cell_bytes_max(pg_sys::BLCKSZ as usize, row.key_bytes),
            longest_in_heap: (HEAP_ROW_BYTES_MAX - HEAD_BYTES)
                .saturating_sub(if layout.is_row_id() { 0 } else { row.key_bytes }),
            may_store: false,
            options: if row.is_frozen {
                pg_sys::HEAP_INSERT_FROZEN as i32
            } else {
                0
            },
        };
        let done = shortening.run(relation, &mut before_store);
        if done.is_ok() {
            payload.clear();
            let values = std::slice::from_raw_parts(context.values, row.values.len());
            let _ = layout.encode_payload_with_pointers(values, row.isnull, payload);
        }
        guarded(|| toast_tuple_cleanup(&mut context));
        done
    }
}

/// Bytes of a row that the size of its values (without the key's) leaves out.
///
/// # Safety
/// The row's values are of the layout's columns.
unsafe fn overhead(layout: &TableLayout, row: LongRow<'_>) -> usize {
    let columns = layout.attributes().iter().zip(row.values).zip(row.isnull);
    let twice: usize = columns
        .filter(|((attribute, _), null)| {
            attribute.in_key && !**null && attribute.is_in_payload() && !attribute.by_value
        })
        // SAFETY: the caller's promise.
        .map(|((attribute, value), _)| unsafe { datum_bytes(*value, attribute.length) } + 8)
        .sum();
    let trailer = 3 + row.values.len().div_ceil(8);
    HEAD_BYTES + row.key_bytes + trailer + twice
}

/// A row on its way to being short enough.
struct Shortening<'s> {
    context: &'s mut Context,
    overhead: usize,
    /// Bytes of the longest row with this key.
    longest: usize,
    /// Bytes of the longest values beside the key's that heap has room for.
    longest_in_heap: usize,
    /// Whether the caller was asked.
    may_store: bool,
    /// How chunks are inserted.
    options: i32,
}

impl Shortening<'_> {
    /// Heap's four rounds: compress what may be, and move out at once what is
    /// too long even so; move out the rest; compress what is to stay inline if
    /// it can; and move that out where the row would not fit a page otherwise.
    /// Then one more, for heap has a few bytes more on a page: of a row that just
    /// fits there what is to stay as it is goes out, rather than not be stored.
    ///
    /// # Safety
    /// The context was initialized.
    unsafe fn run<E>(
        &mut self,
        relation: pg_sys::Relation,
        before_store: &mut impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        // SAFETY: the relation is open; the helpers get columns that they named.
        unsafe {
            let has_table = (*(*relation).rd_rel).reltoastrelid != pg_sys::InvalidOid;
            let longest = self.longest.saturating_sub(self.overhead);
            let target = target_of(relation)
                .saturating_sub(self.overhead)
                .min(longest);
            let forms = (*(*relation).rd_att).attrs.as_slice(self.natts());
            while self.bytes() > target
                && let Some(column) = self.biggest(true, false)
            {
                if forms[column].attstorage as u8 == EXTENDED {
                    guarded(|| toast_tuple_try_compression(self.context, column as i32));
                } else {
                    (*self.context.columns.add(column)).flags |= INCOMPRESSIBLE;
                }
                let size = (*self.context.columns.add(column)).size;
                if has_table && usize::try_from(size).unwrap_or(0) > target {
                    self.store(column, before_store)?;
                }
            }
            while has_table
                && self.bytes() > target
                && let Some(column) = self.biggest(false, false)
            {
                self.store(column, before_store)?;
            }
            while self.bytes() > target
                && let Some(column) = self.biggest(true, true)
            {
                debug_assert_eq!(forms[column].attstorage as u8, MAIN);
                guarded(|| toast_tuple_try_compression(self.context, column as i32));
            }
            while has_table
                && self.bytes() > longest
                && let Some(column) = self.biggest(false, true)
            {
                self.store(column, before_store)?;
            }
            while has_table
                && self.bytes() > longest
                && self.bytes() <= self.longest_in_heap
                && let Some(column) = self.biggest_plain(forms)
            {
                self.store(column, before_store)?;
            }
        }
        Ok(())
    }

    /// The longest value that its column's storage keeps in the row, though its
    /// type would let it go.
    ///
    /// # Safety
    /// The context was initialized; the forms are those of its columns.
    unsafe fn biggest_plain(&self, forms: &[pg_sys::FormData_pg_attribute]) -> Option<usize> {
        let longest_pointer = POINTER_BYTES.next_multiple_of(8);
        (0..forms.len())
            .filter(|at| {
                let form = &forms[*at];
                // SAFETY: the context's arrays are those of the relation's columns.
                unsafe {
                    form.attlen == -1
                        && form.attstorage as u8 == PLAIN
                        && !*self.context.isnull.add(*at)
                        && !is_pointer((*self.context.values.add(*at)).cast_mut_ptr())
                        && pg_sys::get_typstorage(form.atttypid) as u8 != PLAIN
                }
            })
            // SAFETY: as above.
            .map(|at| (unsafe { (*self.context.columns.add(at)).size }, at))
            .filter(|(size, _)| usize::try_from(*size).is_ok_and(|size| size > longest_pointer))
            .max()
            .map(|(_, at)| at)
    }

    unsafe fn natts(&self) -> usize {
        // SAFETY: the relation is open.
        usize::try_from(unsafe { (*(*self.context.relation).rd_att).natts }).unwrap_or(0)
    }

    /// Bytes that the values take now.
    unsafe fn bytes(&self) -> usize {
        // SAFETY: the context's arrays are those of the relation's columns.
        unsafe {
            pg_sys::heap_compute_data_size(
                (*self.context.relation).rd_att,
                self.context.values,
                self.context.isnull,
            )
        }
    }

    unsafe fn biggest(&mut self, for_compression: bool, main: bool) -> Option<usize> {
        // SAFETY: the context was initialized.
        let column = unsafe {
            guarded(|| toast_tuple_find_biggest_attribute(self.context, for_compression, main))
        };
        usize::try_from(column).ok()
    }

    unsafe fn store<E>(
        &mut self,
        column: usize,
        before_store: &mut impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.may_store {
            before_store()?;
            self.may_store = true;
        }
        // SAFETY: the column was named by the helpers.
        unsafe { guarded(|| toast_tuple_externalize(self.context, column as i32, self.options)) };
        Ok(())
    }
}

/// The size to bring long rows to: `toast_tuple_target`.
///
/// # Safety
/// `relation` is open.
unsafe fn target_of(relation: pg_sys::Relation) -> usize {
    // SAFETY: the options of a table are of this type.
    unsafe {
        let options = (*relation).rd_options.cast::<pg_sys::StdRdOptions>();
        options.as_ref().map_or(ROW_BYTES_MAX, |options| {
            usize::try_from(options.toast_tuple_target).unwrap_or(ROW_BYTES_MAX)
        })
    }
}

/// Deletes the stored values that a row that is no more had, but for those
/// that the row which took its place shares with it. To be called when that
/// one stands.
///
/// # Safety
/// `relation` is open and not locked by pages; the payloads are of its rows.
pub unsafe fn delete_unshared(
    relation: pg_sys::Relation,
    layout: &TableLayout,
    old: &[u8],
    new: &[u8],
) -> Result<(), crate::row::Error> {
    let kept = layout.pointers(new)?;
    for pointer in layout.pointers(old)? {
        if !kept.iter().any(|kept| kept.bytes == pointer.bytes) {
            // SAFETY: the caller's promise.
            unsafe { delete(relation, &pointer.bytes, false) };
        }
    }
    Ok(())
}

/// Deletes all stored values of a row that this very command has written and
/// takes back: a speculative insertion that failed.
///
/// # Safety
/// As for [`delete_unshared`].
pub unsafe fn take_back(
    relation: pg_sys::Relation,
    layout: &TableLayout,
    payload: &[u8],
) -> Result<(), crate::row::Error> {
    if has_pointers(payload) {
        for pointer in layout.pointers(payload)? {
            // SAFETY: the caller's promise.
            unsafe { delete(relation, &pointer.bytes, true) };
        }
    }
    Ok(())
}

/// Deletes the stored value of a column that from now on is kept in the row's
/// key, if it was stored.
///
/// # Safety
/// `relation` is open; `value` is a varlena datum of one of its rows.
pub unsafe fn delete_value(relation: pg_sys::Relation, value: pg_sys::Datum) {
    // SAFETY: the caller's promise.
    unsafe {
        let start = value.cast_mut_ptr::<u8>().cast_const();
        if is_pointer(start) {
            delete(relation, &*start.cast::<[u8; POINTER_BYTES]>(), false);
        }
    }
}

unsafe fn delete(relation: pg_sys::Relation, pointer: &[u8; POINTER_BYTES], speculative: bool) {
    // SAFETY: the caller's promise; the pointer is copied before it is read.
    unsafe { guarded(|| toast_delete_datum(relation, pointer.as_ptr().into(), speculative)) }
}
