//! Latched pages and `commit`.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::latch::{Latch, ReadGuard, WriteGuard, point};
use super::log::{Entry, Log, Lsn};
use super::truncate::Gone;
use crate::error::{Error, Result};
use crate::page::apply::{Scratch, apply};
use crate::page::cell::{LeafCell, bit};
use crate::page::{Page, PageKind};
use crate::predicate::Predicates;
use crate::record::Record;
use crate::store::{Hint, LSN_BYTES, PageStore};
use crate::types::{BlockNumber, Xid};

/// One state of a page that could be found on disk after a crash.
#[derive(Clone)]
pub(super) struct Version {
    /// What has to be durable before this state can be: the record that made
    /// it, and for hints the commit that they tell of (rule 7).
    pub(super) needs: Lsn,
    /// The whole page.
    pub(super) bytes: Arc<[u8]>,
}

/// A page in memory.
#[derive(Default)]
pub(super) struct Frame {
    /// The whole page, its LSN included.
    pub(super) bytes: Box<[u8]>,
    /// The same page as redo alone would make it: no hint was ever set on it.
    /// Empty unless the store records.
    pub(super) plain: Box<[u8]>,
    /// Every state since the checkpoint, oldest first; empty unless recording.
    pub(super) history: Vec<Version>,
}

impl Frame {
    pub(super) fn lsn(&self) -> Lsn {
        Lsn(lsn_of(&self.bytes))
    }

    pub(super) fn stamp(&mut self, lsn: Lsn) {
        for bytes in [&mut self.bytes, &mut self.plain] {
            if !bytes.is_empty() {
                bytes[..LSN_BYTES].copy_from_slice(&lsn.0.to_le_bytes());
            }
        }
    }

    /// Notes the present state as one that a crash may leave behind.
    pub(super) fn remember(&mut self, needs: Lsn) {
        self.history.push(Version {
            needs,
            bytes: Arc::from(&*self.plain),
        });
        if self.plain != self.bytes {
            self.history.push(Version {
                needs,
                bytes: Arc::from(&*self.bytes),
            });
        }
    }
}

pub(super) fn lsn_of(page: &[u8]) -> u64 {
    page.first_chunk::<LSN_BYTES>()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// A page under a shared latch.
pub struct Shared {
    block: BlockNumber,
    guard: ReadGuard,
}

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.guard.bytes[LSN_BYTES..]
    }
}

/// A page under an exclusive latch.
pub struct Exclusive {
    block: BlockNumber,
    guard: WriteGuard,
}

impl Deref for Exclusive {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.guard.bytes[LSN_BYTES..]
    }
}

type Pace = Arc<dyn Fn(&'static str) + Send + Sync>;

/// Pages in memory behind latches. A *recording* store also keeps the log and
/// every state of every page since the checkpoint, checks after each record
/// that redo would make the same page, and can crash.
pub struct MemStore {
    page_size: usize,
    recording: bool,
    pub(super) frames: RwLock<Vec<Latch>>,
    pub(super) log: Mutex<Log>,
    offered: Mutex<VecDeque<BlockNumber>>,
    /// What `recycle_stamp` answers, and what `allocate` compares with.
    recycling: Mutex<(u64, u64)>,
    images: Mutex<bool>,
    /// Blocks cut off since the checkpoint.
    pub(super) gone: Mutex<Vec<Gone>>,
    /// Blocks that replay missed so far.
    pub(super) missing: Mutex<BTreeSet<BlockNumber>>,
    pace: RwLock<Option<Pace>>,
}

impl fmt::Debug for MemStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemStore")
            .field("page_size", &self.page_size)
            .field("recording", &self.recording)
            .field("blocks", &self.frames.read().len())
            .field("log_end", &self.log.lock().end())
            .finish()
    }
}

impl MemStore {
    /// An empty store that records nothing.
    ///
    /// # Panics
    /// If the page size is not a multiple of 256 between 256 and 32,768.
    pub fn new(page_size: usize) -> MemStore {
        MemStore::with(page_size, false)
    }

    /// An empty store that logs and can crash.
    ///
    /// # Panics
    /// As [`MemStore::new`].
    pub fn recording(page_size: usize) -> MemStore {
        MemStore::with(page_size, true)
    }

    pub(super) fn with(page_size: usize, recording: bool) -> MemStore {
        assert!(
            page_size.is_multiple_of(256) && (256..=32_768).contains(&page_size),
            "a page has a multiple of 256 bytes, at most 32,768"
        );
        MemStore {
            page_size,
            recording,
            frames: RwLock::new(Vec::new()),
            log: Mutex::new(Log::default()),
            offered: Mutex::new(VecDeque::new()),
            recycling: Mutex::new((0, 0)),
            images: Mutex::new(true),
            gone: Mutex::new(Vec::new()),
            missing: Mutex::new(BTreeSet::new()),
            pace: RwLock::new(None),
        }
    }

