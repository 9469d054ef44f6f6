//! Images of pages, compressed: what a record may bring along in the place of
//! a block's operations. When, and why redo may rely on them, is argued in
//! `README.md`, "Page images".
//!
//! ```text
//!  0     1       3       5
//!  │ 255 │ lower │ upper │ LZ4 block: the page's bytes 8 to lower, upper to its end │
//! ```

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use engine::page::apply::Mismatch;
use engine::record::Record;
use engine::store::LSN_BYTES;
use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size,
};
use pgrx::pg_sys;

/// The first byte of an image. No operation has this code.
const TAG: u8 = 255;
/// Tag, and both edges of the hole.
const HEAD_BYTES: usize = 5;
const PAGE_BYTES: usize = pg_sys::BLCKSZ as usize;
/// A page without its LSN, which is the record's.
const SHOWN_BYTES: usize = PAGE_BYTES - LSN_BYTES;
const IMAGE_BYTES_MAX: usize = HEAD_BYTES + get_maximum_output_size(SHOWN_BYTES);

/// Where PostgreSQL's page header has the edges of the hole, and where it ends.
const AT_LOWER: usize = 12;
const AT_UPPER: usize = 14;
const HEADER_BYTES: usize = 24;

/// How many bytes from the page's end are tried first, if there are four times
/// as many: cells of a page are much alike, so random data need not be gone
/// through as a whole.
const SAMPLE_BYTES: usize = 1024;

/// Whether a page that takes so much less room is worth undoing it in redo.
fn pays(image_bytes: usize, bytes: usize) -> bool {
    image_bytes < bytes / 4 * 3
}

/// The same of a sample, which finds fewer repetitions than the whole.
fn may_pay(sample_bytes: usize) -> bool {
    sample_bytes < SAMPLE_BYTES / 16 * 13
}

/// Room for one image.
struct Made {
    bytes: Box<[u8]>,
    length: usize,
}

/// Room for the images of one record, and to make and undo them in.
pub(crate) struct Images {
    table: CompressTable,
    /// A page without its hole.
    whole: Box<[u8]>,
    made: [Made; Record::BLOCKS_MAX],
}

thread_local! {
    /// Made before the first critical section, inside which nothing may
    /// allocate.
    static IMAGES: RefCell<Images> = RefCell::new(Images::new());
}

/// Hands out this session's room for images.
pub(crate) fn with_images<T>(body: impl FnOnce(&mut Images) -> T) -> T {
    IMAGES.with_borrow_mut(body)
}

