//! What can go wrong below SQL. Corruption and limits are values; our own bugs
//! are assertions.

use crate::types::BlockNumber;

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure that a caller has to report.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum Error {
    /// A page does not hold what the format promises.
    #[error("block {block} is corrupt: {what}")]
    Corrupt {
        /// The page.
        block: BlockNumber,
        /// The promise that it breaks.
        what: String,
    },
    /// A key does not fit: every page must have room for two fences and an entry
    /// with such keys.
    #[error("key of {size} bytes exceeds the limit of {limit} bytes")]
    KeyTooLarge {
        /// Encoded size in bytes.
        size: usize,
        /// The most that fits.
        limit: usize,
    },
    /// A row does not fit on a page.
    #[error("row of {size} bytes exceeds the limit of {limit} bytes")]
    RowTooLarge {
        /// Size with header and key in bytes.
        size: usize,
        /// The most that fits.
        limit: usize,
    },
    /// A row's old key and the new one, which its last entry there names, do
    /// not fit on a page together.
    #[error("an entry of {size} bytes that names another key exceeds the limit of {limit} bytes")]
    MoveTooLarge {
        /// Size with header and both keys in bytes.
        size: usize,
        /// The most that fits.
        limit: usize,
    },
    /// The page store could not do what it was asked to.
    #[error("{0}")]
    Store(String),
}

impl Error {
    /// Shorthand for a broken promise on a page.
    pub fn corrupt(block: BlockNumber, what: impl Into<String>) -> Error {
        Error::Corrupt {
            block,
            what: what.into(),
        }
    }
}
