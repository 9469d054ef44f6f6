//! UPDATE, DELETE and row locks: one version superseded or locked.

use crate::decoding;
use crate::indexes::{self, Replaced};
use crate::insert::{encode_as_is, insert_row, row_room, writer};
use crate::open::open;
use crate::row_handle;
use crate::table_am::TableAm;
use crate::toast::{self, Superseded};
use crate::wait::Turn;
use engine::compare::Compare;
use engine::mvcc::batch::Batch;
use engine::mvcc::write::{Outcome, Successor, Written};
use engine::mvcc::{Strength, VersionId, VersionIdBuf, Writer};
use engine::page::cell::{EntryKind, Head};
use engine::{BlockNumber, Xid};
use pg::error::OrRaise;
use pg::slot;
use pg::xact::{SelfSnapshot, ServerSnapshot, WaitPolicy, to_server};
use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};
use std::cell::RefCell;

/// What stands in `tmfd.ctid` for a row that went to another partition: core
/// tests for this very value.
const MOVED_PARTITIONS: pg_sys::ItemPointerData = pg_sys::ItemPointerData {
    ip_blkid: pg_sys::BlockIdData {
        bi_hi: u16::MAX,
        bi_lo: u16::MAX,
    },
    ip_posid: 0xfffd,
};

/// The failure data of an outcome, for core.
struct Failure {
    result: pg_sys::TM_Result::Type,
    xmax: Xid,
    cmax: pg_sys::CommandId,
    ctid: pg_sys::ItemPointerData,
}

/// Puts an outcome that is not `Done` or `Busy` into core's words. `tid` is
/// the handle that the command came with.
unsafe fn failure(
    relation: pg_sys::Relation,
    outcome: Outcome,
    tid: pg_sys::ItemPointerData,
) -> Failure {
    let plain = |result, head: Head, ctid| Failure {
        result,
        xmax: head.xmin,
        cmax: pg_sys::InvalidCommandId,
        ctid,
    };
    match outcome {
        Outcome::SelfModified(head) => Failure {
            cmax: head.cid.0,
            ..plain(pg_sys::TM_Result::TM_SelfModified, head, tid)
        },
        Outcome::Updated(head, Some(next)) => {
            // SAFETY: the relation is open.
            let ctid = unsafe { handle_of(relation, next.as_ref(), BlockNumber::NONE) };
            plain(pg_sys::TM_Result::TM_Updated, head, ctid)
        }
        Outcome::Updated(head, None) => {
            let ctid = if head.kind() == EntryKind::MovedPartition {
                MOVED_PARTITIONS
            } else {
                tid
            };
            plain(pg_sys::TM_Result::TM_Updated, head, ctid)
        }
        Outcome::Deleted(head) => plain(pg_sys::TM_Result::TM_Deleted, head, tid),
        Outcome::Invisible | Outcome::Done(_) | Outcome::Busy { .. } => Failure {
            result: pg_sys::TM_Result::TM_Invisible,
            xmax: Xid::NONE,
            cmax: pg_sys::InvalidCommandId,
            ctid: tid,
        },
    }
}

impl Failure {
    unsafe fn tell(self, tmfd: *mut pg_sys::TM_FailureData) -> pg_sys::TM_Result::Type {
        // SAFETY: core passes a live structure.
        unsafe {
            (*tmfd).ctid = self.ctid;
            (*tmfd).xmax = to_server(self.xmax);
            (*tmfd).cmax = self.cmax;
        }
        self.result
    }
}

/// The handle of a version that was found on the way along an update chain.
///
/// # Safety
/// The relation is open.
pub unsafe fn handle_of(
    relation: pg_sys::Relation,
    id: VersionId<'_>,
    block: BlockNumber,
) -> pg_sys::ItemPointerData {
    // SAFETY: the relation is open.
    let relation = unsafe { (*relation).rd_id };
    let head = Head {
        flags: EntryKind::Put as u8,
        xmin: id.xmin,
        cid: engine::CommandId(0),
        sequence: id.sequence,
    };
    pg::handles::lease_found(relation, id.key, head, block)
}

