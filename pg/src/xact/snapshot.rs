//! The server's snapshots, each a judge of versions.
//!
//! A version that carries a hint or is frozen is judged without a call to the
//! server wherever the snapshot's limits decide.

use std::cell::Cell;
use std::marker::PhantomData;

use engine::Xid;
use engine::mvcc::{Judgement, Sight, Snapshot, Transactions, XidStatus};
use engine::page::cell::{EntryKind, Head, bit};
use pgrx::pg_sys::{self, ffi::pg_guard_ffi_boundary as guarded};

use super::{ServerTransactions, from_server, is_serializable, to_server};
use crate::conflict;
use crate::error;
use crate::ffi;

/// Any snapshot that the server may hand to a scan.
pub enum ServerSnapshot<'s> {
    /// Of a statement or transaction.
    Mvcc(MvccSnapshot<'s>),
    /// What has committed, or is our own, now.
    Own(SelfSnapshot),
    /// Everything.
    Any(AnySnapshot),
    /// As `Own`, and what others are about to do.
    Dirty(DirtySnapshot<'s>),
    /// What is not dead to everybody.
    NonVacuumable(NonVacuumableSnapshot<'s>),
}

impl<'s> ServerSnapshot<'s> {
    /// The judge for a snapshot on rows of `relation`.
    ///
    /// # Safety
    /// Both outlive `'s`, as a scan's do.
    pub unsafe fn from_pg(
        snapshot: pg_sys::Snapshot,
        relation: pg_sys::Relation,
    ) -> ServerSnapshot<'s> {
        use pg_sys::SnapshotType::*;
        // SAFETY: the caller's promise.
        unsafe {
            match (*snapshot).snapshot_type {
                SNAPSHOT_MVCC => ServerSnapshot::Mvcc(MvccSnapshot::new(snapshot)),
                SNAPSHOT_SELF | SNAPSHOT_TOAST => {
                    ServerSnapshot::Own(SelfSnapshot(ServerTransactions::new(relation)))
                }
                SNAPSHOT_ANY => ServerSnapshot::Any(AnySnapshot),
                SNAPSHOT_DIRTY => ServerSnapshot::Dirty(DirtySnapshot::new(snapshot, relation)),
                SNAPSHOT_NON_VACUUMABLE => {
                    ServerSnapshot::NonVacuumable(NonVacuumableSnapshot::new(snapshot, relation))
                }
                _ => error::unsupported(
                    "logical decoding of this kind of table",
                    "Keep tables that logical decoding has to read in heap.",
                ),
            }
        }
    }
}

impl Snapshot for ServerSnapshot<'_> {
    #[inline]
    fn judge(&self, version: Head) -> Judgement {
        match self {
            ServerSnapshot::Mvcc(snapshot) => snapshot.judge(version),
            ServerSnapshot::Own(snapshot) => snapshot.judge(version),
            ServerSnapshot::Any(snapshot) => snapshot.judge(version),
            ServerSnapshot::Dirty(snapshot) => snapshot.judge(version),
            ServerSnapshot::NonVacuumable(snapshot) => snapshot.judge(version),
        }
    }

    #[inline]
    fn is_stable(&self) -> bool {
        matches!(self, ServerSnapshot::Mvcc(_))
    }

    #[inline]
    fn is_tracked(&self) -> bool {
        matches!(self, ServerSnapshot::Mvcc(snapshot) if snapshot.is_tracked)
    }
}

/// What a snapshot makes of a writer that is not us.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    InSnapshot,
    Committed,
    Aborted,
}

/// A snapshot of a statement or transaction.
pub struct MvccSnapshot<'s> {
    snapshot: pg_sys::Snapshot,
    xmin: Xid,
    xmax: Xid,
    /// The last writer asked about. Under one snapshot the answer stands.
    last: Cell<(Xid, Writer)>,
    /// Whether reads under it are told to the store (rule 22).
    is_tracked: bool,
    borrowed: PhantomData<&'s ()>,
}

impl MvccSnapshot<'_> {
    /// # Safety
    /// An MVCC snapshot that outlives this.
    pub unsafe fn new(snapshot: pg_sys::Snapshot) -> Self {
        // SAFETY: the caller's promise.
        let (xmin, xmax) = unsafe { ((*snapshot).xmin, (*snapshot).xmax) };
        MvccSnapshot {
            snapshot,
            xmin: from_server(xmin),
            xmax: from_server(xmax),
            last: Cell::new((Xid::NONE, Writer::Aborted)),
            is_tracked: is_serializable(),
            borrowed: PhantomData,
        }
    }

    /// The server's snapshot.
    pub fn as_pg(&self) -> pg_sys::Snapshot {
        self.snapshot
    }

    /// `None` for our own transaction.
    #[cold]
    fn ask(&self, xid: Xid) -> Option<Writer> {
        let (last, writer) = self.last.get();
        if last == xid {
            return Some(writer);
        }
        // SAFETY: the snapshot is alive.
        let answer =
            unsafe { guarded(|| ffi::rowref_xid_in_snapshot(to_server(xid), self.snapshot)) };
        let writer = match answer {
            // Not kept: a subtransaction of ours may yet abort.
            0 => return None,
            1 => Writer::InSnapshot,
            2 => Writer::Committed,
            _ => Writer::Aborted,
        };
        self.last.set((xid, writer));
        Some(writer)
    }

    #[inline]
    fn judge_own(&self, version: Head) -> Judgement {
        // The field is read through the pointer: the server moves a pushed
        // snapshot's command on in place.
        // SAFETY: the snapshot is alive.
        let current = unsafe { (*self.snapshot).curcid };
        Judgement::known(if version.cid.0 < current {
            Sight::Seen
        } else {
            Sight::TooNew
        })
    }
}

