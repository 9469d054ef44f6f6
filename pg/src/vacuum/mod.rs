//! VACUUM of a table's stored indexes, by this process and by workers, while
//! this process is at the table. `README.md` beside this file says why that is
//! right.

mod team;

use engine::Xid;
use engine::mvcc::vacuum::Vacuumed;
use pgrx::pg_sys;

use crate::error::{self, OrRaise};
use crate::open::{OpenIndex, storage_of};
use crate::row::IndexStorage;
use team::Helpers;

pub use team::work;

/// VACUUM's lock on an index.
const INDEX_LOCK: pg_sys::LOCKMODE = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
const NO_LOCK: pg_sys::LOCKMODE = pg_sys::NoLock as pg_sys::LOCKMODE;

/// What was found of a stored index.
#[derive(Clone, Copy, Debug)]
pub struct VacuumedIndex {
    /// The index.
    pub oid: pg_sys::Oid,
    /// Blocks of its file.
    pub blocks: pg_sys::BlockNumber,
    /// What VACUUM did.
    pub done: Vacuumed,
}

/// A stored index that is to be vacuumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Listed {
    oid: pg_sys::Oid,
    blocks: pg_sys::BlockNumber,
}

/// The stored indexes of a table that is being vacuumed.
pub struct Indexes {
    table: pg_sys::Relation,
    /// In the order in which they are reported.
    listed: Vec<Listed>,
    helpers: Option<Helpers>,
}

impl Indexes {
    /// Locks every stored index of a table, valid or not, and starts workers on
    /// them, `wanted` at most: as many as there is work for if it is 0, none if
    /// it is negative. With workers this process is in parallel mode until
    /// [`Indexes::vacuum`] is through.
    ///
    /// # Safety
    /// `table` is open and locked as VACUUM does, until `vacuum` is through; the
    /// cutoffs were computed; the transaction has an active snapshot.
    pub unsafe fn begin(table: pg_sys::Relation, wanted: i32, verbose: bool) -> Indexes {
        let mut listed = Vec::new();
        // SAFETY: the caller's promise.
        unsafe {
            let list = pg_sys::RelationGetIndexList(table);
            let count = list.as_ref().map_or(0, |list| list.length);
            for at in 0..count as usize {
                let oid = (*(*list).elements.add(at)).oid_value;
                let index = pg_sys::index_open(oid, INDEX_LOCK);
                if matches!(storage_of(index), IndexStorage::Stored(_)) {
                    let blocks = blocks_of(index);
                    listed.push(Listed { oid, blocks });
                }
                pg_sys::index_close(index, NO_LOCK);
            }
            pg_sys::list_free(list);
            let helpers = Indexes::call(table, &listed, wanted, verbose);
            Indexes {
                table,
                listed,
                helpers,
            }
        }
    }

    unsafe fn call(
        table: pg_sys::Relation,
        listed: &[Listed],
        wanted: i32,
        verbose: bool,
    ) -> Option<Helpers> {
        // SAFETY: the caller's promise; plain settings.
        unsafe {
            if wanted < 0 || listed.is_empty() {
                return None;
            }
            if (*(*table).rd_rel).relpersistence.cast_unsigned() == pg_sys::RELPERSISTENCE_TEMP {
                if wanted > 0 {
                    error::warn_temporary_not_parallel(table);
                }
                return None;
            }
            if !pg_sys::IsUnderPostmaster {
                return None;
            }
            let size_min = u32::try_from(pg_sys::min_parallel_index_scan_size).unwrap_or(0);
            let shares = worth_a_worker(listed, size_min);
            let workers = workers(
                shares.len() + usize::from(blocks_of(table) >= size_min),
                wanted,
                pg_sys::max_parallel_maintenance_workers,
            );
            if workers == 0 {
                return None;
            }
            Helpers::call(table, &shares, workers, verbose)
        }
    }

