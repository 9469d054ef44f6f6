//! The latch of a page, in two implementations behind one `imp` alias: real
//! ones for threads, and ones that shuttle schedules, under the cargo feature
//! `shuttle`, for tests that try interleavings one by one. Guards own their
//! latch, for pages are handed around and live no longer than they are held.

#[cfg(not(feature = "shuttle"))]
#[path = "real.rs"]
mod imp;
#[cfg(feature = "shuttle")]
#[path = "scheduled.rs"]
mod imp;

pub(super) use imp::{Latch, Mutex, ReadGuard, WriteGuard, point};
