//! Sets of row references: what a bitmap scan is where rows have no ctid.
//!
//! The planner makes its bitmap paths as for any index that has bitmaps, for we
//! tell it that ours do, and before it chooses among a table's paths each of
//! them is put into the clothes of a custom path ([`offer`]). The executor then
//! evaluates the tree of ANDs and ORs over sorted sets of row references
//! ([`gather`], [`stream`]) and fetches the rows in the order of their
//! references ([`run`]). The argument is in the crate's `README.md`, "Sets".

mod condition;
mod explain;
mod gather;
mod offer;
mod pack;
mod plan;
mod radix;
mod run;
mod stream;
mod tree;

pub use offer::{allow, replace_paths};
pub use plan::register;
