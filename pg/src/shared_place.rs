//! A scan's place in shared memory: what the participants of a parallel scan
//! move on together, under a lock of the caller's.

use engine::mvcc::scan::Place;
use engine::page::PositionBuf;
use engine::{BlockNumber, Sequence};
use pgrx::pg_sys;

/// The most bytes of key that there is room for; more than a page of any size
/// lets a key have.
const KEY_BYTES_MAX: usize = engine::page::key_bytes_max(pg_sys::BLCKSZ as usize);

/// A [`Place`], in memory that several processes see. All zeros are
/// [`Place::Start`].
#[repr(C)]
pub struct SharedPlace {
    /// 0 at the start, 1 at a position, 2 at the end.
    state: u32,
    next_block: u32,
    has_sequence: u32,
    key_len: u32,
    sequence: u64,
    key: [u8; KEY_BYTES_MAX],
}

impl SharedPlace {
    /// Goes back to the start.
    pub fn reset(&mut self) {
        self.state = 0;
    }

    /// What is there.
    pub fn load(&self) -> Place {
        match self.state {
            0 => Place::Start,
            1 => Place::At(
                PositionBuf {
                    key: self.key[..self.key_len as usize].to_vec(),
                    sequence: (self.has_sequence != 0).then_some(Sequence(self.sequence)),
                },
                BlockNumber(self.next_block),
            ),
            _ => Place::End,
        }
    }

    /// Puts a place there.
    pub fn store(&mut self, place: &Place) {
        match place {
            Place::Start => self.state = 0,
            Place::End => self.state = 2,
            Place::At(position, block) => {
                self.state = 1;
                self.next_block = block.0;
                self.key_len = position.key.len() as u32;
                self.key[..position.key.len()].copy_from_slice(&position.key);
                self.has_sequence = u32::from(position.sequence.is_some());
                self.sequence = position.sequence.map_or(0, |sequence| sequence.0);
            }
        }
    }
}
