//! Which needs are in force: those of the executor run that is running.
//!
//! Runs nest (a trigger's query inside an UPDATE) and overlap (two cursors that
//! are fetched from in turn), so a run's needs are found by its `QueryDesc` each
//! time it is entered, and what was in force before is put back when it is
//! left, by return or by error.

use std::cell::{Cell, RefCell};

use pgrx::pg_guard;
use pgrx::pg_sys;
use rowref::handle::{LeaseMode, ScopeId};

use super::{memory_limit_bytes, plan, with_table};
use crate::conflict;
use crate::hook;
use crate::pending;
use crate::sweep;
use crate::xact::{SubtransactionEvent, on_subtransaction_event};

/// How long somebody may come back for a row by its tid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Never.
    Nothing,
    /// While the statement works on it and a thousand others.
    Ring,
    /// While the run lasts. [`during`] has no run, and retains instead.
    Run(Option<ScopeId>),
    /// Until the transaction ends.
    Retained,
    /// Until the transaction ends, and users may compare it.
    Canonical,
}

impl Need {
    #[inline]
    pub(super) fn mode(self) -> Option<LeaseMode> {
        Some(match self {
            Need::Nothing => return None,
            Need::Ring => LeaseMode::Ring,
            Need::Run(Some(scope)) => LeaseMode::Scoped(scope),
            Need::Run(None) | Need::Retained => LeaseMode::Retained,
            Need::Canonical => LeaseMode::Canonical,
        })
    }
}

/// The needs of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// For rows that are read.
    pub read: Need,
    /// For rows that are written.
    pub write: Need,
    /// Whether a row that was read is likely to be read once more, by its tid.
    pub reads_again: bool,
}

impl Needs {
    /// What is right for whoever has not thought about it.
    pub const SAFE: Needs = Needs {
        read: Need::Retained,
        write: Need::Retained,
        reads_again: false,
    };
    /// Nobody comes back for anything.
    pub const NOTHING: Needs = Needs {
        read: Need::Nothing,
        write: Need::Nothing,
        reads_again: false,
    };
}

struct Runs {
    current: Cell<Needs>,
    known: RefCell<Known>,
    /// Counts transactions, whose scopes die with them.
    transaction: Cell<u64>,
}

thread_local! {
    static RUNS: &'static Runs = Box::leak(Box::new(Runs {
        current: Cell::new(Needs::SAFE),
        known: RefCell::default(),
        transaction: Cell::new(0),
    }));
}

/// A run that was started and has not ended.
#[derive(Clone, Copy)]
struct Run {
    /// The address of its `QueryDesc`.
    query: usize,
    /// Runs are numbered as they start.
    number: u64,
    needs: Needs,
}

/// The runs that were started and have not ended.
///
/// A run that fails is never told to end: what ends it is the abort of the
/// subtransaction that it was started in, or of the transaction. So runs are
/// numbered as they start, and each open subtransaction remembers the number
/// that the next run had when it began. Subtransactions nest, hence all that
/// was started from then on, in subtransactions released into it too, goes
/// when it aborts; nothing has to be handed over when one is released.
#[derive(Default)]
struct Known {
    /// In the order of their numbers. Mostly there is one, or a few that nest,
    /// and the one that is asked for is the last: so they are searched from
    /// the end.
    open: Vec<Run>,
    started: u64,
    /// For each open subtransaction, outermost first, the first number that
    /// could be one of its runs.
    marks: Vec<(pg_sys::SubTransactionId, u64)>,
}

impl Known {
    /// Enters a run. One that is known at the same address is gone, and is
    /// returned.
    fn enter(&mut self, query: usize, needs: Needs) -> Option<Needs> {
        let gone = self.leave(query);
        self.open.push(Run {
            query,
            number: self.started,
            needs,
        });
        self.started += 1;
        gone
    }

    fn place_of(&self, query: usize) -> Option<usize> {
        self.open.iter().rposition(|run| run.query == query)
    }

    fn needs_of(&self, query: usize) -> Option<Needs> {
        Some(self.open[self.place_of(query)?].needs)
    }

    fn leave(&mut self, query: usize) -> Option<Needs> {
        let place = self.place_of(query)?;
        Some(self.open.remove(place).needs)
    }

    fn begin(&mut self, subtransaction: pg_sys::SubTransactionId) {
        self.marks.push((subtransaction, self.started));
    }