/// A snapshot that may be absent.
unsafe fn snapshot_of<'s>(
    snapshot: pg_sys::Snapshot,
    relation: pg_sys::Relation,
) -> Option<ServerSnapshot<'s>> {
    // SAFETY: core passes a live snapshot or null.
    (!snapshot.is_null()).then(|| unsafe { ServerSnapshot::from_pg(snapshot, relation) })
}

/// Why a command left its row alone.
enum Refusal {
    /// The row is not what it was.
    Row(Outcome),
    /// It would have had to wait, and was told not to.
    WouldBlock,
}

/// A command on one row: what it needs over and over while it waits.
struct Command<'c, A: TableAm> {
    table: &'c A,
    relation: pg_sys::Relation,
    writer: Writer,
    tid: pg_sys::ItemPointerData,
    /// Where the row was last seen.
    near: BlockNumber,
    crosscheck: Option<ServerSnapshot<'c>>,
    /// What became known of the row when it was superseded.
    superseded: RefCell<Superseded>,
}

impl<A: TableAm> Command<'_, A> {
    /// Tries, waits as the turn allows, and tries again.
    ///
    /// # Safety
    /// The relation is open.
    unsafe fn attempt(
        &self,
        key: &[u8],
        turn: &mut Turn,
        once: impl Fn() -> engine::Result<Outcome>,
    ) -> Result<Written, Refusal> {
        // SAFETY: the relation is open; an attempt that is over holds no page.
        unsafe {
            loop {
                match once().or_raise(self.relation) {
                    Outcome::Done(written) => return Ok(written),
                    Outcome::Busy { xid, own_lock, .. } => {
                        if own_lock {
                            turn.step_aside();
                        }
                        if !turn.wait(key, xid, self.tid, !own_lock) {
                            return Err(Refusal::WouldBlock);
                        }
                    }
                    other => return Err(Refusal::Row(other)),
                }
            }
        }
    }

    /// Puts a version into a slot under the command's handle; whether it is
    /// there still.
    ///
    /// # Safety
    /// The relation is open, and the slot one of its.
    unsafe fn show(&self, id: VersionId<'_>, slot: *mut pg_sys::TupleTableSlot) -> bool {
        let mut batch = Batch::default();
        // SAFETY: the caller's promise.
        unsafe {
            let found = self.table.version(id, self.near, &mut batch);
            if !found.or_raise(self.relation) {
                return false;
            }
            let row = batch.row(0);
            slot::store(
                slot,
                self.table.layout(),
                row.key,
                row.payload,
                row.head,
                self.tid,
            );
            (*slot).tts_tableOid = (*self.relation).rd_id;
        }
        true
    }

    /// The row that the command has just superseded.
    fn replaced<'k>(&self, id: &'k VersionIdBuf) -> Replaced<'k> {
        Replaced {
            writer: self.writer,
            id: id.as_ref(),
            near: self.near,
        }
    }

    unsafe fn supersede(
        &self,
        id: VersionId<'_>,
        successor: Successor<'_>,
        turn: &mut Turn,
    ) -> Result<Written, Refusal> {
        // SAFETY: the relation is open.
        unsafe {
            self.attempt(id.key, turn, || {
                self.table.supersede(
                    self.writer,
                    id,
                    self.near,
                    successor,
                    self.crosscheck.as_ref(),
                    &mut |payload| self.superseded.borrow_mut().note(payload),
                )
            })
        }
    }

    unsafe fn lock(
        &self,
        id: VersionId<'_>,
        strength: Strength,
        turn: &mut Turn,
    ) -> Result<Written, Refusal> {
        // SAFETY: the relation is open.
        unsafe {
            self.attempt(id.key, turn, || {
                self.table.lock(self.writer, id, self.near, strength)
            })
        }
    }

    /// Deletes the long values of the row that was superseded but for those
    /// that the one with this payload goes on with.
    ///
    /// # Safety
    /// The relation is open, and no page of it locked.
    unsafe fn delete_values(&self, id: VersionId<'_>, new: &[u8]) {
        // SAFETY: the caller's promise.
        unsafe {
            let superseded = self.superseded.take();
            superseded.delete_values(self.table, self.relation, id, new);
        }
    }

    /// Reports corruption if a version that the statement has read, and that
    /// nothing newer stands in front of, is not under its key. Its snapshot
    /// keeps it from being pruned, so its page and its key disagree (rule 34).
    ///
    /// # Safety
    /// The relation is open.
    unsafe fn must_be_there(&self, id: VersionId<'_>, refusal: &Refusal) {
        if !matches!(refusal, Refusal::Row(Outcome::Invisible)) {
            return;
        }
        // SAFETY: the relation is open.
        unsafe {
            if !self
                .table
                .version(id, self.near, &mut Batch::default())
                .or_raise(self.relation)
            {
                pg::error::vanished(self.relation);
            }
        }
    }

    /// The last of our own versions of the row that a named version belongs
    /// to; `None` if the row has ended, or the version is gone.
    ///
    /// # Safety
    /// The relation is open.
    unsafe fn own_end(&self, id: VersionId<'_>) -> Option<(VersionIdBuf, Head)> {
        // SAFETY: the relation is open.
        unsafe {
            let mut batch = Batch::default();
            let found = self.table.version(id, self.near, &mut batch);
            if !found.or_raise(self.relation) {
                return None;
            }
            let snapshot = ServerSnapshot::Own(SelfSnapshot::new(self.relation));
            let last = self.table.latest(id, &snapshot).or_raise(self.relation);
            batch.clear();
            let lives = self.table.get(&last.key, &snapshot, &mut batch);
            if !lives.or_raise(self.relation) {
                return None;
            }
            let head = batch.row(0).head;
            (head.sequence == last.sequence).then_some((last, head))
        }
    }

    unsafe fn refuse(
        &self,
        refusal: Refusal,
        tmfd: *mut pg_sys::TM_FailureData,
    ) -> pg_sys::TM_Result::Type {
        match refusal {
            // SAFETY: the relation is open and the structure live.
            Refusal::Row(outcome) => unsafe {
                failure(self.relation, outcome, self.tid).tell(tmfd)
            },
            Refusal::WouldBlock => pg_sys::TM_Result::TM_WouldBlock,
        }
    }
}

