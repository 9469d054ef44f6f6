//! Varlena headers on a little-endian machine, read without calls into the server
//! (they are macros there; `postgres.h` draws the bit patterns).

#[cfg(not(target_endian = "little"))]
compile_error!("varlena headers are read in their little-endian form only");

/// Bytes of the long header.
pub(super) const HEADER_BYTES: usize = 4;
/// Bytes of a pointer to a value in a TOAST table: two of header, then the
/// server's `varatt_external`.
pub const POINTER_BYTES: usize = 2 + 16;
/// The longest value, header included, that takes a one-byte header.
pub(super) const SHORT_BYTES_MAX: usize = 0x7F;

/// An out-of-line value's tag byte behind its 0x01.
const TAG_INDIRECT: u8 = 1;
const TAG_EXPANDED_RO: u8 = 2;
const TAG_EXPANDED_RW: u8 = 3;
const TAG_ONDISK: u8 = 18;

/// The four shapes of a varlena datum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// A pointer to a value elsewhere, with its whole size in bytes.
    External(usize),
    /// A one-byte header; whole size.
    Short(usize),
    /// A four-byte header and plain contents; whole size.
    Plain(usize),
    /// A four-byte header and compressed contents; whole size.
    Compressed(usize),
}

/// The shape by the first bytes, of which there must be two for an external
/// value and four for a long one. `None` for a tag that no server writes.
///
/// # Safety
/// `start` points to a varlena datum.
#[inline(always)]
pub(super) unsafe fn shape(start: *const u8) -> Option<Shape> {
    // SAFETY: the caller vouches for a whole datum.
    unsafe {
        let first = *start;
        if first & 1 == 1 {
            if first != 1 {
                return Some(Shape::Short(usize::from(first >> 1)));
            }
            return Some(Shape::External(match *start.add(1) {
                TAG_ONDISK => POINTER_BYTES,
                TAG_INDIRECT | TAG_EXPANDED_RO | TAG_EXPANDED_RW => 2 + 8,
                _ => return None,
            }));
        }
        let size = (start.cast::<u32>().read_unaligned() >> 2) as usize;
        Some(if first & 2 == 0 {
            Shape::Plain(size)
        } else {
            Shape::Compressed(size)
        })
    }
}

/// Whether an external datum is an expanded object in memory.
///
/// # Safety
/// `start` points to an external datum.
#[inline]
pub(super) unsafe fn is_expanded(start: *const u8) -> bool {
    // SAFETY: the caller vouches for an external datum, whose tag is its second byte.
    unsafe { matches!(*start.add(1), TAG_EXPANDED_RO | TAG_EXPANDED_RW) }
}

/// Whether a datum is a pointer to a value in a TOAST table.
///
/// # Safety
/// `start` points to a varlena datum.
#[inline]
pub(crate) unsafe fn is_pointer(start: *const u8) -> bool {
    // SAFETY: the caller vouches for a datum, whose tag is its second byte if
    // the first says that it is external.
    unsafe { *start == 1 && *start.add(1) == TAG_ONDISK }
}

/// The one-byte header of a value of `bytes` bytes, header included.
#[inline(always)]
pub(super) fn short_header(bytes: usize) -> u8 {
    ((bytes as u8) << 1) | 1
}

/// The four-byte header of a plain value of `bytes` bytes, header included.
#[inline(always)]
pub(super) fn long_header(bytes: usize) -> [u8; 4] {
    ((bytes as u32) << 2).to_le_bytes()
}