    /// Whether the store logs and can crash.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// Calls `observer` at every named point, on the thread that came by.
    pub fn on_pace(&self, observer: impl Fn(&'static str) + Send + Sync + 'static) {
        *self.pace.write() = Some(Arc::new(observer));
    }

    /// What [`PageStore::recycle_stamp`] answers from now on: the next xid.
    pub fn set_recycle_stamp(&self, stamp: u64) {
        self.recycling.lock().0 = stamp;
    }

    pub(super) fn recycling(&self) -> (u64, u64) {
        *self.recycling.lock()
    }

    /// Deleted pages with a smaller stamp may be used again.
    pub fn set_recyclable_before(&self, stamp: u64) {
        self.recycling.lock().1 = stamp;
    }

    /// Whether the first change of a page after a checkpoint logs its image
    /// (`full_page_writes`); so it is unless switched off. Without images no
    /// page can be torn.
    pub fn set_full_page_images(&self, on: bool) {
        *self.images.lock() = on;
    }

    /// The end of the log.
    pub fn log_end(&self) -> Lsn {
        self.log.lock().end()
    }

    /// Where replay would start.
    pub fn checkpoint_at(&self) -> Lsn {
        self.log.lock().checkpoint
    }

    /// What is durable.
    pub fn flushed(&self) -> Lsn {
        self.log.lock().flushed
    }

    /// Makes the log durable up to `lsn`, or to its end if that comes first.
    pub fn flush(&self, lsn: Lsn) {
        let mut log = self.log.lock();
        log.flushed = log.flushed.max(lsn.min(log.end()));
    }

    /// The log, entry by entry; entry `n` (from zero) has LSN `n + 1`.
    pub fn entries(&self) -> Vec<Entry> {
        self.log.lock().entries.clone()
    }

    /// Logs the end of transactions. Not durable before [`MemStore::flush`].
    pub fn log_end_of(&self, xids: &[Xid], committed: bool) -> Lsn {
        if !self.recording {
            return Lsn(0);
        }
        self.log.lock().append(Entry::End {
            xids: xids.to_vec(),
            committed,
        })
    }

    /// Where a transaction ended and whether it committed, as far as the log
    /// knows.
    pub fn end_of(&self, xid: Xid) -> Option<(Lsn, bool)> {
        self.log.lock().ends.get(&xid).copied()
    }

    /// All transactions that the log says have committed.
    pub fn committed(&self) -> Vec<Xid> {
        let log = self.log.lock();
        let mut xids: Vec<Xid> = log
            .ends
            .iter()
            .filter(|(_, (_, committed))| *committed)
            .map(|(xid, _)| *xid)
            .collect();
        xids.sort_by_key(|xid| xid.0);
        xids
    }

    /// The LSN of a page.
    pub fn page_lsn(&self, at: BlockNumber) -> Result<Lsn> {
        Ok(self.latch(at)?.read().lsn())
    }

    /// Ends the time in which older states of pages could survive a crash:
    /// all pages and the log are durable as they are now.
    pub fn checkpoint(&self) {
        let frames = self.frames.read().clone();
        let mut frames: Vec<_> = frames.iter().map(|latch| latch.write()).collect();
        let mut log = self.log.lock();
        log.checkpoint = log.end();
        log.flushed = log.end();
        self.gone.lock().clear();
        for frame in &mut frames {
            frame.plain = frame.bytes.clone();
            frame.history.clear();
            frame.remember(log.checkpoint);
        }
    }

    /// The bytes of all pages, from which [`MemStore::with_pages`] makes a
    /// store like this one.
    pub fn pages(&self) -> Vec<Box<[u8]>> {
        let frames = self.frames.read().clone();
        let pages = frames.iter().map(|latch| latch.read().bytes.clone());
        pages.collect()
    }

    /// A store that records nothing and has these pages.
    pub fn with_pages(page_size: usize, pages: &[Box<[u8]>]) -> MemStore {
        let store = MemStore::new(page_size);
        let frames = pages.iter().enumerate().map(|(at, page)| {
            let mut frame = store.empty_frame();
            frame.bytes.copy_from_slice(page);
            Latch::new(BlockNumber(at as u32), frame)
        });
        let frames = frames.collect();
        *store.frames.write() = frames;
        store
    }

    /// Appends empty blocks until `at` exists.
    pub(super) fn extend_to(&self, at: BlockNumber) {
        let mut frames = self.frames.write();
        while frames.len() <= at.0 as usize {
            let block = BlockNumber(frames.len() as u32);
            frames.push(Latch::new(block, self.empty_frame()));
        }
    }

    pub(super) fn empty_frame(&self) -> Frame {
        let zeros = vec![0u8; self.page_size].into_boxed_slice();
        let mut frame = Frame {
            plain: if self.recording {
                zeros.clone()
            } else {
                Box::default()
            },
            bytes: zeros,
            history: Vec::new(),
        };
        if self.recording {
            frame.remember(Lsn(0));
        }
        frame
    }

    pub(super) fn latch(&self, at: BlockNumber) -> Result<Latch> {
        self.frames
            .read()
            .get(at.0 as usize)
            .cloned()
            .ok_or_else(|| Error::Store(format!("block {at} does not exist")))
    }

    /// Whether an offered page can be used again (rule 32).
    fn is_reusable(&self, page: &[u8]) -> bool {
        if Page::is_new(page) {
            return true;
        }
        Page::open(page, BlockNumber::NONE).is_ok_and(|page| {
            page.kind() == PageKind::Deleted && page.deleted_stamp() < self.recycling.lock().1
        })
    }

    /// Carries out a change on one page; a plan that does not apply is a bug.
    fn carry_out(&self, page: &mut Exclusive, ops: &[u8], init: bool, scratch: &mut Scratch) {
        let frame = &mut *page.guard;
        for bytes in [&mut frame.bytes, &mut frame.plain] {
            if bytes.is_empty() {
                continue;
            }
            if init {
                bytes[LSN_BYTES..].fill(0);
            }
            if let Err(mismatch) = apply(&mut bytes[LSN_BYTES..], ops, scratch) {
                panic!(
                    "a plan does not apply to block {}: {mismatch}; {:?}",
                    page.block,
                    crate::page::op::read(ops).collect::<Vec<_>>()
                );
            }
        }
    }
}

impl Predicates for MemStore {}

impl PageStore for MemStore {
    type Shared<'s> = Shared;
    type Exclusive<'s> = Exclusive;

