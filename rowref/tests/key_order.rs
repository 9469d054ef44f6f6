//! The order of keys is the order of their columns' values.

mod model;

use std::cmp::Ordering;

use model::{Cell, FORMS, IgnoreCase, column_order, encode, layout_and_rows, name, row_order};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use rowref::key::{
    ColumnForm, EncodeKeyError, KeyColumn, KeyLayout, KeyValue, NoComparator, common_prefix_len,
};

/// Every form × direction × place of nulls × nullability.
fn every_column() -> Vec<KeyColumn> {
    let mut columns = Vec::new();
    for form in FORMS {
        for bits in 0..8 {
            columns.push(KeyColumn {
                form,
                descending: bits & 1 != 0,
                nulls_first: bits & 2 != 0,
                nullable: bits & 4 != 0,
            });
        }
    }
    columns
}

/// What a value must be read back as; `None` where the form does not promise.
fn expected(form: ColumnForm, cell: &Cell) -> Cell {
    match cell {
        Cell::Bytes(bytes) if form == ColumnForm::Name => Cell::Bytes(name(bytes).to_vec()),
        _ => cell.clone(),
    }
}

fn owned(value: KeyValue<'_>) -> Cell {
    match value {
        KeyValue::Null => Cell::Null,
        KeyValue::Bool(v) => Cell::Bool(v),
        KeyValue::Int2(v) => Cell::Int2(v),
        KeyValue::Int4(v) => Cell::Int4(v),
        KeyValue::Int8(v) => Cell::Int8(v),
        KeyValue::UInt4(v) => Cell::UInt4(v),
        KeyValue::Float4(v) => Cell::Float4(v),
        KeyValue::Float8(v) => Cell::Float8(v),
        KeyValue::Char(v) => Cell::Char(v),
        KeyValue::Uuid(v) => Cell::Uuid(v),
        KeyValue::RowId(v) => Cell::RowId(v),
        KeyValue::Bytes(v) => Cell::Bytes(v.to_vec()),
    }
}

