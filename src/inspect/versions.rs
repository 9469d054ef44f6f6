//! The history of one key: `rowref.versions`.

use super::{Opened, command_of, flag_names, kind_name};
use engine::mvcc::look::Standing;
use engine::mvcc::{Strength, VersionId};
use engine::page::cell::EntryKind;
use pg::error::OrRaise;
use pg::row::{TableLayout, has_pointers};
use pgrx::pg_sys;
use pgrx::prelude::*;

/// All entries of the key that the arguments name, newest first.
#[expect(
    clippy::type_complexity,
    reason = "the macro wants the columns spelled out"
)]
#[pg_extern(sql = false, name = "rowref_versions")]
fn rowref_versions(
    relation: pg_sys::Oid,
    fcinfo: pg_sys::FunctionCallInfo,
) -> TableIterator<
    'static,
    (
        name!(sequence, Option<i64>),
        name!(kind, &'static str),
        name!(xmin, pg_sys::TransactionId),
        name!(cid, Option<i64>),
        name!(flags, Vec<&'static str>),
        name!(strength, Option<&'static str>),
        name!(bytes, i32),
        name!(stored_values, bool),
        name!(moved_to, Option<String>),
        name!(block, i64),
    ),
> {
    let opened = Opened::beside_writers(relation);
    // SAFETY: open until `close`; the arguments are those of this call.
    let (store, key) = unsafe {
        let store = opened.versions();
        let values = key_arguments(fcinfo);
        let key = store.layout().key_of(&values);
        (store, key.or_raise(opened.relation))
    };
    let Some(key) = key else {
        let hint = if store.layout().is_row_id() {
            "The table is organized by a hidden row id: give that number."
        } else {
            "Give a value for each column of the primary key, in its order; of an index, its \
             key columns and then those of the primary key."
        };
        pg::error::raise_with(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "these values are no key of the relation".into(),
            None,
            Some(hint),
        )
    };
    // SAFETY: the relation is open.
    let entries = unsafe { store.with(|v| v.all_under(&key)).or_raise(opened.relation) };
    let rows: Vec<_> = entries
        .into_iter()
        .map(|entry| {
            let Standing { block, head, body } = &entry;
            let is_put = head.kind() == EntryKind::Put;
            (
                head.is_version().then_some(head.sequence.0 as i64),
                kind_name(head.kind()),
                pg_sys::TransactionId::from(head.xmin.0),
                command_of(*head),
                flag_names(*head),
                strength_of(&entry),
                body.len() as i32,
                is_put && has_pointers(body),
                moved_to(store.layout(), &entry),
                i64::from(block.0),
            )
        })
        .collect();
    drop(store);
    opened.close();
    TableIterator::new(rows)
}

/// The arguments behind the relation, with their types.
///
/// # Safety
/// `call` is the running call of a strict function.
unsafe fn key_arguments(call: pg_sys::FunctionCallInfo) -> Vec<(pg_sys::Oid, pg_sys::Datum)> {
    // SAFETY: a call has `nargs` arguments.
    unsafe {
        if pg_sys::get_fn_expr_variadic((*call).flinfo) {
            pg::error::unsupported(
                "a key given as an array",
                "Give the values of the key one by one, without VARIADIC.",
            );
        }
        let count = usize::try_from((*call).nargs).unwrap_or(0);
        let arguments = (*call).args.as_slice(count);
        (1..count)
            .map(|nth| {
                let type_oid = pg_sys::get_fn_expr_argtype((*call).flinfo, nth as i32);
                (type_oid, arguments[nth].value)
            })
            .collect()
    }
}

/// The strength of a row lock, as SQL names it.
fn strength_of(entry: &Standing) -> Option<&'static str> {
    if entry.head.kind() != EntryKind::Lock {
        return None;
    }
    Some(match Strength::from_number(*entry.body.first()?)? {
        Strength::KeyShare => "FOR KEY SHARE",
        Strength::Share => "FOR SHARE",
        Strength::NoKeyExclusive => "FOR NO KEY UPDATE",
        Strength::Exclusive => "FOR UPDATE",
    })
}

/// Where a row went whose key was changed.
fn moved_to(layout: &TableLayout, entry: &Standing) -> Option<String> {
    if entry.head.kind() != EntryKind::Moved {
        return None;
    }
    let target = VersionId::decode(&entry.body)?;
    let key = layout.describe_key(target.key).ok()?;
    Some(format!("{key} sequence {}", target.sequence.0))
}
