//! Owned column values, their order told without the codec, and strategies
//! that favour the values at which encodings break.
#![allow(dead_code, reason = "each test file uses its own part of the model")]

use std::cmp::Ordering;

use proptest::prelude::*;
use rowref::key::{ColumnForm, CompareColumn, KeyColumn, KeyLayout, KeyValue};

#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Bool(bool),
    Int2(i16),
    Int4(i32),
    Int8(i64),
    UInt4(u32),
    Float4(f32),
    Float8(f64),
    Char(u8),
    Uuid([u8; 16]),
    RowId(u64),
    Bytes(Vec<u8>),
}

impl Cell {
    pub fn value(&self) -> KeyValue<'_> {
        match self {
            Cell::Null => KeyValue::Null,
            Cell::Bool(v) => KeyValue::Bool(*v),
            Cell::Int2(v) => KeyValue::Int2(*v),
            Cell::Int4(v) => KeyValue::Int4(*v),
            Cell::Int8(v) => KeyValue::Int8(*v),
            Cell::UInt4(v) => KeyValue::UInt4(*v),
            Cell::Float4(v) => KeyValue::Float4(*v),
            Cell::Float8(v) => KeyValue::Float8(*v),
            Cell::Char(v) => KeyValue::Char(*v),
            Cell::Uuid(v) => KeyValue::Uuid(*v),
            Cell::RowId(v) => KeyValue::RowId(*v),
            Cell::Bytes(v) => KeyValue::Bytes(v),
        }
    }
}

/// Ignores ASCII case: values that are equal and yet differ in bytes.
pub struct IgnoreCase;

impl CompareColumn for IgnoreCase {
    fn compare(&self, _column: usize, left: &[u8], right: &[u8]) -> Ordering {
        left.to_ascii_lowercase().cmp(&right.to_ascii_lowercase())
    }
}

/// What a name is up to its NUL.
pub fn name(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

fn float_order(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => a.partial_cmp(&b).unwrap(),
    }
}

/// The order of two values that are not null, as PostgreSQL has it.
pub fn type_order(form: ColumnForm, a: &Cell, b: &Cell) -> Ordering {
    match (a, b) {
        (Cell::Bool(a), Cell::Bool(b)) => a.cmp(b),
        (Cell::Int2(a), Cell::Int2(b)) => a.cmp(b),
        (Cell::Int4(a), Cell::Int4(b)) => a.cmp(b),
        (Cell::Int8(a), Cell::Int8(b)) => a.cmp(b),
        (Cell::UInt4(a), Cell::UInt4(b)) => a.cmp(b),
        (Cell::Float4(a), Cell::Float4(b)) => float_order((*a).into(), (*b).into()),
        (Cell::Float8(a), Cell::Float8(b)) => float_order(*a, *b),
        (Cell::Char(a), Cell::Char(b)) => a.cmp(b),
        (Cell::Uuid(a), Cell::Uuid(b)) => a.cmp(b),
        (Cell::RowId(a), Cell::RowId(b)) => a.cmp(b),
        (Cell::Bytes(a), Cell::Bytes(b)) => match form {
            ColumnForm::Name => name(a).cmp(name(b)),
            ColumnForm::Comparator { .. } => IgnoreCase.compare(0, a, b),
            _ => a.cmp(b),
        },
        _ => panic!("{a:?} and {b:?} in one column"),
    }
}

/// The order of two cells of a column, nulls and direction included.
pub fn column_order(column: KeyColumn, a: &Cell, b: &Cell) -> Ordering {
    let null_side = if column.nulls_first {
        Ordering::Less
    } else {
        Ordering::Greater
    };
    match (a, b) {
        (Cell::Null, Cell::Null) => Ordering::Equal,
        (Cell::Null, _) => null_side,
        (_, Cell::Null) => null_side.reverse(),
        _ if column.descending => type_order(column.form, a, b).reverse(),
        _ => type_order(column.form, a, b),
    }
}

