//! Which needs are in force: those of the executor run that is running.
//!
//! Runs nest (a trigger's query inside an UPDATE) and overlap (two cursors that
//! are fetched from in turn), so a run's needs are found by its `QueryDesc` each
//! time it is entered, and what was in force before is put back when it is
//! left, by return or by error.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use pgrx::pg_guard;
use pgrx::pg_sys;
use rowref::handle::{LeaseMode, ScopeId};

use super::{memory_limit_bytes, plan, with_table};
use crate::conflict;
use crate::hook;

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
}

impl Needs {
    /// What is right for whoever has not thought about it.
    pub const SAFE: Needs = Needs {
        read: Need::Retained,
        write: Need::Retained,
    };
    /// Nobody comes back for anything.
    pub const NOTHING: Needs = Needs {
        read: Need::Nothing,
        write: Need::Nothing,
    };
}

struct Runs {
    current: Cell<Needs>,
    /// By the address of the `QueryDesc`. An aborted run leaves its entry until
    /// the transaction ends; a new run at that address replaces it.
    known: RefCell<HashMap<usize, Needs>>,
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

fn runs() -> &'static Runs {
    RUNS.with(|runs| *runs)
}

#[inline]
pub(super) fn current() -> Needs {
    runs().current.get()
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
}

fn needs_of(query: *mut pg_sys::QueryDesc) -> Needs {
    let known = runs().known.borrow();
    known.get(&(query as usize)).copied().unwrap_or(Needs::SAFE)
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
        runs().known.borrow_mut().insert(query as usize, needs);
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
        during(needs_of(query), || match PREVIOUS_RUN {
            Some(previous) => previous(query, direction, count, once),
            None => hook::standard_ExecutorRun(query, direction, count, once),
        });
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn executor_finish(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the server's argument, handed on; no frame here owns anything.
    unsafe {
        during(needs_of(query), || match PREVIOUS_FINISH {
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
    let gone = runs().known.borrow_mut().remove(&(query as usize));
    if let Some(Needs {
        read: Need::Run(Some(scope)),
        ..
    }) = gone
    {
        with_table(|table| {
            // The scope is closed all the same if its file cannot be cut.
            let _ = table.close_scope(scope);
            Ok(())
        });
    }
}
