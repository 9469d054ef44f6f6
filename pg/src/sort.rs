//! Sorting entries in bounded memory: sorted runs go to a temporary file and
//! are merged as they are read back.

use std::cmp::Ordering;

use engine::compare::Compare;
use engine::page::cell::Head;
use engine::{CommandId, Sequence, Xid};
use rowref::handle::SpillFile;

/// Bytes of a run that are read back at a time.
const CHUNK_BYTES: usize = 128 << 10;
/// Bytes of an entry before its key: lengths, mark, head.
const HEADER_BYTES: usize = 4 + 4 + 1 + 1 + 4 + 4 + 8;

/// An entry on its way into an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item<'b> {
    /// Writer, number and kind.
    pub head: Head,
    /// The index's columns and the reference.
    pub key: &'b [u8],
    /// What the key does not give back.
    pub body: &'b [u8],
    /// A mark of the caller's.
    pub mark: bool,
}

impl<'b> Item<'b> {
    fn push(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.key.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.body.len() as u32).to_le_bytes());
        out.push(u8::from(self.mark));
        out.push(self.head.flags);
        out.extend_from_slice(&self.head.xmin.0.to_le_bytes());
        out.extend_from_slice(&self.head.cid.0.to_le_bytes());
        out.extend_from_slice(&self.head.sequence.0.to_le_bytes());
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.body);
    }

    /// The item at the start of `bytes`, and where it ends.
    fn read(bytes: &'b [u8]) -> (Item<'b>, usize) {
        let word = |at: usize| {
            u32::from_le_bytes(*bytes[at..].first_chunk().expect("an item is written whole"))
        };
        let middle = HEADER_BYTES + word(0) as usize;
        let end = middle + word(4) as usize;
        let item = Item {
            head: Head {
                flags: bytes[9],
                xmin: Xid(word(10)),
                cid: CommandId(word(14)),
                sequence: Sequence(u64::from(word(18)) | u64::from(word(22)) << 32),
            },
            key: &bytes[HEADER_BYTES..middle],
            body: &bytes[middle..end],
            mark: bytes[8] != 0,
        };
        (item, end)
    }
}

/// By key, and of one key the newest first: the order of a tree's entries.
fn order(left: &Item<'_>, right: &Item<'_>, compare: &impl Compare) -> Ordering {
    compare
        .compare(left.key, right.key)
        .then_with(|| right.head.sequence.cmp(&left.head.sequence))
}

/// A sorted run in the file, in chunks of whole items.
struct Run {
    chunks: std::vec::IntoIter<(u64, usize)>,
    bytes: Vec<u8>,
    at: usize,
}

impl Run {
    /// Makes the next item the one at hand; false if there is none.
    fn load(&mut self, file: &mut impl SpillFile) -> std::io::Result<bool> {
        while self.at >= self.bytes.len() {
            let Some((offset, len)) = self.chunks.next() else {
                return Ok(false);
            };
            self.bytes = file.read(offset, len)?;
            self.at = 0;
        }
        Ok(true)
    }

    fn item(&self) -> (Item<'_>, usize) {
        Item::read(&self.bytes[self.at..])
    }
}

/// The first bytes of a key, comparing as they do. Sixteen are a fixed-length
/// column with its null marker and the greater part of the reference behind it,
/// so that rows with equal columns are told apart too.
type First = u128;

/// How many items ahead an item's bytes are asked for while items are read in
/// their order, which is not that of the memory they lie in.
const AHEAD: usize = 8;

/// Has the bytes at `at` brought into the processor's cache.
#[inline(always)]
fn expect(bytes: &[u8], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(byte) = bytes.get(at) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint about bytes that are there; it changes nothing. Every
        // processor of this architecture has the instruction.
        unsafe { _mm_prefetch::<_MM_HINT_T0>((&raw const *byte).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, at);
}

/// Collects items and gives them back in order.
pub struct Sorter<'c, C, F> {
    compare: &'c C,
    file: F,
    limit_bytes: usize,
    bytes: Vec<u8>,
    /// The first bytes of each item's key, which often decide, and its place.
    items: Vec<(First, usize)>,
    runs: Vec<Vec<(u64, usize)>>,
}

