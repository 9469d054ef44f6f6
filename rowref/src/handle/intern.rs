//! The index by which canonical leases find the handle a version already has.

use super::LeaseRef;

/// An open-addressing hash table from a lease's hash to its ordinal in the
/// arena. A slot is eight bytes, the hash above the ordinal plus one, zero if
/// it is free; the whole hash is kept, so that growing needs no lease to be
/// read back. Nothing is ever removed but everything.
#[derive(Debug, Default)]
pub(super) struct InternIndex {
    slots: Vec<u64>,
    used: usize,
}

const SLOTS_MIN: usize = 64;

impl InternIndex {
    /// Calls `is_same` for the ordinal of each lease with this hash, until it
    /// returns true.
    #[inline]
    pub fn find<E>(
        &self,
        hash: u32,
        mut is_same: impl FnMut(u32) -> Result<bool, E>,
    ) -> Result<Option<u32>, E> {
        if self.slots.is_empty() {
            return Ok(None);
        }
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return Ok(None);
            }
            if (slot >> 32) as u32 == hash {
                let ordinal = slot as u32 - 1;
                if is_same(ordinal)? {
                    return Ok(Some(ordinal));
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a lease that is not there yet. `ordinal` is below `u32::MAX`.
    #[inline]
    pub fn insert(&mut self, hash: u32, ordinal: u32) {
        if (self.used + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        place(
            &mut self.slots,
            u64::from(hash) << 32 | (u64::from(ordinal) + 1),
        );
        self.used += 1;
    }

    #[cold]
    fn grow(&mut self) {
        let mut wider = vec![0; (self.slots.len() * 2).max(SLOTS_MIN)];
        for slot in self.slots.iter().filter(|slot| **slot != 0) {
            place(&mut wider, *slot);
        }
        self.slots = wider;
    }

    pub fn footprint_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u64>()
    }
}

#[inline]
fn place(slots: &mut [u64], slot: u64) {
    let mask = slots.len() - 1;
    let mut at = (slot >> 32) as usize & mask;
    while slots[at] != 0 {
        at = (at + 1) & mask;
    }
    slots[at] = slot;
}

/// A hash of a lease's identity: multiply and fold the halves, as wyhash does.
/// The keys come from rows, and whoever can choose these can slow down no
/// session but his own, so a fixed seed is enough.
#[inline]
pub(super) fn identity_hash(lease: LeaseRef<'_>) -> u32 {
    const SECRET: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xD6E8_FEB8_6659_FD93];
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let version = u64::from(lease.relation) << 32 | u64::from(lease.xmin);
    let mut hash = fold(version ^ SECRET[0], lease.sequence ^ SECRET[1]);
    let bytes = lease.reference.as_bytes();
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().expect("a chunk of eight"));
        hash = fold(hash ^ word, SECRET[0]);
    }
    let mut tail = [0; 8];
    tail[..words.remainder().len()].copy_from_slice(words.remainder());
    hash = fold(
        hash ^ u64::from_le_bytes(tail),
        SECRET[1] ^ bytes.len() as u64,
    );
    (hash ^ hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn leases_whose_hashes_collide_are_told_apart_by_their_identity() {
        let mut index = InternIndex::default();
        // Ten hashes only, some of which share a slot, for a thousand leases.
        let hash = |ordinal: u32| ordinal % 10 * 64;
        for ordinal in 0..1000 {
            let mut asked = Vec::new();
            let found = index.find(hash(ordinal), |other| {
                asked.push(other);
                Ok::<_, Infallible>(false)
            });
            assert_eq!(found, Ok(None));
            asked.sort_unstable();
            let same_hash: Vec<_> = (0..ordinal)
                .filter(|other| hash(*other) == hash(ordinal))
                .collect();
            assert_eq!(asked, same_hash);
            index.insert(hash(ordinal), ordinal);
        }
        for ordinal in 0..1000 {
            let found = index.find(hash(ordinal), |other| Ok::<_, Infallible>(other == ordinal));
            assert_eq!(found, Ok(Some(ordinal)));
        }
    }
}