    /// Where the innermost subtransaction began, which ends; nowhere if it
    /// failed before we were told that it begins.
    fn end(&mut self, subtransaction: pg_sys::SubTransactionId) -> Option<u64> {
        let (_, mark) = self.marks.pop_if(|(open, _)| *open == subtransaction)?;
        Some(mark)
    }

    /// Ends the innermost subtransaction and takes out the runs that it
    /// started.
    fn abort(&mut self, subtransaction: pg_sys::SubTransactionId) -> Vec<Needs> {
        let Some(mark) = self.end(subtransaction) else {
            return Vec::new();
        };
        let first = self.open.partition_point(|run| run.number < mark);
        self.open.drain(first..).map(|run| run.needs).collect()
    }

    /// Ends all, and keeps the room.
    fn clear(&mut self) {
        self.open.clear();
        self.marks.clear();
        self.started = 0;
    }
}

fn runs() -> &'static Runs {
    RUNS.with(|runs| *runs)
}

#[inline]
pub(super) fn current() -> Needs {
    runs().current.get()
}

/// How many runs were started and have not ended.
pub(super) fn open_runs() -> usize {
    runs().known.borrow().open.len()
}

pub(super) fn forget_all() {
    let runs = runs();
    runs.known.borrow_mut().clear();
    runs.current.set(Needs::SAFE);
    runs.transaction.set(runs.transaction.get() + 1);
}

/// What was in force before.
#[derive(Clone, Copy)]
struct Before {
    needs: Needs,
    transaction: u64,
}

impl Before {
    fn replaced_by(needs: Needs) -> Before {
        let runs = runs();
        Before {
            needs: runs.current.replace(needs),
            transaction: runs.transaction.get(),
        }
    }

    fn put_back(self) {
        let runs = runs();
        // A procedure that has committed in between ended all scopes.
        if runs.transaction.get() == self.transaction {
            runs.current.set(self.needs);
        }
    }
}

/// Runs `work` under the given needs. It may raise errors past its frame, as
/// [`hook`] wants it.
///
/// # Safety
/// As [`hook::finally`]'s.
pub unsafe fn during<R>(needs: Needs, work: impl FnOnce() -> R) -> R {
    let before = Before::replaced_by(needs);
    // SAFETY: the caller's promise.
    unsafe { hook::finally(work, move || before.put_back()) }
}

static mut PREVIOUS_START: pg_sys::ExecutorStart_hook_type = None;
static mut PREVIOUS_RUN: pg_sys::ExecutorRun_hook_type = None;
static mut PREVIOUS_FINISH: pg_sys::ExecutorFinish_hook_type = None;
static mut PREVIOUS_END: pg_sys::ExecutorEnd_hook_type = None;

/// # Safety
/// Called once, from `_PG_init`.
pub(super) unsafe fn install() {
    // SAFETY: single-threaded start-up; each hook calls the one before it.
    unsafe {
        PREVIOUS_START = pg_sys::ExecutorStart_hook;
        pg_sys::ExecutorStart_hook = Some(executor_start);
        PREVIOUS_RUN = pg_sys::ExecutorRun_hook;
        pg_sys::ExecutorRun_hook = Some(executor_run);
        PREVIOUS_FINISH = pg_sys::ExecutorFinish_hook;
        pg_sys::ExecutorFinish_hook = Some(executor_finish);
        PREVIOUS_END = pg_sys::ExecutorEnd_hook;
        pg_sys::ExecutorEnd_hook = Some(executor_end);
        plan::install();
    }
    on_subtransaction_event(subtransaction_event);
}

fn subtransaction_event(
    event: SubtransactionEvent,
    mine: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
) {
    let known = &runs().known;
    match event {
        SubtransactionEvent::Start => known.borrow_mut().begin(mine),
        SubtransactionEvent::PreCommit => {}
        SubtransactionEvent::Commit => {
            known.borrow_mut().end(mine);
        }
        SubtransactionEvent::Abort => {
            let gone = known.borrow_mut().abort(mine);
            gone.into_iter().for_each(close_scope);
        }
    }
}

/// Ends the leases of a run that is over.
fn close_scope(needs: Needs) {
    if let Need::Run(Some(scope)) = needs.read {
        with_table(|table| {
            // The scope is closed all the same if its file cannot be cut.
            let _ = table.close_scope(scope);
            Ok(())
        });
    }
}

