//! Rows: how the columns of one table are laid into key and payload bytes.
//!
//! A [`TableLayout`] is made once for each table and server process. Its verbs
//! have a file each: `organize` (from an index to the description that the
//! metapage stores), `encode`, `deform`, `compare`, `cache`. Terms, figures and
//! reasons are in this folder's `README.md`.

mod attribute;
mod cache;
mod compare;
mod datum;
mod deform;
mod describe;
mod encode;
mod fill;
mod index;
mod layout;
mod organize;
mod pointers;
#[cfg(test)]
mod stub;
#[cfg(test)]
mod tests;
mod values;
mod varlena;

pub(crate) use attribute::align_bytes;
pub use attribute::{Attribute, Source};
pub use cache::{IndexStorage, forget, init, keep, of_index, of_relation};
pub use compare::KeyOrder;
pub use datum::{copy_datum, datum_bytes, same_image};
pub use deform::{Arena, Cursor};
pub use encode::{key_value, row_id_key};
pub use index::IndexLayout;
pub use layout::{Places, TableLayout};
pub use organize::{KeyColumnSpec, Organization};
pub use pointers::{POINTER_BYTES, Pointer, has_pointers};

pub use values::Values;
pub(crate) use varlena::is_pointer;

use rowref::key::{EncodeKeyError, MalformedKey};

/// Why a row cannot be laid out or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A key column does not take this value.
    #[error(transparent)]
    Key(#[from] EncodeKeyError),
    /// The key's bytes are damaged.
    #[error(transparent)]
    MalformedKey(#[from] MalformedKey),
    /// The payload's bytes are damaged.
    #[error("row payload is malformed: {0}")]
    MalformedPayload(&'static str),
    /// The description in the metapage is damaged or of another version.
    #[error("row layout in the metapage cannot be read: {0}")]
    MalformedLayout(String),
}

impl Error {
    /// Whether stored bytes are to blame, and not the value that was given.
    pub fn is_corruption(&self) -> bool {
        !matches!(self, Error::Key(_))
    }
}
