//! `retain`: the one pruning rule, a pure function. A full leaf, VACUUM, a
//! memtable flush and a compaction all call it.

use super::{Transactions, XidStatus};
use crate::page::cell::{EntryKind, Head, bit};
use crate::types::Xid;

/// What becomes of one entry of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It stays as it is.
    Keep,
    /// It stays; everybody sees it, so it is frozen.
    Freeze,
    /// Nobody can ever see it again.
    Remove,
}

/// Decides over the entries of one key, newest first (locks before versions),
/// as far as they are at hand. `ends_here` says that no older version of the
/// key can lie anywhere else (rule 2). Writes one fate per entry to `fates`
/// and returns the conflict horizon: the newest transaction that a standby's
/// snapshot must not consider running when the record is replayed (rule 30).
///
/// Like VACUUM it takes the caller's own transaction for running (rule 5).
pub fn retain(
    entries: impl Iterator<Item = Head>,
    ends_here: bool,
    transactions: &impl Transactions,
    fates: &mut Vec<Fate>,
) -> Xid {
    fates.clear();
    let mut horizon = Xid::NONE;
    // The committed version that all snapshots see, once it was met: what is
    // older serves nobody.
    let mut boundary: Option<(usize, Head)> = None;
    // The writer of the next newer version, if it has committed.
    let mut superseder = Xid::NONE;
    for (nth, head) in entries.enumerate() {
        let fate = if head.kind() == EntryKind::Lock {
            match transactions.status(head.xmin) {
                XidStatus::Own | XidStatus::InProgress => Fate::Keep,
                XidStatus::Committed | XidStatus::Aborted => Fate::Remove,
            }
        } else if boundary.is_some() {
            Fate::Remove
        } else {
            match ended(head, transactions) {
                None => {
                    superseder = Xid::NONE;
                    Fate::Keep
                }
                Some(false) => Fate::Remove,
                // Several versions of one ended transaction: nobody but it
                // could ever tell the older ones apart (rule 5). But where a
                // row ended and another began at the same key, a walk along
                // the chain from an older version has to stop (rule 3). And a
                // frozen version is everybody's, whoever wrote it: the entry
                // that an index lacked when it was ended (`settle`).
                Some(true)
                    if superseder == head.xmin
                        && head.kind() == EntryKind::Put
                        && !head.has(bit::FROZEN) =>
                {
                    Fate::Remove
                }
                Some(true) => {
                    superseder = head.xmin;
                    if head.has(bit::FROZEN) || transactions.visible_to_all(head.xmin) {
                        boundary = Some((nth, head));
                    }
                    Fate::Keep
                }
            }
        };
        fates.push(fate);
    }
    let Some((nth, head)) = boundary else {
        return horizon;
    };
    let removes_older = fates[nth + 1..].contains(&Fate::Remove);
    let live = head.kind() == EntryKind::Put;
    if !live && ends_here {
        fates[nth] = Fate::Remove;
    } else if !head.has(bit::FROZEN) {
        fates[nth] = Fate::Freeze;
    }
    // What is frozen already was so by a record with this horizon, and its
    // xmin may be too old to be compared.
    if !head.has(bit::FROZEN) && (fates[nth] != Fate::Keep || removes_older) {
        horizon = horizon.newer_of(head.xmin);
    }
    horizon
}

/// Whether the writer committed; `None` while it runs.
fn ended(head: Head, transactions: &impl Transactions) -> Option<bool> {
    if head.has(bit::FROZEN) || head.has(bit::COMMITTED) {
        return Some(true);
    }
    if head.has(bit::ABORTED) {
        return Some(false);
    }
    match transactions.status(head.xmin) {
        XidStatus::Own | XidStatus::InProgress => None,
        XidStatus::Committed => Some(true),
        XidStatus::Aborted => Some(false),
    }
}
