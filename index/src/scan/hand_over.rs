//! Giving a row to the executor: by the hand-off to the table's fetch, or as an
//! index tuple to an index-only scan.

use engine::BlockNumber;
use engine::mvcc::batch::Row;
use pg::error::OrRaise;
use pg::handles;
use pg::handoff::{Ahead, Confirm, RowFetch};
use pg::row::{self, Arena, IndexLayout, TableLayout};
use pgrx::pg_sys;
use rowref::key::KeyValue;

use super::source::Source;
use super::walk::Rows;

/// Hands a row over.
///
/// # Safety
/// `descriptor` is a live scan of the source's. The row stays as it is until
/// the index AM is called again. Nothing in `work` is in use.
#[inline]
pub unsafe fn hand_over(
    descriptor: pg_sys::IndexScanDesc,
    source: &Source,
    writer: &mut TupleWriter,
    (row, block): (Row<'_>, u32),
    work: pg_sys::MemoryContext,
) {
    // SAFETY: the table is ours, so its AM has made the structure.
    unsafe {
        let fetch = RowFetch::of_table((*descriptor).xs_heapfetch);
        if let Some(index) = source.index() {
            return hand_entry_over(descriptor, source, writer, index, row, work, fetch);
        }
        if !(*descriptor).xs_want_itup {
            (*descriptor).xs_heaptid = handles::UNNAMED;
            let block = BlockNumber(block);
            fetch.put_row(source.layout(), row.key, row.payload, row.head, block);
            return;
        }
        // Of an index-only scan's row core knows this tid alone, and a cursor
        // may come back for the row by it.
        let relation = (*source.relation()).rd_id;
        (*descriptor).xs_heaptid = handles::lease(relation, row.key, row.head, BlockNumber(block));
        writer.write(descriptor, source, row, work);
        fetch.put_visible();
    }
}

/// Hands the row over that an entry names.
///
/// # Safety
/// As [`hand_over`].
unsafe fn hand_entry_over(
    descriptor: pg_sys::IndexScanDesc,
    source: &Source,
    writer: &mut TupleWriter,
    index: &IndexLayout,
    row: Row<'_>,
    work: pg_sys::MemoryContext,
    fetch: &mut RowFetch,
) {
    // SAFETY: the caller's promise.
    unsafe {
        (*descriptor).xs_heaptid = handles::UNNAMED;
        let reference = index.reference_of(row.key).map_err(row::Error::from);
        let reference = reference.or_raise(source.relation());
        if !(*descriptor).xs_want_itup {
            let confirm = Confirm {
                scan: descriptor,
                is_still_there: super::is_still_there,
            };
            let ahead = Ahead {
                scan: descriptor,
                list: super::list_ahead,
            };
            if source.is_stable() {
                fetch.put_reference(reference, None, Some(ahead));
            } else {
                fetch.put_reference(reference, Some(confirm), None);
            }
            return;
        }
        writer.write(descriptor, source, row, work);
        if handles::needed() {
            // The tid that a cursor comes back by names a version of the row,
            // which is the table's to find.
            fetch.put_visible_named(reference);
        } else {
            fetch.put_visible();
        }
    }
}

/// Where one column's value goes in an index tuple.
struct Target {
    /// Where the layout has the column, from 0.
    attribute: usize,
    length: i16,
    align: usize,
    by_value: bool,
    /// A short header may replace a long one.
    packable: bool,
}

/// Makes index tuples in room that it uses again.
///
/// It does what `index_form_tuple` does, without an allocation and without
/// looking each column up again. What such a tuple cannot hold goes out as a
/// heap tuple, which core takes from index scans as well: more than 8,191 bytes,
/// and values that are compressed or out of line.
///
/// Where every column is a word that the key gives back, all tuples without
/// nulls have one shape, and words go from key to tuple without being datums on
/// the way.
#[derive(Default)]
pub struct TupleWriter {
    /// Which columns of the layout a tuple has.
    columns: Vec<usize>,
    targets: Vec<Target>,
    /// How many of the layout's columns are read.
    upto: usize,
    has_variable: bool,
    /// For each column of the key, up to the last that matters, where in the
    /// tuple its word is, if all that the tuple has are words of the key.
    words: Option<Vec<Option<usize>>>,
    words_size: usize,
    /// `tuple` is one of that shape.
    tuple_is_words: bool,
    scratch: Vec<u8>,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
    arena: Vec<u64>,
    tuple: Vec<u64>,
    /// Of heap tuples; in the context of the descriptor's state.
    heap_shape: Option<pg_sys::TupleDesc>,
}

/// A tuple's header: six bytes of tid, two of size and flags.
const HEADER_BYTES: usize = 8;
/// What a tuple with nulls has behind the header: a bit for each column an
/// index can have, and padding.
const NULLS_BYTES: usize = 8;
/// `attlen` of a C string, which is what indexes keep of a name.
const C_STRING: i16 = -2;
/// `INDEX_SIZE_MASK`, `INDEX_VAR_MASK` and `INDEX_NULL_MASK`.
const SIZE_MASK: usize = 0x1FFF;
const VARIABLE_BIT: u16 = 0x4000;
const NULLS_BIT: u16 = 0x8000;
const _: () = assert!(pg_sys::INDEX_MAX_KEYS as usize <= NULLS_BYTES * 8);
const ALIGN_MAX: usize = 8;

impl TupleWriter {
    /// Gives the row out, as one kind of tuple or the other.
    ///
    /// # Safety
    /// As [`hand_over`].
    unsafe fn write(
        &mut self,
        descriptor: pg_sys::IndexScanDesc,
        source: &Source,
        row: Row<'_>,
        work: pg_sys::MemoryContext,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            // Core prefers a heap tuple, should there be both.
            (*descriptor).xs_hitup = std::ptr::null_mut();
            if self.try_write(descriptor, source, row) {
                (*descriptor).xs_itup = self.tuple.as_mut_ptr().cast();
                return;
            }
            let shape = self.heap_shape((*descriptor).xs_itupdesc, work);
            (*descriptor).xs_hitupdesc = shape;
            (*descriptor).xs_hitup = super::in_context(work, || self.form_heap_tuple(shape));
        }
    }

    /// Makes an index tuple in `tuple`; `false` if it takes a heap tuple. Then
    /// the columns' values are at hand.
    ///
    /// # Safety
    /// As [`hand_over`].
    unsafe fn try_write(
        &mut self,
        descriptor: pg_sys::IndexScanDesc,
        source: &Source,
        row: Row<'_>,
    ) -> bool {
        let layout = source.layout();
        // SAFETY: the descriptor's index is open; the row is the source's; the
        // vectors have room for as many columns as are read, and the arena for
        // whatever a key of this length needs.
        unsafe {
            if self.targets.is_empty() {
                self.learn((*descriptor).xs_itupdesc, source);
            }
            if self.words.is_some() && self.fill_words(layout, row.key).or_raise(source.relation())
            {
                return true;
            }
            self.arena
                .resize(layout.arena_bytes(row.key).div_ceil(8), 0);
            let mut arena = Arena {
                start: self.arena.as_mut_ptr().cast(),
                capacity: self.arena.len() * 8,
                used: 0,
            };
            let read = layout.cursor(row.payload).and_then(|mut cursor| {
                layout.deform(
                    row.key,
                    row.payload,
                    &mut cursor,
                    0,
                    self.upto,
                    self.values.as_mut_ptr(),
                    self.nulls.as_mut_ptr(),
                    &mut arena,
                )
            });
            read.or_raise(source.relation());
            self.form()
        }
    }

    /// A heap tuple of the values at hand, in the current memory context.
    ///
    /// # Safety
    /// They are of the last row read; `shape` is [`TupleWriter::heap_shape`].
    unsafe fn form_heap_tuple(&self, shape: pg_sys::TupleDesc) -> pg_sys::HeapTuple {
        // SAFETY: the caller's promise; a name has room for all that is copied.
        unsafe {
            let mut nulls: Vec<_> = (self.targets.iter())
                .map(|target| self.nulls[target.attribute])
                .collect();
            let mut values: Vec<_> = (self.targets.iter().zip(&nulls))
                .map(|(target, is_null)| {
                    let value = self.values[target.attribute];
                    if *is_null || target.length != C_STRING {
                        return value;
                    }
                    let name = pg_sys::palloc0(size_of::<pg_sys::NameData>());
                    pg_sys::namestrcpy(name.cast(), value.cast_mut_ptr());
                    pg_sys::Datum::from(name)
                })
                .collect();
            pg_sys::heap_form_tuple(shape, values.as_mut_ptr(), nulls.as_mut_ptr())
        }
    }

    /// How a heap tuple is made of what `shape` describes: the executor reads it
    /// by its own types, where a name is no C string. It lives as long as the
    /// context above `work`, which has the state of the scan.
    ///
    /// # Safety
    /// `shape` is the descriptor of the scan's index tuples.
    unsafe fn heap_shape(
        &mut self,
        shape: pg_sys::TupleDesc,
        work: pg_sys::MemoryContext,
    ) -> pg_sys::TupleDesc {
        if let Some(known) = self.heap_shape {
            return known;
        }
        // SAFETY: the caller's promise; the numbers are the descriptor's.
        let made = unsafe {
            super::within((*work).parent, || {
                let copy = pg_sys::CreateTupleDescCopy(shape);
                for (nth, target) in self.targets.iter().enumerate() {
                    if target.length == C_STRING {
                        let nth = nth as pg_sys::AttrNumber + 1;
                        let name = pg_sys::NAMEOID;
                        pg_sys::TupleDescInitEntry(copy, nth, std::ptr::null(), name, -1, 0);
                    }
                }
                copy
            })
        };
        self.heap_shape = Some(made);
        made
    }

    /// Whether nobody has said yet which columns a tuple has.
    pub fn is_unset(&self) -> bool {
        self.columns.is_empty()
    }

    /// Says which columns of the layout a tuple has.
    pub fn set_columns(&mut self, columns: impl Iterator<Item = usize>) {
        self.columns = columns.collect();
    }

    /// # Safety
    /// `shape` describes a tuple of the columns that were set.
    unsafe fn learn(&mut self, shape: pg_sys::TupleDesc, source: &Source) {
        // SAFETY: a descriptor has natts columns.
        let attributes = unsafe {
            let natts = usize::try_from((*shape).natts).unwrap_or(0);
            (*shape).attrs.as_slice(natts)
        };
        assert_eq!(attributes.len(), self.columns.len());
        self.targets = self
            .columns
            .iter()
            .zip(attributes)
            .map(|(column, attribute)| Target {
                attribute: *column,
                length: attribute.attlen,
                align: match attribute.attalign as u8 {
                    b'c' => 1,
                    b's' => 2,
                    b'd' => 8,
                    _ => 4,
                },
                by_value: attribute.attbyval,
                packable: attribute.attstorage as u8 != b'p',
            })
            .collect();
        self.has_variable = self.targets.iter().any(|target| target.length < 0);
        let last = self.targets.iter().map(|target| target.attribute + 1).max();
        self.upto = last.unwrap_or(0);
        self.values.resize(self.upto, pg_sys::Datum::null());
        self.nulls.resize(self.upto, false);
        self.lay_words_out(source.layout());
    }

    /// Settles the one shape that tuples of words have, if these are such.
    fn lay_words_out(&mut self, layout: &TableLayout) {
        let columns = layout.order().columns();
        let mut at = HEADER_BYTES;
        let mut words = vec![None; columns.len()];
        for target in &self.targets {
            let row::Source::Key(column) = layout.attributes()[target.attribute].source else {
                return;
            };
            if !columns[usize::from(column)].by_value {
                return;
            }
            let start = at.next_multiple_of(target.align);
            at = start + target.length as usize;
            words[usize::from(column)] = Some(start);
        }
        let used = words
            .iter()
            .rposition(Option::is_some)
            .map_or(0, |at| at + 1);
        words.truncate(used);
        self.words = Some(words);
        self.words_size = at.next_multiple_of(ALIGN_MAX);
    }

    /// Puts a key's words into the tuple; `false` if one of them is null.
    fn fill_words(&mut self, layout: &TableLayout, key: &[u8]) -> Result<bool, row::Error> {
        let keys = layout.order().layout().expect("an index has columns");
        // What is between the words stays as it is from one tuple to the next.
        if !self.tuple_is_words {
            self.tuple.clear();
            self.tuple.resize(self.words_size / 8, 0);
            // The header's last two bytes, on a little-endian machine.
            self.tuple[0] = (self.words_size as u64) << 48;
            self.tuple_is_words = true;
        }
        let tuple: &mut [u8] = bytemuck::cast_slice_mut(&mut self.tuple);
        let mut reader = keys.reader(key);
        for at in self.words.iter().flatten().copied() {
            let Some(at) = at else {
                reader.skip()?;
                continue;
            };
            match reader.read(&mut self.scratch)? {
                KeyValue::Null => return Ok(false),
                KeyValue::Bool(value) => tuple[at] = u8::from(value),
                KeyValue::Char(value) => tuple[at] = value,
                KeyValue::Int2(value) => tuple[at..at + 2].copy_from_slice(&value.to_le_bytes()),
                KeyValue::Int4(value) => tuple[at..at + 4].copy_from_slice(&value.to_le_bytes()),
                KeyValue::UInt4(value) => tuple[at..at + 4].copy_from_slice(&value.to_le_bytes()),
                KeyValue::Int8(value) => tuple[at..at + 8].copy_from_slice(&value.to_le_bytes()),
                // The word of a type that only its operator class can order.
                KeyValue::Bytes(word) => tuple[at..at + word.len()].copy_from_slice(word),
                other => unreachable!("{other:?} is no word of a lossless column"),
            }
        }
        Ok(true)
    }

    /// Lays the values out in `tuple`; `false` if that is not for us to do.
    ///
    /// # Safety
    /// `values` holds valid datums of the targets' types.
    unsafe fn form(&mut self) -> bool {
        // Sizes first, so that the writing below cannot go astray.
        let has_nulls = self
            .targets
            .iter()
            .any(|target| self.nulls[target.attribute]);
        let start = HEADER_BYTES + if has_nulls { NULLS_BYTES } else { 0 };
        let mut size = start;
        for target in &self.targets {
            if self.nulls[target.attribute] {
                continue;
            }
            // SAFETY: by the caller.
            let Some(piece) = (unsafe { Piece::of(target, self.values[target.attribute]) }) else {
                return false;
            };
            size = piece.start(size, target) + piece.bytes();
        }
        size = size.next_multiple_of(ALIGN_MAX);
        if size > SIZE_MASK {
            return false;
        }
        // Zeros, for the padding must be zero bytes.
        self.tuple_is_words = false;
        self.tuple.clear();
        self.tuple.resize(size / 8, 0);
        let tuple = self.tuple.as_mut_ptr();
        let mut at = start;
        // SAFETY: `size` has room for all that is written, as just added up;
        // the header's last two bytes are its size and flags.
        unsafe {
            let mut info = size as u16;
            if self.has_variable {
                info |= VARIABLE_BIT;
            }
            if has_nulls {
                info |= NULLS_BIT;
            }
            tuple.cast::<u16>().add(3).write(info);
            for (number, target) in self.targets.iter().enumerate() {
                if self.nulls[target.attribute] {
                    continue;
                }
                if has_nulls {
                    let bits = tuple.cast::<u8>().add(HEADER_BYTES + number / 8);
                    bits.write(bits.read() | 1 << (number % 8));
                }
                let value = self.values[target.attribute];
                let Some(piece) = Piece::of(target, value) else {
                    return false;
                };
                at = piece.start(at, target);
                piece.write(tuple.cast::<u8>().add(at));
                at += piece.bytes();
            }
        }
        true
    }
}

