//! Handles bound to the server: what a slot's `tts_tid` holds for our rows.
//!
//! `rowref`'s table of leases, one for each server process, with epochs from
//! shared memory, a temporary file to spill to, and the transaction's end to
//! end them. Whether a row needs a handle at all, and for how long, is decided
//! once for each executor run (`plan`) and is in force while that run runs
//! (`run`); outside of any run everything is retained, which is always safe.

mod last;
mod plan;
mod run;
mod spill;

use std::cell::RefCell;

use engine::page::cell::{Head, bit};
use engine::types::BlockNumber;
use pgrx::pg_sys;
use pgrx::prelude::*;
use rowref::RowRef;
use rowref::handle::{Handle, HandleError, HandleTable, Lease, LeaseRef};

pub use last::{lease_row, with_last};
pub use plan::plans_first;
pub use run::{Need, Needs, during};

use crate::conflict;
use crate::error;
use crate::xact::{TransactionEvent, on_transaction_event};
pub use spill::TemporaryFile;

type Table = HandleTable<fn() -> u32, TemporaryFile>;

thread_local! {
    // Leaked, so that nothing is torn down when the process exits.
    static TABLE: &'static RefCell<Option<Table>> = Box::leak(Box::default());
}

/// What stands in a slot whose row nobody will ask for by its tid. It has the
/// form of a handle, which core's checks want, and is never leased.
pub const UNNAMED: pg_sys::ItemPointerData = pg_sys::ItemPointerData {
    ip_blkid: pg_sys::BlockIdData {
        bi_hi: 0xFFFF,
        bi_lo: 0xFFFE,
    },
    ip_posid: 1,
};

/// Installs the executor's hooks and the transaction's callback.
///
/// # Safety
/// Called once, from `_PG_init`.
pub unsafe fn install() {
    on_transaction_event(transaction_event);
    conflict::install();
    // SAFETY: as the caller promises.
    unsafe { run::install() };
}

fn transaction_event(event: TransactionEvent) {
    if !event.is_end() {
        return;
    }
    run::forget_all();
    last::forget();
    TABLE.with(|table| {
        if let Some(table) = table.borrow_mut().as_mut() {
            // No error may be raised any more. The leases are gone in any case,
            // and the file with the process.
            let _ = table.clear();
        }
    });
}

fn with_table<R>(work: impl FnOnce(&mut Table) -> Result<R, HandleError>) -> R {
    let result = TABLE.with(|table| {
        let mut table = table.borrow_mut();
        let table = table.get_or_insert_with(|| {
            HandleTable::new(
                crate::shmem::lease_epoch as fn() -> u32,
                TemporaryFile::default(),
                memory_limit_bytes(),
            )
        });
        work(table)
    });
    match result {
        Ok(value) => value,
        Err(failure) => raise(&failure),
    }
}

fn memory_limit_bytes() -> usize {
    // SAFETY: a setting, read by the only thread.
    let kilobytes = unsafe { pg_sys::work_mem };
    usize::try_from(kilobytes).unwrap_or(64) * 1024
}

fn raise(failure: &HandleError) -> ! {
    let (code, hint) = match failure {
        HandleError::EpochsExhausted | HandleError::EpochReused { .. } => (
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            Some("Restart the server: row handles are counted anew from there."),
        ),
        HandleError::ReferenceTooLong { .. } => {
            (PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, None)
        }
        HandleError::Spill(cause) if cause.kind() == std::io::ErrorKind::StorageFull => (
            PgSqlErrorCode::ERRCODE_DISK_FULL,
            Some("Make room where temporary files are kept, or raise work_mem."),
        ),
        HandleError::Spill(_) | HandleError::SpillDamaged { .. } => {
            (PgSqlErrorCode::ERRCODE_IO_ERROR, None)
        }
    };
    let message = match failure {
        HandleError::Spill(cause) => format!("could not spill row handles: {cause}"),
        other => other.to_string(),
    };
    error::raise_with(code, message, None, hint)
}

