//! Entries that have to be ended, collected in the order in which their rows
//! went and given back in that of the index.

use engine::compare::Compare;
use engine::mvcc::Writer;
use engine::mvcc::end_entries::Ending;

/// The first bytes of a key, zeros behind shorter ones. Sixteen are a
/// fixed-length column and its reference: most keys are no longer.
type First = [u8; 16];

/// One entry.
#[derive(Clone, Copy)]
struct Item {
    first: First,
    /// Where its key lies, if `first` does not hold all of it.
    start: u32,
    length: u16,
    /// Which of `origins` ended its row.
    origin: u16,
}

/// A command that ended rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Origin {
    writer: Writer,
    subtransaction: u32,
}

/// Entries of one index whose rows have ended.
#[derive(Default)]
pub(super) struct Endings {
    keys: Vec<u8>,
    items: Vec<Item>,
    origins: Vec<Origin>,
}

/// How many entries ahead of the one that is asked for keys are fetched.
const AHEAD: usize = 6;

/// Has the processor fetch memory that is about to be read.
#[inline]
fn expect(byte: &u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: to prefetch changes nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(byte).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = byte;
}

/// What an emptied collection may keep for the next one.
const ROOM_MAX: usize = 64 << 10;

impl Endings {
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Memory that the entries take.
    pub fn bytes(&self) -> usize {
        self.keys.len() + self.items.len() * size_of::<Item>()
    }

    /// The first command of those that ended the rows.
    pub fn first_command(&self) -> Option<u32> {
        self.origins.iter().map(|origin| origin.writer.cid.0).min()
    }

    /// Whether it takes one more, whoever comes with it.
    pub fn has_room(&self) -> bool {
        self.keys.len() < 1 << 30 && self.origins.len() < usize::from(u16::MAX)
    }

    /// Adds the entry whose key `write` appends. `subtransaction` is asked for
    /// once for each command.
    ///
    /// If `write` fails nothing is added.
    pub fn push<E>(
        &mut self,
        writer: Writer,
        subtransaction: impl FnOnce() -> u32,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.keys.len();
        write(&mut self.keys).inspect_err(|_| self.keys.truncate(start))?;
        let known = self.origins.last().map(|origin| origin.writer);
        if known != Some(writer) {
            self.origins.push(Origin {
                writer,
                subtransaction: subtransaction(),
            });
        }
        let key = &self.keys[start..];
        let mut first = [0; 16];
        let len = key.len().min(first.len());
        first[..len].copy_from_slice(&key[..len]);
        self.items.push(Item {
            first,
            start: u32::try_from(start).expect("asked `has_room`"),
            length: u16::try_from(key.len()).expect("keys are smaller than a page"),
            origin: (self.origins.len() - 1) as u16,
        });
        if key.len() <= first.len() {
            self.keys.truncate(start);
        }
        Ok(())
    }

    fn key<'i>(&'i self, item: &'i Item) -> &'i [u8] {
        let length = usize::from(item.length);
        match item.first.get(..length) {
            Some(key) => key,
            None => &self.keys[item.start as usize..][..length],
        }
    }

    /// Sorts them by their keys.
    pub fn sort(&mut self, compare: &impl Compare) {
        let mut items = std::mem::take(&mut self.items);
        let by_key = |left: &Item, right: &Item| compare.compare(self.key(left), self.key(right));
        if compare.ordered() {
            // One comparison of numbers decides, for nearly all.
            items.sort_unstable_by_key(|item| u128::from_be_bytes(item.first));
            for alike in items.chunk_by_mut(|left, right| left.first == right.first) {
                if alike.len() > 1 {
                    alike.sort_unstable_by(by_key);
                }
            }
        } else {
            items.sort_unstable_by(by_key);
        }
        self.items = items;
    }

