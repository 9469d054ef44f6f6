//! A transaction manager for tests: xids, subtransactions, statuses, snapshots
//! and the horizon, with the server's rules and none of its machinery.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::latch::Mutex;
use super::log::Lsn;
use super::store::MemStore;
use crate::mvcc::{Judgement, Sight, Snapshot, Transactions, XidStatus};
use crate::page::cell::{Head, bit};
use crate::types::{CommandId, Xid};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Running,
    Committed,
    Aborted,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// The top-level transaction; itself for one of those.
    top: Xid,
    end: End,
}

#[derive(Debug)]
struct World {
    next: u32,
    xids: BTreeMap<u32, State>,
    /// The oldest running xid of each live snapshot.
    snapshots: BTreeMap<u64, Xid>,
    next_snapshot: u64,
    log: Option<Arc<MemStore>>,
}

impl World {
    fn oldest_running(&self) -> Xid {
        self.xids
            .iter()
            .find(|(_, state)| state.end == End::Running)
            .map_or(Xid(self.next), |(xid, _)| Xid(*xid))
    }

    /// Transactions before it are seen by every snapshot, if they committed.
    fn horizon(&self) -> Xid {
        let oldest = self.snapshots.values().copied();
        oldest.fold(self.oldest_running(), |horizon, xmin| {
            if xmin.precedes(horizon) {
                xmin
            } else {
                horizon
            }
        })
    }

    fn begin(&mut self, top: Option<Xid>) -> Xid {
        let xid = Xid(self.next);
        self.next += 1;
        let state = State {
            top: top.unwrap_or(xid),
            end: End::Running,
        };
        self.xids.insert(xid.0, state);
        xid
    }

    fn end(&mut self, xids: &[Xid], committed: bool) {
        for xid in xids {
            if let Some(state) = self.xids.get_mut(&xid.0) {
                state.end = if committed {
                    End::Committed
                } else {
                    End::Aborted
                };
            }
        }
    }
}

/// All transactions of a test. As [`Transactions`] it is an outsider, such as
/// VACUUM, to whom no transaction is its own.
#[derive(Clone, Debug)]
pub struct TestTransactions {
    world: Arc<Mutex<World>>,
}

impl Default for TestTransactions {
    fn default() -> TestTransactions {
        TestTransactions::new()
    }
}

impl TestTransactions {
    /// Nobody has begun yet; the first xid is the first ordinary one.
    pub fn new() -> TestTransactions {
        TestTransactions::starting_at(Xid::FIRST_NORMAL)
    }

    /// As [`TestTransactions::new`], with another first xid.
    pub fn starting_at(first: Xid) -> TestTransactions {
        TestTransactions {
            world: Arc::new(Mutex::new(World {
                next: first.0,
                xids: BTreeMap::new(),
                snapshots: BTreeMap::new(),
                next_snapshot: 0,
                log: None,
            })),
        }
    }

    /// Transactions whose ends are logged in `store`, so that a crash decides
    /// which of them have committed.
    pub fn logged_in(store: Arc<MemStore>) -> TestTransactions {
        let transactions = TestTransactions::new();
        transactions.world.lock().log = Some(store);
        transactions
    }

    /// The transactions as recovery finds them: those whose commit is in the
    /// log of `store` have committed, all others are aborted.
    pub fn after_crash(&self, store: Arc<MemStore>) -> TestTransactions {
        let old = self.world.lock();
        let mut xids = old.xids.clone();
        for (xid, state) in &mut xids {
            state.end = match store.end_of(Xid(*xid)) {
                Some((_, true)) => End::Committed,
                _ => End::Aborted,
            };
        }
        TestTransactions {
            world: Arc::new(Mutex::new(World {
                next: old.next,
                xids,
                snapshots: BTreeMap::new(),
                next_snapshot: 0,
                log: Some(store),
            })),
        }
    }

    /// The transactions as a standby knows them at `lsn` of `store`'s log:
    /// those that have not ended there are running.
    pub fn at(&self, store: &MemStore, lsn: Lsn) -> TestTransactions {
        let old = self.world.lock();
        let mut xids = old.xids.clone();
        for (xid, state) in &mut xids {
            state.end = match store.end_of(Xid(*xid)) {
                Some((at, committed)) if at <= lsn => {
                    if committed {
                        End::Committed
                    } else {
                        End::Aborted
                    }
                }
                _ => End::Running,
            };
        }
        TestTransactions {
            world: Arc::new(Mutex::new(World {
                next: old.next,
                xids,
                snapshots: BTreeMap::new(),
                next_snapshot: 0,
                log: None,
            })),
        }
    }

