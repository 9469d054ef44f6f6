//! The tokens of speculative insertions, by the transactions that hold them, and
//! what this session's has written.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::Xid;
use pgrx::pg_sys;

use crate::shmem;
use crate::xact::{
    SubtransactionEvent, TransactionEvent, on_subtransaction_event, on_transaction_event,
};

thread_local! {
    static OPEN: RefCell<Open> = const { RefCell::new(Open::new()) };
}

/// Speculative insertions that were announced and not withdrawn. More than one
/// where a function that an index calls comes to an ON CONFLICT of its own: the
/// last is the one at work. The room of those that ended is used again.
struct Open {
    insertions: Vec<Insertion>,
    count: usize,
}

#[derive(Default)]
struct Insertion {
    /// What others are told.
    announced: u64,
    /// How deep in subtransactions it was begun: the abort of one of these ends
    /// it.
    depth: i32,
    /// The handle of the row that was written under the token.
    row: Option<(u16, u16, u16)>,
    /// The keys of the row's index entries.
    keys: Vec<u8>,
    /// For each entry its index, and where in `keys` its key ends.
    ends: Vec<(pg_sys::Oid, usize)>,
}

impl Open {
    const fn new() -> Open {
        Open {
            insertions: Vec::new(),
            count: 0,
        }
    }

    fn last(&mut self) -> Option<&mut Insertion> {
        self.insertions[..self.count].last_mut()
    }

    /// Opens one; what others are told from now on.
    fn begin(&mut self, announced: u64, depth: i32) -> u64 {
        if self.count == self.insertions.len() {
            self.insertions.push(Insertion::default());
        }
        let insertion = &mut self.insertions[self.count];
        insertion.announced = announced;
        insertion.depth = depth;
        insertion.row = None;
        insertion.keys.clear();
        insertion.ends.clear();
        self.count += 1;
        announced
    }

    /// Ends the last one; what others are told from now on.
    fn end(&mut self) -> u64 {
        self.count = self.count.saturating_sub(1);
        self.last().map_or(0, |insertion| insertion.announced)
    }

    /// Ends those that were begun so deep or deeper; what others are told.
    fn abort(&mut self, depth: i32) -> u64 {
        while self.last().is_some_and(|last| last.depth >= depth) {
            self.end();
        }
        self.last().map_or(0, |insertion| insertion.announced)
    }
}

fn numbers(handle: pg_sys::ItemPointerData) -> (u16, u16, u16) {
    let block = handle.ip_blkid;
    (block.bi_hi, block.bi_lo, handle.ip_posid)
}

/// Notes the row that was written speculatively, for [`is_speculative`].
pub fn note_row(handle: pg_sys::ItemPointerData) {
    OPEN.with_borrow_mut(|open| {
        if let Some(last) = open.last() {
            last.row = Some(numbers(handle));
        }
    });
}

/// Whether a handle is that of the row whose speculative insertion goes on: its
/// index entries then carry the mark too, and are noted by [`note_entry`].
#[inline]
pub fn is_speculative(handle: pg_sys::ItemPointerData) -> bool {
    OPEN.with_borrow_mut(|open| {
        open.last()
            .is_some_and(|last| last.row == Some(numbers(handle)))
    })
}

/// Notes an entry that is about to be put for the row: it has to go with it.
pub fn note_entry(index: pg_sys::Oid, key: &[u8]) {
    OPEN.with_borrow_mut(|open| {
        if let Some(last) = open.last() {
            last.keys.extend_from_slice(key);
            last.ends.push((index, last.keys.len()));
        }
    });
}

/// Hands over each entry that was noted, to be removed with its row.
pub fn take_entries(mut remove: impl FnMut(pg_sys::Oid, &[u8])) {
    // Taken out: removing one may lead to a comparison function, and that to
    // anything.
    let (keys, ends) = OPEN.with_borrow_mut(|open| {
        open.last().map_or_else(Default::default, |last| {
            (
                std::mem::take(&mut last.keys),
                std::mem::take(&mut last.ends),
            )
        })
    });
    let mut start = 0;
    for (index, end) in ends {
        remove(index, &keys[start..end]);
        start = end;
    }
}

pub(super) fn install() {
    on_transaction_event(|event: TransactionEvent| {
        if event.is_end() {
            told(|open| open.abort(0));
        }
    });
    // An insertion that failed is not withdrawn; what it has noted must not be
    // taken for the next one's.
    on_subtransaction_event(|event, _, _| {
        if event == SubtransactionEvent::Abort {
            // SAFETY: asks for a number; the subtransaction is still the
            // current one while its callbacks run.
            let depth = unsafe { pg_sys::GetCurrentTransactionNestLevel() };
            told(|open| open.abort(depth));
        }
    });
}

/// Changes what is open, and tells all sessions.
fn told(change: impl FnOnce(&mut Open) -> u64) {
    OPEN.with_borrow_mut(|open| {
        if open.count > 0 {
            own().store(change(open), Ordering::SeqCst);
        }
    });
}

/// This session's place among all sessions'.
fn own() -> &'static AtomicU64 {
    // SAFETY: a session that runs statements has its PGPROC, whose number does
    // not change.
    let number = unsafe { (*pg_sys::MyProc).pgprocno };
    &shmem::speculations()[usize::try_from(number).expect("sessions are numbered from 0")]
}

/// Tells all sessions under which token `xid` is about to insert a row
/// speculatively. To be called before the row is written.
pub fn announce(xid: Xid, token: u32) {
    // SAFETY: asks for a number.
    let depth = unsafe { pg_sys::GetCurrentTransactionNestLevel() };
    let announced = u64::from(xid.0) << 32 | u64::from(token);
    OPEN.with_borrow_mut(|open| own().store(open.begin(announced, depth), Ordering::SeqCst));
}

/// Ends what [`announce`] began last. To be called once the row is confirmed or
/// gone.
pub fn withdraw() {
    told(Open::end);
}

/// The token under which a transaction inserts a row just now.
///
/// Asked under the lock of the page on which a version of a running
/// transaction says SPECULATIVE, the answer is that version's token, unless
/// its writer has failed and is about to be aborted: the token is announced
/// before the version is written, and withdrawn after it was changed, which
/// needs the page's exclusive lock. Asked later, it is the token of that
/// version or of a later one of the same writer.
pub fn token_of(xid: Xid) -> Option<u32> {
    shmem::speculations().iter().find_map(|place| {
        let announced = place.load(Ordering::SeqCst);
        (announced >> 32 == u64::from(xid.0) && announced != 0).then_some(announced as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_insertion_that_failed_leaves_nothing_to_the_next_one() {
        let mut open = Open::new();
        assert_eq!(open.begin(1, 1), 1);
        open.last().unwrap().ends.push((pg_sys::Oid::INVALID, 0));
        assert_eq!(open.begin(2, 2), 2);
        open.last().unwrap().row = Some((1, 2, 3));
        open.last().unwrap().ends.push((pg_sys::Oid::INVALID, 0));
        // The inner one fails in a subtransaction, which the outer one outlives.
        assert_eq!(open.abort(2), 1);
        assert_eq!(open.last().unwrap().ends.len(), 1);
        assert_eq!(open.begin(3, 1), 3);
        assert!(open.last().unwrap().ends.is_empty() && open.last().unwrap().row.is_none());
        assert_eq!(open.end(), 1);
        assert_eq!(open.end(), 0);
        assert_eq!(open.abort(0), 0);
    }
}
