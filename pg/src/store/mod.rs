//! Pages in PostgreSQL's shared buffers, as the engine's [`PageStore`].
//!
//! Why the locks, the critical section, the crash states and the hints are
//! right is argued in `README.md` beside this file.

mod allocate;
mod commit;
mod create;
mod guard;
mod hint;
mod image;
mod predicate;
mod truncate;

pub use crate::version::server::{RelationFile, copy_files, file_number, file_of, has_storage};
pub(crate) use commit::{apply_in_scratch, with_scratch};
pub use create::create_storage;
pub use guard::{ExclusivePage, SharedPage};
pub use image::ImageStore;
pub use predicate::{lock_relation, lose_pages};
pub use truncate::Alone;

use std::ops::RangeInclusive;

use engine::record::Record;
use engine::store::{Hint, PageStore};
use engine::{BlockNumber, Result};
use pgrx::pg_sys::{self, ffi::pg_guard_ffi_boundary as guarded};

use crate::error::OrRaise;
use crate::ffi;

/// The pages of one fork of an open relation.
///
/// It borrows the relation from the server: it must not outlive the caller's
/// open relation, which [`RelationStore::new`] makes the caller promise.
#[derive(Clone, Copy)]
pub struct RelationStore {
    relation: pg_sys::Relation,
    fork: pg_sys::ForkNumber::Type,
    strategy: pg_sys::BufferAccessStrategy,
}

impl RelationStore {
    /// The main fork of `relation`.
    ///
    /// # Safety
    /// `relation` is open, locked as its use demands, and stays so for as
    /// long as this store and its guards live.
    #[inline]
    pub unsafe fn new(relation: pg_sys::Relation) -> RelationStore {
        RelationStore {
            relation,
            fork: pg_sys::ForkNumber::MAIN_FORKNUM,
            strategy: std::ptr::null_mut(),
        }
    }

    /// The init fork of an unlogged relation; always logged. New relations get
    /// theirs from [`create_storage`].
    ///
    /// # Safety
    /// As [`RelationStore::new`]; the fork exists.
    pub unsafe fn init_fork(relation: pg_sys::Relation) -> RelationStore {
        RelationStore {
            fork: pg_sys::ForkNumber::INIT_FORKNUM,
            // SAFETY: the caller's promise.
            ..unsafe { Self::new(relation) }
        }
    }

    /// The same pages, read through a ring of buffers: for what touches a
    /// relation from end to end and should not push out everything else.
    ///
    /// # Safety
    /// `strategy` (from `GetAccessStrategy`, or null for none) outlives the
    /// store.
    #[must_use]
    pub unsafe fn with_strategy(self, strategy: pg_sys::BufferAccessStrategy) -> RelationStore {
        RelationStore { strategy, ..self }
    }

    /// The relation, for calls to the server.
    #[inline]
    pub fn relation(&self) -> pg_sys::Relation {
        self.relation
    }

    /// The value of a result of the engine's; an error is reported as one of
    /// this relation, and does not come back.
    #[inline]
    pub fn or_raise<T>(&self, result: Result<T>) -> T {
        // SAFETY: the relation is open.
        unsafe { result.or_raise(self.relation) }
    }

    /// Whether changes are logged (rule 29). Asked anew for each commit: a
    /// transaction may give the relation new storage that need not be.
    #[inline]
    pub fn needs_wal(&self) -> bool {
        // SAFETY: the relation is open; reads its relcache entry only.
        unsafe { ffi::rowref_needs_wal(self.relation, self.fork) }
    }

    /// Asks the kernel to fetch a block that will be read soon.
    pub fn prefetch(&self, at: BlockNumber) {
        // SAFETY: the relation is open.
        unsafe {
            pg_sys::PrefetchBuffer(self.relation, self.fork, at.0);
        }
    }

    /// How many blocks may be fetched at a time, as far as the session's
    /// settings go.
    pub fn io_concurrency(&self) -> usize {
        // SAFETY: the relation is open; the setting of its tablespace.
        let blocks = unsafe {
            pg_sys::get_tablespace_io_concurrency((*(*self.relation).rd_rel).reltablespace)
        };
        usize::try_from(blocks).unwrap_or(0)
    }

    /// Brings the upper levels of the free-space map up to date, after
    /// [`PageStore::offer`]s: VACUUM's last step.
    pub fn publish_free_space(&self) {
        // SAFETY: the relation is open.
        unsafe { pg_sys::IndexFreeSpaceMapVacuum(self.relation) }
    }
}

/// As [`PageStore::expect_more`], for whoever serves a page's rows without the
/// store.
#[inline]
pub fn expect_more() {
    // SAFETY: touches no memory, and cannot fail.
    unsafe { ffi::rowref_expect_more() }
}

