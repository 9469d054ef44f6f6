//! Putting rows into slots, and making them the slot's own.

use std::ptr;
use std::rc::Rc;

use engine::page::cell::Head;
use pgrx::pg_guard;
use pgrx::pg_sys;

use super::{RowSlot, is_ours};
use crate::row::{Cursor, TableLayout};

const EMPTY: u16 = pg_sys::TTS_FLAG_EMPTY as u16;

/// Stores a copy of a row.
///
/// # Safety
/// `slot` is a live slot of our kind for the layout's table; the layout came
/// from [`crate::row::of_relation`] or [`crate::row::keep`].
pub unsafe fn store(
    slot: *mut pg_sys::TupleTableSlot,
    layout: &Rc<TableLayout>,
    key: &[u8],
    payload: &[u8],
    head: Head,
    handle: pg_sys::ItemPointerData,
) {
    // SAFETY: the caller's contract is that of both; the bytes outlive the
    // call, which copies them.
    unsafe {
        store_borrowed(slot, layout, key, payload, head, handle);
        (*slot.cast::<RowSlot>()).make_own();
    }
}

/// Stores a row whose bytes stay where they are. A payload that does not start
/// 8-aligned is copied all the same.
///
/// # Safety
/// As for [`store`]; and `key` and `payload` stay valid and unchanged until the
/// slot is stored into, cleared or materialized.
#[inline(always)]
pub unsafe fn store_borrowed(
    slot: *mut pg_sys::TupleTableSlot,
    layout: &Rc<TableLayout>,
    key: &[u8],
    payload: &[u8],
    head: Head,
    handle: pg_sys::ItemPointerData,
) {
    // SAFETY: the caller vouches for the slot.
    unsafe {
        debug_assert!(is_ours(slot));
        let slot = &mut *slot.cast::<RowSlot>();
        slot.forget();
        let fitting = slot.fitting(Rc::as_ptr(layout));
        slot.put(fitting, key, payload);
        slot.head = head;
        slot.has_head = true;
        slot.base.tts_tid = handle;
        slot.base.tts_tableOid = layout.relation();
        if !payload.as_ptr().cast::<u64>().is_aligned() {
            slot.make_own();
        }
    }
}

/// Says who wrote what the slot holds and how it is named: after an insert or
/// an update, whose slot may hold bare values. Does nothing but set the tid in
/// slots of other kinds.
///
/// # Safety
/// `slot` is a live slot that is not empty.
pub unsafe fn set_head(
    slot: *mut pg_sys::TupleTableSlot,
    head: Head,
    handle: pg_sys::ItemPointerData,
) {
    // SAFETY: the caller vouches for the slot.
    unsafe {
        (*slot).tts_tid = handle;
        if is_ours(slot) {
            let slot = &mut *slot.cast::<RowSlot>();
            slot.head = head;
            slot.has_head = true;
        }
    }
}

/// Notes whether the transaction that has just written the slot's version had
/// a lock on the row before. With heap, such a version carries the lock on and
/// shows its own writer as xmax; `ON CONFLICT DO UPDATE … RETURNING xmax = 0`,
/// known to tell rows that were inserted from those that were updated, rests
/// on it.
///
/// # Safety
/// `slot` is a live slot that is not empty.
pub unsafe fn set_locked(slot: *mut pg_sys::TupleTableSlot, was_locked: bool) {
    // SAFETY: the caller vouches for the slot.
    unsafe {
        if is_ours(slot) {
            (*slot.cast::<RowSlot>()).was_locked = was_locked;
        }
    }
}

impl RowSlot {
    /// The layout by which this slot reads rows of `layout`.
    ///
    /// # Safety
    /// As for [`store_borrowed`].
    #[inline(always)]
    pub(super) unsafe fn fitting(&mut self, layout: *const TableLayout) -> *const TableLayout {
        if self.given != layout {
            // SAFETY: by the caller.
            self.fitting = unsafe { self.fit(layout) };
            self.given = layout;
        }
        self.fitting
    }

    /// ALTER TABLE changes a column's type in the catalogs first and reads the
    /// old rows afterwards, through a slot with the old descriptor: rows are
    /// what the slot says, as they are for heap.
    #[cold]
    unsafe fn fit(&self, layout: *const TableLayout) -> *const TableLayout {
        let descriptor = self.base.tts_tupleDescriptor;
        // SAFETY: layouts given to slots live as long as the transaction; a
        // slot that holds rows has a descriptor.
        unsafe {
            if (*layout).fits(descriptor) {
                return layout;
            }
            let other = TableLayout::described(
                (*layout).relation(),
                descriptor,
                (*layout).organization().clone(),
            );
            Rc::as_ptr(&crate::row::keep(other))
        }
    }