impl Snapshot for MvccSnapshot<'_> {
    #[inline]
    fn judge(&self, version: Head) -> Judgement {
        if version.has(bit::FROZEN) {
            return Judgement::known(Sight::Seen);
        }
        if version.has(bit::ABORTED) {
            return Judgement::known(Sight::Aborted);
        }
        let hinted = version.has(bit::COMMITTED);
        if hinted {
            if version.xmin.precedes(self.xmin) {
                return Judgement::known(Sight::Seen);
            }
            if !version.xmin.precedes(self.xmax) {
                return Judgement::known(Sight::TooNew);
            }
        }
        match self.ask(version.xmin) {
            None => self.judge_own(version),
            Some(Writer::InSnapshot) => Judgement::known(Sight::TooNew),
            Some(Writer::Committed) => Judgement {
                sight: Sight::Seen,
                learned: (!hinted).then_some(true),
            },
            Some(Writer::Aborted) => Judgement {
                sight: Sight::Aborted,
                learned: Some(false),
            },
        }
    }

    #[inline]
    fn is_tracked(&self) -> bool {
        self.is_tracked
    }
}

/// How a writer stands now, and what that teaches.
#[inline]
fn stands(version: Head, transactions: &ServerTransactions) -> (XidStatus, Option<bool>) {
    if version.flags & (bit::FROZEN | bit::COMMITTED) != 0 {
        return (XidStatus::Committed, None);
    }
    if version.has(bit::ABORTED) {
        return (XidStatus::Aborted, None);
    }
    match transactions.status(version.xmin) {
        XidStatus::Committed => (XidStatus::Committed, Some(true)),
        XidStatus::Aborted => (XidStatus::Aborted, Some(false)),
        running => (running, None),
    }
}

/// What has committed, or was written by our own transaction, whichever the
/// command.
pub struct SelfSnapshot(ServerTransactions);

impl SelfSnapshot {
    /// # Safety
    /// `relation` stays open for as long as this lives.
    pub unsafe fn new(relation: pg_sys::Relation) -> SelfSnapshot {
        // SAFETY: the caller's promise.
        SelfSnapshot(unsafe { ServerTransactions::new(relation) })
    }
}

impl Snapshot for SelfSnapshot {
    fn judge(&self, version: Head) -> Judgement {
        let (status, learned) = stands(version, &self.0);
        let sight = match status {
            XidStatus::Own | XidStatus::Committed => Sight::Seen,
            XidStatus::InProgress => Sight::TooNew,
            XidStatus::Aborted => Sight::Aborted,
        };
        Judgement { sight, learned }
    }

    fn is_stable(&self) -> bool {
        false
    }
}

/// Everything: the newest version of a key, however its writer stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnySnapshot;

impl Snapshot for AnySnapshot {
    #[inline]
    fn judge(&self, _version: Head) -> Judgement {
        Judgement::known(Sight::Seen)
    }

    fn is_stable(&self) -> bool {
        false
    }
}

/// What a dirty snapshot found running, for its user to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyReport {
    /// The writer of the row, if it still runs.
    pub inserter: Xid,
    /// Who is about to delete it or has updated it away.
    pub deleter: Xid,
    /// The row is a speculative insertion under this token: its user waits for
    /// that instead of the inserter (rule 16). Zero if it is none.
    pub token: u32,
}

/// What has committed or is our own, and what others are about to do: a row
/// that is being inserted is seen, and so is one that is being deleted. Who
/// does it is put into the server's snapshot, as its users expect, with each
/// version that is seen.
///
/// Heap shows the old and the new version of a row that is being updated. This
/// shows the new one, with its writer as `xmin`: whoever looks for a key, waits
/// for the writer and looks again comes to the same end. Who looks for a row by
/// other columns has to see the old one as well and asks for it
/// ([`DirtySnapshot::look_beneath`]), or it would not know whom to wait for.
pub struct DirtySnapshot<'s> {
    snapshot: pg_sys::Snapshot,
    transactions: ServerTransactions,
    /// The running writer of a tombstone just passed over: the deleter of the
    /// next version to be seen, which is its key's.
    deleter: Cell<Xid>,
    report: Cell<DirtyReport>,
    /// Whether versions of running writers are passed over.
    beneath: Cell<bool>,
    borrowed: PhantomData<&'s ()>,
}

