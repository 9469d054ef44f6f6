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
use engine::mvcc::batch::Row;
use engine::mvcc::fetch::Keys;
use engine::page::cell::Head;
use pgrx::{PgMemoryContexts, pg_sys};

use crate::row::TableLayout;
use crate::slot;
use crate::unguarded::server;

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
    /// A row reference, in this structure's memory.
    reference: *mut u8,
    reference_capacity: u32,
    reference_len: u32,
    /// What the table AM keeps from one row to the next, in a memory context
    /// of its own.
    kept: *mut std::ffi::c_void,
    kept_in: pg_sys::MemoryContext,
}

/// A question to the index AM: whether the scan's entry is still there. Asked
/// after the row was read, where the snapshot may judge the two differently.
#[derive(Clone, Copy)]
pub struct Confirm {
    /// The scan, which stands at the entry.
    pub scan: pg_sys::IndexScanDesc,
    /// To be called with it.
    pub is_still_there: unsafe fn(pg_sys::IndexScanDesc) -> bool,
}

/// A question to the index AM: which references it is about to hand over, if
/// the scan goes on as it does. They are appended to the keys.
#[derive(Clone, Copy)]
pub struct Ahead {
    /// The scan, which stands at the entry of the last one.
    pub scan: pg_sys::IndexScanDesc,
    /// To be called with it, and with how many are wanted at most.
    pub list: unsafe fn(pg_sys::IndexScanDesc, usize, &mut Keys),
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
        confirm: Option<Confirm>,
        ahead: Option<Ahead>,
    },
    /// Found visible already, and nobody wants its columns from the table.
    Visible {
        is_named: bool,
    },
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
    /// The name of a row in the table.
    Reference {
        /// The table's key.
        key: &'f [u8],
        /// The row counts only if this says so.
        confirm: Option<Confirm>,
        /// What comes next, if it can be told.
        ahead: Option<Ahead>,
    },
    /// The row is visible and the slot need not be filled.
    Visible {
        /// The table's key, if somebody may come back for the row by the tid
        /// that the fetch sets.
        key: Option<&'f [u8]>,
    },
}

impl RowFetch {
    /// Makes an empty one in the current memory context.
    ///
    /// # Safety
    /// `relation` is an open relation of our table AM.
    pub unsafe fn begin(relation: pg_sys::Relation) -> *mut pg_sys::IndexFetchTableData {
        // SAFETY: the allocation is as large as the structure.
        unsafe {
            let fetch = server::palloc0(mem::size_of::<RowFetch>()).cast::<RowFetch>();
            fetch.write(RowFetch {
                base: pg_sys::IndexFetchTableData { rel: relation },
                magic: MAGIC,
                state: State::Empty,
                reference: std::ptr::null_mut(),
                reference_capacity: 0,
                reference_len: 0,
                kept: std::ptr::null_mut(),
                kept_in: std::ptr::null_mut(),
            });
            fetch.cast()
        }
    }

    /// Frees it.
    ///
    /// # Safety
    /// `fetch` came from [`RowFetch::begin`] and is not used again.
    pub unsafe fn end(fetch: *mut pg_sys::IndexFetchTableData) {
        // SAFETY: by the caller; all were allocated here.
        unsafe {
            let RowFetch {
                reference, kept_in, ..
            } = *fetch.cast::<RowFetch>();
            if !reference.is_null() {
                server::pfree(reference.cast());
            }
            if !kept_in.is_null() {
                pg_sys::MemoryContextDelete(kept_in);
            }
            server::pfree(fetch.cast());
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

    /// Hands the name of a row over, which is copied. With `confirm`, the row
    /// counts only if the entry is still there once it was read.
    #[inline]
    pub fn put_reference(&mut self, key: &[u8], confirm: Option<Confirm>, ahead: Option<Ahead>) {
        self.copy_reference(key);
        self.state = State::Reference { confirm, ahead };
    }

    #[inline]
    fn copy_reference(&mut self, key: &[u8]) {
        let needed = key.len() as u32;
        if self.reference_capacity < needed {
            self.grow_reference(needed);
        }
        // SAFETY: there is as much room.
        unsafe {
            self.reference
                .copy_from_nonoverlapping(key.as_ptr(), key.len());
        }
        self.reference_len = needed;
    }

    #[cold]
    fn grow_reference(&mut self, needed: u32) {
        // SAFETY: the memory belongs to this structure, in its own context, so
        // that both go at the same time.
        unsafe {
            let capacity = needed.next_power_of_two().max(64);
            let context = pg_sys::GetMemoryChunkContext((&raw mut *self).cast());
            let memory = pg_sys::MemoryContextAlloc(context, capacity as usize);
            if !self.reference.is_null() {
                pg_sys::pfree(self.reference.cast());
            }
            self.reference = memory.cast();
            self.reference_capacity = capacity;
        }
    }

    /// Says that the row was found visible and the slot need not be filled: an
    /// index-only scan returns its columns itself.
    #[inline]
    pub fn put_visible(&mut self) {
        self.state = State::Visible { is_named: false };
    }

    /// As [`RowFetch::put_visible`], and names the row, so that the table AM
    /// can make a handle for it.
    pub fn put_visible_named(&mut self, key: &[u8]) {
        self.copy_reference(key);
        self.state = State::Visible { is_named: true };
    }

    /// What the table AM keeps from one row of the scan to the next. It is
    /// dropped at the end of the scan, or with the memory that the scan was
    /// begun in.
    ///
    /// # Safety
    /// `self` came from [`RowFetch::begin`]. All calls for one structure are
    /// with the same type, and nobody else holds an earlier result.
    #[inline]
    pub unsafe fn kept<'k, T: 'static>(&mut self, make: impl FnOnce() -> T) -> &'k mut T {
        if self.kept.is_null() {
            // SAFETY: the structure is a chunk of a live context; the new one
            // hangs below it, so that it goes with it at the latest.
            unsafe {
                let parent = pg_sys::GetMemoryChunkContext((&raw mut *self).cast());
                self.kept_in = pg_sys::AllocSetContextCreateInternal(
                    parent,
                    c"rowref row fetch".as_ptr(),
                    pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                    pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                    pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
                );
                self.kept = PgMemoryContexts::For(self.kept_in)
                    .leak_and_drop_on_delete(make())
                    .cast();
            }
        }
        // SAFETY: made above, of the type that the caller keeps to.
        unsafe { &mut *self.kept.cast::<T>() }
    }

    /// Takes what the index AM has left, which empties the structure.
    pub fn take(&mut self) -> Handed<'_> {
        match mem::replace(&mut self.state, State::Empty) {
            State::Empty => Handed::Nothing,
            State::Visible { is_named } => Handed::Visible {
                key: is_named.then(|| self.reference()),
            },
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
            State::Reference { confirm, ahead } => Handed::Reference {
                key: self.reference(),
                confirm,
                ahead,
            },
        }
    }

    fn reference(&self) -> &[u8] {
        // SAFETY: `copy_reference` has laid as many bytes there.
        unsafe { std::slice::from_raw_parts(self.reference, self.reference_len as usize) }
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
        handle: impl FnOnce(Row<'_>, BlockNumber) -> pg_sys::ItemPointerData,
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
        let row = Row { key, payload, head };
        let handle = handle(row, block);
        // SAFETY: the bytes stay until the index AM is called again.
        unsafe { slot::store_borrowed(slot, layout, key, payload, head, handle) };
        true
    }
}