    fn page_size(&self) -> usize {
        self.page_size
    }

    fn block_count(&self) -> Result<u32> {
        Ok(self.frames.read().len() as u32)
    }

    fn read(&self, at: BlockNumber) -> Result<Shared> {
        let guard = self.latch(at)?.read();
        Ok(Shared { block: at, guard })
    }

    fn lock(&self, at: BlockNumber) -> Result<Exclusive> {
        let guard = self.latch(at)?.write();
        Ok(Exclusive { block: at, guard })
    }

    fn try_lock(&self, at: BlockNumber) -> Result<Option<Exclusive>> {
        let guard = self.latch(at)?.try_write();
        Ok(guard.map(|guard| Exclusive { block: at, guard }))
    }

    fn allocate(&self) -> Result<Exclusive> {
        // One pass over what is on offer: pages that are not safe yet go back
        // to the end of the queue, pages in use are forgotten.
        let on_offer = self.offered.lock().len();
        for _ in 0..on_offer {
            let Some(at) = self.offered.lock().pop_front() else {
                break;
            };
            let Ok(Some(page)) = self.try_lock(at) else {
                continue;
            };
            if self.is_reusable(&page) {
                return Ok(page);
            }
            if Page::open(&page, at).is_ok_and(|page| page.kind() == PageKind::Deleted) {
                self.offered.lock().push_back(at);
            }
        }
        let mut frames = self.frames.write();
        let block = BlockNumber(frames.len() as u32);
        let (latch, guard) = Latch::held(block, self.empty_frame());
        frames.push(latch);
        Ok(Exclusive { block, guard })
    }

    fn offer(&self, at: BlockNumber) {
        let mut offered = self.offered.lock();
        if !offered.contains(&at) {
            offered.push_back(at);
        }
    }

    fn block_of(&self, guard: &Exclusive) -> BlockNumber {
        guard.block
    }

    fn block_of_shared(&self, guard: &Shared) -> BlockNumber {
        guard.block
    }

