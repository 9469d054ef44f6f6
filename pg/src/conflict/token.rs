//! The tokens of speculative insertions, by the transactions that hold them.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::Xid;
use pgrx::pg_sys;

use crate::shmem;
use crate::xact::{TransactionEvent, on_transaction_event};

thread_local! {
    static ANNOUNCED: Cell<bool> = const { Cell::new(false) };
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