/// Whether a block's data are an image, and not operations.
pub(crate) fn is_image(data: &[u8]) -> bool {
    data.first() == Some(&TAG)
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// The edges of a page's hole, as offsets among the bytes behind the LSN, if
/// they are in order.
fn hole(lower: usize, upper: usize) -> Option<(usize, usize)> {
    (HEADER_BYTES <= lower && lower <= upper && upper <= PAGE_BYTES)
        .then(|| (lower - LSN_BYTES, upper - LSN_BYTES))
}

impl Images {
    fn new() -> Images {
        Images {
            table: CompressTable::small(),
            whole: vec![0; SHOWN_BYTES].into_boxed_slice(),
            made: std::array::from_fn(|_| Made {
                bytes: vec![0; IMAGE_BYTES_MAX].into_boxed_slice(),
                length: 0,
            }),
        }
    }

    /// Makes the image of a page, given behind its LSN, for the record's block
    /// `nth`. False if there is none that is worth it. Within a critical
    /// section: allocates nothing, raises and unwinds nothing.
    pub(crate) fn make(&mut self, nth: usize, page: &[u8]) -> bool {
        matches!(
            catch_unwind(AssertUnwindSafe(|| self.try_make(nth, page))),
            Ok(Some(()))
        )
    }

    fn try_make(&mut self, nth: usize, page: &[u8]) -> Option<()> {
        assert!(page.len() == SHOWN_BYTES, "a whole page");
        let (lower, upper) = (
            u16_at(page, AT_LOWER - LSN_BYTES),
            u16_at(page, AT_UPPER - LSN_BYTES),
        );
        let (from, to) = hole(lower, upper)?;
        let bytes = from + SHOWN_BYTES - to;
        let whole = &mut self.whole[..bytes];
        whole[..from].copy_from_slice(&page[..from]);
        whole[from..].copy_from_slice(&page[to..]);

        let made = &mut self.made[nth];
        let (head, body) = made.bytes.split_at_mut(HEAD_BYTES);
        if bytes >= 4 * SAMPLE_BYTES {
            let sample = &whole[bytes - SAMPLE_BYTES..];
            let length = compress_into_with_table(sample, body, &mut self.table).ok()?;
            if !may_pay(length) {
                return None;
            }
        }
        let length = compress_into_with_table(whole, body, &mut self.table).ok()?;
        made.length = HEAD_BYTES + length;
        if !pays(made.length, bytes) {
            return None;
        }
        head[0] = TAG;
        head[1..3].copy_from_slice(&(lower as u16).to_le_bytes());
        head[3..5].copy_from_slice(&(upper as u16).to_le_bytes());
        Some(())
    }

    /// The image made last for the record's block `nth`.
    pub(crate) fn made(&self, nth: usize) -> &[u8] {
        let made = &self.made[nth];
        &made.bytes[..made.length]
    }

    /// Writes every byte of a page behind its LSN, as [`Self::make`] found
    /// them, the hole as zeros. After an `Err` the page is as it was.
    pub(crate) fn restore(&mut self, image: &[u8], page: &mut [u8]) -> Result<(), Mismatch> {
        catch_unwind(AssertUnwindSafe(|| self.try_restore(image, page)))
            .unwrap_or(Err("an image reaches outside the page"))
    }

    fn try_restore(&mut self, image: &[u8], page: &mut [u8]) -> Result<(), Mismatch> {
        assert!(page.len() == SHOWN_BYTES, "a whole page");
        let (head, body) = image
            .split_at_checked(HEAD_BYTES)
            .ok_or("an image is cut off")?;
        if head[0] != TAG {
            return Err("not an image");
        }
        let (lower, upper) = (u16_at(head, 1), u16_at(head, 3));
        let (from, to) = hole(lower, upper).ok_or("an image's hole is out of order")?;
        let whole = &mut self.whole[..from + SHOWN_BYTES - to];
        match decompress_into(body, whole) {
            Ok(length) if length == whole.len() => {}
            _ => return Err("an image cannot be decompressed"),
        }
        if (
            u16_at(whole, AT_LOWER - LSN_BYTES),
            u16_at(whole, AT_UPPER - LSN_BYTES),
        ) != (lower, upper)
        {
            return Err("an image is not of the page that it says");
        }
        page[..from].copy_from_slice(&whole[..from]);
        page[from..to].fill(0);
        page[to..].copy_from_slice(&whole[from..]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use engine::page::apply::{Scratch, apply};
    use proptest::prelude::*;

    use super::*;

    /// A page with so much in front of its hole and behind it.
    fn page(lower: usize, upper: usize, byte: impl Fn(usize) -> u8) -> Vec<u8> {
        let mut page: Vec<u8> = (0..SHOWN_BYTES).map(byte).collect();
        if let Some((from, to)) = hole(lower, upper) {
            page[from..to].fill(0);
        }
        page[AT_LOWER - LSN_BYTES..][..2].copy_from_slice(&(lower as u16).to_le_bytes());
        page[AT_UPPER - LSN_BYTES..][..2].copy_from_slice(&(upper as u16).to_le_bytes());
        page
    }

    /// Rows of a hundred bytes that count up and have some text in common.
    fn rows(at: usize) -> u8 {
        match at % 100 {
            0 => (at / 100) as u8,
            nth => nth as u8 / 9,
        }
    }

    fn random(at: usize) -> u8 {
        let mut hash = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
        (hash.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8
    }

    fn image_of(page: &[u8]) -> Option<Vec<u8>> {
        let mut images = Images::new();
        images.make(2, page).then(|| images.made(2).to_vec())
    }

    #[test]
    fn a_page_comes_back_whole_with_zeros_in_its_hole() {
        for (lower, upper) in [
            (24, 24),
            (600, 1000),
            (24, PAGE_BYTES),
            (4000, 4000),
            (32, 8160),
        ] {
            let page = page(lower, upper, rows);
            let mut dirty = page.clone();
            let (from, to) = hole(lower, upper).unwrap();
            dirty[from..to].fill(0xaa);
            // A header alone does not shrink.
            let Some(image) = image_of(&dirty) else {
                assert!(upper - lower > 8000, "{lower} {upper}");
                continue;
            };
            assert!(is_image(&image));
            assert!(image.len() < (SHOWN_BYTES - (to - from)) * 3 / 4);
            let mut back = vec![0x55; SHOWN_BYTES];
            assert_eq!(Images::new().restore(&image, &mut back), Ok(()));
            assert!(back == page, "{lower} {upper}");
        }
    }

    #[test]
    fn images_of_one_record_do_not_disturb_each_other() {
        let mut images = Images::new();
        let pages: Vec<_> = (0..Record::BLOCKS_MAX)
            .map(|nth| page(100 + nth, 900, |at| rows(at + nth)))
            .collect();
        for (nth, page) in pages.iter().enumerate() {
            assert!(images.make(nth, page));
        }
        for (nth, page) in pages.iter().enumerate() {
            let mut back = vec![0; SHOWN_BYTES];
            let image = images.made(nth).to_vec();
            assert_eq!(images.restore(&image, &mut back), Ok(()));
            assert!(back == *page);
        }
    }

    #[test]
    fn random_data_and_pages_out_of_order_have_no_image() {
        assert_eq!(image_of(&page(600, 1000, random)), None);
        assert_eq!(image_of(&page(7000, 8100, random)), None);
        for (lower, upper) in [(0, 0), (20, 8000), (900, 800), (24, 8193), (65535, 65535)] {
            assert_eq!(image_of(&page(lower, upper, rows)), None);
        }
        // Cells that look random are not gone through, whatever is before them.
        let mostly = page(24, 24, |at| if at < 7000 { 7 } else { random(at) });
        assert_eq!(image_of(&mostly), None);
    }

    #[test]
    fn an_image_is_no_operation_and_operations_are_no_image() {
        let image = image_of(&page(600, 1000, rows)).unwrap();
        let mut bytes = vec![0; SHOWN_BYTES];
        assert!(apply(&mut bytes, &image, &mut Scratch::new(PAGE_BYTES)).is_err());
        for code in 0..TAG {
            assert!(!is_image(&[code, 0, 0]));
            let mut other = image.clone();
            other[0] = code;
            assert!(Images::new().try_restore(&other, &mut bytes).is_err());
        }
        assert!(!is_image(&[]));
        assert_eq!(bytes, vec![0; SHOWN_BYTES]);
    }

    #[test]
    fn an_image_is_laid_out_as_drawn() {
        let header = [
            0xab, 0xcd, 4, 0, 32, 0, 0xe0, 0x1f, 0xe0, 0x1f, 4, 32, 0, 0, 0, 0,
        ];
        let mut expected = vec![0; SHOWN_BYTES];
        expected[..16].copy_from_slice(&header);
        expected[SHOWN_BYTES - 5..].copy_from_slice(b"image");
        // Of the 56 bytes outside of the hole the first 17 as they are, then the
        // one before 34 times, then five as they are.
        let mut image = vec![255, 32, 0, 0xe0, 0x1f, 0xff, 2];
        image.extend(header);
        image.extend([0, 1, 0, 15, 0x50]);
        image.extend(b"image");
        let mut page = vec![0x55; SHOWN_BYTES];
        assert_eq!(Images::new().restore(&image, &mut page), Ok(()));
        assert!(page == expected);
    }

    /// Undoes damaged images without the net that catches panics.
    fn refused(image: &[u8]) -> bool {
        let mut page = vec![0x55; SHOWN_BYTES];
        let refused = Images::new().try_restore(image, &mut page).is_err();
        assert!(!refused || page.iter().all(|&byte| byte == 0x55));
        refused
    }

    #[test]
    fn an_image_that_is_cut_off_anywhere_or_too_long_is_refused() {
        let image = image_of(&page(600, 1000, rows)).unwrap();
        for length in 0..image.len() {
            assert!(refused(&image[..length]), "{length} bytes");
        }
        assert!(refused(&[&image[..], &[0]].concat()));
        assert!(refused(&[&image[..], &image[HEAD_BYTES..]].concat()));
        assert!(!refused(&image));
    }

    #[test]
    fn every_flipped_bit_of_the_head_is_refused() {
        let image = image_of(&page(600, 1000, rows)).unwrap();
        for bit in 0..8 * HEAD_BYTES {
            let mut flipped = image.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(refused(&flipped), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn what_compresses_comes_back(
            lower in 24usize..4000,
            gap in 0usize..4000,
            period in 1usize..300,
            noise in 1usize..50,
        ) {
            let page = page(lower, lower + gap, |at| {
                if at % noise == 0 { random(at) } else { random(at % period) }
            });
            if let Some(image) = image_of(&page) {
                let mut back = vec![0x55; SHOWN_BYTES];
                prop_assert_eq!(Images::new().restore(&image, &mut back), Ok(()));
                prop_assert!(back == page);
            }
        }

        /// A flipped byte may be one of a literal: then the page is another
        /// one, which is the log's checksum to notice. But nothing panics.
        #[test]
        fn damage_never_panics(
            flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..20),
        ) {
            let mut image = image_of(&page(600, 1000, rows)).unwrap();
            for (at, mask) in flips {
                let at = at.index(image.len());
                image[at] ^= mask;
            }
            refused(&image);
        }

        #[test]
        fn garbage_never_panics(mut garbage in prop::collection::vec(any::<u8>(), 5..3000)) {
            garbage[0] = TAG;
            garbage[1..5].copy_from_slice(&[0x58, 0x02, 0xe8, 0x03]);
            refused(&garbage);
        }
    }
}
