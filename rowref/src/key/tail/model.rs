//! What the next bit of a value probably is, by what came before it.
//!
//! Format: whatever this file computes is. Integers only, so that it is the same
//! everywhere. It expects by four experts, whose votes are weighed by how
//! well they did so far (logistic mixing, as the PAQ family of compressors has
//! it): what followed the last one, two and four bytes before, and what
//! followed the last time that the last [`MATCH_BYTES`] came in a row.

/// Bits of the number of counters of one expert.
const COUNTER_BITS: u32 = 14;
/// Bits of the number of places where a row of bytes was last seen.
const PLACE_BITS: u32 = 12;
/// How many bytes have to be alike for what followed to be expected again.
const MATCH_BYTES: usize = 5;
/// Lengths of matches that are told apart.
const LENGTHS: usize = 16;
/// How many bytes before the next one the experts look at, but for the last.
const ORDERS: [usize; 4] = [0, 1, 2, 4];
const EXPERTS: usize = ORDERS.len() + 1;
/// Sets of weights, by the length of a match.
const WEIGHT_SETS: usize = 4;

/// `4096 / (1 + e^(-x / 256))` at every 128th `x` from −2048 on.
const SQUASHED: [i32; 33] = [
    1, 2, 4, 6, 10, 17, 27, 45, 74, 120, 194, 311, 488, 747, 1102, 1546, 2048, 2550, 2994, 3349,
    3608, 3785, 3902, 3976, 4022, 4051, 4069, 4079, 4086, 4090, 4092, 4094, 4095,
];

/// A probability in 4096ths, neither none nor all of them, from the logarithm of
/// its odds.
const fn squash(x: i32) -> i32 {
    if x >= 2047 {
        return 4095;
    }
    if x <= -2047 {
        return 1;
    }
    let shifted = x + 2048;
    let (at, weight) = ((shifted >> 7) as usize, shifted & 127);
    let p = (SQUASHED[at] * (128 - weight) + SQUASHED[at + 1] * weight + 64) >> 7;
    if p < 1 {
        1
    } else if p > 4095 {
        4095
    } else {
        p
    }
}

/// The inverse of [`squash`].
static STRETCHED: [i16; 4096] = {
    let mut table = [2047i16; 4096];
    let (mut p, mut x) = (0, -2047);
    while x <= 2047 {
        let reached = squash(x) as usize;
        while p <= reached {
            table[p] = x as i16;
            p += 1;
        }
        x += 1;
    }
    table
};

/// The probability of a 1 in 4096ths in the upper twelve bits, and below them
/// how often it was corrected.
type Counter = u16;
const EVEN: Counter = 2048 << 4;

/// 65536 / (n + 1.5): how much of an error is corrected the `n`-th time.
const RATES: [i32; 16] = [
    43690, 26214, 18724, 14563, 11915, 10082, 8738, 7710, 6898, 6241, 5698, 5242, 4854, 4519, 4228,
    3971,
];

fn correct(counter: &mut Counter, bit: bool) {
    let (p, times) = (i32::from(*counter >> 4), *counter & 15);
    let goal = if bit { 4095 } else { 0 };
    let p = p + (((goal - p) * RATES[usize::from(times)]) >> 16);
    *counter = (p as u16) << 4 | (times + 1).min(15);
}

pub(super) struct Model {
    history: Vec<u8>,
    /// The bits of the byte at hand, behind a 1.
    partial: u32,
    /// Of the last bytes, as many as [`ORDERS`] says.
    hashes: [u32; ORDERS.len()],
    counters: Box<[Counter]>,
    /// Where each hash of [`MATCH_BYTES`] was last seen, from 1.
    places: Box<[u32]>,
    /// What is expected to come next, and how many bytes before it are alike.
    expected_at: usize,
    match_bytes: usize,
    match_counters: [Counter; LENGTHS],
    weights: [[i32; EXPERTS]; WEIGHT_SETS],
    // What the last expectation was made of.
    used: [usize; ORDERS.len()],
    votes: [i32; EXPERTS],
    /// The bit that the match expects, if it still does.
    matched: Option<bool>,
    set: usize,
    one: i32,
}