/// The policy of a command that may or may not wait.
fn policy(wait: bool) -> WaitPolicy {
    if wait {
        WaitPolicy::Block
    } else {
        WaitPolicy::Skip
    }
}

/// The `tuple_delete` callback.
#[pg_guard]
#[expect(clippy::too_many_arguments, reason = "the server's signature")]
pub unsafe extern "C-unwind" fn tuple_delete<A: TableAm>(
    relation: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    cid: pg_sys::CommandId,
    _snapshot: pg_sys::Snapshot,
    crosscheck: pg_sys::Snapshot,
    wait: bool,
    tmfd: *mut pg_sys::TM_FailureData,
    changing_partition: bool,
) -> pg_sys::TM_Result::Type {
    // SAFETY: the server's arguments are live.
    unsafe {
        let table = open::<A>(relation);
        let named = row_handle::resolve(relation, *tid);
        let command = Command {
            table: &table,
            relation,
            writer: writer(cid),
            tid: *tid,
            near: named.as_ref().map_or(BlockNumber::NONE, |(_, near)| *near),
            crosscheck: snapshot_of(crosscheck, relation),
            superseded: RefCell::default(),
        };
        let Some((id, _)) = named else {
            return command.refuse(Refusal::Row(Outcome::Invisible), tmfd);
        };
        let successor = Successor {
            kind: if changing_partition {
                EntryKind::MovedPartition
            } else {
                EntryKind::Tombstone
            },
            keys_updated: true,
            body: &[],
        };
        let mut turn = Turn::new(
            relation,
            Strength::Exclusive,
            policy(wait),
            pg_sys::XLTW_Oper::XLTW_Delete,
        );
        match command.supersede(id.as_ref(), successor, &mut turn) {
            Ok(_) => {
                indexes::deleted(&table, relation, command.replaced(&id));
                decoding::deleted(&table, relation, (id.as_ref(), command.near));
                command.delete_values(id.as_ref(), &[]);
                pg_sys::pgstat_count_heap_delete(relation);
                pg_sys::TM_Result::TM_Ok
            }
            Err(refusal) => {
                command.must_be_there(id.as_ref(), &refusal);
                command.refuse(refusal, tmfd)
            }
        }
    }
}

