//! The one file that turns failures into the server's errors, each with its
//! SQLSTATE and, where something can be done about it, a hint.

mod context;
mod field;

use engine::Error;
use pgrx::pg_sys::{self, panic::ErrorReport};
use pgrx::prelude::*;

pub use context::keeping_context;

/// Reports an error and does not come back: Rust unwinds, guards give up what
/// they hold, and the server rolls back.
fn raise(report: ErrorReport) -> ! {
    report.report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}

fn report(code: PgSqlErrorCode, message: String, hint: &str) -> ErrorReport {
    ErrorReport::new(code, message, function_name!()).set_hint(hint)
}

/// The name of an open relation.
///
/// # Safety
/// `relation` is open.
unsafe fn name_of(relation: pg_sys::Relation) -> String {
    // SAFETY: the caller's promise; names end in a zero byte.
    unsafe {
        let name = (*(*relation).rd_rel).relname.data.as_ptr();
        std::ffi::CStr::from_ptr(name)
            .to_string_lossy()
            .into_owned()
    }
}

/// Reports an error of the engine's, met while working on `relation`.
///
/// # Safety
/// `relation` is open.
pub unsafe fn raise_engine(relation: pg_sys::Relation, error: Error) -> ! {
    // SAFETY: the caller's promise.
    let (name, has_toast, is_index) = unsafe {
        let toast = (*(*relation).rd_rel).reltoastrelid;
        let is_index = (*(*relation).rd_rel).relkind as u8 == pg_sys::RELKIND_INDEX;
        (name_of(relation), toast != pg_sys::InvalidOid, is_index)
    };
    raise(match error {
        Error::Corrupt { block, what } => report(
            PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            format!("relation \"{name}\" is corrupt in block {block}: {what}"),
            "Run rowref.verify on the relation to learn the extent, then restore it from a backup.",
        ),
        Error::KeyTooLarge { size, limit } => report(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("key size {size} exceeds maximum {limit} for relation \"{name}\""),
            "Keys larger than a third of a page, long values compressed, cannot be stored. \
             Consider a key on an MD5 hash of the value.",
        ),
        Error::RowTooLarge { size, limit } => report(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("row is too big for relation \"{name}\": size {size}, maximum size {limit}"),
            if is_index {
                "The entries of an index hold their values whole. Leave long columns out of \
                 INCLUDE."
            } else if has_toast {
                "Values of storage PLAIN, of fixed width or of key columns are kept in the row, \
                 which has to fit on a page beside its fences."
            } else {
                "The table has no TOAST table for long values. ALTER TABLE … ALTER COLUMN … SET \
                 STORAGE EXTENDED makes one, for columns whose type allows it."
            },
        ),
        Error::MoveTooLarge { size, limit } => report(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!(
                "old and new key are too big for an UPDATE of relation \"{name}\": size {size}, \
                 maximum size {limit}"
            ),
            "Change the key in two steps, by way of a short one.",
        ),
        Error::Store(what) => report(
            PgSqlErrorCode::ERRCODE_IO_ERROR,
            format!("relation \"{name}\": {what}"),
            "See the server's log.",
        ),
    })
}

/// Unwraps a result of the engine's, or reports its error.
pub trait OrRaise<T> {
    /// The value; an error is reported as one of `relation`.
    ///
    /// # Safety
    /// `relation` is open.
    unsafe fn or_raise(self, relation: pg_sys::Relation) -> T;
}

impl<T> OrRaise<T> for engine::Result<T> {
    #[inline]
    unsafe fn or_raise(self, relation: pg_sys::Relation) -> T {
        match self {
            Ok(value) => value,
            // SAFETY: the caller's promise.
            Err(error) => unsafe { raise_engine(relation, error) },
        }
    }
}

impl<T> OrRaise<T> for Result<T, crate::row::Error> {
    #[inline]
    unsafe fn or_raise(self, relation: pg_sys::Relation) -> T {
        match self {
            Ok(value) => value,
            // SAFETY: the caller's promise.
            Err(error) => unsafe { raise_row(relation, &error) },
        }
    }
}

