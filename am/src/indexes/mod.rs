//! What a change of a row means to the table's stored indexes (rules 11 to 14).
//!
//! The table AM writes every tombstone; `aminsert` only puts. After a row was
//! written, and with no page locked, `maintain` looks at each index: by the
//! columns that changed first (most updates end there), then by the old and the
//! new entry. `facts` is what has to be known of the indexes for that, found
//! once and kept. `rebuild` makes the indexes anew where the table's key changes, and
//! `vacuum` tells what VACUUM found of them. The argument is in the crate's README, section "Indexes".

mod facts;
mod maintain;
mod rebuild;
mod vacuum;
mod validate;

pub use facts::indexes_of;
pub use maintain::{Replaced, changes_key, deleted, end_entries, taken_back, updated};
pub use rebuild::rebuild;
pub use vacuum::{publish, tell};
pub use validate::validate;