    /// Points the slot at a row and forgets what was read of another.
    ///
    /// # Safety
    /// As for [`store_borrowed`].
    #[inline(always)]
    pub(super) unsafe fn put(&mut self, layout: *const TableLayout, key: &[u8], payload: &[u8]) {
        self.layout = layout;
        self.key = key.as_ptr();
        self.key_len = key.len() as u32;
        self.payload = payload.as_ptr();
        self.payload_len = payload.len() as u32;
        // The cursor and the arena are set when the first column is read.
        self.base.tts_nvalid = 0;
        self.base.tts_flags &= !EMPTY;
    }

    /// Copies the row into the slot's own memory, payload first because it has
    /// to be aligned. Values that were read point into the old bytes, so they
    /// are forgotten.
    ///
    /// # Safety
    /// The slot holds a row.
    pub(super) unsafe fn make_own(&mut self) {
        if self.is_own {
            return;
        }
        // SAFETY: the slot holds a row; own memory is as large as needed.
        unsafe {
            let (key, payload) = self.bytes();
            let needed = key.len() + payload.len();
            if self.own_capacity < needed {
                let memory = grow(self.own, needed, self.base.tts_mcxt);
                (self.own, self.own_capacity) = (memory, needed.next_power_of_two());
            }
            let own = self.own;
            own.copy_from_nonoverlapping(payload.as_ptr(), payload.len());
            own.add(payload.len())
                .copy_from_nonoverlapping(key.as_ptr(), key.len());
            self.payload = own;
            self.key = own.add(payload.len());
        }
        self.is_own = true;
        self.cursor = Cursor::EMPTY;
        self.arena.used = 0;
        self.base.tts_nvalid = 0;
    }
}

/// Memory of at least `needed` bytes in place of `old`, whose contents go.
///
/// # Safety
/// `old` is null or an allocation that nobody uses any more.
pub(super) unsafe fn grow(old: *mut u8, needed: usize, context: pg_sys::MemoryContext) -> *mut u8 {
    // SAFETY: the caller vouches for `old`.
    unsafe {
        let memory = pg_sys::MemoryContextAlloc(context, needed.next_power_of_two());
        if !old.is_null() {
            pg_sys::pfree(old.cast());
        }
        memory.cast()
    }
}

#[pg_guard]
pub(super) unsafe extern "C-unwind" fn materialize(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: the server passes a slot of ours that is not empty.
    unsafe {
        let slot = &mut *slot.cast::<RowSlot>();
        if !slot.layout.is_null() {
            slot.make_own();
        } else if slot.values.is_null() {
            materialize_values(slot);
        }
    }
}

/// Copies the values of a virtual slot into one piece of memory.
unsafe fn materialize_values(slot: &mut RowSlot) {
    // SAFETY: a slot that is not empty and holds no row holds a value for each
    // column; sizes come from the values themselves, in two equal passes.
    unsafe {
        let descriptor = slot.base.tts_tupleDescriptor;
        let natts = usize::try_from((*descriptor).natts).unwrap_or(0);
        let forms = (*descriptor).attrs.as_slice(natts);
        let by_reference =
            |at: usize, slot: &RowSlot| !forms[at].attbyval && !*slot.base.tts_isnull.add(at);
        let mut total = 0;
        for (at, form) in forms.iter().enumerate() {
            if by_reference(at, slot) {
                let value = *slot.base.tts_values.add(at);
                total += crate::row::datum_bytes(value, form.attlen).next_multiple_of(8);
            }
        }
        if total == 0 {
            return;
        }
        let memory = pg_sys::MemoryContextAllocHuge(slot.base.tts_mcxt, total).cast::<u8>();
        let mut next = memory;
        for (at, form) in forms.iter().enumerate() {
            if by_reference(at, slot) {
                let value = &mut *slot.base.tts_values.add(at);
                let size = crate::row::copy_datum(*value, form.attlen, next);
                *value = next.into();
                next = next.add(size.next_multiple_of(8));
            }
        }
        debug_assert!(ptr::eq(next, memory.add(total)));
        slot.values = memory;
    }
}
