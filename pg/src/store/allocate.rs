//! Where new pages come from: the free-space map, else the end of the file.

use engine::page::{Page, PageKind};
use engine::record::RecordKind;
use engine::store::PageStore;
use engine::{BlockNumber, Result};
use pgrx::pg_sys::{self, ffi::pg_guard_ffi_boundary as guarded};

use super::{ExclusivePage, RelationStore};
use crate::ffi;
use crate::version::server;
use crate::wal;

/// `InvalidBlockNumber`: the map knows of nothing.
const NO_BLOCK: u32 = u32::MAX;

/// How many pages of the free-space map are tried before the file grows.
const CANDIDATES_MAX: usize = 8;

/// A page that nothing refers to, locked exclusively.
pub(super) fn allocate(store: &RelationStore) -> Result<ExclusivePage<'_>> {
    // The free-space map is the main fork's.
    if store.fork == pg_sys::ForkNumber::MAIN_FORKNUM {
        // The caller has a page locked. After a merge of many pages the map may
        // be full of ones that are too young; VACUUM offers them again.
        for _ in 0..CANDIDATES_MAX {
            let Some(at) = candidate(store) else {
                break;
            };
            if let Some(page) = take(store, at)? {
                return Ok(page);
            }
        }
    }
    Ok(extend(store))
}

/// A block that the map holds for free. It is not crash-safe, so it may name
/// blocks that are in use, or that a crash has cut off the file; the latter
/// would be an error to read.
fn candidate(store: &RelationStore) -> Option<BlockNumber> {
    // SAFETY: the relation is open.
    unsafe {
        loop {
            let block = pg_sys::GetFreeIndexPage(store.relation());
            if block == NO_BLOCK {
                return None;
            }
            if block < pg_sys::RelationGetNumberOfBlocksInFork(store.relation(), store.fork) {
                return Some(BlockNumber(block));
            }
        }
    }
}

/// Takes a candidate if it is free indeed (rule 32). The lock is conditional
/// because somebody, even our own caller, may hold the page.
fn take(store: &RelationStore, at: BlockNumber) -> Result<Option<ExclusivePage<'_>>> {
    let Some(page) = store.try_lock(at)? else {
        return Ok(None);
    };
    if Page::is_new(&page) {
        return Ok(Some(page));
    }
    let Ok(view) = Page::open(&page, at) else {
        // Whoever reads it in earnest reports the corruption.
        return Ok(None);
    };
    if view.kind() != PageKind::Deleted {
        return Ok(None);
    }
    let stamp = view.deleted_stamp();
    let full = pg_sys::FullTransactionId { value: stamp };
    // SAFETY: the relation is open.
    if !unsafe { pg_sys::GlobalVisCheckRemovableFullXid(store.relation(), full) } {
        return Ok(None);
    }
    log_reuse(store, at, stamp);
    Ok(Some(page))
}

/// Tells standbys that the page leaves its old place in the tree for good, so
/// that queries there that might still hold a link to it are ended first.
fn log_reuse(store: &RelationStore, at: BlockNumber, stamp: u64) {
    // SAFETY: the relation is open.
    if !unsafe { ffi::rowref_standby_cares(store.relation()) } {
        return;
    }
    // SAFETY: the relation is open.
    let file = server::file_numbers(&unsafe { server::file_of(store.relation()) });
    let notice = wal::ReuseNotice {
        file,
        block: at,
        stamp,
    }
    .encode();
    // SAFETY: the bytes live through the call, which copies them.
    unsafe {
        guarded(|| {
            ffi::rowref_log_notice(
                wal::MANAGER_ID,
                (RecordKind::Reuse as u8) << 4,
                notice.as_ptr(),
                notice.len() as u32,
            )
        });
    }
}

/// One block more at the end of the file.
fn extend(store: &RelationStore) -> ExclusivePage<'_> {
    let (mut buffer, mut block) = (0, 0);
    // SAFETY: the relation is open; the guard takes over pin and lock.
    unsafe {
        let page = guarded(|| {
            ffi::rowref_extend(
                store.relation(),
                store.fork,
                store.strategy,
                &mut buffer,
                &mut block,
            )
        });
        ExclusivePage::adopt(page, buffer, block)
    }
}
