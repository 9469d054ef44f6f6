//! Whether the stored values that rows point to are there, chunk by chunk.

use pgrx::pg_sys::{self, Datum, ffi::pg_guard_ffi_boundary as guarded};

use crate::row::Pointer;

/// Bytes of a value in each chunk but the last (`TOAST_MAX_CHUNK_SIZE`).
const CHUNK_BYTES: i64 = 1996;
/// The bits of `va_extinfo` that are a size; the others say how it is compressed.
const SIZE_MASK: u32 = 0x3fff_ffff;

unsafe extern "C-unwind" {
    // Both guarded.
    fn toast_get_valid_index(toast: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> pg_sys::Oid;
    fn init_toast_snapshot(snapshot: pg_sys::Snapshot);
}

/// A table's TOAST table, open for looking at. On an error the transaction's
/// end closes it.
pub struct StoredValues {
    toast: pg_sys::Relation,
    index: pg_sys::Relation,
}

impl StoredValues {
    /// Opens the TOAST table of a table, if there is one.
    ///
    /// # Safety
    /// `table` is open.
    pub unsafe fn open(table: pg_sys::Relation) -> Option<StoredValues> {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        // SAFETY: the caller's promise; a TOAST table has a valid index.
        unsafe {
            let toast = (*(*table).rd_rel).reltoastrelid;
            if toast == pg_sys::InvalidOid {
                return None;
            }
            let index = guarded(|| toast_get_valid_index(toast, lock));
            Some(StoredValues {
                toast: pg_sys::table_open(toast, lock),
                index: pg_sys::index_open(index, lock),
            })
        }
    }

    /// What is amiss with the value that a live row points to, if anything.
    pub fn problem(&self, pointer: &Pointer) -> Option<String> {
        let word = |at: usize| {
            let bytes = pointer.bytes[at..].first_chunk().expect("four bytes");
            u32::from_le_bytes(*bytes)
        };
        // Behind two bytes of header: raw size, stored size, value, table.
        let (size, value, toast) = (i64::from(word(6) & SIZE_MASK), word(10), word(14));
        // SAFETY: the relation is open.
        let own = unsafe { (*self.toast).rd_id };
        if own.to_u32() != toast {
            return Some(format!(
                "it points into relation {toast}, which is not its TOAST table"
            ));
        }
        let mut chunk = 0;
        let mut found = 0;
        for (sequence, bytes) in self.chunks(value.into()) {
            let expected = (size - found).min(CHUNK_BYTES);
            if sequence != chunk || bytes != expected {
                return Some(format!(
                    "its value {value} has chunk {sequence} of {bytes} bytes where chunk {chunk} \
                     of {expected} belongs"
                ));
            }
            chunk += 1;
            found += bytes;
        }
        (found != size).then(|| format!("its value {value} lacks chunk {chunk}"))
    }

    /// Number and size of each chunk of a value, in order.
    fn chunks(&self, value: pg_sys::Oid) -> Vec<(i64, i64)> {
        let mut chunks = Vec::new();
        let mut key = pg_sys::ScanKeyData::default();
        let mut snapshot = pg_sys::SnapshotData::default();
        // SAFETY: both relations are open; key and snapshot outlive the scan; a
        // tuple is looked at before the next is asked for.
        unsafe {
            pg_sys::ScanKeyInit(
                &mut key,
                1,
                pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
                pg_sys::F_OIDEQ.into(),
                value.into(),
            );
            guarded(|| init_toast_snapshot(&mut snapshot));
            let scan = pg_sys::systable_beginscan_ordered(
                self.toast,
                self.index,
                &mut snapshot,
                1,
                &mut key,
            );
            loop {
                let tuple = pg_sys::systable_getnext_ordered(
                    scan,
                    pg_sys::ScanDirection::ForwardScanDirection,
                );
                if tuple.is_null() {
                    break;
                }
                pgrx::check_for_interrupts!();
                let (mut values, mut isnull) = ([Datum::null(); 3], [false; 3]);
                pg_sys::heap_deform_tuple(
                    tuple,
                    (*self.toast).rd_att,
                    values.as_mut_ptr(),
                    isnull.as_mut_ptr(),
                );
                let bytes = if isnull[2] {
                    0
                } else {
                    pgrx::varsize_any_exhdr(values[2].cast_mut_ptr())
                };
                chunks.push((i64::from(values[1].value() as i32), bytes as i64));
            }
            pg_sys::systable_endscan_ordered(scan);
        }
        chunks
    }

    /// Closes what was opened; the locks stay.
    pub fn close(self) {
        let lock = pg_sys::NoLock as pg_sys::LOCKMODE;
        // SAFETY: opened by `open`.
        unsafe {
            pg_sys::index_close(self.index, lock);
            pg_sys::table_close(self.toast, lock);
        }
    }
}
