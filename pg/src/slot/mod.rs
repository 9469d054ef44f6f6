//! The tuple slot of our tables: a row as key and payload bytes, taken apart on
//! demand, with the system attributes that a versioned store has.
//!
//! `README.md` beside this file argues what the memory of a slot belongs to and
//! why nothing in it has a destructor. The verbs: `store`, `fetch` (columns and
//! system attributes), `copy` (into and out of other kinds of slots).

mod columns;
mod copy;
mod fetch;
mod store;

use std::mem;
use std::ptr;

use engine::page::cell::Head;
use engine::types::{CommandId, Sequence, Xid};
use pgrx::pg_guard;
use pgrx::pg_sys;

use crate::row::{Arena, Cursor, TableLayout};
use crate::unguarded::server::pfree;

pub use columns::{clear_any, columns, columns_upto};
pub use store::{set_head, set_locked, store, store_borrowed};

/// The callbacks, which also mark a slot as ours.
pub static OPS: pg_sys::TupleTableSlotOps = pg_sys::TupleTableSlotOps {
    base_slot_size: mem::size_of::<RowSlot>(),
    init: Some(init),
    release: Some(release),
    clear: Some(clear),
    getsomeattrs: Some(fetch::getsomeattrs),
    getsysattr: Some(fetch::getsysattr),
    materialize: Some(store::materialize),
    copyslot: Some(copy::copyslot),
    // There is no heap or minimal tuple to lend; copies are made on demand.
    get_heap_tuple: None,
    get_minimal_tuple: None,
    copy_heap_tuple: Some(copy::copy_heap_tuple),
    copy_minimal_tuple: Some(copy::copy_minimal_tuple),
};

/// A slot. Plain pointers and numbers only: an ERROR drops slots without a word.
#[repr(C)]
struct RowSlot {
    base: pg_sys::TupleTableSlot,
    /// Null if the slot holds no row of ours but values alone ("virtual").
    layout: *const TableLayout,
    /// The layout that was last given, and the one that reads its rows as this
    /// slot's descriptor has them: almost always the same.
    given: *const TableLayout,
    fitting: *const TableLayout,
    key: *const u8,
    payload: *const u8,
    key_len: u32,
    payload_len: u32,
    cursor: Cursor,
    /// Says something if `has_head`.
    head: Head,
    has_head: bool,
    /// Whether the writer of the version, this transaction, had locked the row.
    was_locked: bool,
    /// Whether key and payload are the slot's own copies in `own`.
    is_own: bool,
    /// Reused from row to row.
    own: *mut u8,
    own_capacity: usize,
    /// The values of a materialized virtual slot; freed when it is cleared,
    /// because they may be huge.
    values: *mut u8,
    arena: Arena,
}

/// What a slot knows of the version it holds, whose bytes live as long as the
/// slot's contents.
#[derive(Clone, Copy)]
pub struct StoredRow<'s> {
    /// How it is laid out.
    pub layout: &'s TableLayout,
    /// Its key.
    pub key: &'s [u8],
    /// Its payload.
    pub payload: &'s [u8],
    /// Its writer and number.
    pub head: Head,
}

/// Whether a slot is of our kind.
///
/// # Safety
/// `slot` is a tuple slot.
#[inline]
pub unsafe fn is_ours(slot: *const pg_sys::TupleTableSlot) -> bool {
    // SAFETY: the caller vouches for the slot.
    unsafe { ptr::eq((*slot).tts_ops, &OPS) }
}

/// The stored row in a slot of our kind; `None` if it holds bare values.
///
/// # Safety
/// `slot` is a tuple slot that stays unchanged while the result is used.
pub unsafe fn row<'s>(slot: *mut pg_sys::TupleTableSlot) -> Option<StoredRow<'s>> {
    // SAFETY: a slot with our callbacks was allocated with our size; its
    // pointers are valid as long as its contents (README, "Memory").
    unsafe {
        if !is_ours(slot) {
            return None;
        }
        let slot = &*slot.cast::<RowSlot>();
        let layout = slot.layout.as_ref()?;
        let (key, payload) = slot.bytes();
        Some(StoredRow {
            layout,
            key,
            payload,
            head: slot.head,
        })
    }
}

impl RowSlot {
    /// # Safety
    /// The slot holds a row.
    #[inline(always)]
    unsafe fn bytes<'s>(&self) -> (&'s [u8], &'s [u8]) {
        // SAFETY: a row's pointers and lengths are set together.
        unsafe {
            (
                std::slice::from_raw_parts(self.key, self.key_len as usize),
                std::slice::from_raw_parts(self.payload, self.payload_len as usize),
            )
        }
    }

    /// Forgets the contents but keeps the memory that is reused.
    #[inline(always)]
    unsafe fn forget(&mut self) {
        self.layout = ptr::null();
        self.has_head = false;
        self.was_locked = false;
        self.is_own = false;
        self.arena.used = 0;
        if !self.values.is_null() {
            let values = mem::replace(&mut self.values, ptr::null_mut());
            // SAFETY: allocated by `materialize`, and forgotten just now.
            unsafe { pfree(values.cast()) };
        }
    }
}

/// No writer yet.
pub(crate) const NO_HEAD: Head = Head {
    flags: 0,
    xmin: Xid::NONE,
    cid: CommandId(0),
    sequence: Sequence(0),
};

#[pg_guard]
unsafe extern "C-unwind" fn init(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: the server allocates `base_slot_size` bytes, zeroed, and a slot
    // of zeros is an empty one but for the enumerations in it, set here.
    unsafe {
        let slot = slot.cast::<RowSlot>();
        (&raw mut (*slot).head).write(NO_HEAD);
        (&raw mut (*slot).cursor).write(Cursor::EMPTY);
        (&raw mut (*slot).arena).write(Arena::EMPTY);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn release(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: the slot is ours, and these are its own allocations.
    unsafe {
        let slot = &mut *slot.cast::<RowSlot>();
        slot.forget();
        for memory in [
            mem::replace(&mut slot.own, ptr::null_mut()),
            mem::replace(&mut slot.arena, Arena::EMPTY).start,
        ] {
            if !memory.is_null() {
                pfree(memory.cast());
            }
        }
        slot.own_capacity = 0;
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn clear(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: the slot is ours.
    unsafe {
        let slot = &mut *slot.cast::<RowSlot>();
        slot.forget();
        slot.base.tts_nvalid = 0;
        slot.base.tts_flags |= pg_sys::TTS_FLAG_EMPTY as u16;
        slot.base.tts_tid = INVALID_TID;
    }
}

/// No row: what `ItemPointerSetInvalid` makes.
pub const INVALID_TID: pg_sys::ItemPointerData = pg_sys::ItemPointerData {
    ip_blkid: pg_sys::BlockIdData {
        bi_hi: u16::MAX,
        bi_lo: u16::MAX,
    },
    ip_posid: 0,
};
