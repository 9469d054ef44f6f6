//! Applying and logging a record: the only way to change a page.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use engine::page::apply::{Scratch, apply};
use engine::record::Record;
use pgrx::pg_sys;

use super::{ExclusivePage, RelationStore};
use crate::ffi::{self, Part};
use crate::wal::{self, Images};

// What the server prepares in every backend without being asked (rule 28): a
// chunk for the header, and one for each block.
const _: () = assert!(Record::BLOCKS_MAX <= pg_sys::XLR_NORMAL_MAX_BLOCK_ID as usize + 1);
const _: () = assert!(Record::BLOCKS_MAX < pg_sys::XLR_NORMAL_RDATAS as usize);

thread_local! {
    /// Room to rebuild a page in; made before the first critical section,
    /// inside which nothing may allocate.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new(pg_sys::BLCKSZ as usize));
}

/// Runs `apply` in this session's scratch room; a panic of it is a mismatch
/// like any other, for its callers must not unwind.
pub(crate) fn apply_in_scratch(
    bytes: &mut [u8],
    ops: &[u8],
    scratch: &mut Scratch,
) -> Result<(), &'static str> {
    catch_unwind(AssertUnwindSafe(|| apply(bytes, ops, scratch)))
        .unwrap_or(Err("an operation reaches outside the page"))
}

/// Hands out this session's scratch room.
pub(crate) fn with_scratch<T>(body: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(body)
}

/// See [`engine::store::PageStore::commit`] and "Commit" in `README.md`.
pub(super) fn commit(store: &RelationStore, record: &Record, pages: &mut [&mut ExclusivePage<'_>]) {
    let count = record.changes.len();
    assert!(
        (1..=Record::BLOCKS_MAX).contains(&count),
        "a record changes between one and five blocks"
    );
    assert!(
        count == pages.len(),
        "a record changes exactly the pages that are locked for it"
    );
    let mut parts = [Part {
        data: ptr::null(),
        data_bytes: 0,
        buffer: 0,
        init: 0,
    }; Record::BLOCKS_MAX];
    for (nth, (change, page)) in record.changes.iter().zip(pages.iter()).enumerate() {
        assert!(
            change.block.0 == page.block(),
            "a record's pages come in its own order"
        );
        assert!(
            change.ops.len() <= usize::from(u16::MAX),
            "the operations on a block fit a block reference of the log"
        );
        parts[nth] = Part {
            data: change.ops.as_ptr(),
            data_bytes: change.ops.len() as u32,
            buffer: page.buffer(),
            init: u8::from(change.init),
        };
    }
    let (manager, compress) = if store.needs_wal() {
        (wal::MANAGER_ID, wal::compresses_images())
    } else {
        (0, false)
    };
    // Most records conflict with nothing, and so carry no header at all.
    let horizon = record.conflict_horizon.0.to_le_bytes();
    let horizon_bytes = if record.conflict_horizon.0 == 0 { 0 } else { 4 };

    let mut apply_and_log = |scratch: &mut Scratch, images: &mut Images| {
        // SAFETY: ended by `rowref_critical_log`; in between nothing raises an
        // error that could be caught, nor unwinds.
        unsafe { ffi::rowref_critical_begin() };
        for (change, page) in record.changes.iter().zip(pages.iter_mut()) {
            if let Err(why) = apply_in_scratch(page.change(), &change.ops, scratch) {
                ffi::panic(
                    &format!("pg_rowref could not change block {}: {why}", change.block),
                    &format!("Record {:?} does not fit the page.", record.kind),
                );
            }
        }
        if compress {
            put_images(&mut parts[..count], pages, images);
        }
        // SAFETY: all buffers are held exclusively by `pages`; the parts point
        // into `record` and `images`. An ERROR in here is a PANIC, so no guard is needed.
        unsafe {
            ffi::rowref_critical_log(
                parts.as_ptr(),
                count as i32,
                manager,
                (record.kind as u8) << 4,
                horizon.as_ptr(),
                horizon_bytes,
            );
        }
    };
    with_scratch(|scratch| wal::with_images(|images| apply_and_log(scratch, images)));
}

/// Has images stand in for the operations on the pages of which the server
/// would log an image of its own, where ours are shorter. In the critical
/// section, the pages changed.
fn put_images(parts: &mut [Part], pages: &[&mut ExclusivePage<'_>], images: &mut Images) {
    let mut made = [false; Record::BLOCKS_MAX];
    for (nth, (part, page)) in parts.iter().zip(pages).enumerate() {
        // SAFETY: the buffer is held by `page`.
        made[nth] = part.init == 0
            && unsafe { ffi::rowref_wants_image(part.buffer) }
            && images.make(nth, page);
    }
    for (nth, part) in parts.iter_mut().enumerate() {
        if made[nth] {
            let image = images.made(nth);
            part.data = image.as_ptr();
            part.data_bytes = image.len() as u32;
            part.init = 1;
        }
    }
}
