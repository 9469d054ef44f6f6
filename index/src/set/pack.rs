//! Sorted numbers in little memory: each as its distance from the one before.
//! References of rows that lie together take a byte each, where a bitmap of
//! them would take a bit, and no page of the table has to be given up as
//! "somewhere on it".

/// Numbers in ascending order, each once.
#[derive(Default)]
pub(super) struct Packed {
    bytes: Vec<u8>,
    last: Option<u64>,
}

/// Bits of a distance in each byte; the uppermost says that more follow.
const BITS: u32 = 7;
const MORE: u8 = 1 << BITS;

impl Packed {
    /// How many bytes they take.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a number that is greater than all that are there.
    #[inline]
    fn push(&mut self, number: u64) {
        let mut distance = number - self.last.unwrap_or(0);
        while distance >= u64::from(MORE) {
            self.bytes.push(distance as u8 | MORE);
            distance >>= BITS;
        }
        self.bytes.push(distance as u8);
        self.last = Some(number);
    }

    /// These, and some more, which are in ascending order and may be there
    /// already.
    pub fn with(self, more: &[u64]) -> Packed {
        let mut all = Packed {
            bytes: Vec::with_capacity(self.bytes.len() + 2 * more.len()),
            last: None,
        };
        let mut more = more.iter().copied().peekable();
        let mut old = self.read();
        while let Some(number) = old.current() {
            while let Some(before) = more.next_if(|one| *one < number) {
                all.push(before);
            }
            more.next_if_eq(&number);
            all.push(number);
            old.advance();
        }
        more.for_each(|one| all.push(one));
        all
    }

    /// Reads them from the first one on.
    pub fn read(self) -> Unpacking {
        let mut reading = Unpacking {
            bytes: self.bytes,
            at: 0,
            current: Some(0),
        };
        reading.advance();
        reading
    }
}

/// Packed numbers, being read.
pub struct Unpacking {
    bytes: Vec<u8>,
    at: usize,
    current: Option<u64>,
}

impl Unpacking {
    /// The number that it stands on; none behind the last one.
    #[inline]
    pub fn current(&self) -> Option<u64> {
        self.current
    }

    /// Goes on to the next one.
    #[inline]
    pub fn advance(&mut self) {
        let (Some(before), true) = (self.current, self.at < self.bytes.len()) else {
            self.current = None;
            return;
        };
        let mut distance = 0;
        let mut shift = 0;
        loop {
            let byte = self.bytes[self.at];
            self.at += 1;
            distance |= u64::from(byte & !MORE) << shift;
            if byte & MORE == 0 {
                break;
            }
            shift += BITS;
        }
        self.current = Some(before + distance);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn what_was_packed_in_portions_comes_out_in_order_and_once(
            portions in proptest::collection::vec(
                proptest::collection::btree_set(
                    prop_oneof![0u64..300, any::<u64>(), Just(u64::MAX)], 0..40), 0..6),
        ) {
            let mut packed = Packed::default();
            let mut expected = BTreeSet::new();
            for portion in &portions {
                let portion: Vec<u64> = portion.iter().copied().collect();
                expected.extend(portion.iter().copied());
                packed = packed.with(&portion);
            }
            let mut reading = packed.read();
            let mut found = Vec::new();
            while let Some(number) = reading.current() {
                found.push(number);
                reading.advance();
            }
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn neighbours_take_a_byte_each() {
        let numbers: Vec<u64> = (1 << 40..(1 << 40) + 1000).collect();
        assert!(Packed::default().with(&numbers).bytes() < 1010);
    }
}
