//! A page store in memory, for tests, models and benchmarks: real latches, a
//! recorded log, and the crash model of rule 45.
//!
//! [`store`] holds the latched pages and `commit`; [`log`] what was recorded;
//! [`crash`] builds the states that a crash can leave behind and replays the
//! log over them; [`standby`] replays it under the eyes of a reader;
//! `latch` lets threads wait for pages, or shuttle schedule them;
//! [`transactions`] stands in for the server's transaction manager, `watched`
//! for its predicate locks.

pub mod crash;
mod latch;
pub mod log;
pub mod standby;
pub mod store;
pub mod transactions;
mod truncate;
mod watched;

pub use log::{Entry, Lsn};
pub use standby::Standby;
pub use store::{Exclusive, MemStore, Shared};
pub use transactions::{TestSession, TestSnapshot, TestTransactions};
pub use watched::{PredicateLocks, Watched};
