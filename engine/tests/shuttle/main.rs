//! Latching, interleaving by interleaving: shuttle decides which session goes
//! on at each point where threads could meet (`mem/latch`). `schedule.rs` says
//! which schedules are tried, `tree.rs`, `rows.rs`, `unique.rs` and
//! `predicates.rs` tell the stories.
//!
//!     cargo test --release -p engine --features shuttle --test shuttle

mod predicates;
mod rows;
mod schedule;
mod tree;
mod unique;