impl Model {
    /// A model that has seen the head of a value.
    pub fn new(head: &[u8]) -> Model {
        let mut model = Model {
            history: Vec::with_capacity(2 * head.len()),
            partial: 1,
            hashes: [0; ORDERS.len()],
            counters: vec![EVEN; ORDERS.len() << COUNTER_BITS].into(),
            places: vec![0; 1 << PLACE_BITS].into(),
            expected_at: 0,
            match_bytes: 0,
            match_counters: [3584 << 4; LENGTHS],
            weights: [[1 << 14; EXPERTS]; WEIGHT_SETS],
            used: [0; ORDERS.len()],
            votes: [0; EXPERTS],
            matched: None,
            set: 0,
            one: 2048,
        };
        for byte in head {
            for place in (0..8).rev() {
                let _ = model.expect_zero();
                model.learn(byte >> place & 1 == 1);
            }
        }
        model
    }

    /// The probability of a 0, in 4096ths, at least one and not all of them.
    #[inline]
    pub fn expect_zero(&mut self) -> u32 {
        for (expert, hash) in self.hashes.iter().enumerate() {
            let mixed = hash.wrapping_add(self.partial).wrapping_mul(0x9E37_79B1);
            let at = (expert << COUNTER_BITS) + (mixed >> (32 - COUNTER_BITS)) as usize;
            self.used[expert] = at;
            self.votes[expert] = i32::from(STRETCHED[usize::from(self.counters[at] >> 4)]);
        }
        self.matched = None;
        self.set = 0;
        self.votes[ORDERS.len()] = 0;
        if self.match_bytes > 0 {
            let expected = u32::from(self.history[self.expected_at]) | 0x100;
            // The bits so far have to be those of the byte expected.
            let bits = 31 - self.partial.leading_zeros();
            if expected >> (8 - bits) == self.partial {
                let bit = expected >> (7 - bits) & 1 == 1;
                let counter = self.match_counters[self.match_bytes.min(LENGTHS) - 1];
                let vote = i32::from(STRETCHED[usize::from(counter >> 4)]);
                self.votes[ORDERS.len()] = if bit { vote } else { -vote };
                self.matched = Some(bit);
                self.set = 1 + (self.match_bytes.min(LENGTHS) - 1) / 6;
            }
        }
        let weights = &self.weights[self.set];
        let sum: i64 = (self.votes.iter().zip(weights))
            .map(|(vote, weight)| i64::from(*vote) * i64::from(*weight))
            .sum();
        self.one = squash((sum >> 16).clamp(-2047, 2047) as i32);
        (4096 - self.one) as u32
    }

    /// Hears what the bit was that [`Model::expect_zero`] was asked for.
    #[inline]
    pub fn learn(&mut self, bit: bool) {
        let error = (i32::from(bit) << 12) - self.one;
        for (vote, weight) in self.votes.iter().zip(&mut self.weights[self.set]) {
            *weight = (*weight + ((vote * error) >> 13)).clamp(-(1 << 20), 1 << 20);
        }
        for at in self.used {
            correct(&mut self.counters[at], bit);
        }
        if let Some(expected) = self.matched {
            let counter = &mut self.match_counters[self.match_bytes.min(LENGTHS) - 1];
            correct(counter, expected == bit);
        }
        self.partial = self.partial << 1 | u32::from(bit);
        if self.partial >= 0x100 {
            self.end_byte(self.partial as u8);
            self.partial = 1;
        }
    }

    fn end_byte(&mut self, byte: u8) {
        if self.match_bytes > 0 && self.history[self.expected_at] == byte {
            self.match_bytes += 1;
            self.expected_at += 1;
        } else {
            self.match_bytes = 0;
        }
        self.history.push(byte);
        let end = self.history.len();
        let last = |count: usize| {
            let from = end.saturating_sub(count);
            self.history[from..]
                .iter()
                .fold(count as u32, |hash, byte| {
                    hash.wrapping_mul(0x2545_F491)
                        .wrapping_add(u32::from(*byte) + 1)
                })
        };
        self.hashes = ORDERS.map(|order| last(order).wrapping_mul(0x85EB_CA6B));
        if end < MATCH_BYTES {
            return;
        }
        let place = (last(MATCH_BYTES).wrapping_mul(0x9E37_79B1) >> (32 - PLACE_BITS)) as usize;
        let seen = self.places[place] as usize;
        self.places[place] = end as u32;
        if self.match_bytes == 0 && seen > 0 {
            let alike = (self.history[..seen].iter().rev())
                .zip(self.history.iter().rev())
                .take(LENGTHS)
                .take_while(|(before, now)| before == now)
                .count();
            if alike >= MATCH_BYTES {
                (self.expected_at, self.match_bytes) = (seen, alike);
            }
        }
    }
}
