//! Rows under new keys, with their histories: what a table is organized anew
//! from when it gets a primary key or loses the one it had.
//!
//! A row's versions used to lie under one key, whatever became of the columns
//! that are the new one. [`rekey`] tells the life of a row as the new keys see
//! it, and [`Lives`] puts the lives that several rows led under one new key in
//! their order. The argument is in `am/README.md`, "Organizing anew".

use std::cmp::Ordering;
use std::ops::Range;

use super::entries::Entry;
use super::{Transactions, XidStatus};
use crate::page::cell::{EntryKind, Head, bit};
use crate::types::{Sequence, Xid};

/// What one version of a row does under one new key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event<'b> {
    /// Writer and kind; the sequence is still the row's own.
    pub head: Head,
    /// Whether a life begins with it: the row was not under this key before.
    pub begins: bool,
    /// The new key.
    pub key: &'b [u8],
    /// The payload of a Put.
    pub body: &'b [u8],
}

/// Turns a row's versions, *oldest first* and none of them aborted, each with
/// its new key and payload (`None` where the row ends), into what happens under
/// the new keys, in the same order. Each version keeps writer and command, and
/// is frozen if it was. Where the new key changes, the row ends under the one
/// and begins under the other, by the same writer.
pub fn rekey(
    versions: impl Iterator<Item = (Head, Option<Entry>)>,
    same_key: impl Fn(&[u8], &[u8]) -> bool,
    mut emit: impl FnMut(Event<'_>),
) {
    let mut before: Option<Vec<u8>> = None;
    for (head, entry) in versions {
        let kept = head.flags & (bit::FROZEN | bit::COMMITTED);
        let stays = match (&before, &entry) {
            (Some(before), Some(entry)) => same_key(before, &entry.key),
            _ => false,
        };
        if let Some(before) = before.as_ref().filter(|_| !stays) {
            let kind = match head.kind() {
                EntryKind::MovedPartition => EntryKind::MovedPartition,
                // Whoever follows a row that moved needs the number of its next
                // version, which has none before all are sorted. Nobody follows
                // one who did not read it, and who reads a table at an older
                // snapshot than its key's may change nothing of the row anyway.
                _ => EntryKind::Tombstone,
            };
            emit(Event {
                head: Head {
                    flags: kind as u8 | bit::KEYS_UPDATED | kept,
                    ..head
                },
                begins: false,
                key: before,
                body: &[],
            });
        }
        let Some(entry) = entry else {
            before = None;
            continue;
        };
        // Where the order of keys does not see a difference, the bytes that the
        // row began with stay; that they would have changed is a change of keys
        // all the same (rule 9).
        let changed = stays && before.as_ref().is_some_and(|before| *before != entry.key);
        let key = before.filter(|_| stays).unwrap_or(entry.key);
        let updated = if changed { bit::KEYS_UPDATED } else { 0 };
        emit(Event {
            head: Head {
                flags: EntryKind::Put as u8 | updated | kept,
                ..head
            },
            begins: !stays,
            key: &key,
            body: &entry.body,
        });
        before = Some(key);
    }
}

/// Why lives under one key cannot be put one behind the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Clash {
    /// Two rows live under it; the payload of one of them.
    Duplicate(Vec<u8>),
    /// Some snapshot may see two rows under it, of which one has ended since.
    Overlap,
}

/// When something happened, as far as that can be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Time {
    /// Every snapshot sees it.
    Always,
    /// Its transaction has committed.
    Committed(Xid),
    /// Our transaction did it: all or nothing of that is seen by anybody else.
    Own,
}

impl Time {
    fn of(head: Head, transactions: &impl Transactions) -> Time {
        if head.has(bit::FROZEN) {
            Time::Always
        } else if !head.has(bit::COMMITTED)
            && matches!(
                transactions.status(head.xmin),
                XidStatus::Own | XidStatus::InProgress
            )
        {
            Time::Own
        } else {
            Time::Committed(head.xmin)
        }
    }

