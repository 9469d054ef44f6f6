//! Between slots, and out of them as tuples.

use pgrx::pg_guard;
use pgrx::pg_sys;

use super::{RowSlot, is_ours};

#[pg_guard]
pub(super) unsafe extern "C-unwind" fn copyslot(
    to: *mut pg_sys::TupleTableSlot,
    from: *mut pg_sys::TupleTableSlot,
) {
    // SAFETY: the server passes two different slots, the first ours, the second
    // of any kind and not empty.
    unsafe {
        super::clear(to);
        let tid = (*from).tts_tid;
        let relation = (*from).tts_tableOid;
        let source = from.cast::<RowSlot>();
        let to = &mut *to.cast::<RowSlot>();
        if is_ours(from) {
            to.head = (*source).head;
            to.has_head = (*source).has_head;
            to.was_locked = (*source).was_locked;
        }
        if is_ours(from) && !(*source).layout.is_null() {
            let (key, payload) = (*source).bytes();
            let fitting = to.fitting((*source).layout);
            to.put(fitting, key, payload);
            to.make_own();
        } else {
            read_all(from);
            let natts = usize::try_from((*(*from).tts_tupleDescriptor).natts).unwrap_or(0);
            to.base
                .tts_values
                .copy_from_nonoverlapping((*from).tts_values, natts);
            to.base
                .tts_isnull
                .copy_from_nonoverlapping((*from).tts_isnull, natts);
            to.base.tts_nvalid = natts as i16;
            to.base.tts_flags &= !(pg_sys::TTS_FLAG_EMPTY as u16);
            super::store::materialize(&raw mut to.base);
        }
        to.base.tts_tid = tid;
        to.base.tts_tableOid = relation;
    }
}

/// Makes all columns of a slot valid (`slot_getallattrs`, a macro there).
///
/// # Safety
/// `slot` is a slot that is not empty.
pub(super) unsafe fn read_all(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: the caller vouches for the slot.
    unsafe {
        let natts = (*(*slot).tts_tupleDescriptor).natts;
        if i32::from((*slot).tts_nvalid) < natts {
            pg_sys::slot_getsomeattrs_int(slot, natts);
        }
    }
}

#[pg_guard]
pub(super) unsafe extern "C-unwind" fn copy_heap_tuple(
    slot: *mut pg_sys::TupleTableSlot,
) -> pg_sys::HeapTuple {
    // SAFETY: the server passes a slot of ours that is not empty; a tuple that
    // was just formed has a header.
    unsafe {
        read_all(slot);
        let slot = &*slot.cast::<RowSlot>();
        let tuple = pg_sys::heap_form_tuple(
            slot.base.tts_tupleDescriptor,
            slot.base.tts_values,
            slot.base.tts_isnull,
        );
        (*tuple).t_self = slot.base.tts_tid;
        (*tuple).t_tableOid = slot.base.tts_tableOid;
        if slot.has_head {
            // Triggers and foreign keys read the writer from such copies.
            let header = &mut *(*tuple).t_data;
            header.t_choice.t_heap = pg_sys::HeapTupleFields {
                t_xmin: slot.head.xmin.0.into(),
                t_xmax: 0.into(),
                t_field3: pg_sys::HeapTupleFields__bindgen_ty_1 {
                    t_cid: slot.head.cid.0,
                },
            };
            header.t_infomask |= pg_sys::HEAP_XMAX_INVALID as u16;
            header.t_ctid = slot.base.tts_tid;
        }
        tuple
    }
}

#[pg_guard]
pub(super) unsafe extern "C-unwind" fn copy_minimal_tuple(
    slot: *mut pg_sys::TupleTableSlot,
) -> pg_sys::MinimalTuple {
    // SAFETY: the server passes a slot of ours that is not empty.
    unsafe {
        read_all(slot);
        pg_sys::heap_form_minimal_tuple(
            (*slot).tts_tupleDescriptor,
            (*slot).tts_values,
            (*slot).tts_isnull,
        )
    }
}
