//! Bounds enclose exactly the rows that a condition admits; separators part.

mod model;

use std::cmp::Ordering;

use model::{Cell, IgnoreCase, encode, layout_and_rows, row_order, type_order};
use proptest::prelude::*;
use rowref::key::{
    Bound, ColumnForm, EncodeKeyError, KeyColumn, KeyLayout, KeyValue, Limit, NoComparator,
    successor,
};

#[derive(Debug, Clone, Copy)]
enum Side {
    Open,
    Inclusive,
    Exclusive,
}

fn side() -> impl Strategy<Value = Side> {
    prop::sample::select(vec![Side::Open, Side::Inclusive, Side::Exclusive])
}

fn limit<'a>(side: Side, cell: &'a Cell) -> Limit<'a> {
    // A null cannot be a limit; such a case stands in for an open one.
    match (side, cell) {
        (Side::Open, _) | (_, Cell::Null) => Limit::Open,
        (Side::Inclusive, cell) => Limit::Inclusive(cell.value()),
        (Side::Exclusive, cell) => Limit::Exclusive(cell.value()),
    }
}

/// Whether SQL's comparison holds: `value` on the `wanted` side of the limit.
fn passes(form: ColumnForm, value: &Cell, limit: Limit<'_>, cell: &Cell, wanted: Ordering) -> bool {
    match limit {
        Limit::Open => true,
        Limit::Inclusive(_) => type_order(form, value, cell) != wanted.reverse(),
        Limit::Exclusive(_) => type_order(form, value, cell) == wanted,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_range_holds_exactly_the_rows_that_its_condition_admits(
        (columns, rows) in layout_and_rows(6),
        width in 0usize..4,
        lower_side in side(),
        upper_side in side(),
    ) {
        let layout = KeyLayout::new(columns.clone());
        let width = width.min(columns.len() - 1);
        let equal: Vec<_> = rows[0][..width].iter().map(Cell::value).collect();
        let form = columns[width].form;
        let lower = limit(lower_side, &rows[1][width]);
        let upper = limit(upper_side, &rows[2][width]);
        let range = layout.range(&equal, lower, upper).unwrap();
        for row in &rows {
            let value = &row[width];
            let admitted = row_order(&columns[..width], &row[..width], &rows[0][..width]).is_eq()
                && *value != Cell::Null
                && passes(form, value, lower, &rows[1][width], Ordering::Greater)
                && passes(form, value, upper, &rows[2][width], Ordering::Less);
            let key = encode(&layout, row);
            prop_assert_eq!(
                layout.range_contains(&key, &range, &IgnoreCase), admitted,
                "{:?} in {:?}", row, range
            );
        }
    }

    #[test]
    fn a_prefix_range_holds_exactly_the_rows_with_these_leading_values(
        (columns, rows) in layout_and_rows(6),
        width in 0usize..=4,
    ) {
        let layout = KeyLayout::new(columns.clone());
        let width = width.min(columns.len());
        let equal: Vec<_> = rows[0][..width].iter().map(Cell::value).collect();
        let range = layout.prefix_range(&equal).unwrap();
        for row in &rows {
            let order = row_order(&columns[..width], &row[..width], &rows[0][..width]);
            let key = encode(&layout, row);
            prop_assert_eq!(layout.range_contains(&key, &range, &IgnoreCase), order.is_eq());
            prop_assert_eq!(
                layout.compare_bound(&key, &range.start, &IgnoreCase),
                order.then(Ordering::Greater)
            );
            prop_assert_eq!(
                layout.compare_bound(&key, &range.end, &IgnoreCase),
                order.then(Ordering::Less)
            );
            if layout.is_ordered() {
                let mut prefix = Vec::new();
                layout.encode_values(&equal, &mut prefix).unwrap();
                let end = successor(&prefix);
                prop_assert_eq!(
                    key >= prefix && end.is_none_or(|end| key < end),
                    order.is_eq()
                );
            }
        }
    }

    #[test]
    fn a_separator_lies_between_and_is_a_short_prefix_of_the_right(
        (columns, rows) in layout_and_rows(2),
    ) {
        let layout = KeyLayout::new(columns.clone());
        let (mut left, mut right) = (encode(&layout, &rows[0]), encode(&layout, &rows[1]));
        match layout.compare(&left, &right, &IgnoreCase) {
            Ordering::Less => {}
            Ordering::Equal => return Ok(()),
            Ordering::Greater => std::mem::swap(&mut left, &mut right),
        }
        let mut between = Vec::new();
        layout.separator(&left, &right, &IgnoreCase, &mut between);
        prop_assert!(right.starts_with(&between));
        prop_assert_eq!(layout.compare(&left, &between, &IgnoreCase), Ordering::Less);
        prop_assert_ne!(layout.compare(&between, &right, &IgnoreCase), Ordering::Greater);
        if layout.is_ordered() {
            // One byte less and it would not lie above the left key.
            prop_assert!(between[..between.len() - 1] <= left[..]);
        }

        // Separators are themselves separated when an inner page splits.
        let mut again = Vec::new();
        layout.separator(&left, &between, &IgnoreCase, &mut again);
        prop_assert_eq!(layout.compare(&left, &again, &IgnoreCase), Ordering::Less);
        prop_assert_ne!(layout.compare(&again, &between, &IgnoreCase), Ordering::Greater);
        if layout.compare(&between, &right, &IgnoreCase).is_lt() {
            layout.separator(&between, &right, &IgnoreCase, &mut again);
            prop_assert_eq!(layout.compare(&between, &again, &IgnoreCase), Ordering::Less);
            prop_assert_ne!(layout.compare(&again, &right, &IgnoreCase), Ordering::Greater);
        }
    }

    #[test]
    fn keys_between_two_keys_share_their_common_prefix(
        (columns, rows) in layout_and_rows(3),
    ) {
        let layout = KeyLayout::new(columns.clone());
        let mut keys: Vec<_> = rows.iter().map(|row| encode(&layout, row)).collect();
        keys.sort_by(|a, b| layout.compare(a, b, &IgnoreCase));
        let shared = layout.common_prefix_len(&keys[0], &keys[2]);
        prop_assert_eq!(&keys[0][..shared], &keys[1][..shared]);
        prop_assert_eq!(&keys[0][..shared], &keys[2][..shared]);
    }

    #[test]
    fn successor_is_the_smallest_string_above_a_prefix(
        prefix in prop::collection::vec(prop::sample::select(vec![0u8, 7, 0xFE, 0xFF]), 0..6),
        other in prop::collection::vec(prop::sample::select(vec![0u8, 7, 8, 0xFE, 0xFF]), 0..8),
    ) {
        let end = successor(&prefix);
        let above = other > prefix && !other.starts_with(&prefix);
        prop_assert_eq!(end.is_some_and(|end| other >= end), above);
    }
}

#[test]
fn comparator_separators_are_cut_at_column_boundaries() {
    let layout = KeyLayout::new(vec![
        KeyColumn::ascending(ColumnForm::Int4),
        KeyColumn::ascending(ColumnForm::Comparator { fixed_len: None }),
        KeyColumn::ascending(ColumnForm::Int4),
        KeyColumn::ascending(ColumnForm::Text),
    ]);
    let key = |a, b: &[u8], c, d: &[u8]| {
        let mut key = Vec::new();
        layout
            .encode_values(
                &[
                    KeyValue::Int4(a),
                    KeyValue::Bytes(b),
                    KeyValue::Int4(c),
                    KeyValue::Bytes(d),
                ],
                &mut key,
            )
            .unwrap();
        key
    };
    let length = |left: &[u8], right: &[u8]| {
        let mut out = Vec::new();
        layout.separator(left, right, &NoComparator, &mut out);
        out.len()
    };
    let base = key(1, b"abc", 5, b"x");
    assert_eq!(length(&base, &key(1 << 24, b"abc", 5, b"x")), 1);
    assert_eq!(length(&base, &key(1, b"abd", 5, b"x")), 4 + 5);
    assert_eq!(length(&base, &key(1, b"abc", 6, b"x")), 4 + 5 + 4);
    assert_eq!(length(&base, &key(1, b"abc", 5, b"yyy")), 4 + 5 + 4 + 4);
}

#[test]
fn the_empty_prefix_makes_the_infinities() {
    for form in [ColumnForm::Text, ColumnForm::Comparator { fixed_len: None }] {
        let layout = KeyLayout::new(vec![KeyColumn::ascending(form)]);
        let key = encode(&layout, &[Cell::Bytes(b"k".to_vec())]);
        for key in [&key[..], b""] {
            assert!(
                layout
                    .compare_bound(key, &Bound::first(), &NoComparator)
                    .is_gt()
            );
            assert!(
                layout
                    .compare_bound(key, &Bound::last(), &NoComparator)
                    .is_lt()
            );
        }
    }
}

#[test]
fn a_null_cannot_be_a_limit() {
    let layout = KeyLayout::new(vec![KeyColumn {
        nullable: true,
        ..KeyColumn::ascending(ColumnForm::Int4)
    }]);
    assert_eq!(
        layout.range(&[], Limit::Open, Limit::Exclusive(KeyValue::Null)),
        Err(EncodeKeyError::NullNotAllowed { column: 0 })
    );
}
