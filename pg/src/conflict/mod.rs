//! `INSERT … ON CONFLICT`: what core's executor needs to know of our indexes,
//! and what other sessions need to know of a speculative insertion.
//!
//! And, for constraints that are checked by looking, which row is the one that
//! is checked.
//!
//! `README.md` beside this file argues the protocol. `arbiters` opens a
//! target's indexes in core's place, `route` helps core to open partitions,
//! `token` tells others whom to wait for.

mod arbiters;
mod own;
mod route;
mod token;

use std::ffi::c_int;

use pgrx::pg_sys::{self, NodeTag};

use crate::list::nodes;
pub use own::{note_own, own_handle};
pub use token::{announce, is_speculative, note_entry, note_row, take_entries, token_of, withdraw};

/// What stands in the slot of a row that was not inserted because its key is
/// taken: the key's `aminsert` then reports the conflict (rule 16). Like
/// [`crate::handles::UNNAMED`] it looks like a handle, and is never leased.
pub const TAKEN: pg_sys::ItemPointerData = pg_sys::ItemPointerData {
    ip_blkid: pg_sys::BlockIdData {
        bi_hi: 0xFFFF,
        bi_lo: 0xFFFE,
    },
    ip_posid: 2,
};

/// Whether a tid is [`TAKEN`].
#[inline]
pub fn is_taken(tid: pg_sys::ItemPointerData) -> bool {
    let (tid, taken) = (
        (tid.ip_blkid.bi_hi, tid.ip_blkid.bi_lo, tid.ip_posid),
        (TAKEN.ip_blkid.bi_hi, TAKEN.ip_blkid.bi_lo, TAKEN.ip_posid),
    );
    tid == taken
}

/// Has the end of a transaction end what it has announced.
pub(crate) fn install() {
    token::install();
}

/// Makes a query that was just started ready for core's ON CONFLICT.
///
/// # Safety
/// `ExecutorStart` has returned for `query`, which had these flags.
pub(crate) unsafe fn prepare(query: *mut pg_sys::QueryDesc, flags: c_int) {
    if flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as c_int != 0 {
        return;
    }
    // SAFETY: a started query has its executor's state; nodes are what their
    // tags say. ModifyTable stands at the top of a plan or of a subplan (a
    // WITH query) and nowhere else.
    unsafe {
        let plan = &*(*query).plannedstmt;
        if plan.commandType != pg_sys::CmdType::CMD_INSERT && !plan.hasModifyingCTE {
            return;
        }
        let estate = (*query).estate;
        let roots = std::iter::once((*query).planstate)
            .chain(nodes::<pg_sys::PlanState>((*estate).es_subplanstates));
        for root in roots {
            if root.is_null() || (*root).type_ != NodeTag::T_ModifyTableState {
                continue;
            }
            let node = &*(*root).plan.cast::<pg_sys::ModifyTable>();
            if node.onConflictAction == pg_sys::OnConflictAction::ONCONFLICT_NONE {
                continue;
            }
            // What an earlier statement has noted may end before this one does.
            own::forget();
            let state = root.cast::<pg_sys::ModifyTableState>();
            arbiters::open(estate, (*state).resultRelInfo);
            route::watch(state);
        }
    }
}

/// Ends what [`prepare`] began.
///
/// # Safety
/// `ExecutorEnd` is about to be called for `query`.
pub(crate) unsafe fn finish(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the caller's promise.
    unsafe { route::finish(query) }
}