    /// The `nth` entry. The next ones are expected to be asked for after it.
    #[inline]
    pub fn ending(&self, nth: usize) -> Ending<'_> {
        // Sorted items are side by side; keys lie where they were made.
        if let Some(soon) = self.items.get(nth + AHEAD)
            && soon.first.len() < usize::from(soon.length)
        {
            let key = self.key(soon);
            expect(&key[0]);
            expect(&key[key.len() - 1]);
        }
        let item = &self.items[nth];
        Ending {
            writer: self.origins[usize::from(item.origin)].writer,
            key: self.key(item),
        }
    }

    /// Forgets the first `count`.
    pub fn forget_first(&mut self, count: usize) {
        self.items.drain(..count);
    }

    /// Forgets what was collected by subtransactions from this one on: itself,
    /// as it is rolled back, and what was released into it.
    pub fn roll_back(&mut self, subtransaction: u32) {
        let origins = &self.origins;
        let is_kept =
            |item: &Item| origins[usize::from(item.origin)].subtransaction < subtransaction;
        self.items.retain(is_kept);
        if self.items.is_empty() {
            self.clear();
        }
    }

    /// Takes over what another has.
    pub fn absorb(&mut self, other: &Endings) {
        for item in &other.items {
            let origin = other.origins[usize::from(item.origin)];
            let added = self.push(
                origin.writer,
                || origin.subtransaction,
                |keys| {
                    keys.extend_from_slice(other.key(item));
                    Ok::<_, std::convert::Infallible>(())
                },
            );
            let Ok(()) = added;
        }
    }

    /// Empties it, keeping a little room.
    pub fn clear(&mut self) {
        if self.bytes() > ROOM_MAX {
            *self = Endings::default();
        }
        self.keys.clear();
        self.items.clear();
        self.origins.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::compare::Bytewise;
    use engine::{CommandId, Xid};
    use proptest::prelude::*;

    fn writer(command: u32) -> Writer {
        Writer {
            xid: Xid(7 + command / 4),
            cid: CommandId(command),
        }
    }

    fn push(endings: &mut Endings, key: &[u8], command: u32, subtransaction: u32) {
        let pushed = endings.push(
            writer(command),
            || subtransaction,
            |keys| {
                keys.extend_from_slice(key);
                Ok::<_, ()>(())
            },
        );
        assert_eq!(pushed, Ok(()));
    }

    fn all(endings: &Endings) -> Vec<(Vec<u8>, Writer)> {
        (0..endings.len())
            .map(|nth| {
                let ending = endings.ending(nth);
                (ending.key.to_vec(), ending.writer)
            })
            .collect()
    }

    proptest! {
        #[test]
        fn entries_come_out_in_key_order_each_with_its_writer(
            keys in prop::collection::btree_set(prop::collection::vec(0u8..3, 1..24), 0..60)
                .prop_map(|keys| keys.into_iter().collect::<Vec<_>>()).prop_shuffle(),
            rolled_back in 0u32..12,
            done in 0usize..8,
        ) {
            let mut endings = Endings::default();
            let mut wanted = Vec::new();
            for (nth, key) in keys.iter().enumerate() {
                // Commands go on; every fifth one runs in a newer subtransaction.
                let command = nth as u32 / 3;
                let subtransaction = 1 + command / 2;
                push(&mut endings, key, command, subtransaction);
                wanted.push((key.clone(), writer(command), subtransaction));
            }
            wanted.sort_by(|left, right| left.0.cmp(&right.0));
            endings.sort(&Bytewise);
            let done = done.min(wanted.len());
            endings.forget_first(done);
            wanted.drain(..done);
            endings.roll_back(rolled_back);
            wanted.retain(|(.., subtransaction)| *subtransaction < rolled_back);
            let mut more = Endings::default();
            push(&mut more, &[9], 1000, 1);
            more.absorb(&endings);
            more.sort(&Bytewise);
            let mut wanted: Vec<_> = wanted.into_iter().map(|(key, writer, _)| (key, writer)).collect();
            prop_assert_eq!(all(&endings), wanted.clone());
            wanted.push((vec![9], writer(1000)));
            prop_assert_eq!(all(&more), wanted);
        }
    }

    #[test]
    fn an_entry_that_cannot_be_made_is_not_added() {
        let mut endings = Endings::default();
        let failed = endings.push(
            writer(1),
            || 1,
            |keys| {
                keys.extend_from_slice(b"half");
                Err("too long")
            },
        );
        assert_eq!(failed, Err("too long"));
        assert!(endings.is_empty());
        assert_eq!(endings.first_command(), None);
        push(&mut endings, b"whole", 2, 1);
        assert_eq!(all(&endings), [(b"whole".to_vec(), writer(2))]);
        assert_eq!(endings.first_command(), Some(2));
    }
}
