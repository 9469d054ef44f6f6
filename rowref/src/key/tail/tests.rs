use proptest::prelude::*;

use super::*;

fn coded(head: &[u8], tail: &[u8]) -> Vec<u8> {
    let mut code = Vec::new();
    encode(head, tail, &mut code);
    code
}

fn decoded(head: &[u8], code: &[u8], length: usize) -> Result<Vec<u8>, &'static str> {
    let mut tail = Vec::new();
    decode(head, code, length, &mut tail).map(|()| tail)
}

/// Numbers are compared as if zeros followed.
fn as_number(mut code: Vec<u8>, bytes: usize) -> Vec<u8> {
    code.resize(bytes, 0);
    code
}

/// Values that are alike for long, and others.
fn values() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..6),
        proptest::collection::vec(prop_oneof![Just(0u8), Just(b'a'), Just(255)], 1..6),
        Just(b"and so on, ".to_vec()),
    ];
    proptest::collection::vec((piece, 1usize..60), 1..12).prop_map(|pieces| {
        let repeated = pieces.into_iter().map(|(piece, times)| piece.repeat(times));
        repeated.collect::<Vec<_>>().concat()
    })
}

/// The value, and another that is alike up to somewhere.
fn pairs() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    (values(), values(), any::<prop::sample::Index>()).prop_map(|(left, right, at)| {
        let shared = at.index(left.len() + 1);
        let right = [&left[..shared], &right[..]].concat();
        (left, right)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_tail_reads_back_as_written(head in values(), tail in values()) {
        let code = coded(&head, &tail);
        prop_assert_eq!(decoded(&head, &code, tail.len()).unwrap(), tail.clone());
        prop_assert!(is_plausible(code.len(), tail.len()));
        prop_assert!(decoded(&head, &code, tail.len() + 1).is_err());
        if tail.len() > 1 {
            prop_assert!(decoded(&head, &code, tail.len() - 1).is_err());
        }
    }

    #[test]
    fn numbers_are_in_the_order_of_their_tails(head in values(), (left, right) in pairs()) {
        let (a, b) = (coded(&head, &left), coded(&head, &right));
        let bytes = a.len().max(b.len());
        prop_assert_eq!(as_number(a, bytes).cmp(&as_number(b, bytes)), left.cmp(&right));
    }

    #[test]
    fn the_decoder_never_panics(head in values(), code in proptest::collection::vec(any::<u8>(), 0..40), length in 0usize..5000) {
        let _ = decoded(&head, &code, length);
    }

    #[test]
    fn what_cannot_be_compressed_hardly_grows(tail in proptest::collection::vec(any::<u8>(), 2000..2200)) {
        let code = coded(&[], &tail);
        prop_assert!(code.len() <= tail.len() * 103 / 100, "{} of {}", code.len(), tail.len());
    }
}

#[test]
fn repetition_takes_next_to_nothing() {
    let text = b"1234567890".repeat(3600);
    let code = coded(&text[..HEAD_BYTES], &text[HEAD_BYTES..]);
    assert!(code.len() < 100, "{} bytes", code.len());
}

#[test]
fn prose_takes_less_than_half() {
    let text = include_bytes!("../../../README.md");
    let code = coded(&text[..HEAD_BYTES], &text[HEAD_BYTES..5000]);
    assert!(code.len() < 2200, "{} bytes", code.len());
}

/// The format: what is stored today has to be read for ever.
#[test]
fn the_numbers_of_known_tails_stay_what_they_are() {
    let head = b"The quick brown fox jumps over the lazy dog. ";
    let cases: [(&[u8], &str); 3] = [
        (
            b"The quick brown fox jumps over the lazy cat.",
            "412808bf8964282c76a6",
        ),
        (b"\x00\x00\x00\x01", "00000b298f"),
        (b"a", "4b4cfc"),
    ];
    let hex = |tail| {
        let code = coded(head, tail);
        code.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let found = cases.map(|(tail, _)| hex(tail));
    assert_eq!(found, cases.map(|(_, expected)| expected.to_owned()));
}

#[test]
fn what_no_key_has_room_for_is_cut_off_in_its_order() {
    // Bytes of a simple generator, which nothing expects.
    let mut state = 1u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(40_000)
    .collect();
    let code = coded(b"", &noise);
    assert!(code.len() >= CODE_BYTES_MAX && code.len() < CODE_BYTES_MAX + 16);
    for (at, ordering) in [(100, 1), (100, -1i8)] {
        let mut other = noise[..at + 1].to_vec();
        other[at] = other[at].wrapping_add_signed(ordering);
        let expected = other.as_slice().cmp(&noise);
        assert_eq!(coded(b"", &other).cmp(&code), expected);
    }
    assert!(coded(b"", &noise[..1000]) < code);
}
