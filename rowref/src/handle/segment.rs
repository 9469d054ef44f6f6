//! Segments: consecutive handles of one epoch, and the bytes of their leases.

use crate::RowRef;

use super::epoch::Place;
use super::{Handle, LeaseRef, OFFSET_MAX};

/// Relation, xmin, block hint, sequence; the reference follows to the end.
const HEADER_BYTES: usize = 24;

/// The memory of a segment: entries one after the other, and where each ends.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub ends: Vec<u32>,
    pub bytes: Vec<u8>,
}

impl Buffers {
    /// The memory held, used or not.
    pub fn footprint_bytes(&self) -> usize {
        self.ends.capacity() * size_of::<u32>() + self.bytes.capacity()
    }

    pub fn clear(&mut self) {
        self.ends.clear();
        self.bytes.clear();
    }

    #[inline]
    pub fn push(&mut self, lease: LeaseRef<'_>) {
        let mut header = [0; HEADER_BYTES];
        header[0..4].copy_from_slice(&lease.relation.to_le_bytes());
        header[4..8].copy_from_slice(&lease.xmin.to_le_bytes());
        header[8..12].copy_from_slice(&lease.block_hint.to_le_bytes());
        header[12..20].copy_from_slice(&lease.sequence.to_le_bytes());
        header[20..24].copy_from_slice(&lease.cid.to_le_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(lease.reference.as_bytes());
        self.ends.push(self.bytes.len() as u32);
    }

    #[inline]
    pub fn entry(&self, index: usize) -> LeaseRef<'_> {
        let start = match index {
            0 => 0,
            _ => self.ends[index - 1] as usize,
        };
        decode(&self.bytes[start..self.ends[index] as usize])
            .expect("an entry in memory has its header")
    }

    /// The ends and then the entries, as they lie in a spill file.
    pub fn write_image(&self, image: &mut Vec<u8>) {
        image.clear();
        image.reserve(self.ends.len() * 4 + self.bytes.len());
        for end in &self.ends {
            image.extend_from_slice(&end.to_le_bytes());
        }
        image.extend_from_slice(&self.bytes);
    }
}

/// The entry `index` of a spilled segment of `count` entries, or `None` if the
/// image is damaged.
pub(super) fn image_entry(image: &[u8], count: usize, index: usize) -> Option<LeaseRef<'_>> {
    let (ends, bytes) = image.split_at_checked(count * 4)?;
    let end = |index: usize| {
        let word = ends.get(index * 4..)?.first_chunk()?;
        Some(u32::from_le_bytes(*word) as usize)
    };
    let start = match index {
        0 => 0,
        _ => end(index - 1)?,
    };
    decode(bytes.get(start..end(index)?)?)
}

#[inline]
fn decode(entry: &[u8]) -> Option<LeaseRef<'_>> {
    let (header, reference) = entry.split_first_chunk::<HEADER_BYTES>()?;
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    Some(LeaseRef {
        relation: word(0),
        xmin: word(4),
        block_hint: word(8),
        sequence: u64::from(word(12)) | u64::from(word(16)) << 32,
        cid: word(20),
        reference: RowRef(reference),
    })
}

/// A segment that is in memory.
#[derive(Debug)]
pub(super) struct Segment {
    pub first: Place,
    pub buffers: Buffers,
}

impl Segment {
    pub fn new(first: Place, buffers: Buffers) -> Self {
        debug_assert!(buffers.ends.is_empty());
        Segment { first, buffers }
    }

    #[inline]
    pub fn count(&self) -> usize {
        self.buffers.ends.len()
    }

    /// The place behind the last handle of this segment, which may lie behind
    /// the epoch's last offset.
    #[inline]
    pub fn next(&self) -> Place {
        Place {
            epoch: self.first.epoch,
            offset: self.first.offset + self.count() as u16,
        }
    }

    /// Whether the next lease must go elsewhere: the epoch is used up, or the
    /// segment has the size at which it is spilled.
    #[inline]
    pub fn is_full(&self, bytes_max: usize) -> bool {
        self.next().offset > OFFSET_MAX || self.buffers.bytes.len() >= bytes_max
    }

    /// Leases the next handle; the segment must not be full.
    #[inline]
    pub fn push(&mut self, lease: LeaseRef<'_>) -> Handle {
        let Place { epoch, offset } = self.next();
        self.buffers.push(lease);
        Handle { epoch, offset }
    }

    /// Which entry of this segment a handle is.
    #[inline]
    pub fn index_of(&self, handle: Handle) -> Option<usize> {
        index_in(self.first, self.count(), handle)
    }
}

/// Which of `count` handles from `first` on a handle is.
#[inline]
pub(super) fn index_in(first: Place, count: usize, handle: Handle) -> Option<usize> {
    let index = usize::from(handle.offset.checked_sub(first.offset)?);
    (handle.epoch == first.epoch && index < count).then_some(index)
}