/// A value as it lies in a tuple.
enum Piece {
    /// The low bytes of a datum.
    Word { bits: usize, bytes: usize },
    /// As it lies in memory.
    Copy {
        from: *const u8,
        bytes: usize,
        is_short: bool,
    },
    /// A varlena that gets a one-byte header; these are its contents.
    Shorten { from: *const u8, bytes: usize },
}

impl Piece {
    /// `None` for a value that is compressed or out of line.
    ///
    /// # Safety
    /// `value` is a datum of the target's type.
    #[inline]
    unsafe fn of(target: &Target, value: pg_sys::Datum) -> Option<Piece> {
        if target.by_value {
            return Some(Piece::Word {
                bits: value.value(),
                bytes: target.length as usize,
            });
        }
        let from = value.cast_mut_ptr::<u8>().cast_const();
        let copy = |bytes, is_short| {
            Some(Piece::Copy {
                from,
                bytes,
                is_short,
            })
        };
        // SAFETY: by the caller; a name ends in a NUL, as a C string does,
        // which is how indexes keep it.
        unsafe {
            match target.length {
                -1 => {}
                -2 => {
                    let text = std::ffi::CStr::from_ptr(from.cast());
                    return copy(text.to_bytes_with_nul().len(), false);
                }
                length => return copy(length as usize, false),
            }
            // The headers of varlenas on little-endian machines (postgres.h):
            // an odd first byte is a short header, or alone means out of line;
            // the next bit means compressed.
            let first = *from;
            if first == 0x01 {
                return None;
            }
            if first & 0x01 != 0 {
                return copy(usize::from(first >> 1), true);
            }
            if first & 0x02 != 0 {
                return None;
            }
            let bytes = (from.cast::<u32>().read_unaligned() >> 2) as usize;
            let contents = bytes - 4;
            if target.packable && contents < 0x7F {
                return Some(Piece::Shorten {
                    from: from.add(4),
                    bytes: contents + 1,
                });
            }
            copy(bytes, false)
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Piece::Word { bytes, .. }
            | Piece::Copy { bytes, .. }
            | Piece::Shorten { bytes, .. } => *bytes,
        }
    }

    /// Where it begins, `at` or behind.
    fn start(&self, at: usize, target: &Target) -> usize {
        match self {
            // A short header is not aligned.
            Piece::Copy { is_short: true, .. } | Piece::Shorten { .. } => at,
            _ => at.next_multiple_of(target.align),
        }
    }

    /// # Safety
    /// There is room at `to`, and what it was made of is still there.
    unsafe fn write(&self, to: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            match *self {
                Piece::Word { bits, bytes } => {
                    to.copy_from_nonoverlapping(bits.to_le_bytes().as_ptr(), bytes);
                }
                Piece::Copy { from, bytes, .. } => to.copy_from_nonoverlapping(from, bytes),
                Piece::Shorten { from, bytes } => {
                    to.write(((bytes as u8) << 1) | 1);
                    to.add(1).copy_from_nonoverlapping(from, bytes - 1);
                }
            }
        }
    }
}
