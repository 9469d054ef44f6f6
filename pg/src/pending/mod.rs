//! Entries of deleted rows that are ended a little later than their rows:
//! sorted, and leaf by leaf. Why nobody can see the gap is argued in `am`'s
//! README, section "Deletions of many rows"; what is collected here is settled
//! at the latest when the outermost run of the executor ends.
//!
//! The table AM collects; whoever is about to see what a collected entry says,
//! or to write where it stands, has it settled first.

mod endings;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use engine::mvcc::Writer;
use pgrx::pg_sys;

use crate::error::{self, OrRaise};
use crate::open::OpenIndex;
use crate::row::{self, IndexLayout};
use crate::store::file_number;
use crate::xact::{
    ServerSnapshot, SubtransactionEvent, TransactionEvent, is_serializable,
    on_subtransaction_event, on_transaction_event,
};
use endings::Endings;

/// Memory that may be collected in all, however large `work_mem` is, and however
/// many indexes there are.
const BYTES_MAX: usize = 64 << 20;

/// Emptied collections that are kept.
const SPARE_MAX: usize = 16;

/// One index that entries are collected of.
struct OfIndex {
    table: pg_sys::Oid,
    /// The file whose entries they are.
    file: u32,
    layout: Rc<IndexLayout>,
    endings: RefCell<Endings>,
}

struct Pending {
    /// By the index's oid.
    indexes: RefCell<BTreeMap<u32, Rc<OfIndex>>>,
    /// Bytes collected; none if and only if nothing is.
    bytes: Cell<usize>,
    /// Runs of the executor, one within the other.
    runs: Cell<u32>,
    /// Emptied collections, for the next statement.
    spare: RefCell<Vec<Endings>>,
    /// Forgotten by the end of a transaction, where nothing is freed that calls
    /// the server.
    retired: RefCell<Vec<Rc<OfIndex>>>,
    is_hooked: Cell<bool>,
}

thread_local! {
    // Leaked, so that nothing is torn down when the process exits.
    static PENDING: &'static Pending = Box::leak(Box::new(Pending {
        indexes: RefCell::default(),
        bytes: Cell::new(0),
        runs: Cell::new(0),
        spare: RefCell::default(),
        retired: RefCell::default(),
        is_hooked: Cell::new(false),
    }));
}

#[inline]
fn pending() -> &'static Pending {
    PENDING.with(|pending| *pending)
}

/// An index whose entries may be collected: one that holds every row that it
/// should, and is no EXCLUDE constraint's.
#[derive(Clone, Copy)]
pub struct PlainIndex<'i> {
    /// The index, locked to the end of the transaction.
    pub index: pg_sys::Oid,
    /// Its table, locked likewise.
    pub table: pg_sys::Oid,
    /// The file that it lies in ([`file_number`]).
    pub file: u32,
    /// What its entries are made of.
    pub layout: &'i Rc<IndexLayout>,
}

/// Whether entries are collected now: while the executor runs, whose end
/// settles them. A serializable transaction settles nothing late: what it
/// writes is set against what others have read when it is written.
#[inline]
pub fn is_open() -> bool {
    pending().runs.get() > 0 && !is_serializable()
}

/// Collects an entry of a row that this command has ended; `write` appends its
/// key.
///
/// # Safety
/// `is_open`; the index is open to no one who works on it right now; no page is
/// locked.
pub unsafe fn collect(
    of: PlainIndex<'_>,
    writer: Writer,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), row::Error>,
) -> Result<(), row::Error> {
    let pending = pending();
    hook(pending);
    if !pending.retired.borrow().is_empty() {
        let gone = pending.retired.take();
        drop(gone);
    }
    let found = pending.indexes.borrow().get(&of.index.to_u32()).cloned();
    let known = found.unwrap_or_else(|| {
        let known = Rc::new(OfIndex {
            table: of.table,
            file: of.file,
            layout: Rc::clone(of.layout),
            endings: RefCell::new(pending.spare.borrow_mut().pop().unwrap_or_default()),
        });
        let mut indexes = pending.indexes.borrow_mut();
        indexes.insert(of.index.to_u32(), Rc::clone(&known));
        known
    });
    assert_eq!(known.file, of.file, "new storage begins with nothing late");
    let bytes = {
        let mut endings = known.endings.borrow_mut();
        let before = endings.bytes();
        endings.push(writer, subtransaction, write)?;
        endings.bytes() - before
    };
    pending.bytes.set(pending.bytes.get() + bytes);
    let indexes = pending.indexes.borrow().len();
    if pending.bytes.get() >= limit_bytes(indexes) || !known.endings.borrow().has_room() {
        // SAFETY: the caller's promise.
        unsafe { settle_all() };
    }
    Ok(())
}

