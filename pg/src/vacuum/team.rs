//! What leader and workers share, and the whole of what a worker does.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicU32, Ordering};

use engine::mvcc::vacuum::Vacuumed;
use pgrx::pg_sys;

use super::{VacuumedIndex, one};
use crate::error;
use crate::parallel::{self, Team};
use crate::version::server;

/// What a worker runs; the library exports it by this name.
const ENTRY: &CStr = c"rowref_vacuum_worker";

/// What the participants share. One [`Slot`] for each index follows.
#[repr(C)]
struct Shared {
    table: pg_sys::Oid,
    /// How many indexes there are.
    count: u32,
    /// The first one that nobody has taken.
    next: AtomicU32,
    /// How many participants are at work, and what all of them have used of
    /// what may be used until somebody has to sleep.
    active: AtomicU32,
    balance: AtomicU32,
}

/// An index, and what was found of it: written by the one that took it, read by
/// the leader when all have ended.
#[repr(C)]
struct Slot {
    oid: pg_sys::Oid,
    is_done: bool,
    blocks: pg_sys::BlockNumber,
    done: Vacuumed,
}

/// The leader's view of the workers.
pub(super) struct Helpers {
    team: Team,
    shared: *mut Shared,
    indexes: Vec<pg_sys::Oid>,
}

impl Helpers {
    /// Starts workers on these indexes; `None` if there are none to be had.
    ///
    /// # Safety
    /// As [`super::Indexes::begin`].
    pub unsafe fn call(
        table: pg_sys::Relation,
        indexes: &[pg_sys::Oid],
        wanted: i32,
        verbose: bool,
    ) -> Option<Helpers> {
        let bytes = size_of::<Shared>() + indexes.len() * size_of::<Slot>();
        // SAFETY: the caller's promise; `prepare` fills all that was asked for.
        unsafe {
            let prepare = |shared: *mut c_void, _: *mut pg_sys::dsm_segment| {
                let shared = shared.cast::<Shared>();
                shared.write(Shared {
                    table: (*table).rd_id,
                    count: indexes.len() as u32,
                    next: AtomicU32::new(0),
                    // The leader, from now on.
                    active: AtomicU32::new(1),
                    balance: AtomicU32::new(server::vacuum_balance()),
                });
                for (nth, oid) in indexes.iter().enumerate() {
                    slot(shared, nth).write(Slot {
                        oid: *oid,
                        is_done: false,
                        blocks: 0,
                        done: Vacuumed::default(),
                    });
                }
            };
            let team = Team::call(ENTRY, wanted, bytes, prepare);
            let launched = team.as_ref().map_or(0, Team::workers);
            error::tell_vacuum_workers(launched, wanted, verbose);
            let team = team?;
            let shared: *mut Shared = team.shared().cast();
            server::share_vacuum_balance((*shared).balance.as_ptr(), (*shared).active.as_ptr());
            Some(Helpers {
                shared,
                team,
                indexes: indexes.to_vec(),
            })
        }
    }

    /// Those that workers may take.
    pub fn indexes(&self) -> &[pg_sys::Oid] {
        &self.indexes
    }

    /// Vacuums what no worker has taken yet, waits for the workers, and ends
    /// parallel mode: what was found of each index.
    ///
    /// # Safety
    /// As [`super::Indexes::vacuum`].
    pub unsafe fn join(self, table: pg_sys::Relation) -> Vec<VacuumedIndex> {
        // SAFETY: the shared memory is there until `dismiss`, and nobody but
        // this process is left when it is read.
        unsafe {
            take_part(table, self.shared);
            (*self.shared).active.fetch_sub(1, Ordering::Relaxed);
            self.team.wait();
            server::keep_vacuum_balance();
            let found = (0..self.indexes.len())
                .map(|nth| {
                    let slot = &*slot(self.shared, nth);
                    if !slot.is_done {
                        error::index_not_vacuumed(slot.oid);
                    }
                    VacuumedIndex {
                        oid: slot.oid,
                        blocks: slot.blocks,
                        done: slot.done,
                    }
                })
                .collect();
            self.team.dismiss();
            found
        }
    }
}

unsafe fn slot(shared: *mut Shared, nth: usize) -> *mut Slot {
    // SAFETY: there is room for all of them behind the structure.
    unsafe { shared.add(1).cast::<Slot>().add(nth) }
}

/// Vacuums one index after the other, as long as there are any.
unsafe fn take_part(table: pg_sys::Relation, shared: *mut Shared) {
    // SAFETY: each number is given out once, so each slot has one writer.
    unsafe {
        loop {
            let nth = (*shared).next.fetch_add(1, Ordering::Relaxed);
            if nth >= (*shared).count {
                return;
            }
            let slot = slot(shared, nth as usize);
            let VacuumedIndex { blocks, done, .. } = one(table, (*slot).oid);
            (*slot).blocks = blocks;
            (*slot).done = done;
            (*slot).is_done = true;
        }
    }
}

/// What a worker does from its start to its end.
///
/// # Safety
/// The arguments are those that the server gives to a worker's entry function.
pub unsafe fn work(segment: *mut pg_sys::dsm_segment, toc: *mut pg_sys::shm_toc) {
    // SAFETY: the leader has prepared the memory in `Helpers::call`, and holds
    // the locks that are taken here.
    unsafe {
        parallel::serve(segment, toc, |shared, _, _| {
            let shared = shared.cast::<Shared>();
            let lock = pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE;
            let table = pg_sys::table_open((*shared).table, lock);
            (*shared).active.fetch_add(1, Ordering::Relaxed);
            server::begin_vacuum_in_worker();
            server::share_vacuum_balance((*shared).balance.as_ptr(), (*shared).active.as_ptr());
            take_part(table, shared);
            (*shared).active.fetch_sub(1, Ordering::Relaxed);
            pg_sys::table_close(table, pg_sys::NoLock as pg_sys::LOCKMODE);
        });
    }
}
