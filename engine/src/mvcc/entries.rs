//! What an index has to hold of a row: its history turned into that of the
//! entries the row had over time.

use crate::page::cell::{EntryKind, Head, bit};

/// A row's entry in one index, as one of its versions has it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entry {
    /// The index's columns and the reference.
    pub key: Vec<u8>,
    /// What the key does not give back.
    pub body: Vec<u8>,
}

/// Turns a row's versions, *oldest first* and none of them aborted, each with
/// the entry that the index has of it (`None` where the row ends, or a partial
/// index leaves it out), into the versions of its entries: a Put where an entry
/// begins or changes what its key does not tell, a Tombstone where it ends.
///
/// Each carries writer and command of the row's version that made it so, frozen
/// if that is (rule 13). So a snapshot sees an entry if and only if it sees the
/// version of the row that has it: of each entry's versions it sees the newest
/// that is older than, or is, the row's version it sees. The row's sequence
/// numbers serve the entries too: one version of a row changes an entry once.
pub fn derive(
    versions: impl Iterator<Item = (Head, Option<Entry>)>,
    same_key: impl Fn(&[u8], &[u8]) -> bool,
    mut emit: impl FnMut(Head, &[u8], &[u8]),
) {
    let mut before: Option<Entry> = None;
    for (head, entry) in versions {
        let kept = head.flags & (bit::FROZEN | bit::COMMITTED);
        let stays = match (&before, &entry) {
            (Some(before), Some(entry)) => same_key(&before.key, &entry.key),
            _ => false,
        };
        if let Some(before) = before.as_ref().filter(|_| !stays) {
            let flags = EntryKind::Tombstone as u8 | bit::KEYS_UPDATED | kept;
            emit(Head { flags, ..head }, &before.key, &[]);
        }
        if let Some(entry) = &entry
            && (!stays
                || before
                    .as_ref()
                    .is_some_and(|before| before.body != entry.body))
        {
            let flags = EntryKind::Put as u8 | kept;
            // Where the key's order does not see a difference, the entry keeps
            // the bytes that it began with, so that its versions share them.
            let key = match &before {
                Some(before) if stays => &before.key,
                _ => &entry.key,
            };
            emit(Head { flags, ..head }, key, &entry.body);
        }
        before = match (before, entry) {
            (Some(before), Some(entry)) if stays => Some(Entry {
                key: before.key,
                body: entry.body,
            }),
            (_, entry) => entry,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{CommandId, Sequence, Xid};
    use proptest::prelude::*;

    fn head(number: u32, frozen: bool) -> Head {
        Head {
            flags: if frozen {
                bit::FROZEN | bit::COMMITTED
            } else {
                0
            },
            xmin: Xid(100 + number),
            cid: CommandId(0),
            sequence: Sequence(u64::from(number) + 1),
        }
    }

    fn entry(of: u8) -> Option<Entry> {
        // Keys by the two low bits, ignoring case; bodies by the next one.
        (of & 8 == 0).then(|| Entry {
            key: vec![b'a' + (of & 3), if of & 16 == 0 { b'x' } else { b'X' }],
            body: vec![of & 4],
        })
    }

    fn same(left: &[u8], right: &[u8]) -> bool {
        left.eq_ignore_ascii_case(right)
    }

    proptest! {
        /// The newest version that a snapshot sees decides, in the row's
        /// history and in each entry's.
        #[test]
        fn a_snapshot_sees_the_entry_of_the_version_that_it_sees(
            row in prop::collection::vec(any::<u8>(), 1..12),
        ) {
            let versions = row.iter().enumerate().map(|(nth, of)| (head(nth as u32, nth == 0), entry(*of)));
            let mut events: Vec<(Head, Vec<u8>, Vec<u8>)> = Vec::new();
            derive(versions, same, |head, key, body| events.push((head, key.to_vec(), body.to_vec())));
            for (seen, of) in row.iter().enumerate() {
                let limit = Sequence(seen as u64 + 1);
                let mut found = Vec::new();
                for key in [b"ax", b"bx", b"cx", b"dx"] {
                    let newest = events
                        .iter()
                        .filter(|(head, of, _)| same(of, key) && head.sequence <= limit)
                        .max_by_key(|(head, ..)| head.sequence);
                    if let Some((head, _, body)) = newest && head.kind() == EntryKind::Put {
                        found.push((key.to_vec(), body.clone()));
                    }
                }
                let wanted: Vec<_> = entry(*of)
                    .map(|entry| (entry.key.to_ascii_lowercase(), entry.body))
                    .into_iter()
                    .collect();
                prop_assert_eq!(found, wanted);
            }
            for (head, ..) in &events {
                prop_assert_eq!(head.has(bit::FROZEN), head.sequence == Sequence(1));
            }
        }

        #[test]
        fn a_version_that_leaves_the_entry_alone_leaves_no_trace(of in 0u8..8, times in 1usize..9) {
            let versions = (0..times).map(|nth| (head(nth as u32, false), entry(of)));
            let mut events = 0;
            derive(versions, same, |_, _, _| events += 1);
            prop_assert_eq!(events, 1);
        }
    }
}
