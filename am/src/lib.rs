//! Table access methods: the [`TableAm`] trait, by which a storage engine
//! stands under SQL, and `iot` on it.
//!
//! `src → am, index → pg → engine → rowref`: this crate turns PostgreSQL's
//! callbacks into calls of the trait and back, and `index` knows nothing of it
//! but what lies in `pg::handoff`. Read `README.md` first.

mod by_reference;
mod create;
mod decoding;
mod estimate;
mod fetch;
mod indexes;
mod insert;
mod iot;
mod key_update;
mod modify;
mod open;
mod organize;
mod owed;
mod parallel;
mod routine;
mod row_handle;
mod row_id;
mod sample;
mod scan;
mod speculate;
mod sweep;
mod table_am;
mod toast;
mod truncate;
mod unique;
mod vacuum;
mod wait;

pub use iot::Iot;
pub use key_update::install;
pub use open::open;
pub use organize::{by_primary_key, by_row_id};
pub use routine::routine;
pub use sweep::{end, pass};
pub use table_am::TableAm;
