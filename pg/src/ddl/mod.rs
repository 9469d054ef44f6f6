//! Definitions: which tables are ours, and what becomes of commands that define
//! indexes on them. `README.md` beside this file argues it.

mod relation;

pub use relation::{is_ours, may_fire_after_row, may_hold_ours, register_table_am};