/// The `tuple_update` callback. A row whose key stays is superseded in place;
/// one whose key changes moves (rule 11): the old key is locked, the new one
/// checked and inserted, and then the old one told where the row went.
#[pg_guard]
#[expect(clippy::too_many_arguments, reason = "the server's signature")]
pub unsafe extern "C-unwind" fn tuple_update<A: TableAm>(
    relation: pg_sys::Relation,
    otid: pg_sys::ItemPointer,
    slot: *mut pg_sys::TupleTableSlot,
    cid: pg_sys::CommandId,
    _snapshot: pg_sys::Snapshot,
    crosscheck: pg_sys::Snapshot,
    wait: bool,
    tmfd: *mut pg_sys::TM_FailureData,
    lockmode: *mut pg_sys::LockTupleMode::Type,
    update_indexes: *mut bool,
) -> pg_sys::TM_Result::Type {
    // SAFETY: the server's arguments are live.
    unsafe {
        *update_indexes = false;
        *lockmode = pg_sys::LockTupleMode::LockTupleNoKeyExclusive;
        let table = open::<A>(relation);
        let named = row_handle::resolve(relation, *otid);
        let command = Command {
            table: &table,
            relation,
            writer: writer(cid),
            tid: *otid,
            near: named.as_ref().map_or(BlockNumber::NONE, |(_, near)| *near),
            crosscheck: snapshot_of(crosscheck, relation),
            superseded: RefCell::default(),
        };
        let Some((old, _)) = named else {
            return command.refuse(Refusal::Row(Outcome::Invisible), tmfd);
        };
        let (mut key, mut payload) = row_room();
        let layout = table.layout();
        let (same_key, is_long) = if layout.is_row_id() {
            // A hidden row id stays with its row.
            let (values, isnull) = slot::columns(slot);
            let has_pointers = layout.encode_payload_with_pointers(values, isnull, &mut payload);
            let is_long = pg::toast::is_long(old.key.len(), payload.len());
            (true, has_pointers || is_long)
        } else {
            let is_long = encode_as_is(&table, relation, slot, &mut key, &mut payload);
            (layout.compare(&old.key, &key).is_eq(), is_long)
        };
        // The key's bytes may differ where its order does not (numeric 1.0 and
        // 1.00): a key update all the same, for whoever refers to it (rule 9).
        let facts = indexes::indexes_of(relation);
        let keys_updated = !table.layout().is_row_id() && key != old.key
            || indexes::changes_key(&facts, &table, relation, command.replaced(&old), slot);
        if keys_updated {
            *lockmode = pg_sys::LockTupleMode::LockTupleExclusive;
        }
        let strength = if keys_updated {
            Strength::Exclusive
        } else {
            Strength::NoKeyExclusive
        };
        let mut turn = Turn::new(
            relation,
            strength,
            policy(wait),
            pg_sys::XLTW_Oper::XLTW_Update,
        );
        if is_long {
            // Values are stored only for a row that nobody can take away any
            // more: a command that fails may be tried anew, within the same
            // transaction, and leaves nothing behind (rule 25).
            let key_bytes = key.len().max(old.key.len());
            let place = (old.as_ref(), command.near);
            let lock = || command.lock(old.as_ref(), strength, &mut turn).map(drop);
            if let Err(refusal) = toast::shorten_successor(
                &table,
                relation,
                place,
                slot,
                key_bytes,
                &mut payload,
                lock,
            ) {
                return command.refuse(refusal, tmfd);
            }
        }
        let done = if same_key {
            let successor = Successor {
                kind: EntryKind::Put,
                keys_updated,
                body: &payload,
            };
            command
                .supersede(old.as_ref(), successor, &mut turn)
                .map(|written| (old.key.as_slice(), written))
        } else {
            move_row(&command, &old, slot, &key, &payload, &mut turn)
                .map(|written| (key.as_slice(), written))
        };
        match done {
            Ok((key, written)) => {
                decoding::updated(
                    &table,
                    relation,
                    (old.as_ref(), command.near),
                    key,
                    &payload,
                );
                command.delete_values(old.as_ref(), &payload);
                let head = Head {
                    flags: EntryKind::Put as u8,
                    xmin: command.writer.xid,
                    cid: command.writer.cid,
                    sequence: written.sequence,
                };
                let lease = if facts.indexes.is_empty() {
                    pg::handles::lease_new_unindexed
                } else {
                    pg::handles::lease_new
                };
                let handle = lease((*relation).rd_id, key, head, written.block);
                slot::set_head(slot, head, handle);
                slot::set_locked(slot, written.own_lock);
                (*slot).tts_tableOid = (*relation).rd_id;
                let old = command.replaced(&old);
                *update_indexes =
                    indexes::updated(&facts, &table, relation, old, key, slot, handle);
                pg_sys::pgstat_count_heap_update(relation, !*update_indexes && same_key);
                pg_sys::TM_Result::TM_Ok
            }
            Err(refusal) => {
                command.must_be_there(old.as_ref(), &refusal);
                command.refuse(refusal, tmfd)
            }
        }
    }
}

