//! The one place that wraps PostgreSQL: pages in shared buffers, the WAL
//! resource manager, snapshots and transaction status, rows and slots, errors,
//! and shared memory. It stands above `engine` and `rowref`, whose
//! traits it implements, and below `am` and `index`, which see the server
//! through it.

pub mod conflict;
pub mod ddl;
pub mod entries;
pub mod error;
pub mod evaluate;
pub mod explain;
mod ffi;
pub mod handles;
pub mod handoff;
pub mod hook;
pub mod key_update;
pub mod list;
pub mod memory;
pub mod needs_put;
pub mod open;
pub mod organize;
pub mod parallel;
pub mod pending;
pub mod row;
pub mod shared_place;
pub mod shmem;
pub mod slot;
pub mod sort;
pub mod store;
pub mod sweep;
pub mod toast;
pub mod unguarded;
pub mod vacuum;
pub mod version;
pub mod wal;
pub mod xact;
