//! Sorting entries in bounded memory: sorted runs go to a temporary file and
//! are merged as they are read back. Runs of other processes, which they have
//! left in files of theirs, are merged with them.

mod failure;
mod radix;

pub use failure::Failure;

use std::cmp::Ordering;

use engine::compare::Compare;
use engine::page::cell::{Head, LeafCell};
use rowref::handle::SpillFile;

use radix::{First, Place};

/// Bytes of a run that are read back at a time: so many, but in little memory
/// fewer, for each run has its own when they are merged.
const CHUNK_BYTES_MAX: usize = 64 << 10;
const CHUNK_BYTES_MIN: usize = 8 << 10;
/// Bytes of an item before its cell: how many the cell has, with the mark in the
/// topmost bit.
const LENGTH_BYTES: usize = 4;
const MARK: u32 = 1 << 31;

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
    /// Appends the item: as a leaf's cell with its whole key, for that is short
    /// and quickly read.
    fn push(self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        self.head.encode(Some(self.key), self.body, out);
        let length = (out.len() - start - LENGTH_BYTES) as u32;
        let marked = length | if self.mark { MARK } else { 0 };
        out[start..start + LENGTH_BYTES].copy_from_slice(&marked.to_le_bytes());
    }

    /// Bytes of the item at the start of `bytes`.
    #[inline]
    fn len(bytes: &[u8]) -> (usize, bool) {
        let marked = bytes.first_chunk().expect("an item is written whole");
        let marked = u32::from_le_bytes(*marked);
        ((marked & !MARK) as usize + LENGTH_BYTES, marked & MARK != 0)
    }

    /// The item at the start of `bytes`, and where it ends.
    #[inline]
    fn read(bytes: &'b [u8]) -> (Item<'b>, usize) {
        let (end, mark) = Item::len(bytes);
        let cell = &bytes[LENGTH_BYTES..end];
        let cell = LeafCell::decode_small(cell).or_else(|| LeafCell::decode(cell, false));
        let cell = cell.expect("an item is written whole");
        let item = Item {
            head: cell.head,
            key: cell.suffix.unwrap_or_default(),
            body: cell.body,
            mark,
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

#[inline]
fn first_of(key: &[u8]) -> First {
    if let Some(first) = key.first_chunk() {
        return First::from_be_bytes(*first);
    }
    let mut first = [0; size_of::<First>()];
    let len = key.len().min(first.len());
    first[..len].copy_from_slice(&key[..len]);
    First::from_be_bytes(first)
}

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

/// Where the chunks of a sorted run lie in its file.
type Chunks = Vec<(u64, usize)>;

/// Where the rest of a run is.
enum Rest<'m> {
    Memory {
        items: std::slice::Iter<'m, Place>,
        bytes: &'m [u8],
    },
    File {
        file: usize,
        chunks: std::slice::Iter<'m, (u64, usize)>,
        /// The chunk at hand, and where the next item lies in it.
        chunk: Vec<u8>,
        next: usize,
    },
}

/// A sorted run as it is read.
struct Run<'m> {
    rest: Rest<'m>,
    /// The item at hand, and the first bytes of its key.
    at: usize,
    first: First,
}