#[test]
fn every_form_and_direction_keeps_the_order_of_its_values() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for column in every_column() {
        let layout = KeyLayout::new(vec![column]);
        let strategy = prop::collection::vec(model::row(&[column]), 40);
        for _ in 0..4 {
            let rows = strategy.new_tree(&mut runner).unwrap().current();
            for a in &rows {
                for b in &rows {
                    let (left, right) = (encode(&layout, a), encode(&layout, b));
                    let order = column_order(column, &a[0], &b[0]);
                    assert_eq!(
                        layout.compare(&left, &right, &IgnoreCase),
                        order,
                        "{column:?} {a:?} {b:?}"
                    );
                    if column.form.is_ordered() {
                        assert_eq!(left.cmp(&right), order, "{column:?} {a:?} {b:?}");
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn keys_of_several_columns_sort_as_their_rows(
        (columns, rows) in layout_and_rows(4)
    ) {
        let layout = KeyLayout::new(columns.clone());
        for a in &rows {
            for b in &rows {
                let (left, right) = (encode(&layout, a), encode(&layout, b));
                let order = row_order(&columns, a, b);
                prop_assert_eq!(layout.compare(&left, &right, &IgnoreCase), order);
                if layout.is_ordered() {
                    prop_assert_eq!(left.cmp(&right), order);
                }
            }
        }
    }

    #[test]
    fn a_key_that_ends_early_sorts_before_its_continuations(
        (columns, rows) in layout_and_rows(2),
        width in 0usize..4,
    ) {
        let layout = KeyLayout::new(columns.clone());
        let width = width.min(columns.len() - 1);
        let prefix = encode(&layout, &rows[0][..width]);
        let whole = encode(&layout, &rows[1]);
        let order = row_order(&columns[..width], &rows[0][..width], &rows[1][..width]);
        prop_assert_eq!(
            layout.compare(&prefix, &whole, &IgnoreCase),
            order.then(Ordering::Less)
        );
        prop_assert_eq!(
            layout.compare(&whole, &prefix, &IgnoreCase),
            order.reverse().then(Ordering::Greater)
        );
    }

    #[test]
    fn values_are_read_back_as_they_were_written((columns, rows) in layout_and_rows(2)) {
        let layout = KeyLayout::new(columns.clone());
        let key = encode(&layout, &rows[0]);
        let mut reader = layout.reader(&key);
        let mut skipper = layout.reader(&key);
        let mut scratch = Vec::new();
        for (column, cell) in columns.iter().zip(&rows[0]) {
            let read = owned(reader.read(&mut scratch).unwrap());
            if matches!(column.form, ColumnForm::Float4 | ColumnForm::Float8) {
                // One of several equal values comes back: equal, maybe not same.
                prop_assert_eq!(column_order(*column, &read, cell), Ordering::Equal);
                prop_assert!(!column.form.is_lossless());
            } else {
                prop_assert_eq!(read, expected(column.form, cell));
            }
            skipper.skip().unwrap();
            prop_assert_eq!(skipper.position(), reader.position());
        }
        prop_assert_eq!(reader.position(), key.len());
    }

    #[test]
    fn the_decoder_never_panics(
        (columns, _) in layout_and_rows(1),
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            prop::collection::vec(prop::sample::select(vec![0u8, 1, 2, 0xFE, 0xFF]), 0..40),
        ],
        other in prop::collection::vec(prop::sample::select(vec![0u8, 1, 2, 0xFF]), 0..40),
    ) {
        let layout = KeyLayout::new(columns.clone());
        let mut scratch = Vec::new();
        let mut reader = layout.reader(&bytes);
        for _ in &columns {
            let skipped = layout.skip(reader.column(), &bytes[reader.position()..]);
            let before = reader.position();
            match reader.read(&mut scratch) {
                Ok(_) => prop_assert_eq!(skipped, Ok(reader.position() - before)),
                Err(error) => {
                    prop_assert_eq!(error.column, reader.column());
                    break;
                }
            }
        }
        layout.compare(&bytes, &other, &IgnoreCase);
        let mut out = Vec::new();
        layout.separator(&bytes, &other, &IgnoreCase, &mut out);
        prop_assert!(layout.common_prefix_len(&bytes, &other) <= bytes.len().min(other.len()));
    }

    #[test]
    fn a_key_cut_anywhere_in_a_column_is_malformed(
        (columns, rows) in layout_and_rows(1),
        cut in any::<prop::sample::Index>(),
    ) {
        let layout = KeyLayout::new(columns.clone());
        let key = encode(&layout, &rows[0]);
        prop_assume!(!key.is_empty());
        let cut = &key[..cut.index(key.len())];
        let mut reader = layout.reader(cut);
        let mut scratch = Vec::new();
        let mut failed = false;
        for _ in &columns {
            if reader.read(&mut scratch).is_err() {
                failed = true;
                break;
            }
        }
        prop_assert!(failed);
    }

    #[test]
    fn common_prefix_is_the_longest(
        shared in prop::collection::vec(any::<u8>(), 0..30),
        left in prop::collection::vec(any::<u8>(), 0..12),
        right in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        let left = [shared.clone(), left].concat();
        let right = [shared, right].concat();
        let length = common_prefix_len(&left, &right);
        prop_assert_eq!(&left[..length], &right[..length]);
        let next = (left.get(length), right.get(length));
        prop_assert!(next.0 != next.1 || next == (None, None));
    }
}

#[test]
fn the_bytes_on_disk_stay_what_they_were() {
    let columns = vec![
        KeyColumn::ascending(ColumnForm::Int4),
        KeyColumn {
            form: ColumnForm::Text,
            descending: true,
            nulls_first: true,
            nullable: true,
        },
        KeyColumn {
            form: ColumnForm::Bytes,
            nullable: true,
            ..KeyColumn::ascending(ColumnForm::Bytes)
        },
        KeyColumn::ascending(ColumnForm::Float8),
        KeyColumn::ascending(ColumnForm::Comparator { fixed_len: None }),
        KeyColumn {
            nullable: true,
            ..KeyColumn::ascending(ColumnForm::Bool)
        },
    ];
    let mut key = Vec::new();
    KeyLayout::new(columns)
        .encode_values(
            &[
                KeyValue::Int4(-2),
                KeyValue::Bytes(b"ab"),
                KeyValue::Bytes(b"x\0y"),
                KeyValue::Float8(-0.0),
                KeyValue::Bytes(b"num"),
                KeyValue::Null,
            ],
            &mut key,
        )
        .unwrap();
    let fixture = [
        &[0x7F, 0xFF, 0xFF, 0xFE][..],
        &[0x01, !b'a', !b'b', 0xFF],
        &[0x01, b'x', 0x00, 0xFF, b'y', 0x00, 0x00],
        &[0x80, 0, 0, 0, 0, 0, 0, 0],
        &[3, 0, b'n', b'u', b'm'],
        &[0x02],
    ]
    .concat();
    assert_eq!(key, fixture);
}

#[test]
fn a_value_that_does_not_fit_is_refused_and_leaves_no_bytes() {
    let layout = KeyLayout::new(vec![
        KeyColumn::ascending(ColumnForm::Text),
        KeyColumn::ascending(ColumnForm::Name),
        KeyColumn::ascending(ColumnForm::Comparator { fixed_len: None }),
        KeyColumn::ascending(ColumnForm::Comparator { fixed_len: Some(4) }),
    ]);
    let mut out = vec![7];
    let long = [b'x'; 64];
    assert_eq!(
        layout.encode(0, KeyValue::Bytes(b"a\0b"), &mut out),
        Err(EncodeKeyError::TextHasNul { column: 0 })
    );
    assert_eq!(
        layout.encode(0, KeyValue::Null, &mut out),
        Err(EncodeKeyError::NullNotAllowed { column: 0 })
    );
    assert_eq!(
        layout.encode(0, KeyValue::Int4(1), &mut out),
        Err(EncodeKeyError::WrongType {
            column: 0,
            form: ColumnForm::Text
        })
    );
    for (column, value, limit_bytes) in [(1, &long[..], 63), (3, b"abc", 4)] {
        assert_eq!(
            layout.encode(column, KeyValue::Bytes(value), &mut out),
            Err(EncodeKeyError::WrongLength {
                column,
                length_bytes: value.len(),
                limit_bytes
            })
        );
    }
    assert_eq!(out, [7]);
    layout
        .encode(1, KeyValue::Bytes(&[b'n'; 63]), &mut out)
        .unwrap();
    assert_eq!(layout.compare(b"a", b"b", &NoComparator), Ordering::Less);
}

/// What is searched for may be longer than what any page could hold.
#[test]
fn comparator_values_of_any_length_are_read_back() {
    let layout = KeyLayout::new(vec![KeyColumn::ascending(ColumnForm::Comparator {
        fixed_len: None,
    })]);
    for length in [0, 0x7FFF, 0x8000, 0xFFFF, 200_000] {
        let value = vec![b'x'; length];
        let mut key = Vec::new();
        layout.encode(0, KeyValue::Bytes(&value), &mut key).unwrap();
        assert_eq!(layout.skip(0, &key), Ok(key.len()));
        let read = layout.read(0, &key, &mut Vec::new()).map(|read| read.1);
        assert_eq!(read, Ok(key.len()));
        let header = if length < 0x8000 { 2 } else { 4 };
        assert_eq!(key[header..], value);
    }
}

/// Lengths around that of a head, where the form of a value changes.
#[test]
fn long_values_keep_their_order_and_are_short_in_their_keys() {
    for form in [ColumnForm::Text, ColumnForm::Bytes] {
        let layout = KeyLayout::new(vec![KeyColumn::ascending(form)]);
        let mut last = Vec::new();
        for length in (505..520).chain([2_000, 2_001, 30_000, 300_000]) {
            let value = b"1234567890".repeat(length / 10 + 1)[..length].to_vec();
            let mut key = Vec::new();
            layout.encode(0, KeyValue::Bytes(&value), &mut key).unwrap();
            assert!(last < key, "{form:?}, {length} bytes");
            assert!(key.len() < 900, "{} bytes", key.len());
            let mut scratch = Vec::new();
            let read = layout.read(0, &key, &mut scratch).unwrap();
            assert_eq!(read, (KeyValue::Bytes(&value), key.len()));
            assert_eq!(layout.skip(0, &key), Ok(key.len()));
            let tail = length.saturating_sub(512);
            assert_eq!(layout.compressed_bytes(&key), tail);
            last = key;
        }
    }
}

#[test]
fn ascending_text_is_borrowed_from_the_key() {
    let layout = KeyLayout::new(vec![KeyColumn::ascending(ColumnForm::Text)]);
    let key = b"abc\0".to_vec();
    let mut scratch = Vec::new();
    let (value, length) = layout.read(0, &key, &mut scratch).unwrap();
    let KeyValue::Bytes(text) = value else {
        panic!("text is bytes")
    };
    assert_eq!((text.as_ptr(), length), (key.as_ptr(), 4));
    assert_eq!(scratch.capacity(), 0);
}