/// Stands for a lease's command where its version is frozen; no command has this
/// number.
pub const FROZEN: u32 = pg_sys::InvalidCommandId;

/// Whether rows that are read need handles just now.
#[inline]
pub fn needed() -> bool {
    run::current().read != Need::Nothing
}

/// A handle for a version that was read, or [`UNNAMED`] if nobody will come
/// back for it.
#[inline]
pub fn lease(
    relation: pg_sys::Oid,
    key: &[u8],
    head: Head,
    block: BlockNumber,
) -> pg_sys::ItemPointerData {
    lease_as(run::current().read, relation, key, head, block)
}

/// A handle for a version that was just written: it goes to the indexes and to
/// triggers.
#[inline]
pub fn lease_new(
    relation: pg_sys::Oid,
    key: &[u8],
    head: Head,
    block: BlockNumber,
) -> pg_sys::ItemPointerData {
    lease_as(run::current().write, relation, key, head, block)
}

/// As [`lease_new`], of a row that no index asks for: then nobody does where the
/// indexes would have been the last ones to.
#[inline]
pub fn lease_new_unindexed(
    relation: pg_sys::Oid,
    key: &[u8],
    head: Head,
    block: BlockNumber,
) -> pg_sys::ItemPointerData {
    match run::current().write {
        Need::Ring => UNNAMED,
        need => lease_as(need, relation, key, head, block),
    }
}

/// A handle that certainly lives to the end of the transaction (or of the run,
/// where that is certainly enough), whatever the run needs: for a version that
/// an update chain has led to.
pub fn lease_found(
    relation: pg_sys::Oid,
    key: &[u8],
    head: Head,
    block: BlockNumber,
) -> pg_sys::ItemPointerData {
    let need = match run::current().read {
        Need::Nothing | Need::Ring => Need::Retained,
        other => other,
    };
    lease_as(need, relation, key, head, block)
}

#[inline]
fn lease_as(
    need: Need,
    relation: pg_sys::Oid,
    key: &[u8],
    head: Head,
    block: BlockNumber,
) -> pg_sys::ItemPointerData {
    let Some(mode) = need.mode() else {
        return UNNAMED;
    };
    let handle = with_table(|table| {
        table.lease(
            mode,
            LeaseRef {
                relation: relation.to_u32(),
                reference: RowRef(key),
                sequence: head.sequence.0,
                xmin: head.xmin.0,
                block_hint: block.0,
                cid: if head.has(bit::FROZEN) {
                    FROZEN
                } else {
                    head.cid.0
                },
            },
        )
    });
    tid_of(handle)
}

/// What a tid stands for; `None` if it is no live handle of this process.
pub fn resolve(tid: pg_sys::ItemPointerData) -> Option<Lease> {
    let block = u32::from(tid.ip_blkid.bi_hi) << 16 | u32::from(tid.ip_blkid.bi_lo);
    let handle = Handle::from_tid(block, tid.ip_posid)?;
    with_table(|table| Ok(table.resolve(handle)?.map(LeaseRef::to_owned)))
}

/// What this process's handles take at the moment.
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    /// Executor runs that have not ended, whether they need handles or not.
    pub open_runs: usize,
    /// Those of them that have leases of their own.
    pub open_scopes: usize,
    /// Bytes of memory; what was spilled does not count.
    pub memory_bytes: usize,
}

/// See [`Footprint`].
pub fn footprint() -> Footprint {
    TABLE.with(|table| {
        let table = table.borrow();
        Footprint {
            open_runs: run::open_runs(),
            open_scopes: table.as_ref().map_or(0, Table::open_scopes),
            memory_bytes: table.as_ref().map_or(0, Table::footprint_bytes),
        }
    })
}

fn tid_of(handle: Handle) -> pg_sys::ItemPointerData {
    pg_sys::ItemPointerData {
        ip_blkid: pg_sys::BlockIdData {
            bi_hi: (handle.block() >> 16) as u16,
            bi_lo: handle.block() as u16,
        },
        ip_posid: handle.offset(),
    }
}
