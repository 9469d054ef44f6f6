//! Row references, the order-preserving key codec and handles.
//!
//! `src → am, index → pg → engine → rowref`: this crate is the far end of the
//! arrows. It depends on nothing of the project and knows nothing of
//! PostgreSQL's memory, catalogs or pages; it turns column values into bytes
//! whose order is the columns' order, and names rows by such bytes. The terms,
//! the invariants and why they hold are in the crate's `README.md`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod handle;
pub mod key;
mod reference;

pub use reference::{RowRef, RowRefBuf, RowRefType};
