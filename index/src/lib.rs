//! The `rowref` index access method, for the primary-key index of tables that
//! are organized by their key. Such an index has no storage: the table *is* the
//! B+tree, so scanning the index scans the table.
//!
//! In the arrows `src → am, index → pg → engine → rowref` it stands beside
//! `am`, which it never imports: it reaches the table through `pg::open`, hands
//! rows over through `pg::handoff` and has tables organized through
//! `pg::organize`. How a scan works and why its answers are right is argued in
//! this crate's `README.md`.

mod build;
mod cost;
mod routine;
mod scan;
mod vacuum;

pub use routine::routine;
