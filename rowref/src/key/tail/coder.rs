//! A binary arithmetic coder whose numbers are in the order of their bits.
//!
//! Format. `low` and `high` are the next four bytes of the least and of the
//! greatest number that are still possible; bytes in which both agree are
//! written. Numbers are read as if zeros without end followed them.

/// Parts of an interval that probabilities are told in.
const PARTS: u32 = 12;

/// The greatest number of the lower part, which belongs to a 0.
fn middle(low: u32, high: u32, zero: u32) -> u32 {
    let part = (u64::from(high - low) * u64::from(zero)) >> PARTS;
    // Less than `high`, for `zero` is less than the whole.
    low + part as u32
}

/// Makes a number.
pub(super) struct Encoder<'o> {
    low: u32,
    high: u32,
    out: &'o mut Vec<u8>,
}

impl<'o> Encoder<'o> {
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        Encoder {
            low: 0,
            high: u32::MAX,
            out,
        }
    }

    /// Bytes that are there, what was there before included.
    pub fn written(&self) -> usize {
        self.out.len()
    }

    /// Adds a bit that is 0 with a probability of `zero` 4096ths, neither none
    /// nor all of them.
    #[inline]
    pub fn put(&mut self, bit: bool, zero: u32) {
        let middle = middle(self.low, self.high, zero);
        if bit {
            self.low = middle + 1;
        } else {
            self.high = middle;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.out.push((self.high >> 24) as u8);
            self.low <<= 8;
            self.high = self.high << 8 | 0xFF;
        }
    }

    /// Ends with the fewest bytes that are one of the numbers possible.
    pub fn finish(self) {
        for bytes in 0..4 {
            let cut = match bytes {
                0 => 0,
                some => self.high & u32::MAX << (32 - 8 * some),
            };
            if cut >= self.low {
                self.out.extend_from_slice(&cut.to_be_bytes()[..bytes]);
                return;
            }
        }
        self.out.extend_from_slice(&self.high.to_be_bytes());
    }

    /// Ends in the middle of what was to be said, with `length` bytes in all if
    /// they are fewer: one of the numbers possible, which whatever follows
    /// would not leave.
    pub fn abandon(self, length: usize) {
        self.out.extend_from_slice(&self.low.to_be_bytes());
        if self.out.len() < length {
            self.out.resize(length, 1);
        }
    }
}

/// Reads a number.
pub(super) struct Decoder<'c> {
    low: u32,
    high: u32,
    /// The four bytes of the number where `low` and `high` are.
    at: u32,
    rest: std::slice::Iter<'c, u8>,
}

impl<'c> Decoder<'c> {
    pub fn new(code: &'c [u8]) -> Self {
        let mut decoder = Decoder {
            low: 0,
            high: u32::MAX,
            at: 0,
            rest: code.iter(),
        };
        for _ in 0..4 {
            decoder.shift();
        }
        decoder
    }

    fn shift(&mut self) {
        self.at = self.at << 8 | u32::from(self.rest.next().copied().unwrap_or(0));
    }

    /// The next bit; see [`Encoder::put`]. Bytes that no encoder wrote give some
    /// bit as well.
    #[inline]
    pub fn take(&mut self, zero: u32) -> bool {
        let middle = middle(self.low, self.high, zero);
        let bit = self.at > middle;
        if bit {
            self.low = middle + 1;
        } else {
            self.high = middle;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = self.high << 8 | 0xFF;
            self.shift();
        }
        bit
    }
}
