//! From the index scan to the table fetch: what `scan->xs_heapfetch` is when the
//! table is ours.
//!
//! `index_beginscan` calls the table AM's `index_fetch_begin`, which returns
//! [`RowFetch::begin`]'s structure; the index AM finds it again with
//! [`RowFetch::of_scan`], puts a row there in `amgettuple`, and the table AM's
//! `index_fetch_tuple`, which follows at once, takes it with
//! [`RowFetch::take`]. An empty one means that nobody put a row (the deferred
//! uniqueness check calls with a tid alone), so the tid is a handle to resolve.

use std::mem;
use std::rc::Rc;

use engine::BlockNumber;
use engine::page::cell::Head;
use engine::types::Sequence;
use pgrx::pg_sys;

use crate::row::TableLayout;
use crate::slot;

/// Marks the structure as ours: `xs_heapfetch` of another table AM is as long
/// as it likes, but no shorter than the pointer to its relation.
const MAGIC: u64 = 0x726f_7772_6566_6874;

/// The structure behind `xs_heapfetch`. Lives in the server's memory and has no
/// destructor; an ERROR just drops it.
#[repr(C)]
pub struct RowFetch {
    base: pg_sys::IndexFetchTableData,
    magic: u64,
    state: State,
    /// The row reference of [`State::Reference`], in this structure's memory.
    reference: *mut u8,
    reference_capacity: u32,
    reference_len: u32,
}

#[derive(Clone, Copy)]
enum State {
    Empty,
    /// The index AM's own memory, valid until its next `amgettuple`.
    Row {
        layout: *const Rc<TableLayout>,
        key: *const u8,
        key_len: u32,
        payload: *const u8,
        payload_len: u32,
        head: Head,
        block: BlockNumber,
    },
    Reference {
        sequence: Sequence,
    },
    /// Found visible already, and nobody wants its columns from the table.
    VisibleOnly,
}

/// What the index AM has left.
#[derive(Clone, Copy)]
pub enum Handed<'f> {
    /// Nothing: the tid is a handle.
    Nothing,
    /// The located row, ready to be stored.
    Row {
        /// How it is laid out.
        layout: &'f Rc<TableLayout>,
        /// Its key.
        key: &'f [u8],
        /// Its payload.
        payload: &'f [u8],
        /// Its writer and number.
        head: Head,
        /// The page that it was read from.
        block: BlockNumber,
    },
    /// The name of a row in the table, and which version of it the index saw.
    Reference {
        /// The table's key.
        key: &'f [u8],
        /// The version.
        sequence: Sequence,
    },
    /// The row is visible and the slot need not be filled.
    VisibleOnly,
}

impl RowFetch {
    /// Makes an empty one in the current memory context.
    ///
    /// # Safety
    /// `relation` is an open relation of our table AM.
    pub unsafe fn begin(relation: pg_sys::Relation) -> *mut pg_sys::IndexFetchTableData {
        // SAFETY: the allocation is as large as the structure.
        unsafe {
            let fetch = pg_sys::palloc0(mem::size_of::<RowFetch>()).cast::<RowFetch>();
            fetch.write(RowFetch {
                base: pg_sys::IndexFetchTableData { rel: relation },
                magic: MAGIC,
                state: State::Empty,
                reference: std::ptr::null_mut(),
                reference_capacity: 0,
                reference_len: 0,
            });
            fetch.cast()
        }
    }

    /// Frees it.
    ///
    /// # Safety
    /// `fetch` came from [`RowFetch::begin`] and is not used again.
    pub unsafe fn end(fetch: *mut pg_sys::IndexFetchTableData) {
        // SAFETY: by the caller; both were allocated here.
        unsafe {
            let reference = (*fetch.cast::<RowFetch>()).reference;
            if !reference.is_null() {
                pg_sys::pfree(reference.cast());
            }
            pg_sys::pfree(fetch.cast());
        }
    }

    /// The structure of a table AM callback.
    ///
    /// # Safety
    /// `fetch` came from [`RowFetch::begin`].
    pub unsafe fn of_table<'f>(fetch: *mut pg_sys::IndexFetchTableData) -> &'f mut RowFetch {
        // SAFETY: by the caller.
        let fetch = unsafe { &mut *fetch.cast::<RowFetch>() };
        assert_eq!(
            fetch.magic, MAGIC,
            "index_fetch_begin made another structure"
        );
        fetch
    }