impl<'m> Run<'m> {
    fn new(rest: Rest<'m>) -> Run<'m> {
        Run {
            rest,
            at: 0,
            first: 0,
        }
    }

    fn in_file(file: usize, chunks: &'m [(u64, usize)]) -> Run<'m> {
        Run::new(Rest::File {
            file,
            chunks: chunks.iter(),
            chunk: Vec::new(),
            next: 0,
        })
    }

    /// Makes the next item the one at hand; false if there is none.
    fn advance(&mut self, files: &mut [impl SpillFile]) -> std::io::Result<bool> {
        match &mut self.rest {
            Rest::Memory { items, bytes } => {
                let Some(place) = items.next() else {
                    return Ok(false);
                };
                if let Some(ahead) = items.as_slice().get(AHEAD) {
                    expect(bytes, ahead.at);
                }
                (self.first, self.at) = (place.first(), place.at);
            }
            Rest::File {
                file,
                chunks,
                chunk,
                next,
            } => {
                while *next >= chunk.len() {
                    let Some((offset, len)) = chunks.next() else {
                        return Ok(false);
                    };
                    *chunk = files[*file].read(*offset, *len)?;
                    *next = 0;
                }
                self.at = *next;
                let (item, len) = Item::read(&chunk[self.at..]);
                *next += len;
                self.first = first_of(item.key);
            }
        }
        Ok(true)
    }

    fn item(&self) -> Item<'_> {
        let bytes = match &self.rest {
            Rest::Memory { bytes, .. } => bytes,
            Rest::File { chunk, .. } => &chunk[..],
        };
        Item::read(&bytes[self.at..]).0
    }
}

/// A run's place in the heap of a merge: the first bytes of its item's key, and
/// which run it is. Runs themselves are too large to be moved about.
type Ahead = (First, usize);

/// Whether the item of one run comes before that of another.
#[inline]
fn precedes(runs: &[Run<'_>], left: Ahead, right: Ahead, compare: &impl Compare) -> bool {
    if compare.ordered() && left.0 != right.0 {
        return left.0 < right.0;
    }
    order(&runs[left.1].item(), &runs[right.1].item(), compare).is_lt()
}

/// Lets the run at `at` of a heap sink to where it belongs.
#[inline]
fn sink(heap: &mut [Ahead], mut at: usize, runs: &[Run<'_>], compare: &impl Compare) {
    loop {
        let mut least = at;
        for child in [2 * at + 1, 2 * at + 2] {
            if child < heap.len() && precedes(runs, heap[child], heap[least], compare) {
                least = child;
            }
        }
        if least == at {
            return;
        }
        heap.swap(at, least);
        at = least;
    }
}

/// Where in a file the list of its runs is: what another process has to know
/// of a sorter that was closed ([`Sorter::export`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Directory {
    start: u64,
    bytes: u64,
}

impl Directory {
    /// Whether there is no run.
    pub fn is_empty(self) -> bool {
        self.bytes == 0
    }
}

/// Collects items and gives them back in order.
pub struct Sorter<'c, C, F> {
    compare: &'c C,
    limit_bytes: usize,
    bytes: Vec<u8>,
    items: Vec<Place>,
    /// Whether `items` are in order.
    sorted: bool,
    /// Its own file, and those of others.
    files: Vec<F>,
    /// Each run's file and place in it.
    runs: Vec<(usize, Chunks)>,
}

impl<'c, C: Compare, F: SpillFile> Sorter<'c, C, F> {
    /// Sorts by `compare` in about `limit_bytes` of memory.
    pub fn new(compare: &'c C, file: F, limit_bytes: usize) -> Self {
        Sorter {
            compare,
            limit_bytes,
            bytes: Vec::new(),
            items: Vec::new(),
            sorted: true,
            files: vec![file],
            runs: Vec::new(),
        }
    }

    /// Adds an item.
    pub fn add(&mut self, item: Item<'_>) -> std::io::Result<()> {
        let at = self.bytes.len();
        item.push(&mut self.bytes);
        self.items.push(Place::new(first_of(item.key), at));
        self.sorted = false;
        // Sorting takes as much again of the places.
        if self.bytes.len() + 2 * self.items.len() * size_of::<Place>() >= self.limit_bytes {
            self.spill()?;
        }
        Ok(())
    }

    fn sort(&mut self) {
        if std::mem::replace(&mut self.sorted, true) {
            return;
        }
        let (bytes, compare) = (&self.bytes, self.compare);
        let by_key = |left: &Place, right: &Place| {
            let (left, _) = Item::read(&bytes[left.at..]);
            let (right, _) = Item::read(&bytes[right.at..]);
            order(&left, &right, compare)
        };
        if compare.ordered() {
            radix::sort(&mut self.items, &by_key);
        } else {
            self.items.sort_unstable_by(by_key);
        }
    }

    /// Writes what is in memory as one sorted run.
    fn spill(&mut self) -> std::io::Result<()> {
        self.sort();
        let chunk_bytes = (self.limit_bytes / 16).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        let mut chunks = Vec::new();
        let mut chunk = Vec::with_capacity(chunk_bytes + chunk_bytes / 8);
        for (nth, Place { at, .. }) in self.items.iter().enumerate() {
            if let Some(ahead) = self.items.get(nth + AHEAD) {
                expect(&self.bytes, ahead.at);
            }
            let (len, _) = Item::len(&self.bytes[*at..]);
            chunk.extend_from_slice(&self.bytes[*at..at + len]);
            if chunk.len() >= chunk_bytes {
                chunks.push((self.files[0].write(&chunk)?, chunk.len()));
                chunk.clear();
            }
        }
        if !chunk.is_empty() {
            chunks.push((self.files[0].write(&chunk)?, chunk.len()));
        }
        self.runs.push((0, chunks));
        self.bytes.clear();
        self.items.clear();
        Ok(())
    }

    /// Sorts what has not been sorted yet; [`Sorter::drain`] then merges.
    pub fn seal(&mut self) -> std::io::Result<()> {
        if self.runs.iter().all(|(file, _)| *file != 0) {
            self.sort();
            return Ok(());
        }
        if !self.items.is_empty() {
            self.spill()?;
        }
        (self.bytes, self.items) = (Vec::new(), Vec::new());
        Ok(())
    }