/// Reports a row that cannot be laid out or read.
///
/// # Safety
/// `relation` is open.
unsafe fn raise_row(relation: pg_sys::Relation, error: &crate::row::Error) -> ! {
    // SAFETY: the caller's promise.
    let name = unsafe { name_of(relation) };
    raise(if error.is_corruption() {
        report(
            PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            format!("a row of relation \"{name}\" is corrupt: {error}"),
            "Run rowref.verify on the relation to learn the extent, then restore it from a backup.",
        )
    } else {
        report(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("the key of relation \"{name}\" does not take this value: {error}"),
            "Consider a key on a hash of the value.",
        )
    })
}

/// Tells whoever listens at DEBUG1 how many of an index's entries workers have
/// made.
///
/// # Safety
/// `index` is open.
pub unsafe fn tell_entries_made_by_workers(
    index: pg_sys::Relation,
    workers: usize,
    made: f64,
    all: f64,
) {
    // SAFETY: the caller's promise.
    let name = unsafe { name_of(index) };
    let message =
        format!("{workers} parallel workers made {made} of {all} entries of index \"{name}\"");
    let code = PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION;
    ErrorReport::new(code, message, function_name!()).report(PgLogLevel::DEBUG1);
}

/// Tells the user of VACUUM VERBOSE how many workers it has.
pub fn tell_vacuum_workers(launched: usize, planned: i32, verbose: bool) {
    let plural = if launched == 1 { "" } else { "s" };
    let message = format!(
        "launched {launched} parallel vacuum worker{plural} for index vacuuming (planned: {planned})"
    );
    let code = PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION;
    let level = if verbose {
        PgLogLevel::INFO
    } else {
        PgLogLevel::DEBUG2
    };
    ErrorReport::new(code, message, function_name!()).report(level);
}

/// Tells who asked for workers that a temporary table gets none, as core does.
///
/// # Safety
/// `table` is open.
pub unsafe fn warn_temporary_not_parallel(table: pg_sys::Relation) {
    // SAFETY: the caller's promise.
    let name = unsafe { name_of(table) };
    let message = format!(
        "disabling parallel option of vacuum on \"{name}\" --- cannot vacuum temporary tables in parallel"
    );
    let code = PgSqlErrorCode::ERRCODE_WARNING;
    ErrorReport::new(code, message, function_name!()).report(PgLogLevel::WARNING);
}

/// An index that nobody has vacuumed although nobody failed: a bug of ours, and
/// `relfrozenxid` would be wrong.
pub fn index_not_vacuumed(index: pg_sys::Oid) -> ! {
    raise(report(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        format!(
            "parallel vacuum of index {} is not completed",
            index.to_u32()
        ),
        "Use VACUUM (PARALLEL 0), and report this.",
    ))
}

/// Refuses what is not there: `feature` reads as the subject of
/// "… is not supported".
pub fn unsupported(feature: &str, hint: &str) -> ! {
    raise(report(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("pg_rowref does not support {feature}"),
        hint,
    ))
}

/// Any other failure, by SQLSTATE; the place for messages that PostgreSQL
/// itself words.
pub fn raise_with(
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
    hint: Option<&str>,
) -> ! {
    let mut report = ErrorReport::new(code, message, function_name!());
    if let Some(detail) = detail {
        report = report.set_detail(detail);
    }
    if let Some(hint) = hint {
        report = report.set_hint(hint);
    }
    raise(report)
}

/// Sorting `what` in a temporary file failed.
pub fn spill_failed(what: &str, error: &std::io::Error) -> ! {
    let code = if error.kind() == std::io::ErrorKind::StorageFull {
        PgSqlErrorCode::ERRCODE_DISK_FULL
    } else {
        PgSqlErrorCode::ERRCODE_IO_ERROR
    };
    raise_with(
        code,
        format!("could not sort {what}: {error}"),
        None,
        Some("Make room where temporary files are kept, or raise maintenance_work_mem."),
    )
}

/// A key that exists already, in PostgreSQL's own words. `described` is what
/// `BuildIndexValueDescription` makes of the key, null where the user may not
/// see it.
///
/// # Safety
/// Both relations are open.
pub unsafe fn duplicate_key(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    described: *const std::ffi::c_char,
) -> ! {
    // SAFETY: the caller's promise; the description ends in a zero byte.
    unsafe {
        let detail = (!described.is_null()).then(|| {
            let key = std::ffi::CStr::from_ptr(described).to_string_lossy();
            format!("Key {key} already exists.")
        });
        let name = name_of(index);
        let mut report = ErrorReport::new(
            PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
            format!("duplicate key value violates unique constraint \"{name}\""),
            function_name!(),
        );
        if let Some(detail) = detail {
            report = report.set_detail(detail);
        }
        field::name_constraint(table, &name);
        raise(report)
    }
}

