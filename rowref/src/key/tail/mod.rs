//! The tail of a long value: compressed so that the order of bytes stays.
//!
//! A value of more than [`HEAD_BYTES`] keeps its head as it is; its tail is
//! written as a number that an arithmetic coder makes of it. The coder halves an
//! interval for each bit of the tail, unevenly, as the model expects a 0 or a 1;
//! what a 0 leaves lies below what a 1 leaves. Two tails behind the same head
//! meet the same expectations up to the first bit in which they differ: there
//! the lesser one takes the lower part, and never leaves it. So their numbers
//! are in their order, however well or badly the model expects.
//!
//! `rowref/README.md`, "Long values", has the whole argument. The numbers are
//! stored: a change of anything below the line "format" in `model.rs` or
//! `coder.rs` changes the format of keys.

mod coder;
mod model;

use coder::{Decoder, Encoder};
use model::Model;

/// The longest value, and the part of a longer one, that is kept as it is.
pub(crate) const HEAD_BYTES: usize = 512;

/// Bytes of a number that no page has room for, so that it need not be longer.
const CODE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a tail behind which nothing decides any more: the number would be
/// longer than [`CODE_BYTES_MAX`], or the value too long for any other reason.
const TAIL_BYTES_MAX: usize = 8 << 20;
/// More bytes than one byte of a number can stand for.
const BYTES_PER_CODE_BYTE: usize = 4096;

/// How probable it is, in 4096ths, that a tail ends at a byte.
const END: u32 = 1;

/// Appends the number of a tail, which is not empty.
///
/// A number longer than any key is cut off, and so is a tail of more bytes than
/// make a difference: what is cut off can only be searched for, and still lies
/// in its order to all that is stored.
pub(crate) fn encode(head: &[u8], tail: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let mut model = Model::new(head);
    let mut coder = Encoder::new(out);
    for (nth, byte) in tail.iter().enumerate() {
        if nth > 0 {
            coder.put(true, END);
        }
        for place in (0..8).rev() {
            let bit = byte >> place & 1 == 1;
            coder.put(bit, model.expect_zero());
            model.learn(bit);
        }
        if coder.written() - start > CODE_BYTES_MAX || nth == TAIL_BYTES_MAX {
            coder.abandon(start + CODE_BYTES_MAX);
            return;
        }
    }
    coder.put(false, END);
    coder.finish();
}

/// Whether a number of so many bytes can stand for a tail of this length.
pub(crate) fn is_plausible(code_bytes: usize, tail_bytes: usize) -> bool {
    tail_bytes > 0 && tail_bytes <= (code_bytes + 8) * BYTES_PER_CODE_BYTE
}

/// Appends the tail of `length` bytes that a number stands for. Any bytes may
/// be given.
pub(crate) fn decode(
    head: &[u8],
    code: &[u8],
    length: usize,
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    const WRONG: &str = "its compressed part has another length";
    if !is_plausible(code.len(), length) {
        return Err(WRONG);
    }
    let mut model = Model::new(head);
    let mut coder = Decoder::new(code);
    out.reserve(length);
    for nth in 0..length {
        if nth > 0 && !coder.take(END) {
            return Err(WRONG);
        }
        let mut byte = 0;
        for _ in 0..8 {
            let bit = coder.take(model.expect_zero());
            model.learn(bit);
            byte = byte << 1 | u8::from(bit);
        }
        out.push(byte);
    }
    if coder.take(END) {
        return Err(WRONG);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