fn subtransaction() -> u32 {
    // SAFETY: called within a transaction.
    unsafe { pg_sys::GetCurrentSubTransactionId() }
}

/// Each index's entries are sorted, and a sort may use `work_mem`, as each of a
/// plan's may. What one index does not need is another's.
fn limit_bytes(indexes: usize) -> usize {
    // SAFETY: a plain variable of this backend.
    let kilobytes = unsafe { pg_sys::work_mem };
    let each = usize::try_from(kilobytes).unwrap_or(64) << 10;
    each.saturating_mul(indexes).min(BYTES_MAX)
}

/// Whether anything is collected.
#[inline]
pub fn is_any() -> bool {
    pending().bytes.get() > 0
}

/// Settles all that is collected.
///
/// # Safety
/// No page is locked.
#[inline]
pub unsafe fn settle_all() {
    if is_any() {
        // SAFETY: the caller's promise.
        unsafe { settle_each() };
    }
}

/// Settles what is collected of an index that somebody is about to write to.
///
/// # Safety
/// As [`settle_all`].
#[inline]
pub unsafe fn settle(index: pg_sys::Oid) {
    if is_any() {
        // SAFETY: the caller's promise.
        unsafe { settle_one(index.to_u32(), None) };
    }
}

/// Settles what is collected of an index that somebody is about to read, unless
/// the reader does not see those deletions yet.
///
/// # Safety
/// As [`settle_all`]; the snapshot is alive.
#[inline]
pub unsafe fn settle_for(index: pg_sys::Oid, snapshot: &ServerSnapshot<'_>) {
    if !is_any() {
        return;
    }
    let sees_before = match snapshot {
        // SAFETY: the caller's promise.
        ServerSnapshot::Mvcc(snapshot) => Some(unsafe { (*snapshot.as_pg()).curcid }),
        _ => None,
    };
    // SAFETY: the caller's promise.
    unsafe { settle_one(index.to_u32(), sees_before) };
}

#[cold]
unsafe fn settle_each() {
    loop {
        let first = pending().indexes.borrow().keys().next().copied();
        let Some(index) = first else {
            return;
        };
        // SAFETY: the caller's promise.
        unsafe { settle_one(index, None) };
    }
}

/// What a settling has taken out. However it ends, what is left is put back: an
/// ERROR may be the end of a subtransaction that is not theirs.
struct Taken {
    index: u32,
    of: Rc<OfIndex>,
    endings: Endings,
    settled: Cell<usize>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let pending = pending();
        let mut rest = std::mem::take(&mut self.endings);
        let had = rest.bytes();
        rest.forget_first(self.settled.get());
        let left = if rest.is_empty() {
            rest.clear();
            pending.spare.borrow_mut().push(rest);
            0
        } else {
            let mut endings = self.of.endings.borrow_mut();
            let before = endings.bytes();
            endings.absorb(&rest);
            let mut indexes = pending.indexes.borrow_mut();
            indexes.insert(self.index, Rc::clone(&self.of));
            endings.bytes() - before
        };
        pending.bytes.set(pending.bytes.get() - had + left);
    }
}

