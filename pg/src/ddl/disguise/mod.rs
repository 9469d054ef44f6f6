//! Indexes of ours that read as B-trees while a utility command runs.
//!
//! `README.md` beside the folder ("The disguise") says which commands need it
//! and why it is safe.

mod commands;
mod name;

pub(super) use commands::for_command;

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString};
use std::ptr;

use pgrx::pg_guard;
use pgrx::pg_sys;

use self::name::NameDisguise;
use super::catalog::{index_am_oid, index_of_constraint, name_of};
use super::relation::indexes_of;
use super::switch;
use crate::hook;

thread_local! {
    /// The pinned relcache entries in disguise, in the order in which they put
    /// it on; null for one whose index was dropped meanwhile.
    static WORN: RefCell<Vec<pg_sys::Relation>> = const { RefCell::new(Vec::new()) };
    /// Entries below this one show what they are, because a query is being
    /// planned inside of the commands that they wear it for.
    static FLOOR: Cell<usize> = const { Cell::new(0) };
    /// Indexes that constraints will be made of, by table and name: each wears
    /// the disguise from when it is made, should the command make it anew, until
    /// its constraint is there.
    static AWAITED: RefCell<Vec<(pg_sys::Oid, CString)>> = const { RefCell::new(Vec::new()) };
    /// The access method to go back to. The same one for all of a database.
    static ROWREF: Cell<pg_sys::Oid> = const { Cell::new(pg_sys::Oid::INVALID) };
}

static mut PREVIOUS: pg_sys::planner_hook_type = None;

/// # Safety
/// Called once, from `_PG_init`.
pub(super) unsafe fn install() {
    // SAFETY: single-threaded start-up; the functions live as long as the
    // library, which the server never unloads.
    unsafe {
        PREVIOUS = pg_sys::planner_hook;
        pg_sys::planner_hook = Some(planner);
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::null());
    }
}

fn show(index: pg_sys::Relation, access_method: pg_sys::Oid) {
    if !index.is_null() {
        // SAFETY: the list holds pinned entries and nulls only. The row is
        // this backend's copy; nothing writes it back to the catalog.
        unsafe { (*(*index).rd_rel).relam = access_method }
    }
}

/// What one command wears: its indexes, from a place in the list on, and the
/// name of the access method. Owns nothing (`hook` says why); [`during`] takes
/// it off.
#[derive(Clone, Copy)]
pub(super) struct Disguise {
    from: usize,
    awaited_from: usize,
    name: Option<NameDisguise>,
}

impl Disguise {
    fn take_off(self) {
        if let Some(name) = self.name {
            name.take_off();
        }
        AWAITED.with_borrow_mut(|awaited| awaited.truncate(self.awaited_from));
        let own = WORN.with_borrow_mut(|worn| worn.split_off(self.from.min(worn.len())));
        WORN.with_borrow(|worn| {
            let still = &worn[FLOOR.get().min(worn.len())..];
            for index in own {
                if !still.contains(&index) {
                    show(index, ROWREF.get());
                }
            }
        });
    }

    /// Takes it off and releases the pins.
    ///
    /// # Safety
    /// Called once, by the command that put it on and hence under the same
    /// resource owner.
    unsafe fn unpin(self) {
        let pinned = WORN.with_borrow(|worn| worn[self.from.min(worn.len())..].to_vec());
        self.take_off();
        // SAFETY: pinned by `Dressing`, and not looked at again.
        unsafe {
            for index in pinned.into_iter().filter(|index| !index.is_null()) {
                pg_sys::RelationClose(index);
            }
            if let Some(name) = self.name {
                name.unpin();
            }
        }
    }
}

/// Runs a command in disguise. It may raise errors past its frame, as [`hook`]
/// wants it. After one the pins are left to whoever catches it and releases the
/// command's resources; the entries are in their places until then.
///
/// # Safety
/// As [`hook::finally`]'s.
pub(super) unsafe fn during(disguise: Disguise, work: impl FnOnce()) {
    // SAFETY: the caller's promise.
    unsafe {
        let is_done = Cell::new(false);
        let is_done = &is_done;
        let done = || {
            work();
            is_done.set(true);
        };
        hook::finally(done, move || {
            if is_done.get() {
                disguise.unpin();
            } else {
                disguise.take_off();
            }
        });
    }
}

/// Runs `work` while the indexes of a table read as B-trees, with errors as
/// [`during`] has them.
///
/// # Safety
/// The caller holds a lock on the table; else as [`during`]'s.
pub(crate) unsafe fn while_disguised(table: pg_sys::Oid, work: impl FnOnce()) {
    let Some(rowref) = index_am_oid() else {
        return work();
    };
    // SAFETY: the caller's promise.
    unsafe {
        let mut dressing = Dressing::begin(rowref);
        dressing.add_indexes_of(table);
        during(dressing.finish(), work);
    }
}

/// A disguise that is being put on, and comes off again if that fails.
struct Dressing(Disguise);

impl Drop for Dressing {
    fn drop(&mut self) {
        self.0.take_off();
    }
}

impl Dressing {
    fn begin(rowref: pg_sys::Oid) -> Dressing {
        ROWREF.set(rowref);
        Dressing(Disguise {
            from: WORN.with_borrow(Vec::len),
            awaited_from: AWAITED.with_borrow(Vec::len),
            name: None,
        })
    }

    fn finish(self) -> Disguise {
        let disguise = self.0;
        std::mem::forget(self);
        disguise
    }

