//! The end of a VACUUM: unused pages at the end of the files of a table and of
//! its indexes are given back to the disk.

use crate::open::open;
use crate::table_am::TableAm;
use engine::btree::Cleared;
use engine::mvcc::vacuum::Vacuumed;
use pg::error::OrRaise;
use pg::open::OpenIndex;
use pg::store::Alone;
use pgrx::pg_sys;

/// So many unused pages are worth a lock that nobody can share, or this part
/// of a file: as for heaps.
const UNUSED_MIN: u64 = 1000;
const UNUSED_FRACTION: u64 = 16;

/// Pages that are moved in any case: the last leaf of a table that grows at its
/// end, and what stands above it.
const MOVES_MIN: u64 = 16;
/// Pages that are moved at most, each of them logged whole.
const MOVES_MAX: u64 = 4096;

/// What a VACUUM has found of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    blocks: u64,
    unused: u64,
}

impl Usage {
    /// Of a file that has so many blocks now.
    pub fn new(done: &Vacuumed, blocks: pg_sys::BlockNumber) -> Usage {
        let blocks = u64::from(blocks);
        Usage {
            blocks,
            unused: blocks.saturating_sub(done.in_use()),
        }
    }

    /// Whether it is worth trying to cut the file.
    fn is_worth_it(self) -> bool {
        self.unused > 0
            && (self.unused >= UNUSED_MIN || self.unused >= self.blocks / UNUSED_FRACTION)
    }

    /// How many pages may be moved from the end to the front. A file of which
    /// a quarter is unused is made denser, at the price of one page moved for
    /// four that are cut off; with less, rows to come will need the room.
    fn moves_max(self) -> u32 {
        let denser = if self.unused * 4 >= self.blocks {
            (self.unused / 4).min(MOVES_MAX)
        } else {
            0
        };
        (MOVES_MIN + denser) as u32
    }
}

/// What VACUUM was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    truncate: bool,
    verbose: bool,
}

impl Wish {
    /// # Safety
    /// `params` are those of the command, as core has completed them.
    pub unsafe fn of(table: pg_sys::Relation, params: *const pg_sys::VacuumParams) -> Wish {
        // SAFETY: the caller's promise; the relation is open.
        unsafe {
            let options = u32::from_ne_bytes((*params).options.to_ne_bytes());
            let row = &*(*table).rd_rel;
            let truncate = (*params).truncate == pg_sys::VacOptValue::VACOPTVALUE_ENABLED
                && !pg_sys::vacuum_xid_failsafe_check(row.relfrozenxid, row.relminmxid);
            Wish {
                truncate,
                verbose: options & pg_sys::VACOPT_VERBOSE != 0,
            }
        }
    }

    /// Whether the user wants to be told.
    pub fn is_verbose(self) -> bool {
        self.verbose
    }

    fn say(self, message: &str) {
        if self.verbose {
            pgrx::info!("{message}");
        } else {
            pgrx::debug2!("{message}");
        }
    }
}

/// Cuts off what is unused at the end of a table's file and of those of its
/// indexes, if that is wished for and worth it, and if the table can be had for
/// oneself. Whatever stands in the way is left to the next VACUUM.
///
/// # Safety
/// `table` is open and locked as VACUUM does; `indexes` are its stored ones.
pub unsafe fn truncate<A: TableAm>(
    table: pg_sys::Relation,
    usage: Usage,
    indexes: &[(pg_sys::Oid, Usage)],
    wish: Wish,
) {
    let is_worth_it = |usage: &Usage| usage.is_worth_it();
    if !wish.truncate
        || !is_worth_it(&usage) && !indexes.iter().any(|(_, usage)| is_worth_it(usage))
    {
        return;
    }
    // SAFETY: the caller's promise; every relation is closed where it was
    // opened, and by the transaction's end after an ERROR.
    unsafe {
        pg_sys::pgstat_progress_update_param(
            pg_sys::PROGRESS_VACUUM_PHASE as i32,
            pg_sys::PROGRESS_VACUUM_PHASE_TRUNCATE.into(),
        );
        let Some(mut alone) = Alone::patiently(table) else {
            wish.say(&format!(
                "\"{}\": stopping truncate due to conflicting lock request",
                name_of(table)
            ));
            return;
        };
        if usage.is_worth_it() {
            let cleared = open::<A>(table)
                .clear_end(usage.moves_max(), || alone.is_unwanted())
                .or_raise(table);
            cut(table, &alone, "table", cleared, wish);
        }
        for (oid, usage) in indexes.iter().filter(|(_, usage)| usage.is_worth_it()) {
            if !alone.is_unwanted() {
                break;
            }
            truncate_index(table, *oid, *usage, &mut alone, wish);
        }
        alone.give_up();
    }
}

unsafe fn truncate_index(
    table: pg_sys::Relation,
    oid: pg_sys::Oid,
    usage: Usage,
    alone: &mut Alone,
    wish: Wish,
) {
    // SAFETY: as `truncate`; VACUUM's own lock on the index is a weaker one.
    unsafe {
        let no_lock = pg_sys::NoLock as pg_sys::LOCKMODE;
        let relation = pg_sys::index_open(oid, no_lock);
        // Somebody may look at the index alone, its pages for instance.
        if let Some(alone_in_index) = Alone::at_once(relation) {
            if let Some(index) = OpenIndex::open(relation, table) {
                let cleared = index
                    .store()
                    .with(|versions| {
                        versions
                            .tree
                            .clear_end(usage.moves_max(), || alone.is_unwanted())
                    })
                    .or_raise(relation);
                cut(relation, &alone_in_index, "index", cleared, wish);
            }
            alone_in_index.give_up();
        }
        pg_sys::index_close(relation, no_lock);
    }
}

unsafe fn cut(relation: pg_sys::Relation, alone: &Alone, what: &str, cleared: Cleared, wish: Wish) {
    if cleared.end == cleared.blocks {
        return;
    }
    alone.cut(cleared.end);
    // SAFETY: the relation is open.
    let name = unsafe { name_of(relation) };
    let Cleared { blocks, end, .. } = cleared;
    wish.say(&format!(
        "{what} \"{name}\": truncated {blocks} to {end} pages"
    ));
}

unsafe fn name_of(relation: pg_sys::Relation) -> String {
    // SAFETY: the relation is open.
    let name = unsafe { std::ffi::CStr::from_ptr((*(*relation).rd_rel).relname.data.as_ptr()) };
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_from_a_sixteenth_or_a_thousand_pages_on() {
        let of = |blocks, unused| Usage { blocks, unused }.is_worth_it();
        assert!(of(16, 1) && !of(33, 1) && !of(100_000, 999) && of(100_000, 1000));
        assert!(!of(1, 0));
    }

    #[test]
    fn pages_are_moved_only_where_much_is_unused() {
        let of = |blocks, unused| Usage { blocks, unused }.moves_max();
        assert_eq!(of(1000, 100), 16);
        assert_eq!(of(1000, 800), 216);
        assert_eq!(of(1_000_000, 900_000), 4112);
    }
}