/// Writes the tombstones of one index, if a snapshot sees any of them: one that
/// sees its own commands before `sees_before`.
unsafe fn settle_one(index: u32, sees_before: Option<u32>) {
    let pending = pending();
    let Some(of) = pending.indexes.borrow().get(&index).cloned() else {
        return;
    };
    if let Some(limit) = sees_before
        && of
            .endings
            .borrow()
            .first_command()
            .is_none_or(|first| first >= limit)
    {
        return;
    }
    pending.indexes.borrow_mut().remove(&index);
    let endings = of.endings.take();
    let mut taken = Taken {
        index,
        of,
        endings,
        settled: Cell::new(0),
    };
    taken.endings.sort(&**taken.of.layout.layout());
    // SAFETY: both are locked to the transaction's end; after an ERROR the
    // server closes what is open.
    unsafe {
        let table = pg_sys::RelationIdGetRelation(taken.of.table);
        let relation = pg_sys::RelationIdGetRelation(index.into());
        assert!(
            !table.is_null() && !relation.is_null(),
            "a locked relation is there"
        );
        assert_eq!(
            file_number(relation),
            taken.of.file,
            "what is late is settled before an index gets new storage"
        );
        let open = OpenIndex::open(relation, table).expect("a stored index stays one while locked");
        let count = taken.endings.len();
        let ended = open
            .store()
            .with(|versions| {
                versions.end_index_entries(
                    count,
                    |nth| taken.endings.ending(nth),
                    |done| taken.settled.set(done),
                )
            })
            .or_raise(relation);
        if ended < count {
            error::entry_is_missing(table, relation);
        }
        drop(open);
        pg_sys::RelationClose(relation);
        pg_sys::RelationClose(table);
    }
}

/// A run of the executor, which has begun.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    before: u32,
}

/// Notes that a run of the executor begins. Processes that it starts see what
/// this one has written, and not what it has collected.
///
/// # Safety
/// As [`settle_all`].
pub(crate) unsafe fn begin_run(is_parallel: bool) -> Run {
    if is_parallel {
        // SAFETY: the caller's promise.
        unsafe { settle_all() };
    }
    let runs = &pending().runs;
    let before = runs.get();
    runs.set(before + 1);
    Run { before }
}

impl Run {
    /// Notes that the run is over, however it ended.
    pub(crate) fn end(self) {
        pending().runs.set(self.before);
    }

    /// Behind a run that succeeded: settles what is collected, if it was the
    /// outermost one.
    ///
    /// # Safety
    /// As [`settle_all`].
    pub(crate) unsafe fn settle(self) {
        if self.before == 0 {
            // SAFETY: the caller's promise.
            unsafe { settle_all() };
        }
    }
}

/// Has what is collected forgotten with the transaction that collected it.
fn hook(pending: &Pending) {
    if pending.is_hooked.replace(true) {
        return;
    }
    on_transaction_event(|event| {
        if event == TransactionEvent::PreCommit {
            assert!(!is_any(), "what is late is settled by the run's end");
        }
        if event.is_end() {
            forget();
        }
    });
    on_subtransaction_event(|event, mine, _| {
        if event == SubtransactionEvent::Abort {
            roll_back(mine);
        }
    });
}

fn forget() {
    let pending = self::pending();
    let all = std::mem::take(&mut *pending.indexes.borrow_mut());
    pending.retired.borrow_mut().extend(all.into_values());
    pending.bytes.set(0);
    pending.runs.set(0);
    pending.spare.borrow_mut().truncate(SPARE_MAX);
}

fn roll_back(subtransaction: u32) {
    if !is_any() {
        return;
    }
    let pending = pending();
    let mut bytes = 0;
    pending.indexes.borrow_mut().retain(|_, of| {
        let mut endings = of.endings.borrow_mut();
        endings.roll_back(subtransaction);
        bytes += endings.bytes();
        if endings.is_empty() {
            pending.retired.borrow_mut().push(Rc::clone(of));
        }
        !endings.is_empty()
    });
    pending.bytes.set(bytes);
}