impl<'c, C: Compare, F: SpillFile> Sorter<'c, C, F> {
    /// Sorts by `compare` in about `limit_bytes` of memory.
    pub fn new(compare: &'c C, file: F, limit_bytes: usize) -> Self {
        Sorter {
            compare,
            file,
            limit_bytes,
            bytes: Vec::new(),
            items: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Adds an item.
    pub fn add(&mut self, item: Item<'_>) -> std::io::Result<()> {
        let at = self.bytes.len();
        item.push(&mut self.bytes);
        let mut first = [0; size_of::<First>()];
        let len = item.key.len().min(first.len());
        first[..len].copy_from_slice(&item.key[..len]);
        self.items.push((First::from_be_bytes(first), at));
        if self.bytes.len() + self.items.len() * size_of::<(First, usize)>() >= self.limit_bytes {
            self.spill()?;
        }
        Ok(())
    }

    fn sort(&mut self) {
        let (bytes, compare) = (&self.bytes, self.compare);
        let ordered = compare.ordered();
        self.items.sort_unstable_by(|left, right| {
            if ordered && left.0 != right.0 {
                return left.0.cmp(&right.0);
            }
            let (left, _) = Item::read(&bytes[left.1..]);
            let (right, _) = Item::read(&bytes[right.1..]);
            order(&left, &right, compare)
        });
    }

    /// Writes what is in memory as one sorted run.
    fn spill(&mut self) -> std::io::Result<()> {
        self.sort();
        let mut chunks = Vec::new();
        let mut chunk = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8);
        for (_, at) in &self.items {
            let (_, len) = Item::read(&self.bytes[*at..]);
            chunk.extend_from_slice(&self.bytes[*at..at + len]);
            if chunk.len() >= CHUNK_BYTES {
                chunks.push((self.file.write(&chunk)?, chunk.len()));
                chunk.clear();
            }
        }
        if !chunk.is_empty() {
            chunks.push((self.file.write(&chunk)?, chunk.len()));
        }
        self.runs.push(chunks);
        self.bytes.clear();
        self.items.clear();
        Ok(())
    }

    /// Sorts what has not been sorted yet; [`Sorter::drain`] then merges.
    pub fn seal(&mut self) -> std::io::Result<()> {
        if self.runs.is_empty() {
            self.sort();
            return Ok(());
        }
        if !self.items.is_empty() {
            self.spill()?;
        }
        (self.bytes, self.items) = (Vec::new(), Vec::new());
        Ok(())
    }

    /// What the items are sorted by.
    pub fn compare(&self) -> &'c C {
        self.compare
    }

    /// Gives every item to `visit`, in order, and empties the file. To be
    /// called after [`Sorter::seal`].
    pub fn drain<E: From<std::io::Error>>(
        mut self,
        visit: impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.each(visit)?;
        self.file.truncate(0)?;
        Ok(())
    }

    /// Gives every item to `visit`, in order, and keeps it. To be called after
    /// [`Sorter::seal`].
    pub fn each<E: From<std::io::Error>>(
        &mut self,
        mut visit: impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.runs.is_empty() {
            for (nth, (_, at)) in self.items.iter().enumerate() {
                if let Some((_, next)) = self.items.get(nth + AHEAD) {
                    expect(&self.bytes, *next);
                }
                visit(Item::read(&self.bytes[*at..]).0)?;
            }
            return Ok(());
        }
        let mut runs = Vec::new();
        for chunks in &self.runs {
            let mut run = Run {
                chunks: chunks.clone().into_iter(),
                bytes: Vec::new(),
                at: 0,
            };
            if run.load(&mut self.file)? {
                runs.push(run);
            }
        }
        // A heap of the runs by their first items.
        let compare = self.compare;
        let less =
            |left: &Run, right: &Run| order(&left.item().0, &right.item().0, compare).is_lt();
        let sink = |runs: &mut [Run], mut at: usize| loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < runs.len() && less(&runs[child], &runs[least]) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            runs.swap(at, least);
            at = least;
        };
        for at in (0..runs.len() / 2).rev() {
            sink(&mut runs, at);
        }
        while let Some(first) = runs.first_mut() {
            let (item, len) = first.item();
            visit(item)?;
            first.at += len;
            if !first.load(&mut self.file)? {
                runs.swap_remove(0);
            }
            sink(&mut runs, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::compare::Bytewise;
    use proptest::prelude::*;
    use std::io;

    #[derive(Default)]
    struct Memory(Vec<u8>);

    impl SpillFile for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<u64> {
            let at = self.0.len() as u64;
            self.0.extend_from_slice(bytes);
            Ok(at)
        }

        fn read(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
            Ok(self.0[offset as usize..][..len].to_vec())
        }

        fn truncate(&mut self, len: u64) -> io::Result<()> {
            self.0.truncate(len as usize);
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn items_come_out_in_the_order_of_a_tree_however_little_memory_there_is(
            mut items in prop::collection::btree_set(
                (prop::collection::vec(0u8..3, 0..12), 0u64..4), 0..300,
            ).prop_map(|items| items.into_iter().collect::<Vec<_>>()).prop_shuffle(),
            limit in 1usize..20_000,
        ) {
            let mut sorter = Sorter::new(&Bytewise, Memory::default(), limit);
            for (key, sequence) in &items {
                let head = Head {
                    flags: 1,
                    xmin: Xid(7),
                    cid: CommandId(9),
                    sequence: Sequence(*sequence | 1 << 40),
                };
                let body = [&key[..], b"!"].concat();
                sorter.add(Item { head, key, body: &body, mark: *sequence == 2 }).unwrap();
            }
            sorter.seal().unwrap();
            let mut looked_at = 0;
            sorter.each(|_| {
                looked_at += 1;
                Ok::<_, io::Error>(())
            }).unwrap();
            assert_eq!(looked_at, items.len());
            let mut out = Vec::new();
            sorter.drain(|item| {
                assert_eq!(item.body, [item.key, b"!"].concat());
                assert_eq!((item.head.flags, item.head.xmin, item.head.cid), (1, Xid(7), CommandId(9)));
                let sequence = item.head.sequence.0 ^ 1 << 40;
                assert_eq!(item.mark, sequence == 2);
                out.push((item.key.to_vec(), sequence));
                Ok::<_, io::Error>(())
            }).unwrap();
            items.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
            prop_assert_eq!(out, items);
        }
    }
}