/// An UPDATE that changes the key. Three records of one transaction: a crash
/// in between leaves an aborted one, of which nothing is seen.
unsafe fn move_row<A: TableAm>(
    command: &Command<'_, A>,
    old: &VersionIdBuf,
    slot: *mut pg_sys::TupleTableSlot,
    key: &[u8],
    payload: &[u8],
    turn: &mut Turn,
) -> Result<Written, Refusal> {
    // SAFETY: the relation is open; each step holds no page when it is over.
    unsafe {
        let id = old.as_ref();
        command.lock(id, Strength::Exclusive, turn)?;
        let written = insert_row(
            command.table,
            command.relation,
            slot,
            (command.writer, 0),
            key,
            payload,
        );
        let mut target = Vec::new();
        VersionId {
            key,
            sequence: written.sequence,
            xmin: command.writer.xid,
        }
        .encode(&mut target);
        let successor = Successor {
            kind: EntryKind::Moved,
            keys_updated: true,
            body: &target,
        };
        command.supersede(id, successor, turn)?;
        Ok(written)
    }
}

fn strength_of(mode: pg_sys::LockTupleMode::Type) -> Strength {
    match mode {
        pg_sys::LockTupleMode::LockTupleKeyShare => Strength::KeyShare,
        pg_sys::LockTupleMode::LockTupleShare => Strength::Share,
        pg_sys::LockTupleMode::LockTupleNoKeyExclusive => Strength::NoKeyExclusive,
        _ => Strength::Exclusive,
    }
}

