//! Cutting off the end of a store's file.

use super::latch::Latch;
use super::log::{Entry, Lsn};
use super::store::{MemStore, Version};
use crate::error::{Error, Result};
use crate::types::BlockNumber;

/// A block that was cut off, which a crash may bring back until the next
/// checkpoint.
pub(super) struct Gone {
    pub(super) block: BlockNumber,
    /// When it was cut off.
    pub(super) at: Lsn,
    /// Its states since the checkpoint.
    pub(super) history: Vec<Version>,
}

impl MemStore {
    /// Says that nobody else uses the relation from now on, or that others may
    /// again: a standby's readers end before they replay the former.
    pub fn set_alone(&self, alone: bool) {
        if self.is_recording() {
            self.log.lock().append(Entry::Alone(alone));
        }
    }

    /// Cuts the file off before a block. The log is flushed first.
    ///
    /// # Panics
    /// If the file is shorter, or somebody holds one of the pages.
    pub fn truncate(&self, blocks: u32) {
        let at = if self.is_recording() {
            let mut log = self.log.lock();
            let at = log.append(Entry::Truncate(blocks));
            log.flushed = at;
            at
        } else {
            Lsn(0)
        };
        assert!(blocks as usize <= self.frames.read().len());
        self.cut(blocks, at);
    }

    /// Takes the blocks away, and remembers them for a crash.
    pub(super) fn cut(&self, blocks: u32, at: Lsn) {
        let mut frames = self.frames.write();
        let keep = frames.len().min(blocks as usize);
        let mut gone = self.gone.lock();
        for (nth, latch) in frames.drain(keep..).enumerate() {
            let mut frame = latch
                .try_write()
                .unwrap_or_else(|| panic!("somebody holds a page that is cut off"));
            if self.is_recording() {
                gone.push(Gone {
                    block: BlockNumber((keep + nth) as u32),
                    at,
                    history: std::mem::take(&mut frame.history),
                });
            }
        }
        self.missing.lock().retain(|block| block.0 < blocks);
    }

    /// What a crash at `flushed` may leave of each block: the states that it
    /// may be found in. Blocks that were cut off may be back.
    pub(super) fn possible(
        &self,
        flushed: Lsn,
        mut choose: impl FnMut(usize) -> usize,
    ) -> Vec<Vec<Version>> {
        let latches: Vec<Latch> = self.frames.read().clone();
        let gone = self.gone.lock();
        let longest = gone.iter().map(|gone| gone.block.0 as usize + 1).max();
        let longest = longest.unwrap_or(0).max(latches.len());
        let mut blocks = Vec::with_capacity(longest);
        // Whether what was cut off durably comes back all the same.
        let comes_back = choose(2) == 0;
        for at in 0..longest {
            let mut versions = Vec::new();
            let mut was_cut = true;
            for gone in gone.iter().filter(|gone| gone.block.0 as usize == at) {
                versions.extend(gone.history.iter().cloned());
                if gone.at > flushed {
                    was_cut = false;
                    break;
                }
            }
            if was_cut {
                if let Some(latch) = latches.get(at) {
                    versions.extend(latch.read().history.iter().cloned());
                } else if !comes_back {
                    break;
                }
            }
            versions.retain(|version| version.needs <= flushed);
            blocks.push(versions);
        }
        blocks
    }

    /// Whether replay needs a block that is not there, to be told at its end
    /// unless the log cuts it off: as the server does.
    pub(super) fn misses(&self, at: BlockNumber) -> bool {
        let frames = self.frames.read();
        let is_there = frames.get(at.0 as usize).is_some_and(|latch| {
            let frame = latch.read();
            frame.bytes.iter().any(|byte| *byte != 0)
        });
        if !is_there {
            self.missing.lock().insert(at);
        }
        !is_there
    }

    /// Refuses to end a replay that missed a block.
    pub(super) fn demand_nothing_missing(&self) -> Result<()> {
        match self.missing.lock().first() {
            Some(block) => Err(Error::corrupt(
                *block,
                "the log changes a block that is not there",
            )),
            None => Ok(()),
        }
    }
}