impl DirtySnapshot<'_> {
    /// # Safety
    /// A dirty snapshot and an open relation, both of which outlive this.
    pub unsafe fn new(snapshot: pg_sys::Snapshot, relation: pg_sys::Relation) -> Self {
        let snapshot = DirtySnapshot {
            snapshot,
            // SAFETY: the caller's promise.
            transactions: unsafe { ServerTransactions::new(relation) },
            deleter: Cell::new(Xid::NONE),
            report: Cell::new(Self::NOTHING),
            beneath: Cell::new(false),
            borrowed: PhantomData,
        };
        snapshot.tell(Self::NOTHING);
        snapshot
    }

    const NOTHING: DirtyReport = DirtyReport {
        inserter: Xid::NONE,
        deleter: Xid::NONE,
        token: 0,
    };

    /// What was found with the version seen last.
    pub fn report(&self) -> DirtyReport {
        self.report.get()
    }

    /// Forgets what was found: for the start of another key.
    pub fn reset(&self) {
        self.beneath.set(false);
        self.deleter.set(Xid::NONE);
        self.tell(Self::NOTHING);
    }

    /// Forgets what was found, and until the next reset takes a running update
    /// for the deletion of the version beneath it.
    pub fn look_beneath(&self) {
        self.reset();
        self.beneath.set(true);
    }

    fn tell(&self, report: DirtyReport) {
        self.report.set(report);
        // SAFETY: the snapshot is alive, and this session's.
        unsafe {
            (*self.snapshot).xmin = to_server(report.inserter);
            (*self.snapshot).xmax = to_server(report.deleter);
            (*self.snapshot).speculativeToken = report.token;
        }
    }
}

impl Snapshot for DirtySnapshot<'_> {
    fn judge(&self, version: Head) -> Judgement {
        let (status, learned) = stands(version, &self.transactions);
        let sight = match status {
            XidStatus::Aborted => Sight::Aborted,
            XidStatus::InProgress if version.kind() != EntryKind::Put || self.beneath.get() => {
                // The newest deleter is the one to wait for.
                if self.deleter.get() == Xid::NONE {
                    self.deleter.set(version.xmin);
                }
                Sight::TooNew
            }
            running_or_done => {
                let running = running_or_done == XidStatus::InProgress;
                let token = (running && version.has(bit::SPECULATIVE))
                    .then(|| conflict::token_of(version.xmin))
                    .flatten();
                self.tell(DirtyReport {
                    inserter: if running { version.xmin } else { Xid::NONE },
                    deleter: self.deleter.take_none(),
                    token: token.unwrap_or(0),
                });
                Sight::Seen
            }
        };
        Judgement { sight, learned }
    }

    fn is_stable(&self) -> bool {
        false
    }
}

/// `Cell::take` for an xid, whose nothing is [`Xid::NONE`].
trait TakeNone {
    fn take_none(&self) -> Xid;
}

impl TakeNone for Cell<Xid> {
    fn take_none(&self) -> Xid {
        self.replace(Xid::NONE)
    }
}

/// What is not dead to everybody: the planner's look at a key's extremes.
pub struct NonVacuumableSnapshot<'s> {
    horizon: *mut pg_sys::GlobalVisState,
    transactions: ServerTransactions,
    borrowed: PhantomData<&'s ()>,
}

impl NonVacuumableSnapshot<'_> {
    /// # Safety
    /// A non-vacuumable snapshot and an open relation, both of which outlive
    /// this.
    pub unsafe fn new(snapshot: pg_sys::Snapshot, relation: pg_sys::Relation) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            NonVacuumableSnapshot {
                horizon: (*snapshot).vistest,
                transactions: ServerTransactions::new(relation),
                borrowed: PhantomData,
            }
        }
    }
}

impl Snapshot for NonVacuumableSnapshot<'_> {
    fn judge(&self, version: Head) -> Judgement {
        let (status, learned) = stands(version, &self.transactions);
        let sight = match (status, version.kind()) {
            (XidStatus::Aborted, _) => Sight::Aborted,
            (_, EntryKind::Put) => Sight::Seen,
            // Deleted, and nobody sees the row any more.
            (XidStatus::Committed, _)
                if version.has(bit::FROZEN)
                    // SAFETY: the server's own state.
                    || unsafe {
                        pg_sys::GlobalVisTestIsRemovableXid(self.horizon, to_server(version.xmin))
                    } =>
            {
                Sight::Seen
            }
            // Deleted, but somebody may see the row: it lies below.
            _ => Sight::TooNew,
        };
        Judgement { sight, learned }
    }

    fn is_stable(&self) -> bool {
        false
    }
}