    /// Leaves all items in the file, sorted, for another process to
    /// [`Sorter::import`], and closes it.
    pub fn export(mut self) -> std::io::Result<Directory> {
        if !self.items.is_empty() {
            self.spill()?;
        }
        let file = &mut self.files[0];
        let mut directory = Vec::new();
        for (_, chunks) in &self.runs {
            directory.extend_from_slice(&(chunks.len() as u64).to_le_bytes());
            for (offset, len) in chunks {
                directory.extend_from_slice(&offset.to_le_bytes());
                directory.extend_from_slice(&(*len as u64).to_le_bytes());
            }
        }
        let bytes = directory.len() as u64;
        let start = if bytes == 0 {
            0
        } else {
            file.write(&directory)?
        };
        file.truncate(0)?;
        Ok(Directory { start, bytes })
    }

    /// Takes in the items that another process has left in `file`.
    pub fn import(&mut self, mut file: F, directory: Directory) -> std::io::Result<()> {
        let bytes = file.read(directory.start, directory.bytes as usize)?;
        let (words, _) = bytes.as_chunks();
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let mut next = || words.next().ok_or(std::io::ErrorKind::UnexpectedEof);
        let mut left = bytes.len() / size_of::<u64>();
        while left > 0 {
            let count = next()?;
            let mut chunks = Chunks::new();
            for _ in 0..count {
                chunks.push((next()?, next()? as usize));
            }
            left = left.saturating_sub(1 + 2 * chunks.len());
            self.runs.push((self.files.len(), chunks));
        }
        self.files.push(file);
        Ok(())
    }

    /// What the items are sorted by.
    pub fn compare(&self) -> &'c C {
        self.compare
    }

    /// Gives every item to `visit`, in order, and closes the files. To be
    /// called after [`Sorter::seal`].
    pub fn drain<E: From<std::io::Error>>(
        mut self,
        visit: impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.each(visit)?;
        for file in &mut self.files {
            file.truncate(0)?;
        }
        Ok(())
    }

    /// Gives every item to `visit`, in order, and keeps it. To be called after
    /// [`Sorter::seal`].
    pub fn each<E: From<std::io::Error>>(
        &mut self,
        mut visit: impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let files = &mut self.files;
        let own = Run::new(Rest::Memory {
            items: self.items.iter(),
            bytes: &self.bytes,
        });
        let others = self.runs.iter();
        let others = others.map(|(file, chunks)| Run::in_file(*file, chunks));
        let mut runs: Vec<_> = std::iter::once(own).chain(others).collect();
        // By their first items.
        let mut heap: Vec<Ahead> = Vec::new();
        for (nth, run) in runs.iter_mut().enumerate() {
            if run.advance(files)? {
                heap.push((run.first, nth));
            }
        }
        let compare = self.compare;
        for at in (0..heap.len() / 2).rev() {
            sink(&mut heap, at, &runs, compare);
        }
        while let Some((first, nth)) = heap.first_mut() {
            let run = &mut runs[*nth];
            visit(run.item())?;
            if run.advance(files)? {
                *first = run.first;
            } else {
                heap.swap_remove(0);
            }
            sink(&mut heap, 0, &runs, compare);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::compare::Bytewise;
    use engine::{CommandId, Sequence, Xid};
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::io;
    use std::rc::Rc;

    /// A file that stays when it is closed, as one that others read does.
    #[derive(Clone, Default)]
    struct Memory(Rc<RefCell<Vec<u8>>>);

    impl SpillFile for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<u64> {
            let at = self.0.borrow().len() as u64;
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(at)
        }

        fn read(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
            Ok(self.0.borrow()[offset as usize..][..len].to_vec())
        }

        fn truncate(&mut self, _: u64) -> io::Result<()> {
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
            participants in 1usize..4,
        ) {
            // The last one merges what the others have left in their files.
            let mut sorters: Vec<_> = (0..participants)
                .map(|_| Sorter::new(&Bytewise, Memory::default(), limit))
                .collect();
            for (nth, (key, sequence)) in items.iter().enumerate() {
                let sorter = &mut sorters[nth % participants];
                let head = Head {
                    flags: 1,
                    xmin: Xid(7),
                    cid: CommandId(9),
                    sequence: Sequence(*sequence | 1 << 40),
                };
                let body = [&key[..], b"!"].concat();
                sorter.add(Item { head, key, body: &body, mark: *sequence == 2 }).unwrap();
            }
            let mut sorter = sorters.pop().unwrap();
            for other in sorters {
                let file = other.files[0].clone();
                let directory = other.export().unwrap();
                if !directory.is_empty() {
                    sorter.import(file, directory).unwrap();
                }
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