fn needs_of(query: *mut pg_sys::QueryDesc) -> Needs {
    let known = runs().known.borrow();
    known.needs_of(query as usize).unwrap_or(Needs::SAFE)
}

#[pg_guard]
unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int) {
    // SAFETY: the server's arguments, handed on; its description of the query
    // is whole.
    unsafe {
        let mut needs = plan::needs(query);
        match PREVIOUS_START {
            Some(previous) => previous(query, flags),
            None => hook::standard_ExecutorStart(query, flags),
        }
        conflict::prepare(query, flags);
        sweep::prepare(query, flags, needs);
        if needs != Needs::NOTHING {
            let limit = memory_limit_bytes();
            with_table(|table| {
                table.set_memory_limit(limit);
                if needs.read == Need::Run(None) {
                    needs.read = Need::Run(Some(table.open_scope()));
                }
                Ok(())
            });
        }
        let gone = runs().known.borrow_mut().enter(query as usize, needs);
        gone.into_iter().for_each(close_scope);
    }
}

/// Does a part of what the executor does for a query, under the query's needs.
/// What was collected meanwhile is settled behind the outermost one.
///
/// # Safety
/// `query` was started; else as [`hook::finally`]'s.
unsafe fn within_run(query: *mut pg_sys::QueryDesc, is_parallel: bool, work: impl FnOnce()) {
    // SAFETY: the caller's promise; no page is locked around the executor.
    unsafe {
        let run = pending::begin_run(is_parallel);
        let before = Before::replaced_by(needs_of(query));
        hook::finally(work, move || {
            before.put_back();
            run.end();
        });
        run.settle();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn executor_run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
    once: bool,
) {
    // SAFETY: the server's arguments, handed on; no frame here owns anything.
    unsafe {
        let is_parallel = (*(*query).plannedstmt).parallelModeNeeded;
        within_run(query, is_parallel, || match PREVIOUS_RUN {
            Some(previous) => previous(query, direction, count, once),
            None => hook::standard_ExecutorRun(query, direction, count, once),
        });
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn executor_finish(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the server's argument, handed on; no frame here owns anything.
    unsafe {
        within_run(query, false, || match PREVIOUS_FINISH {
            Some(previous) => previous(query),
            None => hook::standard_ExecutorFinish(query),
        });
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn executor_end(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the server's argument, handed on.
    unsafe {
        conflict::finish(query);
        match PREVIOUS_END {
            Some(previous) => previous(query),
            None => hook::standard_ExecutorEnd(query),
        }
    }
    let gone = runs().known.borrow_mut().leave(query as usize);
    gone.into_iter().for_each(close_scope);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(write: Need) -> Needs {
        Needs {
            read: Need::Nothing,
            write,
            reads_again: false,
        }
    }

    #[test]
    fn an_abort_ends_the_runs_of_its_subtransaction_and_of_those_released_into_it() {
        let mut known = Known::default();
        let [outer, inner, released, after] = [1, 2, 3, 4];
        known.enter(outer, numbered(Need::Ring));
        known.begin(2);
        known.enter(inner, numbered(Need::Ring));
        known.begin(3);
        known.enter(released, numbered(Need::Retained));
        known.end(3);
        known.enter(after, numbered(Need::Canonical));
        assert_eq!(known.leave(inner), Some(numbered(Need::Ring)));
        assert!(known.abort(9).is_empty(), "it never began");
        let gone = known.abort(2);
        assert_eq!(gone, [numbered(Need::Retained), numbered(Need::Canonical)]);
        assert_eq!(known.open.len(), 1);
        assert!(known.marks.is_empty());
        // The outer one is ended by its own end, once.
        assert_eq!(known.leave(outer), Some(numbered(Need::Ring)));
        assert_eq!(known.leave(outer), None);
    }

    #[test]
    fn a_run_at_the_address_of_a_failed_one_replaces_it() {
        let mut known = Known::default();
        assert_eq!(known.enter(7, numbered(Need::Ring)), None);
        let gone = known.enter(7, numbered(Need::Retained));
        assert_eq!(gone, Some(numbered(Need::Ring)));
        assert_eq!(known.open.len(), 1);
        assert_eq!(known.leave(7), Some(numbered(Need::Retained)));
    }
}
