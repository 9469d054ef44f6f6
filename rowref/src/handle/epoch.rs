//! Epochs: the numbers that make handles unique.

use super::{HandleError, INVALID_BLOCK, OFFSET_MAX};

/// Where epochs come from: in the server, a counter in shared memory.
///
/// Every call on any source of one server must return a number that no call
/// returned before, and each source must see them rise. A counter that counts
/// up to `u32::MAX` and stays there satisfies this; `u32::MAX` says that there
/// are no more. A server should start counting where its predecessors did not
/// (the time of its start will do), or a ctid that a client kept over a
/// restart could be a live handle of somebody else.
pub trait EpochSource {
    /// Takes the next epoch.
    fn lease(&mut self) -> u32;
}

impl<F: FnMut() -> u32> EpochSource for F {
    fn lease(&mut self) -> u32 {
        self()
    }
}

/// The first handle of those an arena may hand out next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub epoch: u32,
    pub offset: u16,
}

/// Hands epochs to arenas and keeps what they leave over, so that a
/// transaction that leases one handle does not use up an epoch.
#[derive(Debug)]
pub(super) struct EpochPool<E> {
    source: E,
    last: Option<u32>,
    left_over: Vec<Place>,
}

/// Arenas that end return an epoch each; there are never many at a time.
const LEFT_OVER_MAX: usize = 64;

impl<E: EpochSource> EpochPool<E> {
    pub fn new(source: E) -> Self {
        EpochPool {
            source,
            last: None,
            left_over: Vec::new(),
        }
    }

    /// A place in an epoch above `above`, so that each arena's epochs rise and
    /// can be searched by halving.
    pub fn take(&mut self, above: Option<u32>) -> Result<Place, HandleError> {
        let fits = |place: &Place| above.is_none_or(|above| place.epoch > above);
        if let Some(at) = self.left_over.iter().position(fits) {
            return Ok(self.left_over.swap_remove(at));
        }
        let epoch = self.source.lease();
        if epoch == INVALID_BLOCK {
            return Err(HandleError::EpochsExhausted);
        }
        if self.last.is_some_and(|last| epoch <= last) {
            return Err(HandleError::EpochReused { epoch });
        }
        self.last = Some(epoch);
        Ok(Place { epoch, offset: 1 })
    }

    /// Takes back the rest of an epoch; nobody may hold its place any more.
    pub fn give_back(&mut self, place: Place) {
        if place.offset <= OFFSET_MAX && self.left_over.len() < LEFT_OVER_MAX {
            self.left_over.push(place);
        }
    }
}
