//! What a recording store logs.

use std::collections::HashMap;

use crate::record::Record;
use crate::types::Xid;

/// A place in the log: the number of entries up to and including one. Zero is
/// the place before the first entry, and the LSN of a page never changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(pub u64);

/// One log entry.
#[derive(Clone, Debug)]
pub enum Entry {
    /// An atomic change of pages. `images[i]` is the whole page, its hole
    /// zeroed, after `record.changes[i]`, if that was the page's first change
    /// since the checkpoint.
    Change {
        /// The change.
        record: Record,
        /// Full-page images, one place for each change.
        images: Vec<Option<Box<[u8]>>>,
    },
    /// From here on nobody else uses the relation, or they may again. (In the
    /// server the lock is logged, and given up by the end of its transaction.)
    Alone(bool),
    /// The file is cut off before this block.
    Truncate(u32),
    /// The end of a transaction and of its subtransactions.
    End {
        /// The transactions that ended together.
        xids: Vec<Xid>,
        /// Whether they committed.
        committed: bool,
    },
}

/// The log of one store.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    pub(super) entries: Vec<Entry>,
    /// Replay starts behind this place.
    pub(super) checkpoint: Lsn,
    /// What is known to be durable.
    pub(super) flushed: Lsn,
    /// Where each transaction ended, and whether it committed.
    pub(super) ends: HashMap<Xid, (Lsn, bool)>,
}

impl Log {
    pub(super) fn end(&self) -> Lsn {
        Lsn(self.entries.len() as u64)
    }

    pub(super) fn append(&mut self, entry: Entry) -> Lsn {
        let lsn = Lsn(self.entries.len() as u64 + 1);
        if let Entry::End { xids, committed } = &entry {
            for xid in xids {
                self.ends.insert(*xid, (lsn, *committed));
            }
        }
        self.entries.push(entry);
        lsn
    }

    /// The entries up to `flushed`, as a crash leaves them.
    pub(super) fn cut(&self, flushed: Lsn) -> Log {
        let mut log = Log {
            checkpoint: self.checkpoint,
            flushed,
            ..Log::default()
        };
        for entry in &self.entries[..flushed.0 as usize] {
            log.append(entry.clone());
        }
        log
    }

    pub(super) fn entry(&self, lsn: Lsn) -> &Entry {
        &self.entries[lsn.0 as usize - 1]
    }
}