    /// Vacuums all of them, with what the workers have done meanwhile: the
    /// oldest transaction id left unfrozen in any, and the indexes, whose
    /// statistics are still to be published.
    ///
    /// # Safety
    /// As [`Indexes::begin`]; the table was vacuumed.
    pub unsafe fn vacuum(self) -> (Option<Xid>, Vec<VacuumedIndex>) {
        let mut stored = Vec::new();
        // SAFETY: the caller's promise.
        unsafe {
            let shared = self.helpers.as_ref().map_or(&[] as &[_], Helpers::indexes);
            for index in &self.listed {
                if !shared.contains(&index.oid) {
                    stored.push(one(self.table, index.oid));
                }
            }
            if let Some(helpers) = self.helpers {
                stored.extend(helpers.join(self.table));
            }
        }
        let place = |oid| self.listed.iter().position(|index| index.oid == oid);
        stored.sort_by_key(|index| place(index.oid));
        let oldest = stored
            .iter()
            .filter_map(|index| index.done.oldest_xid)
            .reduce(|a, b| if a.precedes(b) { a } else { b });
        (oldest, stored)
    }
}

/// Those that are worth a worker, the largest first.
fn worth_a_worker(listed: &[Listed], size_min: u32) -> Vec<pg_sys::Oid> {
    let mut large: Vec<_> = listed
        .iter()
        .filter(|index| index.blocks >= size_min)
        .collect();
    large.sort_by_key(|index| std::cmp::Reverse(index.blocks));
    large.iter().map(|index| index.oid).collect()
}

/// How many workers there are for so many stores that are worth one: the leader
/// takes one of them.
fn workers(stores: usize, wanted: i32, most: i32) -> i32 {
    let useful = i32::try_from(stores.saturating_sub(1)).unwrap_or(i32::MAX);
    let asked = if wanted > 0 {
        useful.min(wanted)
    } else {
        useful
    };
    asked.min(most).max(0)
}

/// Vacuums one index.
///
/// # Safety
/// As [`Indexes::begin`]; this process or its leader has the index locked.
unsafe fn one(table: pg_sys::Relation, oid: pg_sys::Oid) -> VacuumedIndex {
    // SAFETY: the caller's promise.
    unsafe {
        let relation = pg_sys::index_open(oid, INDEX_LOCK);
        let done = {
            let index = OpenIndex::open(relation, table).expect("a stored index");
            let done = index
                .store()
                .with(|versions| versions.vacuum(|_: &Vacuumed| pg_sys::vacuum_delay_point()))
                .or_raise(relation);
            index.store().store().publish_free_space();
            done
        };
        let blocks = blocks_of(relation);
        pg_sys::index_close(relation, NO_LOCK);
        VacuumedIndex { oid, blocks, done }
    }
}

unsafe fn blocks_of(relation: pg_sys::Relation) -> pg_sys::BlockNumber {
    // SAFETY: the relation is open.
    unsafe { pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(blocks: &[u32]) -> Vec<Listed> {
        let of = |(nth, blocks): (usize, &u32)| Listed {
            oid: pg_sys::Oid::from(nth as u32),
            blocks: *blocks,
        };
        blocks.iter().enumerate().map(of).collect()
    }

    #[test]
    fn the_largest_index_is_taken_first_and_small_ones_by_nobody_else() {
        let large = worth_a_worker(&listed(&[70, 3, 900, 64, 63]), 64);
        assert_eq!(large, [2, 0, 3].map(pg_sys::Oid::from));
    }

    #[test]
    fn one_store_is_the_leaders_and_settings_say_how_many_more_there_may_be() {
        assert_eq!((workers(0, 0, 8), workers(1, 0, 8)), (0, 0));
        assert_eq!((workers(5, 0, 8), workers(5, 0, 2)), (4, 2));
        assert_eq!((workers(5, 1, 8), workers(2, 4, 8)), (1, 1));
        assert_eq!(workers(5, 4, 0), 0);
    }
}
