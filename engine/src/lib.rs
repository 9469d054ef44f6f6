//! The storage engine: one versioned, ordered store on pages, for tables and
//! indexes alike. It stands below `pg`, `am` and `index` and above `rowref`,
//! and knows nothing of PostgreSQL: pages, transaction status, snapshots and
//! comparison come in through the traits of [`store`] and [`mvcc`].
//!
//! Read `README.md` beside this crate first: it holds the invariants, the lock
//! order and the crash states that the code cites.
#![forbid(unsafe_code)]

pub mod btree;
pub mod compare;
pub mod error;
pub mod mem;
pub mod mvcc;
pub mod page;
pub mod predicate;
pub mod record;
pub mod store;
pub mod types;

pub use error::{Error, Result};
pub use types::{BlockNumber, CommandId, Level, Sequence, SlotNumber, Xid};
