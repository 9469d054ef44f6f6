//! Sorting numbers digit by digit.

/// Below so many a sort by comparison is faster.
const FEW: usize = 256;
/// The most bits of a digit: one counter for each, which should stay in the
/// processor's nearest cache.
const DIGIT_BITS_MAX: u32 = 11;

/// Sorts numbers. Those of a table's rows mostly share their upper bits, which
/// are passed over; so they take two or three rounds.
pub(super) fn sort(numbers: &mut Vec<u64>) {
    let first = numbers.first().copied().unwrap_or(0);
    let varying = numbers.iter().fold(0, |all, one| all | (one ^ first));
    let bits = u64::BITS - varying.leading_zeros();
    let rounds = bits.div_ceil(DIGIT_BITS_MAX);
    // A round is worth some three comparisons of each number.
    if numbers.len() < FEW || rounds > 4 || u32::try_from(numbers.len()).is_err() {
        return numbers.sort_unstable();
    }
    let digit_bits = bits.div_ceil(rounds.max(1));
    let mask = (1u64 << digit_bits) - 1;
    let mut other = vec![0; numbers.len()];
    let mut starts = vec![0u32; 1 << digit_bits];
    for round in 0..rounds {
        let shift = round * digit_bits;
        let digit = |number: u64| (number >> shift & mask) as usize;
        starts.fill(0);
        numbers.iter().for_each(|one| starts[digit(*one)] += 1);
        let mut sum = 0;
        for start in &mut starts {
            sum += std::mem::replace(start, sum);
        }
        for one in numbers.iter() {
            let start = &mut starts[digit(*one)];
            other[*start as usize] = *one;
            *start += 1;
        }
        std::mem::swap(numbers, &mut other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_end_up_in_order_whichever_bits_vary(
            high in any::<u64>(),
            bits in 0u32..64,
            seeds in proptest::collection::vec(any::<u64>(), 0..2000),
        ) {
            let low = (1u64 << bits) - 1;
            let mut numbers: Vec<u64> = seeds.iter().map(|seed| high & !low | seed & low).collect();
            let mut expected = numbers.clone();
            expected.sort_unstable();
            sort(&mut numbers);
            prop_assert_eq!(numbers, expected);
        }
    }
}
