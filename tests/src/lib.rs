//! Private PostgreSQL clusters for everything that needs a server: the tests of
//! this crate, and `xtask` (test, demo, crash, bench, server).
//!
//! The crate knows processes, files and SQL text only. It depends on none of
//! the extension's crates, so that it can judge them from outside.

#![forbid(unsafe_code)]

pub mod account;
pub mod anomalies;
pub mod cluster;
pub mod installation;
pub mod log;
pub mod process;
pub mod verify;

pub use cluster::{Cluster, Options, StopMode};
pub use installation::Installation;

/// The table access method under test: `$ROWREF_AM`, by default `iot`.
///
/// `heap` lets every flow run without the extension: it is the control that
/// shows whether a failure is the product's or the harness's.
pub fn access_method() -> String {
    std::env::var("ROWREF_AM").unwrap_or_else(|_| "iot".into())
}

/// Whether tables of `access_method` need the extension.
pub fn needs_extension(access_method: &str) -> bool {
    access_method != "heap"
}
