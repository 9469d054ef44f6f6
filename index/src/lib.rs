//! The `rowref` index access method: the primary-key index of tables that are
//! organized by their key, which has no storage, since the table *is* the
//! B+tree, and indexes that are stored beside their table.
//!
//! In the arrows `src → am, index → pg → engine → rowref` it stands beside
//! `am`, which it never imports: it reaches the table through `pg::open`, hands
//! rows over through `pg::handoff` and has tables organized through
//! `pg::organize`. How a scan works and why its answers are right is argued in
//! this crate's `README.md`.

mod build;
mod cost;
mod covering;
mod insert;
mod planner;
mod routine;
mod row_comparison;
mod scan;
mod set;
mod vacuum;

pub use planner::install;
pub use routine::routine;