    /// # Panics
    /// If the record does not fit the pages: a bug of whoever planned it.
    fn commit(&self, record: &Record, pages: &mut [&mut Exclusive]) {
        assert!(
            record.changes.len() == pages.len(),
            "one locked page for each change"
        );
        assert!(
            (1..=Record::BLOCKS_MAX).contains(&pages.len()),
            "a record changes one to five blocks"
        );
        point();
        let mut scratch = Scratch::new(self.page_size);
        for (change, page) in record.changes.iter().zip(pages.iter_mut()) {
            assert!(
                change.block == page.block,
                "pages are in the record's order"
            );
            self.carry_out(page, &change.ops, change.init, &mut scratch);
            if self.recording {
                same_but_for_hints(&page.guard.bytes, &page.guard.plain, page.block);
            }
        }
        if !self.recording {
            return;
        }
        let with_images = *self.images.lock();
        let mut log = self.log.lock();
        let checkpoint = log.checkpoint;
        let images = record.changes.iter().zip(pages.iter());
        let images = images
            .map(|(change, page)| {
                (with_images && !change.init && page.guard.lsn() <= checkpoint)
                    .then(|| without_hole(&page.guard.bytes))
            })
            .collect();
        let lsn = log.append(Entry::Change {
            record: record.clone(),
            images,
        });
        drop(log);
        for page in pages {
            page.guard.stamp(lsn);
            page.guard.remember(lsn);
        }
    }

    fn hint(&self, at: BlockNumber, hints: &[Hint]) {
        let Ok(Some(mut page)) = self.try_lock(at) else {
            return;
        };
        let log = self.log.lock();
        let (flushed, recording) = (log.flushed, self.recording);
        let durable = |hint: &Hint| {
            // An abort needs no record: a transaction without one is aborted.
            !recording
                || !hint.committed
                || log.ends.get(&hint.xid).is_some_and(|end| end.0 <= flushed)
        };
        let mut any = false;
        for hint in hints.iter().filter(|hint| durable(hint)) {
            any |= set_hint(&mut page.guard.bytes[LSN_BYTES..], *hint);
        }
        drop(log);
        if any && recording {
            let needs = page.guard.lsn().max(flushed);
            page.guard.remember(needs);
        }
    }

    fn recycle_stamp(&self) -> u64 {
        self.recycling.lock().0
    }

    fn pace(&self, point: &'static str) {
        let observer = self.pace.read().clone();
        if let Some(observer) = observer {
            observer(point);
        }
    }
}

/// Sets one status bit if the entry in the hint's slot still is the judged
/// writer's. Any entry of that writer will do: they all ended with it.
fn set_hint(bytes: &mut [u8], hint: Hint) -> bool {
    let Ok(page) = Page::open(bytes, BlockNumber::NONE) else {
        return false;
    };
    if page.kind() != PageKind::Leaf || hint.slot.index() >= page.slot_count() {
        return false;
    }
    let slot = page.slot(hint.slot.index());
    let Some(cell) = LeafCell::decode(page.cell_bytes(slot), slot.key_below) else {
        return false;
    };
    let set = if hint.committed {
        bit::COMMITTED
    } else {
        bit::ABORTED
    };
    if cell.head.xmin != hint.xid || cell.head.flags & bit::HINTS != 0 {
        return false;
    }
    bytes[slot.offset as usize - LSN_BYTES] |= set;
    true
}

/// A page as a full-page image keeps it: what lies in the hole is lost.
pub(super) fn without_hole(page: &[u8]) -> Box<[u8]> {
    let mut image: Box<[u8]> = page.into();
    if let Ok(page) = Page::open(&page[LSN_BYTES..], BlockNumber::NONE) {
        let hole = page.lower()..page.upper();
        image[hole].fill(0);
    }
    image
}

/// A page as consistency checks compare it: without LSN, hole, hints, and what
/// lies among the cells with no slot or fence referring to it, for garbage may
/// still carry hints.
pub fn masked(page: &[u8]) -> Vec<u8> {
    let mut copy = without_hole(page).into_vec();
    copy[..LSN_BYTES].fill(0);
    let Ok(page) = Page::open(&page[LSN_BYTES..], BlockNumber::NONE) else {
        return copy;
    };
    if !matches!(page.kind(), PageKind::Leaf | PageKind::Inner) {
        return copy;
    }
    let whole = copy.clone();
    copy[page.upper()..page.special_at()].fill(0);
    for (offset, length, _) in page.fence_extents() {
        if let Some(fence) = whole.get(offset..offset + length) {
            copy[offset..offset + length].copy_from_slice(fence);
        }
    }
    for slot in (0..page.slot_count()).map(|slot| page.slot(slot)) {
        let (offset, length) = (slot.offset as usize, slot.length as usize);
        if length == 0 {
            continue;
        }
        if let Some(cell) = whole.get(offset..offset + length) {
            copy[offset..offset + length].copy_from_slice(cell);
            if page.kind() == PageKind::Leaf {
                copy[offset] &= !bit::HINTS;
            }
        }
    }
    copy
}

/// Redo knows nothing of hints, so what operations make of a page may not
/// depend on them (rule 28).
fn same_but_for_hints(live: &[u8], plain: &[u8], block: BlockNumber) {
    assert!(
        live == plain || masked(live) == masked(plain),
        "redo would make another page of block {block} than commit did"
    );
}