/// The `tuple_lock` callback. Where the row was updated meanwhile and the
/// caller wants its last version, the chain is followed version by version
/// (rule 3), and `*tid` becomes the handle of the one that is locked.
#[pg_guard]
#[expect(clippy::too_many_arguments, reason = "the server's signature")]
pub unsafe extern "C-unwind" fn tuple_lock<A: TableAm>(
    relation: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    _snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
    cid: pg_sys::CommandId,
    mode: pg_sys::LockTupleMode::Type,
    wait_policy: pg_sys::LockWaitPolicy::Type,
    flags: u8,
    tmfd: *mut pg_sys::TM_FailureData,
) -> pg_sys::TM_Result::Type {
    // SAFETY: the server's arguments are live.
    unsafe {
        (*tmfd).traversed = false;
        // Before the slot is emptied: the tid may be the slot's own.
        let asked = *tid;
        slot::clear_any(slot);
        let table = open::<A>(relation);
        let named = row_handle::resolve(relation, asked);
        let mut command = Command {
            table: &table,
            relation,
            writer: writer(cid),
            tid: asked,
            near: named.as_ref().map_or(BlockNumber::NONE, |(_, near)| *near),
            crosscheck: None,
            superseded: RefCell::default(),
        };
        let Some((mut id, _)) = named else {
            return command.refuse(Refusal::Row(Outcome::Invisible), tmfd);
        };
        let strength = strength_of(mode);
        let mut turn = Turn::new(
            relation,
            strength,
            WaitPolicy::from(wait_policy),
            pg_sys::XLTW_Oper::XLTW_Lock,
        );
        let find_last = u32::from(flags) & pg_sys::TUPLE_LOCK_FLAG_FIND_LAST_VERSION != 0;
        loop {
            match command.lock(id.as_ref(), strength, &mut turn) {
                Ok(_) => {
                    if !command.show(id.as_ref(), slot) {
                        pg::error::raise_with(
                            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                            "a row vanished while it was locked".into(),
                            None,
                            None,
                        );
                    }
                    *tid = command.tid;
                    return pg_sys::TM_Result::TM_Ok;
                }
                Err(Refusal::Row(Outcome::Updated(_, Some(next)))) if find_last => {
                    (*tmfd).traversed = true;
                    command.tid = handle_of(relation, next.as_ref(), BlockNumber::NONE);
                    if next.key != id.key {
                        turn.step_aside();
                    }
                    command.near = BlockNumber::NONE;
                    id = next;
                    // A chain may be long.
                    pgrx::check_for_interrupts!();
                }
                Err(Refusal::Row(Outcome::Updated(head, None)))
                    if find_last && head.kind() == EntryKind::MovedPartition =>
                {
                    pg::error::raise_with(
                        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
                        "tuple to be locked was already moved to another partition due to \
                         concurrent update"
                            .into(),
                        None,
                        None,
                    )
                }
                // The chain has led through others' versions to what we made of
                // the row ourselves.
                Err(Refusal::Row(Outcome::Invisible | Outcome::SelfModified(_)))
                    if (*tmfd).traversed =>
                {
                    match command.own_end(id.as_ref()) {
                        // Not by an earlier command: by this one, or on its way.
                        Some((_, head)) if head.cid >= command.writer.cid => {
                            let refusal = Refusal::Row(Outcome::SelfModified(head));
                            return command.refuse(refusal, tmfd);
                        }
                        Some((last, _)) if last != id => {
                            command.tid = handle_of(relation, last.as_ref(), BlockNumber::NONE);
                            command.near = BlockNumber::NONE;
                            id = last;
                        }
                        // Deleted, if by others, by now so long ago that it was
                        // pruned.
                        _ => return pg_sys::TM_Result::TM_Deleted,
                    }
                }
                Err(refusal) => {
                    if !(*tmfd).traversed {
                        command.must_be_there(id.as_ref(), &refusal);
                    }
                    // ON CONFLICT asks an invisible row for its writer: if that
                    // is the command's own, it has come to the row before.
                    if matches!(refusal, Refusal::Row(Outcome::Invisible)) {
                        command.show(id.as_ref(), slot);
                    }
                    return command.refuse(refusal, tmfd);
                }
            }
        }
    }
}
