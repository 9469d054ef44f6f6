//! What a crash leaves behind, and recovery from it.
//!
//! A crash cuts the log at any entry boundary at or behind what had been
//! flushed. Each page is found in any state it has had since the checkpoint
//! that the flushed log allows, because pages are written back in any order
//! and WAL goes first. A page whose first change since the checkpoint is
//! rebuilt by replay from an image or from nothing may be *torn*: sectors of
//! 512 bytes from two such states. Status hints are kept or lost with the
//! state they were set in.

use super::latch::Latch;
use super::log::{Entry, Lsn};
use super::store::{MemStore, masked};
use crate::error::{Error, Result};
use crate::page::apply::{Scratch, apply};
use crate::record::Change;
use crate::store::{LSN_BYTES, PageStore};
use crate::types::BlockNumber;

/// What a disk writes at once.
const SECTOR_BYTES: usize = 512;

impl MemStore {
    /// The store as a crash at `flushed` can leave it, before recovery. What
    /// is open in such a crash is asked of `choose(n)`, which answers with a
    /// number below `n`: which state of each page is found, whether it is
    /// torn, and whether blocks never written are there at all.
    ///
    /// To crash in the middle of recovery, [`MemStore::redo_to`] some LSN,
    /// then crash again with the same `flushed`.
    ///
    /// # Panics
    /// If the store does not record, or `flushed` lies outside the log behind
    /// the checkpoint.
    pub fn crash(&self, flushed: Lsn, mut choose: impl FnMut(usize) -> usize) -> MemStore {
        assert!(self.is_recording(), "only a recording store can crash");
        let log = {
            let log = self.log.lock();
            assert!(
                log.checkpoint <= flushed && flushed <= log.end(),
                "a crash falls between the checkpoint and the end of the log"
            );
            log.cut(flushed)
        };
        let crashed = MemStore::with(self.page_size(), true);
        let rebuilt = rebuilt_by_replay(&log.entries[log.checkpoint.0 as usize..]);
        let blocks = self.possible(flushed, &mut choose);
        let mut frames = Vec::with_capacity(blocks.len());
        for (at, possible) in blocks.iter().enumerate() {
            let mut bytes = possible[choose(possible.len())].bytes.to_vec();
            let may_tear = rebuilt.contains(&BlockNumber(at as u32));
            if may_tear && choose(4) == 0 {
                let other = &possible[choose(possible.len())].bytes;
                let sectors = bytes.chunks_mut(SECTOR_BYTES);
                for (sector, other) in sectors.zip(other.chunks(SECTOR_BYTES)) {
                    if choose(2) == 0 {
                        sector.copy_from_slice(other);
                    }
                }
            }
            let mut found = crashed.empty_frame();
            found.plain = bytes.clone().into_boxed_slice();
            found.bytes = bytes.into_boxed_slice();
            found.history.clear();
            found.remember(Lsn(0));
            frames.push(found);
        }
        // Extending a file is not logged: blocks at its end that nothing was
        // written to may be there or not.
        while frames
            .last()
            .is_some_and(|frame| frame.bytes.iter().all(|byte| *byte == 0))
            && choose(2) == 0
        {
            frames.pop();
        }
        *crashed.frames.write() = frames
            .into_iter()
            .enumerate()
            .map(|(at, frame)| Latch::new(BlockNumber(at as u32), frame))
            .collect();
        *crashed.log.lock() = log;
        let (stamp, before) = self.recycling();
        crashed.set_recycle_stamp(stamp);
        crashed.set_recyclable_before(before);
        crashed
    }

    /// Replays the log from the checkpoint to its end and makes a checkpoint,
    /// as the server does before it lets anybody in.
    pub fn redo(&self) -> Result<()> {
        self.redo_to(self.log_end())?;
        self.demand_nothing_missing()?;
        self.checkpoint();
        Ok(())
    }

    /// Replays the log from the checkpoint up to `until`, and stays as it is
    /// then: another crash may follow.
    pub fn redo_to(&self, until: Lsn) -> Result<()> {
        let (first, end) = (self.checkpoint_at(), self.log_end());
        self.missing.lock().clear();
        for lsn in (first.0 + 1..=until.min(end).0).map(Lsn) {
            let entry = self.log.lock().entry(lsn).clone();
            if let Entry::Truncate(blocks) = entry {
                self.cut(blocks, lsn);
            }
            let Entry::Change { record, images } = entry else {
                continue;
            };
            for (change, image) in record.changes.iter().zip(&images) {
                self.replay(lsn, change, image.as_deref())?;
            }
        }
        Ok(())
    }

    /// Carries out one block's change again, if the page lacks it.
    pub(super) fn replay(&self, lsn: Lsn, change: &Change, image: Option<&[u8]>) -> Result<()> {
        if !change.init && image.is_none() && self.misses(change.block) {
            return Ok(());
        }
        self.extend_to(change.block);
        let latch = self.latch(change.block)?;
        let mut frame = latch.write();
        if !replay_bytes(&mut frame.bytes, lsn, change, image, self.page_size())? {
            return Ok(());
        }
        if self.is_recording() {
            frame.plain = frame.bytes.clone();
        }
        frame.stamp(lsn);
        if self.is_recording() {
            // Everything in the log is durable while it is replayed.
            frame.remember(Lsn(0));
        }
        Ok(())
    }

    /// All pages, masked as [`masked`] does, for comparing two stores.
    pub fn masked_pages(&self) -> Vec<Vec<u8>> {
        let frames = self.frames.read().clone();
        let pages = frames.iter().map(|latch| masked(&latch.read().bytes));
        pages.collect()
    }
}

/// Replays one change over a page's bytes; whether there was anything to do.
/// An image is the page as it was after the change and replaces it whole; a
/// change that makes the page starts from zeros; both may meet a torn page,
/// so neither looks at its LSN.
pub(super) fn replay_bytes(
    bytes: &mut [u8],
    lsn: Lsn,
    change: &Change,
    image: Option<&[u8]>,
    page_size: usize,
) -> Result<bool> {
    if let Some(image) = image {
        bytes.copy_from_slice(image);
        return Ok(true);
    }
    if change.init {
        bytes.fill(0);
    } else if Lsn(super::store::lsn_of(bytes)) >= lsn {
        return Ok(false);
    }
    apply(
        &mut bytes[LSN_BYTES..],
        &change.ops,
        &mut Scratch::new(page_size),
    )
    .map_err(|mismatch| Error::corrupt(change.block, format!("replay of {}: {mismatch}", lsn.0)))?;
    Ok(true)
}

/// Blocks that replay rebuilds whole before it reads anything on them: those
/// whose first change carries an image or makes the page.
fn rebuilt_by_replay(entries: &[Entry]) -> Vec<BlockNumber> {
    let (mut seen, mut rebuilt) = (Vec::new(), Vec::new());
    for entry in entries {
        let Entry::Change { record, images } = entry else {
            continue;
        };
        for (change, image) in record.changes.iter().zip(images) {
            if seen.contains(&change.block) {
                continue;
            }
            seen.push(change.block);
            if change.init || image.is_some() {
                rebuilt.push(change.block);
            }
        }
    }
    rebuilt
}