/// A null in a column that is to be part of a primary key, in PostgreSQL's own
/// words. (Core looks for nulls too, but only after the key has been built.)
///
/// # Safety
/// `table` is open and has a column of this number, from 1.
pub unsafe fn contains_nulls(table: pg_sys::Relation, column: i16) -> ! {
    // SAFETY: the caller's promise.
    unsafe {
        let at = usize::try_from(column - 1).expect("a key column is no system column");
        let attributes = &(*(*table).rd_att).attrs;
        let attribute = &attributes.as_slice(at + 1)[at];
        let column = std::ffi::CStr::from_ptr(attribute.attname.data.as_ptr());
        let (name, column) = (name_of(table), column.to_string_lossy());
        let report = ErrorReport::new(
            PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
            format!("column \"{column}\" of relation \"{name}\" contains null values"),
            function_name!(),
        );
        field::name_column(table, &column);
        raise(report)
    }
}

/// A unique index that cannot be built, in PostgreSQL's own words; `described`
/// as for [`duplicate_key`].
///
/// # Safety
/// Both relations are open.
pub unsafe fn index_not_unique(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    described: *const std::ffi::c_char,
) -> ! {
    // SAFETY: the caller's promise; the description ends in a zero byte.
    unsafe {
        let name = name_of(index);
        let mut report = ErrorReport::new(
            PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
            format!("could not create unique index \"{name}\""),
            function_name!(),
        );
        report = report.set_detail(if described.is_null() {
            "Duplicate keys exist.".to_owned()
        } else {
            let key = std::ffi::CStr::from_ptr(described).to_string_lossy();
            format!("Key {key} is duplicated.")
        });
        field::name_constraint(table, &name);
        raise(report)
    }
}

/// Tells whoever clusters a table with a primary key by another index that its
/// rows are where their key says.
///
/// # Safety
/// `table` is open.
pub unsafe fn stays_in_key_order(table: pg_sys::Relation) {
    // SAFETY: the caller's promise.
    let name = unsafe { name_of(table) };
    report(
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        format!("table \"{name}\" stays in the order of its primary key"),
        "Its rows are stored by their key; CLUSTER by another index has only written them anew.",
    )
    .report(PgLogLevel::NOTICE);
}

/// A row that this transaction has read is not where it was read.
///
/// # Safety
/// `relation` is open.
pub unsafe fn vanished(relation: pg_sys::Relation) -> ! {
    // SAFETY: the caller's promise.
    let name = unsafe { name_of(relation) };
    raise(report(
        PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
        format!("relation \"{name}\" is corrupt: a row that was read is not found under its key"),
        "Run rowref.verify on the relation to learn the extent, then restore it from a backup.",
    ))
}

/// A row whose entry an index lacks (rule 14).
///
/// # Safety
/// Both relations are open.
pub unsafe fn entry_is_missing(table: pg_sys::Relation, index: pg_sys::Relation) -> ! {
    // SAFETY: the caller's promise.
    let (table, index) = unsafe { (name_of(table), name_of(index)) };
    raise(report(
        PgSqlErrorCode::ERRCODE_INDEX_CORRUPTED,
        format!("index \"{index}\" has no entry for a row of table \"{table}\""),
        "REINDEX the index. If it has an expression or a predicate, see whether its functions \
         are immutable indeed.",
    ))
}

/// NOWAIT met a lock: PostgreSQL's own words for it.
///
/// # Safety
/// `relation` is open.
pub unsafe fn row_is_locked(relation: pg_sys::Relation) -> ! {
    // SAFETY: the caller's promise.
    let name = unsafe { name_of(relation) };
    raise_with(
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
        format!("could not obtain lock on row in relation \"{name}\""),
        None,
        None,
    )
}

/// The library was not loaded at server start, so that neither its WAL nor
/// its shared memory would be there.
pub fn not_preloaded() -> ! {
    raise(report(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "pg_rowref must be loaded via shared_preload_libraries".into(),
        "Add pg_rowref to shared_preload_libraries, as in \
         \"ALTER SYSTEM SET shared_preload_libraries = 'pg_rowref'\", and restart the server.",
    ))
}
