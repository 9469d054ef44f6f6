//! The tokens of speculative insertions, by the transactions that hold them, and
//! what this session's has written.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};

use engine::Xid;
use pgrx::pg_sys;

use crate::shmem;
use crate::xact::{TransactionEvent, on_transaction_event};

thread_local! {
    static ANNOUNCED: Cell<bool> = const { Cell::new(false) };
    /// The handle of the row that was written under it.
    static ROW: Cell<Option<(u16, u16, u16)>> = const { Cell::new(None) };
    static ENTRIES: RefCell<Entries> = const { RefCell::new(Entries::new()) };
}

/// The index entries of that row. The room is used again.
struct Entries {
    keys: Vec<u8>,
    /// The index, and where in `keys` its entry's key ends.
    ends: Vec<(pg_sys::Oid, usize)>,
}

impl Entries {
    const fn new() -> Entries {
        Entries {
            keys: Vec::new(),
            ends: Vec::new(),
        }
    }
}

fn numbers(handle: pg_sys::ItemPointerData) -> (u16, u16, u16) {
    let block = handle.ip_blkid;
    (block.bi_hi, block.bi_lo, handle.ip_posid)
}

/// Notes the row that was written speculatively, for [`is_speculative`].
pub fn note_row(handle: pg_sys::ItemPointerData) {
    ROW.set(Some(numbers(handle)));
}

/// Whether a handle is that of a row whose speculative insertion goes on: its
/// index entries then carry the mark too, and are noted by [`note_entry`].
#[inline]
pub fn is_speculative(handle: pg_sys::ItemPointerData) -> bool {
    ROW.get().is_some_and(|row| row == numbers(handle))
}

/// Notes an entry that is about to be put for the row: it has to go with it.
pub fn note_entry(index: pg_sys::Oid, key: &[u8]) {
    ENTRIES.with_borrow_mut(|entries| {
        entries.keys.extend_from_slice(key);
        let end = entries.keys.len();
        entries.ends.push((index, end));
    });
}

/// Hands over each entry that was noted, to be removed with its row.
pub fn take_entries(mut remove: impl FnMut(pg_sys::Oid, &[u8])) {
    // Taken out: removing one may lead to a comparison function, and that to
    // anything.
    let entries = ENTRIES.replace(Entries::new());
    let mut start = 0;
    for (index, end) in entries.ends {
        remove(index, &entries.keys[start..end]);
        start = end;
    }
}

pub(super) fn install() {
    on_transaction_event(|event: TransactionEvent| {
        if event.is_end() {
            withdraw();
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
    ANNOUNCED.set(true);
    own().store(u64::from(xid.0) << 32 | u64::from(token), Ordering::SeqCst);
}

/// Ends what [`announce`] began. To be called once the row is confirmed or
/// gone.
pub fn withdraw() {
    if ANNOUNCED.replace(false) {
        ROW.set(None);
        ENTRIES.with_borrow_mut(|entries| {
            entries.keys.clear();
            entries.ends.clear();
        });
        own().store(0, Ordering::SeqCst);
    }
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
