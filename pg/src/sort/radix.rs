//! Sorting by the first bytes of keys: distributed by their leading bits as long
//! as many of them are together, compared once few are.

use std::cmp::Ordering;

/// The first bytes of a key, comparing as they do. Sixteen are a fixed-length
/// column with its null marker and the greater part of the reference behind it,
/// so that rows with equal columns are told apart too.
pub type First = u128;

/// Where an item lies, with the first bytes of its key, which often decide.
#[derive(Clone, Copy)]
pub struct Place {
    /// [`First`] in two halves, which take no padding.
    high: u64,
    low: u64,
    /// Where the item's bytes begin.
    pub at: usize,
}

impl Place {
    /// A place in somebody's bytes.
    #[inline]
    pub fn new(first: First, at: usize) -> Place {
        Place {
            high: (first >> 64) as u64,
            low: first as u64,
            at,
        }
    }

    /// The first bytes of the key.
    #[inline]
    pub fn first(&self) -> First {
        First::from(self.high) << 64 | First::from(self.low)
    }
}

/// Bits by which items are distributed at a time: as many heaps are written to
/// at once as the processor can follow.
const DIGIT_BITS: u32 = 8;
const HEAPS: usize = 1 << DIGIT_BITS;

/// So few items are sooner compared than distributed.
const FEW: usize = 48;

/// Sorts items by their first bytes, and where these are equal by `order`.
pub fn sort(items: &mut [Place], order: &impl Fn(&Place, &Place) -> Ordering) {
    let mut spare = if items.len() > FEW {
        items.to_vec()
    } else {
        Vec::new()
    };
    distribute(items, &mut spare, order);
}

/// Distributing keeps the order in which equal digits came, and rows come in the
/// order of the references at the end of their keys: what is compared in the end
/// is mostly in order.
fn distribute(
    items: &mut [Place],
    spare: &mut [Place],
    order: &impl Fn(&Place, &Place) -> Ordering,
) {
    if items.len() <= FEW {
        return items.sort_unstable_by(|left, right| {
            left.first()
                .cmp(&right.first())
                .then_with(|| order(left, right))
        });
    }
    let (mut high, mut low) = (0, 0);
    for item in &*items {
        high |= item.high ^ items[0].high;
        low |= item.low ^ items[0].low;
    }
    let differing = First::from(high) << 64 | First::from(low);
    if differing == 0 {
        return items.sort_unstable_by(order);
    }
    // The digit begins with the first bit in which any two of them differ.
    let shift = (First::BITS - differing.leading_zeros()).saturating_sub(DIGIT_BITS);
    let digit = |item: &Place| (item.first() >> shift) as usize % HEAPS;
    let mut ends = [0usize; HEAPS];
    for item in &*items {
        ends[digit(item)] += 1;
    }
    let mut start = 0;
    for end in &mut ends {
        (start, *end) = (start + *end, start);
    }
    for item in &*items {
        let to = &mut ends[digit(item)];
        spare[*to] = *item;
        *to += 1;
    }
    items.copy_from_slice(spare);
    let mut start = 0;
    for end in ends {
        if end - start > 1 {
            distribute(&mut items[start..end], &mut spare[start..end], order);
        }
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn places_are_sorted_by_their_first_bytes_and_then_as_told(
            // Few values and many, which differ in any of the bytes.
            values in prop::collection::vec(any::<u128>(), 1..400),
            distinct in 1usize..400,
            mask in any::<u128>(),
            shift in 0u32..128,
            count in 0usize..2_000,
        ) {
            let mut places: Vec<_> = (0..count)
                .map(|nth| {
                    let value = values[nth * 7919 % distinct.min(values.len())];
                    Place::new((value & mask) << shift, nth * 31 % count)
                })
                .collect();
            let by_place = |left: &Place, right: &Place| right.at.cmp(&left.at);
            sort(&mut places, &by_place);
            let told: Vec<_> = places.iter().map(|place| (place.first(), place.at)).collect();
            let mut wanted = told.clone();
            wanted.sort_unstable_by_key(|(first, at)| (*first, std::cmp::Reverse(*at)));
            prop_assert_eq!(&told, &wanted);
            let mut ats: Vec<_> = told.iter().map(|(_, at)| *at).collect();
            ats.sort_unstable();
            let mut all: Vec<_> = (0..count).map(|nth| nth * 31 % count).collect();
            all.sort_unstable();
            prop_assert_eq!(ats, all);
        }
    }
}
