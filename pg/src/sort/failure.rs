//! What can go wrong on the way from a sorter to a page.

use std::convert::Infallible;

use pgrx::pg_sys;

use crate::error;

/// The engine's failure, the temporary file's, or one of the caller's own.
pub enum Failure<X = Infallible> {
    /// Pages could not be filled.
    Engine(engine::Error),
    /// The temporary file could not be read or written.
    Spill(std::io::Error),
    /// Something else.
    Other(X),
}

impl<X> Failure<X> {
    /// Raises what `relation` or the sorting of `what` has met with, and gives
    /// back what is the caller's.
    ///
    /// # Safety
    /// `relation` is open.
    pub unsafe fn raise_common(self, relation: pg_sys::Relation, what: &str) -> X {
        match self {
            // SAFETY: the caller's promise.
            Failure::Engine(error) => unsafe { error::raise_engine(relation, error) },
            Failure::Spill(error) => error::spill_failed(what, &error),
            Failure::Other(other) => other,
        }
    }
}

impl<X> From<engine::Error> for Failure<X> {
    fn from(error: engine::Error) -> Failure<X> {
        Failure::Engine(error)
    }
}

impl<X> From<std::io::Error> for Failure<X> {
    fn from(error: std::io::Error) -> Failure<X> {
        Failure::Spill(error)
    }
}
