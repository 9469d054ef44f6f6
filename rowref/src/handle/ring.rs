//! Ring leases: for statements in which nobody can come back for an old row.

use std::collections::VecDeque;

use super::epoch::{EpochPool, EpochSource};
use super::segment::{Buffers, Segment};
use super::{Handle, HandleError, LeaseRef};

/// The newest `capacity` leases; older ones are forgotten.
#[derive(Debug)]
pub(super) struct Ring {
    pub capacity: usize,
    segments: VecDeque<Segment>,
    /// How many leases all segments before the first one held.
    dropped: u64,
    /// How many leases there were since the ring was cleared.
    leased: u64,
    /// Memory of a segment that went, for the first one of the next
    /// transaction.
    spare: Buffers,
}

impl Ring {
    pub fn new(capacity: usize) -> Self {
        Ring {
            capacity,
            segments: VecDeque::new(),
            dropped: 0,
            leased: 0,
            spare: Buffers::default(),
        }
    }

    #[inline]
    pub fn lease<E: EpochSource>(
        &mut self,
        lease: LeaseRef<'_>,
        pool: &mut EpochPool<E>,
    ) -> Result<Handle, HandleError> {
        if self
            .segments
            .back()
            .is_none_or(|segment| segment.is_full(SEGMENT_BYTES_MAX))
        {
            self.advance(pool)?;
        }
        let segment = self.segments.back_mut().expect("the ring was advanced");
        self.leased += 1;
        Ok(segment.push(lease))
    }

    #[cold]
    fn advance<E: EpochSource>(&mut self, pool: &mut EpochPool<E>) -> Result<(), HandleError> {
        let place = match self.segments.back().map(Segment::next) {
            Some(next) if next.offset <= super::OFFSET_MAX => next,
            Some(full) => pool.take(Some(full.epoch))?,
            None => pool.take(None)?,
        };
        // The memory of a segment that has left the ring serves the new one.
        let mut buffers = std::mem::take(&mut self.spare);
        while let Some(oldest) = self.segments.front() {
            let count = oldest.count() as u64;
            if self.dropped + count + self.capacity as u64 > self.leased {
                break;
            }
            self.dropped += count;
            if let Some(oldest) = self.segments.pop_front() {
                buffers = oldest.buffers;
                buffers.clear();
            }
        }
        self.segments.push_back(Segment::new(place, buffers));
        Ok(())
    }

    pub fn resolve(&self, handle: Handle) -> Option<LeaseRef<'_>> {
        let mut before = self.dropped;
        for segment in &self.segments {
            if let Some(index) = segment.index_of(handle) {
                let age = self.leased - (before + index as u64);
                return (age <= self.capacity as u64).then(|| segment.buffers.entry(index));
            }
            before += segment.count() as u64;
        }
        None
    }

    /// Forgets all leases and returns the rest of the epoch.
    pub fn clear<E: EpochSource>(&mut self, pool: &mut EpochPool<E>) {
        if let Some(mut last) = self.segments.pop_back() {
            pool.give_back(last.next());
            if last.buffers.footprint_bytes() <= SPARE_BYTES_MAX {
                last.buffers.clear();
                self.spare = last.buffers;
            }
        }
        self.segments.clear();
        (self.dropped, self.leased) = (0, 0);
    }

    pub fn footprint_bytes(&self) -> usize {
        self.segments
            .iter()
            .map(|segment| segment.buffers.footprint_bytes())
            .sum::<usize>()
            + self.spare.footprint_bytes()
    }
}

/// What is kept from one transaction to the next.
const SPARE_BYTES_MAX: usize = 16 * 1024;

/// Segments of very long references end before their epoch, so that the ring
/// can let go of memory in pieces.
const SEGMENT_BYTES_MAX: usize = 256 * 1024;
