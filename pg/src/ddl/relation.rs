//! What can be asked of a relation by its oid.

use std::cell::Cell;
use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::pg_guard;
use pgrx::pg_sys;

use crate::list::oids;

/// Our table access methods. There are never more than these two.
static TABLE_AMS: [AtomicPtr<pg_sys::TableAmRoutine>; 2] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; 2];

/// Makes a table AM known as ours; to be called from `_PG_init`.
pub fn register_table_am(routine: &'static pg_sys::TableAmRoutine) {
    let routine = std::ptr::from_ref(routine).cast_mut();
    let known = |place: &AtomicPtr<_>| place.load(Ordering::Relaxed) == routine;
    if TABLE_AMS.iter().any(known) {
        return;
    }
    let free = TABLE_AMS
        .iter()
        .find(|place| place.load(Ordering::Relaxed).is_null());
    free.expect("there are no more table AMs than places")
        .store(routine, Ordering::Relaxed);
}

/// Whether an open relation is a table of ours.
///
/// # Safety
/// `relation` is open.
pub unsafe fn is_ours(relation: pg_sys::Relation) -> bool {
    // SAFETY: the caller's promise.
    is_our_routine(unsafe { (*relation).rd_tableam })
}

/// Whether an access method is one of our table AMs.
pub(super) fn is_our_table_am(access_method: pg_sys::Oid) -> bool {
    am_handler(access_method)
        // SAFETY: the handler of a table access method, which returns a routine.
        .is_some_and(|handler| is_our_routine(unsafe { pg_sys::GetTableAmRoutine(handler) }))
}

/// The handler function of an access method.
pub(super) fn am_handler(access_method: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up; the row is pinned while it is read.
    unsafe {
        let row = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::AMOID as std::ffi::c_int,
            access_method.into(),
        );
        if row.is_null() {
            return None;
        }
        let header = (*row).t_data.cast::<u8>();
        let form = header.add(usize::from((*(*row).t_data).t_hoff));
        let handler = (*form.cast::<pg_sys::FormData_pg_am>()).amhandler;
        pg_sys::ReleaseSysCache(row);
        Some(handler)
    }
}

fn is_our_routine(routine: *const pg_sys::TableAmRoutine) -> bool {
    !routine.is_null()
        && TABLE_AMS
            .iter()
            .any(|place| place.load(Ordering::Relaxed).cast_const() == routine)
}

/// The indexes of a relation that the caller's statement has locked.
pub(super) fn indexes_of(relation: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    ask(relation, |open| {
        // SAFETY: an open relation; the list is a copy, of oids.
        unsafe { oids(pg_sys::RelationGetIndexList(open)) }.collect()
    })
    .unwrap_or_default()
}

/// Asks something of a relation that the caller's statement has locked, or of
/// one that may be gone (then `None`).
fn ask<R>(relation: pg_sys::Oid, question: impl FnOnce(pg_sys::Relation) -> R) -> Option<R> {
    // SAFETY: the relcache returns null for what is not there; what it returns
    // is open until it is closed.
    unsafe {
        let open = pg_sys::RelationIdGetRelation(relation);
        if open.is_null() {
            return None;
        }
        let answer = question(open);
        pg_sys::RelationClose(open);
        Some(answer)
    }
}

/// Asks something of a table that the caller's statement has locked, if it is
/// one of ours.
pub fn ask_ours<R>(table: pg_sys::Oid, question: impl FnOnce(pg_sys::Relation) -> R) -> Option<R> {
    // SAFETY: `ask` passes an open relation.
    ask(table, |open| {
        unsafe { is_ours(open) }.then(|| question(open))
    })
    .flatten()
}

fn is_partitioned(relation: pg_sys::Relation) -> bool {
    // SAFETY: called on open relations only.
    unsafe { (*(*relation).rd_rel).relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE }
}

/// What the executor's hooks ask of each relation of each statement.
#[derive(Clone, Copy)]
struct Facts {
    is_ours: bool,
    is_partitioned: bool,
    fires_after_row: bool,
}

/// The last answer for some relations: where one lies in the array is decided
/// by its oid alone.
type Known = [(pg_sys::Oid, Facts); KNOWN];

const KNOWN: usize = 64;
const NOTHING: (pg_sys::Oid, Facts) = (
    pg_sys::Oid::INVALID,
    Facts {
        is_ours: false,
        is_partitioned: false,
        fires_after_row: false,
    },
);

thread_local! {
    static FACTS: Cell<Known> = const { Cell::new([NOTHING; KNOWN]) };
}

fn place_of(relation: pg_sys::Oid) -> usize {
    relation.to_u32() as usize % KNOWN
}

/// Has facts forgotten when the relation cache forgets what they came from.
///
/// # Safety
/// Called once, from `_PG_init`.
pub(super) unsafe fn install() {
    // SAFETY: a function that lives as long as the library.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(changed), pg_sys::Datum::null()) }
}

#[pg_guard]
unsafe extern "C-unwind" fn changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    FACTS.with(|facts| {
        if relation == pg_sys::Oid::INVALID {
            facts.set([NOTHING; KNOWN]);
        } else {
            facts.as_array_of_cells()[place_of(relation)].set(NOTHING);
        }
    });
}

/// The facts of a relation that the caller's statement has locked: as with the
/// relation cache, what was true when the lock was taken.
fn facts(relation: pg_sys::Oid) -> Option<Facts> {
    let place = place_of(relation);
    let (known, facts) = FACTS.with(|facts| facts.as_array_of_cells()[place].get());
    if known == relation {
        return Some(facts);
    }
    let facts = ask(relation, |open| {
        // SAFETY: the relation is open, its trigger description null or whole.
        let triggers = unsafe { (*open).trigdesc.as_ref() };
        Facts {
            // SAFETY: the relation is open.
            is_ours: unsafe { is_ours(open) },
            is_partitioned: is_partitioned(open),
            fires_after_row: triggers.is_some_and(|triggers| {
                triggers.trig_insert_after_row
                    || triggers.trig_update_after_row
                    || triggers.trig_delete_after_row
            }),
        }
    })?;
    // Opening it may have processed invalidations; what was read of it came
    // after those.
    FACTS.with(|all| all.as_array_of_cells()[place].set((relation, facts)));
    Some(facts)
}

/// Whether rows of the relation may be ours: it is a table of ours, or a
/// partitioned one, whose leaves may be.
pub fn may_hold_ours(relation: pg_sys::Oid) -> bool {
    facts(relation).is_some_and(|facts| facts.is_ours || facts.is_partitioned)
}

/// Whether the relation is a table of ours.
pub fn holds_ours(relation: pg_sys::Oid) -> bool {
    // SAFETY: `ask` passes an open relation.
    ask(relation, |open| unsafe { is_ours(open) }).unwrap_or(false)
}

/// Whether changes of the relation's rows may queue AFTER ROW triggers,
/// foreign keys and deferred constraints included. A partitioned table's
/// leaves may have triggers of their own.
pub fn may_fire_after_row(relation: pg_sys::Oid) -> bool {
    facts(relation).is_none_or(|facts| facts.is_partitioned || facts.fires_after_row)
}