    fn order(self, other: Time) -> Ordering {
        match (self, other) {
            (Time::Committed(left), Time::Committed(right)) if left != right => {
                if left.precedes(right) {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }

    fn rank(self) -> u8 {
        match self {
            Time::Always => 0,
            Time::Committed(_) => 1,
            Time::Own => 2,
        }
    }
}

/// A row's time under one key.
struct Life {
    events: Range<usize>,
    begin: Time,
    /// `None` while it lasts.
    end: Option<Time>,
}

/// All that happened under one new key, whichever rows it happened to.
#[derive(Default)]
pub struct Lives {
    /// The key.
    key: Vec<u8>,
    events: Vec<(Head, bool, Range<usize>)>,
    bodies: Vec<u8>,
    order: Vec<usize>,
}

impl Lives {
    /// Begins with another key.
    pub fn begin(&mut self, key: &[u8]) {
        self.events.clear();
        self.bodies.clear();
        self.key.clear();
        self.key.extend_from_slice(key);
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Adds an event *before* those that were added: one row's come from its
    /// newest on, with no other row's between them.
    pub fn add(&mut self, head: Head, begins: bool, body: &[u8]) {
        let start = self.bodies.len();
        self.bodies.extend_from_slice(body);
        self.events.push((head, begins, start..self.bodies.len()));
    }

    /// Finds the order of all events. A life comes before another that began
    /// when it had ended. That is what is known: transactions are compared by
    /// their numbers, and one that began later is taken to have ended later.
    pub fn settle(&mut self, transactions: &impl Transactions) -> Result<(), Clash> {
        let count = self.events.len();
        self.order.clear();
        let lives = self.events.iter().filter(|(_, begins, _)| *begins).count();
        if lives <= 1 {
            self.order.extend(0..count);
            return Ok(());
        }
        let mut found: Vec<Life> = Vec::with_capacity(lives);
        let mut newest = 0;
        for (nth, (head, begins, _)) in self.events.iter().enumerate() {
            if !begins {
                continue;
            }
            let (last, ..) = self.events[newest];
            found.push(Life {
                events: newest..nth + 1,
                begin: Time::of(*head, transactions),
                end: (last.kind() != EntryKind::Put).then(|| Time::of(last, transactions)),
            });
            newest = nth + 1;
        }
        let ends = |life: &Life| life.end.map_or((1, Time::Own), |end| (0, end));
        // The newest life first, as its events are.
        found.sort_by(|left, right| {
            let (of_left, of_right) = (ends(left), ends(right));
            of_right
                .0
                .cmp(&of_left.0)
                .then_with(|| of_right.1.order(of_left.1))
                .then_with(|| right.begin.order(left.begin))
        });
        for pair in found.windows(2) {
            let [newer, older] = pair else { continue };
            match older.end {
                None => {
                    let body = self.events[older.events.start].2.clone();
                    return Err(Clash::Duplicate(self.bodies[body].to_vec()));
                }
                Some(end) if end.order(newer.begin).is_gt() => return Err(Clash::Overlap),
                Some(_) => {}
            }
        }
        self.order
            .extend(found.into_iter().flat_map(|life| life.events));
        Ok(())
    }

    /// The events, newest first and numbered, once they are settled.
    pub fn versions(&self) -> impl Iterator<Item = (Head, &[u8])> {
        let count = self.order.len() as u64;
        self.order.iter().enumerate().map(move |(nth, at)| {
            let (head, _, body) = &self.events[*at];
            let sequence = Sequence(Sequence::FIRST.0 + count - 1 - nth as u64);
            (Head { sequence, ..*head }, &self.bodies[body.clone()])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::CommandId;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    struct World {
        own: Xid,
    }

    impl Transactions for World {
        fn status(&self, xid: Xid) -> XidStatus {
            if xid == self.own {
                XidStatus::Own
            } else {
                XidStatus::Committed
            }
        }

        fn visible_to_all(&self, _: Xid) -> bool {
            false
        }
    }

    /// A row's versions as (transaction, key or end), oldest first.
    type Row = Vec<(u32, Option<u8>)>;

    fn head(xmin: u32, sequence: u64, frozen: bool) -> Head {
        Head {
            flags: if frozen {
                bit::FROZEN | bit::COMMITTED
            } else {
                0
            },
            xmin: Xid(xmin),
            cid: CommandId(0),
            sequence: Sequence(sequence),
        }
    }

    /// The first transaction, whose versions everybody sees; the last, which is
    /// the caller's.
    const FIRST: u32 = 100;
    const OWN: u32 = 106;

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let row = prop::collection::btree_map(FIRST..OWN + 1, prop::option::of(0u8..3), 1..5);
        prop::collection::vec(row, 1..4).prop_map(|rows| {
            rows.into_iter()
                .map(|row| {
                    let mut ended = true;
                    row.into_iter()
                        .filter(|(_, key)| {
                            // A row ends once, and nothing comes after.
                            let goes = key.is_some() || !ended;
                            ended = key.is_none();
                            goes
                        })
                        .collect()
                })
                .collect()
        })
    }

    /// What is under each key, newest first.
    type Keys = BTreeMap<u8, Vec<(Head, Vec<u8>)>>;

    fn organize(rows: &[Row]) -> Result<Keys, Clash> {
        let mut all: BTreeMap<u8, Vec<(Head, bool, Vec<u8>)>> = BTreeMap::new();
        for (number, row) in rows.iter().enumerate() {
            let versions = row.iter().enumerate().map(|(nth, (xid, key))| {
                let mut head = head(*xid, nth as u64 + 1, *xid == FIRST);
                if key.is_none() {
                    head.flags |= EntryKind::Tombstone as u8;
                }
                let entry = key.map(|key| Entry {
                    key: vec![key],
                    body: vec![number as u8, nth as u8],
                });
                (head, entry)
            });
            rekey(
                versions,
                |left, right| left == right,
                |event| {
                    all.entry(event.key[0]).or_default().push((
                        event.head,
                        event.begins,
                        event.body.to_vec(),
                    ));
                },
            );
        }
        let mut lives = Lives::default();
        let mut out = BTreeMap::new();
        for (key, events) in all {
            lives.begin(&[key]);
            for (head, begins, body) in events.iter().rev() {
                lives.add(*head, *begins, body);
            }
            lives.settle(&World { own: Xid(OWN) })?;
            let versions = lives.versions().map(|(head, body)| (head, body.to_vec()));
            out.insert(key, versions.collect());
        }
        Ok(out)
    }

    /// What a snapshot that sees all transactions up to `last` sees of the rows.
    fn truth(rows: &[Row], last: u32) -> Vec<(u8, Vec<u8>)> {
        let mut seen: Vec<_> = rows
            .iter()
            .enumerate()
            .filter_map(|(number, row)| {
                let nth = row.iter().rposition(|(xid, _)| *xid <= last)?;
                Some((row[nth].1?, vec![number as u8, nth as u8]))
            })
            .collect();
        seen.sort();
        seen
    }

    fn is_plural(seen: &[(u8, Vec<u8>)]) -> bool {
        seen.iter()
            .map(|(key, _)| key)
            .collect::<BTreeSet<_>>()
            .len()
            < seen.len()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn every_snapshot_sees_its_rows_under_their_new_keys(rows in rows()) {
            // Nobody holds a snapshot between the transactions before ours and
            // ours, so those after it are what counts; nor one from before the
            // first.
            let snapshots: Vec<u32> = (FIRST..=OWN).collect();
            match organize(&rows) {
                Ok(keys) => {
                    for last in &snapshots {
                        let seen: Vec<_> = keys
                            .iter()
                            .filter_map(|(key, versions)| {
                                let newest = versions
                                    .iter()
                                    .find(|(head, _)| head.xmin.0 <= *last)?;
                                (newest.0.kind() == EntryKind::Put)
                                    .then(|| (*key, newest.1.clone()))
                            })
                            .collect();
                        prop_assert_eq!(&seen, &truth(&rows, *last));
                    }
                    for versions in keys.values() {
                        let numbers: Vec<u64> =
                            versions.iter().map(|(head, _)| head.sequence.0).collect();
                        let wanted: Vec<u64> = (1..=versions.len() as u64).rev().collect();
                        prop_assert_eq!(numbers, wanted);
                    }
                }
                Err(Clash::Duplicate(_)) => prop_assert!(is_plural(&truth(&rows, OWN))),
                Err(Clash::Overlap) => prop_assert!(
                    snapshots.iter().any(|last| is_plural(&truth(&rows, *last)))
                ),
            }
        }
    }

    #[test]
    fn a_key_that_is_written_another_way_is_updated_in_place() {
        let versions = [(1, b"a"), (2, b"A")].map(|(nth, key)| {
            let entry = Entry {
                key: key.to_vec(),
                body: Vec::new(),
            };
            (head(200 + nth as u32, nth, false), Some(entry))
        });
        let mut events = Vec::new();
        rekey(
            versions.into_iter(),
            |left, right| left.eq_ignore_ascii_case(right),
            |event| events.push((event.key.to_vec(), event.begins, event.head.flags)),
        );
        let put = EntryKind::Put as u8;
        assert_eq!(
            events,
            [
                (b"a".to_vec(), true, put),
                (b"a".to_vec(), false, put | bit::KEYS_UPDATED)
            ]
        );
    }
}