    /// A new session without a transaction.
    pub fn session(&self) -> TestSession {
        TestSession {
            world: Arc::clone(&self.world),
            stack: Vec::new(),
            cid: CommandId(0),
        }
    }

    /// The next xid to be given out.
    pub fn next_xid(&self) -> Xid {
        Xid(self.world.lock().next)
    }

    /// Transactions before it that committed are seen by every snapshot.
    pub fn horizon(&self) -> Xid {
        self.world.lock().horizon()
    }

    /// A snapshot that belongs to no transaction.
    pub fn snapshot(&self) -> TestSnapshot {
        self.session().snapshot()
    }
}

fn status(world: &World, own: &[Xid], xid: Xid) -> XidStatus {
    if !xid.is_normal() {
        return XidStatus::Committed;
    }
    match world.xids.get(&xid.0) {
        // Unknown ids died in a crash before anything of theirs was logged.
        None => XidStatus::Aborted,
        Some(state) => match state.end {
            End::Running if own.first() == Some(&state.top) => XidStatus::Own,
            End::Running => XidStatus::InProgress,
            End::Committed => XidStatus::Committed,
            End::Aborted => XidStatus::Aborted,
        },
    }
}

impl Transactions for TestTransactions {
    fn status(&self, xid: Xid) -> XidStatus {
        status(&self.world.lock(), &[], xid)
    }

    fn visible_to_all(&self, xid: Xid) -> bool {
        xid.precedes(self.world.lock().horizon())
    }
}

/// One session: at most one transaction, with subtransactions inside it.
#[derive(Debug)]
pub struct TestSession {
    world: Arc<Mutex<World>>,
    /// The transaction and its open subtransactions, outermost first.
    stack: Vec<Xid>,
    cid: CommandId,
}

impl TestSession {
    /// Begins a transaction, or a subtransaction within the present one.
    pub fn begin(&mut self) -> Xid {
        let xid = self.world.lock().begin(self.stack.first().copied());
        if self.stack.is_empty() {
            self.cid = CommandId(0);
        }
        self.stack.push(xid);
        xid
    }

    /// The xid that writes are made under.
    ///
    /// # Panics
    /// If no transaction has begun.
    pub fn xid(&self) -> Xid {
        *self.stack.last().expect("a transaction has begun")
    }

    /// Whether a transaction is under way.
    pub fn is_open(&self) -> bool {
        !self.stack.is_empty()
    }

    /// How many transactions are open, one within the other.
    pub fn depth(&self) -> usize {
        self.stack.len()
    }

    /// A snapshot that sees the present command's writes too, as the next
    /// command's will.
    pub fn snapshot_after(&self) -> TestSnapshot {
        let mut snapshot = self.snapshot();
        snapshot.curcid.0 += 1;
        snapshot
    }

    /// The command that writes are made by.
    pub fn cid(&self) -> CommandId {
        self.cid
    }

    /// Ends the command: its writes are seen by the session's later snapshots.
    pub fn next_command(&mut self) {
        self.cid.0 += 1;
    }

    /// Merges the innermost subtransaction into what surrounds it. It stays
    /// running until the whole transaction ends.
    ///
    /// # Panics
    /// If there is no subtransaction.
    pub fn release(&mut self) {
        assert!(self.stack.len() > 1, "a subtransaction is open");
        self.stack.pop();
        self.next_command();
    }

    /// Aborts the innermost subtransaction and all that was released into it.
    ///
    /// # Panics
    /// If there is no subtransaction.
    pub fn roll_back_to(&mut self) {
        assert!(self.stack.len() > 1, "a subtransaction is open");
        let inner = self.xid();
        self.stack.pop();
        self.finish(inner, false);
        self.next_command();
    }

    /// Commits, durably: the log is flushed up to the commit.
    pub fn commit(&mut self) -> Lsn {
        let lsn = self.commit_unflushed();
        let log = self.world.lock().log.clone();
        if let Some(log) = log {
            log.flush(lsn);
        }
        lsn
    }

    /// Commits as with `synchronous_commit = off`.
    ///
    /// # Panics
    /// If no transaction has begun.
    pub fn commit_unflushed(&mut self) -> Lsn {
        let top = *self.stack.first().expect("a transaction has begun");
        self.stack.clear();
        self.finish(top, true)
    }

    /// Aborts the whole transaction.
    ///
    /// # Panics
    /// If no transaction has begun.
    pub fn abort(&mut self) -> Lsn {
        let top = *self.stack.first().expect("a transaction has begun");
        self.stack.clear();
        self.finish(top, false)
    }

