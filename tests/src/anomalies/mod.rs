//! What isolation has to mean, judged from outside (Adya, "Weak Consistency",
//! 1999; the method is Elle's, Kingsbury and Alvaro, 2020).
//!
//! Several sessions run random transactions on a few keys ([`work`]). Each
//! write stores a value that no other write stores and tells which one it
//! replaced, so that a history says of every read whose write it saw, and of
//! every key in which order it was written ([`history`], [`versions`]). From
//! that follows which transaction must have come before which ([`graph`]), and
//! whether the level that they ran at allows it ([`mod@check`]).
//!
//! The checker is tested by histories with planted anomalies, and by weaker
//! levels: at READ COMMITTED it has to find lost updates, at REPEATABLE READ
//! write skew.

pub mod check;
pub mod graph;
pub mod history;
#[cfg(test)]
mod tests;
pub mod versions;
pub mod work;

pub use check::{Anomaly, Kind, check};
pub use history::{History, Level};
pub use work::{Plan, Shape, run};