/// The order of two rows, or of the columns that both have.
pub fn row_order(columns: &[KeyColumn], a: &[Cell], b: &[Cell]) -> Ordering {
    columns
        .iter()
        .zip(a.iter().zip(b))
        .map(|(column, (a, b))| column_order(*column, a, b))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

pub fn encode(layout: &KeyLayout, row: &[Cell]) -> Vec<u8> {
    let values: Vec<_> = row.iter().map(Cell::value).collect();
    let mut key = Vec::new();
    layout.encode_values(&values, &mut key).unwrap();
    key
}

pub const FORMS: [ColumnForm; 15] = [
    ColumnForm::Bool,
    ColumnForm::Int2,
    ColumnForm::Int4,
    ColumnForm::Int8,
    ColumnForm::UInt4,
    ColumnForm::Float4,
    ColumnForm::Float8,
    ColumnForm::Char,
    ColumnForm::Uuid,
    ColumnForm::Bytes,
    ColumnForm::Text,
    ColumnForm::Name,
    ColumnForm::RowId,
    ColumnForm::Comparator { fixed_len: None },
    ColumnForm::Comparator { fixed_len: Some(3) },
];

/// Strings over few symbols, so that prefixes and equal parts are common.
fn string(symbols: &'static [u8], lengths: std::ops::Range<usize>) -> BoxedStrategy<Vec<u8>> {
    prop::collection::vec(prop::sample::select(symbols), lengths).boxed()
}

/// Values around the length from which on a tail is compressed, alike for long.
fn long_string(symbols: &'static [u8]) -> BoxedStrategy<Vec<u8>> {
    let tail = prop_oneof![string(symbols, 0..12), string(symbols, 0..700)];
    (prop::sample::select(symbols), 508usize..516, tail)
        .prop_map(|(symbol, length, tail)| [vec![symbol; length], tail].concat())
        .boxed()
}

pub fn cell(form: ColumnForm) -> BoxedStrategy<Cell> {
    match form {
        ColumnForm::Bool => any::<bool>().prop_map(Cell::Bool).boxed(),
        ColumnForm::Int2 => prop_oneof![
            prop::sample::select(vec![i16::MIN, -257, -256, -1, 0, 1, 255, 256, i16::MAX]),
            any::<i16>()
        ]
        .prop_map(Cell::Int2)
        .boxed(),
        ColumnForm::Int4 => prop_oneof![
            prop::sample::select(vec![i32::MIN, -65536, -1, 0, 1, 255, 256, i32::MAX]),
            any::<i32>()
        ]
        .prop_map(Cell::Int4)
        .boxed(),
        ColumnForm::Int8 => prop_oneof![
            prop::sample::select(vec![i64::MIN, -1 << 32, -1, 0, 1, 1 << 32, i64::MAX]),
            any::<i64>()
        ]
        .prop_map(Cell::Int8)
        .boxed(),
        ColumnForm::UInt4 => prop_oneof![
            prop::sample::select(vec![0, 1, 255, 256, i32::MAX as u32, 1 << 31, u32::MAX]),
            any::<u32>()
        ]
        .prop_map(Cell::UInt4)
        .boxed(),
        ColumnForm::Float4 => prop_oneof![
            prop::sample::select(vec![
                f32::NEG_INFINITY,
                f32::MIN,
                -1.0,
                -f32::MIN_POSITIVE,
                f32::from_bits(0x8000_0001),
                -0.0,
                0.0,
                f32::from_bits(1),
                f32::MIN_POSITIVE,
                1.0,
                f32::MAX,
                f32::INFINITY,
                f32::NAN,
                -f32::NAN,
                f32::from_bits(0x7F80_0001),
            ]),
            any::<u32>().prop_map(f32::from_bits)
        ]
        .prop_map(Cell::Float4)
        .boxed(),
        ColumnForm::Float8 => prop_oneof![
            prop::sample::select(vec![
                f64::NEG_INFINITY,
                f64::MIN,
                -1.0,
                -f64::MIN_POSITIVE,
                -0.0,
                0.0,
                f64::from_bits(1),
                f64::MIN_POSITIVE,
                1.0,
                f64::MAX,
                f64::INFINITY,
                f64::NAN,
                -f64::NAN,
                f64::from_bits(0xFFF0_0000_0000_0001),
            ]),
            any::<u64>().prop_map(f64::from_bits)
        ]
        .prop_map(Cell::Float8)
        .boxed(),
        ColumnForm::Char => any::<u8>().prop_map(Cell::Char).boxed(),
        ColumnForm::Uuid => prop_oneof![
            prop::array::uniform16(prop::sample::select(vec![0u8, 1, 0x7F, 0x80, 0xFF])),
            any::<[u8; 16]>()
        ]
        .prop_map(Cell::Uuid)
        .boxed(),
        ColumnForm::RowId => prop_oneof![
            prop::sample::select(vec![0, 1, 255, 256, i64::MAX as u64, 1 << 63, u64::MAX]),
            any::<u64>()
        ]
        .prop_map(Cell::RowId)
        .boxed(),
        ColumnForm::Bytes => prop_oneof![
            8 => string(&[0, 1, 0xFE, 0xFF], 0..6),
            8 => prop::collection::vec(any::<u8>(), 0..40),
            1 => long_string(&[0, 1, 0xFE, 0xFF]),
        ]
        .prop_map(Cell::Bytes)
        .boxed(),
        ColumnForm::Text => prop_oneof![
            8 => string(&[1, b'a', 0xFE, 0xFF], 0..6),
            8 => prop::collection::vec(1u8.., 0..40),
            1 => long_string(&[1, b'a', 0xFE, 0xFF]),
        ]
        .prop_map(Cell::Bytes)
        .boxed(),
        ColumnForm::Name => prop_oneof![
            string(&[0, 1, b'a', 0xFF], 0..6),
            prop::collection::vec(1u8.., 60..64)
        ]
        .prop_map(Cell::Bytes)
        .boxed(),
        ColumnForm::Comparator { fixed_len } => match fixed_len {
            Some(n) => string(b"aAbB", n.into()..usize::from(n) + 1),
            None => string(b"aAbB\0", 0..5),
        }
        .prop_map(Cell::Bytes)
        .boxed(),
    }
}

pub fn column() -> impl Strategy<Value = KeyColumn> {
    (
        prop::sample::select(FORMS.to_vec()),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(form, descending, nulls_first, nullable)| KeyColumn {
            form,
            descending,
            nulls_first,
            nullable,
        })
}

fn column_cell(column: KeyColumn) -> BoxedStrategy<Cell> {
    if column.nullable {
        prop_oneof![1 => Just(Cell::Null), 4 => cell(column.form)].boxed()
    } else {
        cell(column.form)
    }
}

pub fn row(columns: &[KeyColumn]) -> BoxedStrategy<Vec<Cell>> {
    columns
        .iter()
        .map(|column| column_cell(*column))
        .collect::<Vec<_>>()
        .boxed()
}

/// Rows of one layout, each column of each row often that of the first row, so
/// that later columns get to decide.
pub fn layout_and_rows(rows: usize) -> impl Strategy<Value = (Vec<KeyColumn>, Vec<Vec<Cell>>)> {
    prop::collection::vec(column(), 1..5).prop_flat_map(move |columns| {
        let width = columns.len();
        let fresh = prop::collection::vec(row(&columns), rows);
        let copied = prop::collection::vec(0..=width, rows);
        (Just(columns), fresh, copied).prop_map(|(columns, mut fresh, copied)| {
            let (first, others) = fresh.split_at_mut(1);
            for (row, copied) in others.iter_mut().zip(copied) {
                row[..copied].clone_from_slice(&first[0][..copied]);
            }
            (columns, fresh)
        })
    })
}