    /// Disguises every index of ours that a table has.
    ///
    /// # Safety
    /// The caller holds a lock on the table that keeps its indexes as they are.
    unsafe fn add_indexes_of(&mut self, table: pg_sys::Oid) {
        for index in indexes_of(table) {
            // SAFETY: the caller's promise.
            unsafe { self.add(index) }
        }
    }

    /// Disguises an index if it is one of ours.
    ///
    /// # Safety
    /// The caller holds a lock on the index or on its table.
    unsafe fn add(&mut self, index: pg_sys::Oid) {
        // SAFETY: the pin keeps the entry where it is, through invalidations
        // as well.
        unsafe {
            let open = pg_sys::RelationIdGetRelation(index);
            if open.is_null() {
                return;
            }
            // One that wears it already, for a command around this one, wears
            // it for this one too.
            let is_ours = (*(*open).rd_rel).relam == ROWREF.get()
                || WORN.with_borrow(|worn| worn.contains(&open));
            if !is_ours {
                pg_sys::RelationClose(open);
                return;
            }
            WORN.with_borrow_mut(|worn| worn.push(open));
            show(open, pg_sys::BTREE_AM_OID);
        }
    }

    /// Disguises the index of this name that a table has, or will have.
    ///
    /// # Safety
    /// The caller holds a lock on the table that keeps its indexes as they are.
    unsafe fn await_index(&mut self, table: pg_sys::Oid, name: &CStr) {
        for index in indexes_of(table) {
            // SAFETY: the caller's promise.
            unsafe {
                if is_named(index, name) {
                    self.add(index);
                }
            }
        }
        AWAITED.with_borrow_mut(|awaited| awaited.push((table, name.to_owned())));
    }

    /// Has the name of the access method read "btree".
    fn add_name(&mut self) {
        self.0.name = NameDisguise::put_on(ROWREF.get());
    }
}

/// Whether a relation has this name.
unsafe fn is_named(relation: pg_sys::Oid, name: &CStr) -> bool {
    // SAFETY: a catalog look-up, whose answer is a copy, null if there is none.
    unsafe {
        let found = pg_sys::get_rel_name(relation);
        !found.is_null() && CStr::from_ptr(found) == name
    }
}

/// An index has been made, but for its entries: it may be an awaited one.
pub(super) fn index_comes(index: pg_sys::Oid, table: pg_sys::Oid) {
    if AWAITED.with_borrow(Vec::is_empty) {
        return;
    }
    let Some(name) = name_of(index) else { return };
    let is_awaited = AWAITED.with_borrow(|awaited| awaited.contains(&(table, name)));
    if !is_awaited {
        return;
    }
    // SAFETY: the command at work has the index open, and its table locked.
    unsafe {
        let open = pg_sys::RelationIdGetRelation(index);
        if !open.is_null() {
            WORN.with_borrow_mut(|worn| worn.push(open));
        }
    }
}

/// A constraint has been made. If it was made of an awaited index, that shows
/// what it is again: a table's rewrite builds its indexes anew, which core
/// refuses for one that is pinned.
pub(super) fn constraint_comes(constraint: pg_sys::Oid) {
    if AWAITED.with_borrow(Vec::is_empty) {
        return;
    }
    if let Some(index) = index_of_constraint(constraint) {
        index_goes(index);
    }
}

/// An index is about to be dropped, which core refuses for one that is pinned.
pub(super) fn index_goes(index: pg_sys::Oid) {
    let pinned = WORN.with_borrow_mut(|worn| {
        let is_it = |open: pg_sys::Relation| {
            // SAFETY: the list holds pinned entries and nulls only.
            !open.is_null() && unsafe { (*open).rd_id } == index
        };
        let pinned: Vec<_> = worn.iter().copied().filter(|open| is_it(*open)).collect();
        worn.iter_mut()
            .filter(|open| is_it(**open))
            .for_each(|open| *open = ptr::null_mut());
        pinned
    });
    for open in pinned {
        show(open, ROWREF.get());
        // SAFETY: pinned by `add`; the entry is not looked at again.
        unsafe { pg_sys::RelationClose(open) }
    }
}

/// An invalidated entry that is pinned has been read from the catalog again.
#[pg_guard]
unsafe extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    WORN.with_borrow(|worn| {
        for open in &worn[FLOOR.get().min(worn.len())..] {
            // SAFETY: the list holds pinned entries and nulls only.
            let is_it = relation == pg_sys::Oid::INVALID
                || (!open.is_null() && unsafe { (**open).rd_id } == relation);
            if is_it {
                show(*open, pg_sys::BTREE_AM_OID);
            }
        }
    });
}

/// The planner reads the metapage of what it takes for a B-tree, so while it
/// works every index shows what it is.
#[pg_guard]
unsafe extern "C-unwind" fn planner(
    query: *mut pg_sys::Query,
    text: *const std::ffi::c_char,
    options: std::ffi::c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    switch::look_again();
    // SAFETY: the server's arguments, handed on; no frame here owns anything.
    unsafe {
        let next = || match PREVIOUS {
            Some(previous) => previous(query, text, options, parameters),
            None => hook::standard_planner(query, text, options, parameters),
        };
        let floor = FLOOR.get();
        if WORN.with_borrow(|worn| worn.len() <= floor) {
            return next();
        }
        FLOOR.set(WORN.with_borrow(Vec::len));
        show_from(floor, ROWREF.get());
        hook::finally(next, move || {
            FLOOR.set(floor);
            show_from(floor, pg_sys::BTREE_AM_OID);
        })
    }
}

fn show_from(floor: usize, access_method: pg_sys::Oid) {
    WORN.with_borrow(|worn| {
        for index in &worn[floor.min(worn.len())..] {
            show(*index, access_method);
        }
    });
}