    /// The structure of an index scan, if its table is ours (`xs_heapfetch` is
    /// null for a bitmap scan and in `amendscan`). `ours` is the table AM's
    /// routine: the structure of another AM may be too short to hold a mark.
    ///
    /// # Safety
    /// `scan` is a live index scan.
    pub unsafe fn of_scan<'f>(
        scan: pg_sys::IndexScanDesc,
        ours: *const pg_sys::TableAmRoutine,
    ) -> Option<&'f mut RowFetch> {
        // SAFETY: a scan's table is open, and one whose AM is ours got its
        // structure from `begin`.
        unsafe {
            let fetch = (*scan).xs_heapfetch;
            if fetch.is_null() || (*(*fetch).rel).rd_tableam != ours {
                return None;
            }
            Some(Self::of_table(fetch))
        }
    }

    /// The table.
    pub fn relation(&self) -> pg_sys::Relation {
        self.base.rel
    }

    /// Empties it: `index_fetch_reset`.
    pub fn reset(&mut self) {
        self.state = State::Empty;
    }

    /// Hands a located row over.
    ///
    /// # Safety
    /// Everything lent stays valid and unchanged until the index AM is called
    /// again; the slot it ends up in is not read after that.
    #[inline]
    pub unsafe fn put_row(
        &mut self,
        layout: &Rc<TableLayout>,
        key: &[u8],
        payload: &[u8],
        head: Head,
        block: BlockNumber,
    ) {
        self.state = State::Row {
            layout,
            key: key.as_ptr(),
            key_len: key.len() as u32,
            payload: payload.as_ptr(),
            payload_len: payload.len() as u32,
            head,
            block,
        };
    }

    /// Hands the name of a row over, which is copied.
    pub fn put_reference(&mut self, key: &[u8], sequence: Sequence) {
        let needed = key.len() as u32;
        // SAFETY: the memory belongs to this structure, in its own context, so
        // that both go at the same time.
        unsafe {
            if self.reference_capacity < needed {
                let context = pg_sys::GetMemoryChunkContext((&raw mut *self).cast());
                let memory =
                    pg_sys::MemoryContextAlloc(context, needed.next_power_of_two() as usize);
                if !self.reference.is_null() {
                    pg_sys::pfree(self.reference.cast());
                }
                self.reference = memory.cast();
                self.reference_capacity = needed.next_power_of_two();
            }
            self.reference
                .copy_from_nonoverlapping(key.as_ptr(), key.len());
        }
        self.reference_len = needed;
        self.state = State::Reference { sequence };
    }

    /// Says that the row was found visible and the slot need not be filled: an
    /// index-only scan returns its columns itself.
    pub fn put_visible(&mut self) {
        self.state = State::VisibleOnly;
    }

    /// Takes what the index AM has left, which empties the structure.
    pub fn take(&mut self) -> Handed<'_> {
        match mem::replace(&mut self.state, State::Empty) {
            State::Empty => Handed::Nothing,
            State::VisibleOnly => Handed::VisibleOnly,
            State::Row {
                layout,
                key,
                key_len,
                payload,
                payload_len,
                head,
                block,
            } => {
                // SAFETY: `put_row`'s caller has promised that these live until
                // the index AM is called again, which is after this fetch.
                unsafe {
                    Handed::Row {
                        layout: &*layout,
                        key: std::slice::from_raw_parts(key, key_len as usize),
                        payload: std::slice::from_raw_parts(payload, payload_len as usize),
                        head,
                        block,
                    }
                }
            }
            State::Reference { sequence } => Handed::Reference {
                // SAFETY: `put_reference` has laid as many bytes there.
                key: unsafe {
                    std::slice::from_raw_parts(self.reference, self.reference_len as usize)
                },
                sequence,
            },
        }
    }

    /// Stores a handed-over row into a slot without copying it. Returns whether
    /// there was one; if not, nothing was taken.
    ///
    /// # Safety
    /// `slot` is a slot of our kind for this table.
    #[inline]
    pub unsafe fn take_row_into(
        &mut self,
        slot: *mut pg_sys::TupleTableSlot,
        handle: impl FnOnce(&[u8], Head, BlockNumber) -> pg_sys::ItemPointerData,
    ) -> bool {
        if !matches!(self.state, State::Row { .. }) {
            return false;
        }
        let Handed::Row {
            layout,
            key,
            payload,
            head,
            block,
        } = self.take()
        else {
            unreachable!("just seen to be a row");
        };
        let handle = handle(key, head, block);
        // SAFETY: the bytes stay until the index AM is called again.
        unsafe { slot::store_borrowed(slot, layout, key, payload, head, handle) };
        true
    }
}