impl PageStore for RelationStore {
    type Shared<'s> = SharedPage<'s>;
    type Exclusive<'s> = ExclusivePage<'s>;

    #[inline]
    fn page_size(&self) -> usize {
        pg_sys::BLCKSZ as usize
    }

    fn block_count(&self) -> Result<u32> {
        // SAFETY: the relation is open.
        Ok(unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.relation, self.fork) })
    }

    #[inline]
    fn holds(&self, at: BlockNumber) -> Result<bool> {
        if self.fork != pg_sys::ForkNumber::MAIN_FORKNUM {
            return Ok(at.0 < self.block_count()?);
        }
        // SAFETY: the relation is open.
        unsafe {
            let storage = (*self.relation).rd_smgr;
            if !storage.is_null() {
                let known = (*storage).smgr_targblock;
                if known != pg_sys::InvalidBlockNumber && at.0 < known {
                    return Ok(true);
                }
            }
            Ok(guarded(|| ffi::rowref_holds(self.relation, at.0)))
        }
    }

    #[inline]
    fn read(&self, at: BlockNumber) -> Result<SharedPage<'_>> {
        let mut buffer = 0;
        // SAFETY: the relation is open; an error of the server's unwinds from
        // here with nothing held. The guard takes over pin and lock.
        unsafe {
            let page = guarded(|| {
                ffi::rowref_read(
                    self.relation,
                    self.fork,
                    at.0,
                    pg_sys::BUFFER_LOCK_SHARE as i32,
                    self.strategy,
                    &mut buffer,
                )
            });
            Ok(SharedPage::adopt(page, buffer, at.0))
        }
    }

    #[inline]
    fn lock(&self, at: BlockNumber) -> Result<ExclusivePage<'_>> {
        let mut buffer = 0;
        // SAFETY: as in `read`.
        unsafe {
            let page = guarded(|| {
                ffi::rowref_read(
                    self.relation,
                    self.fork,
                    at.0,
                    pg_sys::BUFFER_LOCK_EXCLUSIVE as i32,
                    self.strategy,
                    &mut buffer,
                )
            });
            Ok(ExclusivePage::adopt(page, buffer, at.0))
        }
    }

    #[inline]
    fn try_lock(&self, at: BlockNumber) -> Result<Option<ExclusivePage<'_>>> {
        let mut buffer = 0;
        // SAFETY: as in `read`; a null page holds nothing.
        unsafe {
            let page = guarded(|| {
                ffi::rowref_try_lock(self.relation, self.fork, at.0, self.strategy, &mut buffer)
            });
            Ok((!page.is_null()).then(|| ExclusivePage::adopt(page, buffer, at.0)))
        }
    }

    fn allocate(&self) -> Result<ExclusivePage<'_>> {
        allocate::allocate(self)
    }

    fn offer(&self, at: BlockNumber) {
        // SAFETY: the relation is open; the map checks what it is told when
        // it is asked (`allocate`).
        unsafe { pg_sys::RecordFreeIndexPage(self.relation, at.0) }
    }

    #[inline]
    fn block_of(&self, guard: &ExclusivePage<'_>) -> BlockNumber {
        BlockNumber(guard.block())
    }

    #[inline]
    fn block_of_shared(&self, guard: &SharedPage<'_>) -> BlockNumber {
        BlockNumber(guard.block())
    }

    fn commit(&self, record: &Record, pages: &mut [&mut ExclusivePage<'_>]) {
        commit::commit(self, record, pages);
    }

    #[inline]
    fn expect(&self, at: BlockNumber) {
        // SAFETY: the relation is open.
        unsafe { guarded(|| ffi::rowref_expect(self.relation, self.fork, at.0)) }
    }

    #[inline]
    fn expect_little(&self, at: BlockNumber) {
        // SAFETY: the relation is open.
        unsafe { guarded(|| ffi::rowref_expect_little(self.relation, self.fork, at.0)) }
    }

    #[inline]
    fn expect_rows(&self, at: BlockNumber, keys: RangeInclusive<u64>, width: usize) {
        if self.fork != pg_sys::ForkNumber::MAIN_FORKNUM {
            return;
        }
        let (first, last) = keys.into_inner();
        // SAFETY: the relation is open; nothing is pinned, and what is read of
        // the page serves to ask for more of it only.
        unsafe { ffi::rowref_expect_rows(self.relation, at.0, first, last, width as i32) }
    }

    #[inline]
    fn expect_more(&self) {
        expect_more();
    }

    fn hint(&self, at: BlockNumber, hints: &[Hint]) {
        hint::hint(self, at, hints);
    }

    fn interruptible(&self) {
        pgrx::check_for_interrupts!();
    }

    fn recycle_stamp(&self) -> u64 {
        // SAFETY: reads shared state.
        unsafe { pg_sys::ReadNextFullTransactionId().value }
    }
}
