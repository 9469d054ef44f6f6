//! VACUUM of a table: its store prunes itself, then each of its indexes, and
//! nothing is compared with anything.

use crate::indexes;
use crate::open::open_with;
use crate::table_am::TableAm;
use crate::truncate::{Usage, Wish, truncate};
use engine::mvcc::vacuum::Vacuumed;
use pg::error::{OrRaise, keeping_context};
use pg::store::RelationStore;
use pg::vacuum::Indexes;
use pg::version::server;
use pg::xact::{from_server, to_server};
use pgrx::{pg_guard, pg_sys};

/// The `relation_vacuum` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn relation_vacuum<A: TableAm>(
    relation: pg_sys::Relation,
    params: *mut pg_sys::VacuumParams,
    strategy: pg_sys::BufferAccessStrategy,
) {
    // SAFETY: the server's arguments are live; the relation is locked so that
    // no other VACUUM runs on it.
    unsafe {
        pg_sys::pgstat_progress_start_command(
            pg_sys::ProgressCommandType::PROGRESS_COMMAND_VACUUM,
            (*relation).rd_id,
        );
        // Before the first leaf is looked at: what is older than this and
        // stays unfrozen is counted, what is newer need not be.
        let cutoffs = server::vacuum_cutoffs(relation, params);
        let wish = Wish::of(relation, params);
        let progress = |what: u32, value: i64| {
            pg_sys::pgstat_progress_update_param(what as i32, value);
        };
        let blocks_of = |relation| {
            pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM)
        };
        // What a worker raises says so in its context.
        let (done, (oldest_in_indexes, stored)) = keeping_context(|| {
            let others = Indexes::begin(relation, (*params).nworkers, wish.is_verbose());
            let table = open_with::<A>(relation, strategy);
            progress(
                pg_sys::PROGRESS_VACUUM_PHASE,
                pg_sys::PROGRESS_VACUUM_PHASE_SCAN_HEAP.into(),
            );
            progress(
                pg_sys::PROGRESS_VACUUM_TOTAL_HEAP_BLKS,
                blocks_of(relation).into(),
            );
            let done = table
                .vacuum(|done: &Vacuumed| {
                    // Leaves, of which there are nearly as many as blocks.
                    progress(
                        pg_sys::PROGRESS_VACUUM_HEAP_BLKS_SCANNED,
                        done.leaves as i64,
                    );
                    pg_sys::vacuum_delay_point();
                })
                .or_raise(relation);
            progress(
                pg_sys::PROGRESS_VACUUM_PHASE,
                pg_sys::PROGRESS_VACUUM_PHASE_FINAL_CLEANUP.into(),
            );
            RelationStore::new(relation).publish_free_space();
            (done, others.vacuum())
        });
        if wish.is_verbose() {
            stored.iter().for_each(|index| indexes::tell(index));
        }
        let oldest = match (done.oldest_xid, oldest_in_indexes) {
            (Some(a), Some(b)) => Some(if a.precedes(b) { a } else { b }),
            (a, b) => a.or(b),
        };
        let usages: Vec<_> = stored
            .iter()
            .map(|index| (index.oid, Usage::new(&index.done, index.blocks)))
            .collect();
        let usage = Usage::new(&done, blocks_of(relation));
        truncate::<A>(relation, usage, &usages, wish);
        indexes::publish(&stored);
        let pages = blocks_of(relation);
        let limit = A::frozen_limit(oldest, from_server(cutoffs.oldest_xmin));
        server::update_relation_statistics(
            relation,
            pages,
            done.live as f64,
            to_server(limit),
            cutoffs.oldest_multixact,
        );
        pg_sys::pgstat_report_vacuum(
            (*relation).rd_id,
            (*(*relation).rd_rel).relisshared,
            done.live as i64,
            done.dead as i64,
        );
        pg_sys::pgstat_progress_end_command();
        if wish.is_verbose() {
            pgrx::info!(
                "vacuumed: {} leaves, {} versions removed, {} rows live, {} versions not removable yet, {} pages merged, {} unused pages offered",
                done.leaves,
                done.removed,
                done.live,
                done.dead,
                done.merged + done.inner_merged,
                done.offered
            );
        }
    }
}
