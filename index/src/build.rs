//! `CREATE INDEX`: the primary key of a table of ours organizes the table;
//! everything else is refused, for now.

use pg::error::unsupported;
use pg::organize;
use pgrx::pg_sys;

/// What an index is that we do not build.
struct Refusal {
    feature: &'static str,
    hint: &'static str,
}

const SECONDARY_HINT: &str =
    "Secondary indexes come with a later release. Keep only the primary key, or use a heap table.";

/// Organizes the table by its new primary key and returns how many rows it has.
///
/// # Safety
/// Both relations are open and locked as for an index build.
pub unsafe fn organize(table: pg_sys::Relation, index: pg_sys::Relation) -> f64 {
    // SAFETY: the caller's promise.
    unsafe {
        if let Some(refusal) = refusal(table, index) {
            unsupported(refusal.feature, refusal.hint);
        }
        organize::call(table, index)
    }
}

/// # Safety
/// Both relations are open.
unsafe fn refusal(table: pg_sys::Relation, index: pg_sys::Relation) -> Option<Refusal> {
    // SAFETY: an open index has its pg_index row at hand, and in it lists of
    // as many columns as it says.
    let (ours, form, expressions, predicate) = unsafe {
        let form = &*(*index).rd_index;
        let expressions = form
            .indkey
            .values
            .as_slice(usize::try_from(form.indnatts).unwrap_or(0))
            .contains(&0);
        let predicate = pg_sys::RelationGetIndexPredicate(index);
        (
            organize::owns(table),
            form,
            expressions,
            !predicate.is_null(),
        )
    };
    if !ours {
        return Some(Refusal {
            feature: "indexes of access method \"rowref\" on heap tables",
            hint: "Use a btree index, or create the table USING iot.",
        });
    }
    if expressions {
        return Some(Refusal {
            feature: "indexes on expressions of index-organized tables",
            hint: SECONDARY_HINT,
        });
    }
    if predicate {
        return Some(Refusal {
            feature: "partial indexes on index-organized tables",
            hint: SECONDARY_HINT,
        });
    }
    if !form.indisprimary {
        return Some(Refusal {
            feature: if form.indisexclusion {
                "exclusion constraints on index-organized tables"
            } else if form.indisunique {
                "unique indexes on index-organized tables other than the primary key"
            } else {
                "secondary indexes on index-organized tables"
            },
            hint: SECONDARY_HINT,
        });
    }
    if !form.indimmediate {
        return Some(Refusal {
            feature: "deferrable primary keys on index-organized tables",
            hint: "Declare the primary key NOT DEFERRABLE, or use a heap table.",
        });
    }
    if form.indnkeyatts != form.indnatts {
        return Some(Refusal {
            feature: "INCLUDE columns in the primary key of an index-organized table",
            hint: "Leave INCLUDE out: the primary key of such a table has every column at hand.",
        });
    }
    None
}
