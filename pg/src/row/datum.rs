//! Copies of datums that are passed by reference.

use pgrx::pg_sys;

use super::varlena::{Shape, is_expanded, shape};

/// The bytes that [`copy_datum`] writes: an expanded object's flat size, else
/// the datum's own.
///
/// # Safety
/// `value` is a whole by-reference datum of a type with this length.
pub unsafe fn datum_bytes(value: pg_sys::Datum, length: i16) -> usize {
    if length > 0 {
        return length as usize;
    }
    let source = value.cast_mut_ptr::<u8>();
    // SAFETY: the caller vouches for a whole datum.
    unsafe {
        if length == -2 {
            return std::ffi::CStr::from_ptr(source.cast())
                .to_bytes_with_nul()
                .len();
        }
        match shape(source).expect("the server hands over whole datums") {
            Shape::External(_) if is_expanded(source) => {
                pg_sys::EOH_get_flat_size(pg_sys::DatumGetEOHP(value))
            }
            Shape::External(size)
            | Shape::Short(size)
            | Shape::Plain(size)
            | Shape::Compressed(size) => size,
        }
    }
}

/// Copies a datum to `to`, an expanded object in its flat form, and returns the
/// bytes written.
///
/// # Safety
/// As for [`datum_bytes`], whose result fits at `to`, an 8-aligned place.
pub unsafe fn copy_datum(value: pg_sys::Datum, length: i16, to: *mut u8) -> usize {
    let source = value.cast_mut_ptr::<u8>();
    // SAFETY: by the caller.
    unsafe {
        let size = datum_bytes(value, length);
        let expanded = length == -1
            && matches!(shape(source), Some(Shape::External(_)))
            && is_expanded(source);
        if expanded {
            pg_sys::EOH_flatten_into(pg_sys::DatumGetEOHP(value), to.cast(), size);
        } else {
            to.copy_from_nonoverlapping(source, size);
        }
        size
    }
}

/// Whether two values, neither of them null, are alike to the last byte, which
/// of a varlena's contents is asked and not of its header's length. False where
/// it would have to be unpacked to know: such values may be alike all the same.
///
/// # Safety
/// Both are whole datums of a type with this length.
pub unsafe fn same_image(
    left: pg_sys::Datum,
    right: pg_sys::Datum,
    length: i16,
    by_value: bool,
) -> bool {
    if by_value || left == right {
        return left == right;
    }
    let (left, right) = (
        left.cast_mut_ptr::<u8>().cast_const(),
        right.cast_mut_ptr::<u8>().cast_const(),
    );
    // SAFETY: by the caller, as many bytes are there as length or header say.
    unsafe {
        let slice = |from: *const u8, size| std::slice::from_raw_parts(from, size);
        match length {
            -1 => {}
            -2 => {
                let text = |from: *const u8| std::ffi::CStr::from_ptr(from.cast());
                return text(left) == text(right);
            }
            length => return slice(left, length as usize) == slice(right, length as usize),
        }
        let contents = |from: *const u8| match shape(from) {
            Some(Shape::Short(size)) => Some((1, slice(from.add(1), size - 1))),
            Some(Shape::Plain(size)) => Some((1, slice(from.add(4), size - 4))),
            Some(Shape::Compressed(size)) => Some((2, slice(from.add(4), size - 4))),
            Some(Shape::External(size)) if !is_expanded(from) => Some((3, slice(from, size))),
            _ => None,
        };
        matches!((contents(left), contents(right)), (Some(left), Some(right)) if left == right)
    }
}
