//! Noting on a page how a writer's transaction ended.

use engine::page::cell::bit;
use engine::page::{Page, PageKind};
use engine::store::{Hint, LSN_BYTES, PageStore};
use engine::{BlockNumber, Xid};
use pgrx::pg_sys::{self, ffi::pg_guard_ffi_boundary as guarded};

use super::{ExclusivePage, RelationStore};
use crate::ffi;

/// See [`engine::store::PageStore::hint`] and "Hints" in `README.md`.
pub(super) fn hint(store: &RelationStore, at: BlockNumber, hints: &[Hint]) {
    if hints.is_empty() {
        return;
    }
    let Ok(Some(mut page)) = store.try_lock(at) else {
        return;
    };
    let mut changed = false;
    // Hints of one leaf mostly concern few transactions, in runs.
    let mut last: Option<(Xid, bool)> = None;
    for hint in hints {
        let Some(flags_at) = flags_of(&page, at, hint) else {
            continue;
        };
        if hint.committed {
            let durable = match last {
                Some((xid, durable)) if xid == hint.xid => durable,
                // SAFETY: the page is pinned and locked.
                _ => unsafe {
                    guarded(|| {
                        ffi::rowref_commit_is_durable(
                            page.buffer(),
                            pg_sys::TransactionId::from_inner(hint.xid.0),
                        )
                    })
                },
            };
            last = Some((hint.xid, durable));
            if !durable {
                continue;
            }
        }
        page.change()[flags_at] |= if hint.committed {
            bit::COMMITTED
        } else {
            bit::ABORTED
        };
        changed = true;
    }
    if changed {
        // SAFETY: the page is pinned and locked. It may log a full image, but
        // never inside a critical section.
        unsafe { pg_sys::MarkBufferDirtyHint(page.buffer(), true) };
    }
}

/// Where the flags lie of the version that the hint is about; `None` if that
/// slot is now something else, or knows already.
fn flags_of(page: &ExclusivePage<'_>, at: BlockNumber, hint: &Hint) -> Option<usize> {
    let view = Page::open(page, at).ok()?;
    let slot = hint.slot.index();
    if view.kind() != PageKind::Leaf || slot >= view.slot_count() {
        return None;
    }
    let head = view.leaf_cell(slot, at).ok()?.head;
    // A hint is about its transaction, so any version of that transaction may
    // take it; a lock has no use for one.
    if head.xmin != hint.xid || !head.is_version() {
        return None;
    }
    if head.flags & (bit::HINTS | bit::FROZEN) != 0 {
        return None;
    }
    Some(view.slot(slot).offset as usize - LSN_BYTES)
}