    /// Ends every running xid of this transaction from `from` on. Children
    /// begin after their parent, so these are it and what lies within it.
    fn finish(&mut self, from: Xid, committed: bool) -> Lsn {
        let (xids, log) = {
            let world = self.world.lock();
            let top = world.xids[&from.0].top;
            let of_mine = world.xids.range(from.0..);
            let xids: Vec<Xid> = of_mine
                .filter(|(_, state)| state.top == top && state.end == End::Running)
                .map(|(xid, _)| Xid(*xid))
                .collect();
            (xids, world.log.clone())
        };
        // First the log, then the world: whoever sees the commit may rely on
        // its record.
        let lsn = log.map_or(Lsn(0), |log| log.log_end_of(&xids, committed));
        self.world.lock().end(&xids, committed);
        lsn
    }

    /// A snapshot of now, for the present command.
    pub fn snapshot(&self) -> TestSnapshot {
        let mut world = self.world.lock();
        let running: BTreeSet<u32> = world
            .xids
            .iter()
            .filter(|(_, state)| state.end == End::Running)
            .map(|(xid, _)| *xid)
            .collect();
        let xmin = world.oldest_running();
        let id = world.next_snapshot;
        world.next_snapshot += 1;
        world.snapshots.insert(id, xmin);
        TestSnapshot {
            world: Arc::clone(&self.world),
            id,
            xmin,
            xmax: Xid(world.next),
            running,
            own: self.stack.first().copied(),
            curcid: self.cid,
            tracked: false,
        }
    }
}

impl Transactions for TestSession {
    fn status(&self, xid: Xid) -> XidStatus {
        status(&self.world.lock(), &self.stack, xid)
    }

    fn visible_to_all(&self, xid: Xid) -> bool {
        xid.precedes(self.world.lock().horizon())
    }
}

/// An MVCC snapshot. While it lives it holds the horizon back.
#[derive(Debug)]
pub struct TestSnapshot {
    world: Arc<Mutex<World>>,
    id: u64,
    xmin: Xid,
    xmax: Xid,
    running: BTreeSet<u32>,
    own: Option<Xid>,
    curcid: CommandId,
    tracked: bool,
}

impl TestSnapshot {
    /// Everything before it had ended.
    pub fn xmin(&self) -> Xid {
        self.xmin
    }

    /// Nothing from it on had begun.
    pub fn xmax(&self) -> Xid {
        self.xmax
    }

    /// The same snapshot of a serializable transaction.
    #[must_use]
    pub fn tracked(mut self) -> TestSnapshot {
        self.tracked = true;
        self
    }

    /// Lets it see the transaction's own commands as far as a later snapshot of
    /// the same transaction does.
    pub fn advance(&mut self, later: &TestSnapshot) {
        self.curcid = later.curcid;
    }

    /// Whether it sees what another transaction has written, if that commits.
    pub fn sees(&self, xid: Xid) -> bool {
        !self.takes_for_running(xid)
    }

    fn takes_for_running(&self, xid: Xid) -> bool {
        !xid.precedes(self.xmax) || self.running.contains(&xid.0)
    }
}

impl Drop for TestSnapshot {
    fn drop(&mut self) {
        self.world.lock().snapshots.remove(&self.id);
    }
}

impl Snapshot for TestSnapshot {
    fn judge(&self, version: Head) -> Judgement {
        if version.has(bit::FROZEN) {
            return Judgement::known(Sight::Seen);
        }
        if version.has(bit::ABORTED) {
            return Judgement::known(Sight::Aborted);
        }
        let state = self.world.lock().xids.get(&version.xmin.0).copied();
        let own = state.is_some_and(|state| Some(state.top) == self.own);
        if own && state.is_some_and(|state| state.end != End::Aborted) {
            return Judgement::known(if version.cid < self.curcid {
                Sight::Seen
            } else {
                Sight::TooNew
            });
        }
        if !own && self.takes_for_running(version.xmin) {
            return Judgement::known(Sight::TooNew);
        }
        if version.has(bit::COMMITTED) {
            return Judgement::known(Sight::Seen);
        }
        let own_stack: Vec<Xid> = self.own.into_iter().collect();
        match status(&self.world.lock(), &own_stack, version.xmin) {
            XidStatus::Committed => Judgement {
                sight: Sight::Seen,
                learned: Some(true),
            },
            XidStatus::Aborted => Judgement {
                sight: Sight::Aborted,
                learned: Some(false),
            },
            XidStatus::Own | XidStatus::InProgress => Judgement::known(Sight::TooNew),
        }
    }

    fn is_tracked(&self) -> bool {
        self.tracked
    }
}
