//! Rows of every shape are read back as they were laid down. No server is
//! needed: nothing here has a comparator column or a value out of line.

use pgrx::pg_sys::{Datum, Oid};
use proptest::prelude::*;
use rowref::key::ColumnForm;

use super::attribute::Attribute;
use super::layout::Missing;
use super::{
    Arena, Error, IndexLayout, KeyColumnSpec, Organization, POINTER_BYTES, Pointer, Source,
    TableLayout, Values, has_pointers,
};

/// The types the tests use, with the numbers the catalogs have for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Bool,
    Int2,
    Int4,
    Int8,
    Uuid,
    Text,
    Interval,
    Name,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Null,
    Number(i64),
    Bytes(Vec<u8>),
}

fn attribute(of: Type, dropped: bool) -> Attribute {
    let (length, align, by_value) = match of {
        Type::Bool => (1, 1, true),
        Type::Int2 => (2, 2, true),
        Type::Int4 => (4, 4, true),
        Type::Int8 => (8, 8, true),
        Type::Uuid => (16, 1, false),
        Type::Text => (-1, 4, false),
        Type::Interval => (16, 8, false),
        Type::Name => (64, 1, false),
    };
    Attribute {
        type_oid: Oid::from_u32(1),
        has_missing: false,
        in_key: false,
        length,
        align,
        by_value,
        packable: true,
        dropped,
        source: Source::Payload(0),
        cached_offset: -1,
    }
}

fn spec(number: usize, of: Type, descending: bool) -> KeyColumnSpec {
    let shape = attribute(of, false);
    KeyColumnSpec {
        attribute: number as i16 + 1,
        form: match of {
            Type::Bool => ColumnForm::Bool,
            Type::Int2 => ColumnForm::Int2,
            Type::Int4 => ColumnForm::Int4,
            Type::Int8 => ColumnForm::Int8,
            Type::Uuid => ColumnForm::Uuid,
            Type::Text => ColumnForm::Text,
            Type::Name => ColumnForm::Name,
            Type::Interval => ColumnForm::Comparator {
                fixed_len: Some(16),
            },
        },
        type_oid: 1,
        collation: 950,
        compare_proc: 1,
        descending,
        nulls_first: descending,
        nullable: false,
        lossless: true,
        length: shape.length,
        by_value: shape.by_value,
        plain: false,
        align: shape.align,
    }
}

fn layout(types: &[(Type, bool)], key: &[(usize, bool)]) -> TableLayout {
    let columns: Vec<_> = key
        .iter()
        .map(|&(number, descending)| spec(number, types[number].0, descending))
        .collect();
    let organization = if columns.is_empty() {
        Organization::RowId
    } else {
        Organization::Key { columns }
    };
    // What a row of an older table lacks reads as a number that no test writes.
    let missing = types
        .iter()
        .map(|(of, _)| Missing {
            value: Datum::from(77i64),
            is_null: *of != Type::Int8,
        })
        .collect();
    TableLayout::assemble(
        Oid::from_u32(1),
        types
            .iter()
            .map(|&(of, dropped)| attribute(of, dropped))
            .collect(),
        missing,
        None,
        organization,
    )
}

/// Datums and the memory they point into.
fn datums(types: &[(Type, bool)], row: &[Value]) -> (Vec<Datum>, Vec<bool>, Vec<Vec<u64>>) {
    let mut memory = Vec::new();
    let mut values = Vec::new();
    let mut nulls = Vec::new();
    for ((of, _), value) in types.iter().zip(row) {
        nulls.push(*value == Value::Null);
        values.push(match value {
            Value::Null => Datum::null(),
            Value::Number(number) => Datum::from(*number),
            Value::Bytes(bytes) => {
                let mut whole = Vec::new();
                if *of == Type::Text {
                    whole.extend_from_slice(&(((bytes.len() + 4) as u32) << 2).to_le_bytes());
                }
                whole.extend_from_slice(bytes);
                let mut words = vec![0u64; whole.len().div_ceil(8) + 1];
                for (at, byte) in whole.iter().enumerate() {
                    words[at / 8] |= u64::from(*byte) << (at % 8 * 8);
                }
                memory.push(words);
                memory.last().unwrap().as_ptr().into()
            }
        });
    }
    (values, nulls, memory)
}

fn read_value(of: Type, datum: Datum, null: bool) -> Value {
    if null {
        return Value::Null;
    }
    let from = datum.cast_mut_ptr::<u8>().cast_const();
    let bytes = |from: *const u8, size| unsafe { std::slice::from_raw_parts(from, size) }.to_vec();
    match of {
        Type::Uuid => Value::Bytes(bytes(from, 16)),
        Type::Interval => {
            assert_eq!(from as usize % 8, 0, "an aligned type must lie aligned");
            Value::Bytes(bytes(from, 16))
        }
        Type::Name => Value::Bytes(bytes(from, 64)),
        Type::Text => {
            let first = unsafe { *from };
            if first & 1 == 1 {
                return Value::Bytes(bytes(unsafe { from.add(1) }, (first >> 1) as usize - 1));
            }
            assert_eq!(from as usize % 4, 0, "a long header must lie aligned");
            let size = unsafe { from.cast::<u32>().read() } as usize >> 2;
            Value::Bytes(bytes(unsafe { from.add(4) }, size - 4))
        }
        _ => Value::Number(datum.value() as i64),
    }
}

/// Reads a row in the given steps.
fn read_row(
    layout: &TableLayout,
    types: &[(Type, bool)],
    key: &[u8],
    payload: &[u8],
    steps: &[usize],
) -> Result<Vec<Value>, Error> {
    // The server's alignment promise: payloads start 8-aligned.
    let mut aligned = vec![0u64; payload.len() / 8 + 1];
    let room = aligned.as_mut_ptr().cast::<u8>();
    let payload = unsafe {
        room.copy_from_nonoverlapping(payload.as_ptr(), payload.len());
        std::slice::from_raw_parts(room, payload.len())
    };
    let mut memory = vec![0u64; layout.arena_bytes(key) / 8 + 1];
    let mut arena = Arena {
        start: memory.as_mut_ptr().cast(),
        capacity: memory.len() * 8,
        used: 0,
    };
    let mut values = vec![Datum::null(); types.len()];
    let mut nulls = vec![true; types.len()];
    let mut cursor = layout.cursor(payload)?;
    let mut from = 0;
    for upto in steps.iter().copied().chain([types.len()]) {
        let upto = upto.min(types.len()).max(from);
        unsafe {
            layout.deform(
                key,
                payload,
                &mut cursor,
                from,
                upto,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                &mut arena,
            )?;
        }
        from = upto;
    }
    Ok((0..types.len())
        .map(|at| read_value(types[at].0, values[at], nulls[at]))
        .collect())
}

fn a_type() -> impl Strategy<Value = (Type, bool)> {
    let of = prop::sample::select(vec![
        Type::Bool,
        Type::Int2,
        Type::Int4,
        Type::Int8,
        Type::Uuid,
        Type::Text,
        Type::Interval,
        Type::Name,
    ]);
    (of, prop::bool::weighted(0.1))
}

fn a_value(of: Type, can_be_null: bool) -> BoxedStrategy<Value> {
    let value = match of {
        Type::Bool => (0..2i64).prop_map(Value::Number).boxed(),
        Type::Int2 => any::<i16>().prop_map(|n| Value::Number(n.into())).boxed(),
        Type::Int4 => any::<i32>().prop_map(|n| Value::Number(n.into())).boxed(),
        Type::Int8 => any::<i64>().prop_map(Value::Number).boxed(),
        Type::Uuid | Type::Interval => prop::collection::vec(any::<u8>(), 16)
            .prop_map(Value::Bytes)
            .boxed(),
        Type::Text => prop_oneof![
            prop::collection::vec(1..=255u8, 0..20),
            prop::collection::vec(1..=255u8, 120..135),
            prop::collection::vec(1..=255u8, 300..310),
        ]
        .prop_map(Value::Bytes)
        .boxed(),
        Type::Name => prop::collection::vec(1..=255u8, 0..64)
            .prop_map(|mut bytes| {
                bytes.resize(64, 0);
                Value::Bytes(bytes)
            })
            .boxed(),
    };
    if can_be_null {
        prop_oneof![1 => Just(Value::Null), 4 => value].boxed()
    } else {
        value
    }
}

#[derive(Clone, Debug)]
struct Case {
    types: Vec<(Type, bool)>,
    key: Vec<(usize, bool)>,
    row: Vec<Value>,
    steps: Vec<usize>,
}

fn a_case() -> impl Strategy<Value = Case> {
    prop::collection::vec(a_type(), 1..14)
        .prop_flat_map(|types| {
            let candidates: Vec<usize> = (0..types.len())
                .filter(|at| !types[*at].1 && types[*at].0 != Type::Interval)
                .collect();
            let most = candidates.len().min(3);
            let key = prop::sample::subsequence(candidates, 0..=most).prop_shuffle();
            (Just(types), key, any::<[bool; 3]>())
        })
        .prop_flat_map(|(types, key, directions)| {
            let key: Vec<_> = key.into_iter().zip(directions).collect();
            let row: Vec<_> = types
                .iter()
                .enumerate()
                .map(|(at, (of, _))| a_value(*of, key.iter().all(|(number, _)| *number != at)))
                .collect();
            let steps = prop::collection::vec(0..14usize, 0..4).prop_map(|mut steps| {
                steps.sort_unstable();
                steps
            });
            (Just(types), Just(key), row, steps)
        })
        .prop_map(|(types, key, row, steps)| Case {
            types,
            key,
            row,
            steps,
        })
}

proptest! {
    #[test]
    fn a_row_reads_back_as_written_in_any_number_of_steps(case in a_case()) {
        let layout = layout(&case.types, &case.key);
        let (values, nulls, _memory) = datums(&case.types, &case.row);
        let (mut key, mut payload) = (Vec::new(), Vec::new());
        unsafe {
            if !case.key.is_empty() {
                layout.encode_key(&values, &nulls, &mut key).unwrap();
            }
            layout.encode_payload(&values, &nulls, &mut payload);
        }
        let read = read_row(&layout, &case.types, &key, &payload, &case.steps).unwrap();
        for (at, value) in case.row.iter().enumerate() {
            let expected = if case.types[at].1 { &Value::Null } else { value };
            prop_assert_eq!(&read[at], expected, "column {}", at);
        }
    }

    #[test]
    fn columns_added_later_read_as_their_missing_values(case in a_case(), added in prop::collection::vec(a_type(), 1..4)) {
        let before = layout(&case.types, &case.key);
        let (values, nulls, _memory) = datums(&case.types, &case.row);
        let (mut key, mut payload) = (Vec::new(), Vec::new());
        unsafe {
            if !case.key.is_empty() {
                before.encode_key(&values, &nulls, &mut key).unwrap();
            }
            before.encode_payload(&values, &nulls, &mut payload);
        }
        let types: Vec<_> = case.types.iter().chain(&added).copied().collect();
        let after = layout(&types, &case.key);
        let read = read_row(&after, &types, &key, &payload, &case.steps).unwrap();
        for (at, value) in case.row.iter().enumerate() {
            let expected = if case.types[at].1 { &Value::Null } else { value };
            prop_assert_eq!(&read[at], expected, "column {}", at);
        }
        for (at, (of, _)) in types.iter().enumerate().skip(case.types.len()) {
            let expected = if *of == Type::Int8 { Value::Number(77) } else { Value::Null };
            prop_assert_eq!(&read[at], &expected, "column {}", at);
        }
        // And an older layout passes over columns it does not know.
        let (values, nulls, _memory) = datums(&types, &[&case.row[..], &vec![Value::Null; added.len()]].concat());
        payload.clear();
        unsafe { after.encode_payload(&values, &nulls, &mut payload) };
        let read = read_row(&before, &case.types, &key, &payload, &[]).unwrap();
        for (at, value) in case.row.iter().enumerate() {
            let expected = if case.types[at].1 { &Value::Null } else { value };
            prop_assert_eq!(&read[at], expected, "column {}", at);
        }
    }

    #[test]
    fn damaged_bytes_are_an_error_or_some_row_but_never_a_stray_read(
        case in a_case(), cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let layout = layout(&case.types, &case.key);
        let (values, nulls, _memory) = datums(&case.types, &case.row);
        let (mut key, mut payload) = (Vec::new(), Vec::new());
        unsafe {
            if !case.key.is_empty() {
                layout.encode_key(&values, &nulls, &mut key).unwrap();
            }
            layout.encode_payload(&values, &nulls, &mut payload);
        }
        let at = at.index(payload.len());
        payload[at] = byte;
        payload.truncate(cut.index(payload.len() + 1));
        key.truncate(cut.index(key.len() + 1));
        // Each value found must lie within the row (`cursor` and `deform`
        // check); what it says is anybody's guess.
        if let Ok(mut cursor) = layout.cursor(&payload) {
            let mut memory = vec![0u64; layout.arena_bytes(&key) / 8 + 1];
            let mut arena = Arena { start: memory.as_mut_ptr().cast(), capacity: memory.len() * 8, used: 0 };
            let mut out = vec![Datum::null(); case.types.len()];
            let mut nulls = vec![true; case.types.len()];
            let _ = unsafe {
                layout.deform(&key, &payload, &mut cursor, 0, case.types.len(), out.as_mut_ptr(), nulls.as_mut_ptr(), &mut arena)
            };
        }
    }

    #[test]
    fn pointers_to_stored_values_are_found_and_read_back_and_change_nothing_else(
        case in a_case(), stored in any::<[u8; 16]>(), which in prop::collection::vec(any::<bool>(), 14),
    ) {
        let layout = layout(&case.types, &case.key);
        let (mut values, mut nulls, _memory) = datums(&case.types, &case.row);
        let mut pointer = [0; POINTER_BYTES];
        pointer[..2].copy_from_slice(&[1, 18]);
        pointer[2..].copy_from_slice(&stored);
        let is_in_key = |at: usize| case.key.iter().any(|(number, _)| *number == at);
        let mut expected = Vec::new();
        for (at, (of, dropped)) in case.types.iter().enumerate() {
            if *of == Type::Text && which[at] && !dropped && !is_in_key(at) {
                values[at] = pointer.as_ptr().into();
                nulls[at] = false;
                expected.push(Pointer { column: at, bytes: pointer });
            }
        }
        let (mut key, mut payload) = (Vec::new(), Vec::new());
        let any = unsafe {
            if !case.key.is_empty() {
                layout.encode_key(&values, &nulls, &mut key).unwrap();
            }
            layout.encode_payload_with_pointers(&values, &nulls, &mut payload)
        };
        prop_assert_eq!(any, !expected.is_empty());
        prop_assert_eq!(has_pointers(&payload), any);
        prop_assert_eq!(&layout.pointers(&payload).unwrap(), &expected);
        let row = Values::read(&layout, &key, &payload).unwrap();
        for (at, value) in case.row.iter().enumerate() {
            if let Some(expected) = expected.iter().find(|pointer| pointer.column == at) {
                let read = row.values()[at].cast_mut_ptr::<u8>();
                prop_assert_eq!(unsafe { std::slice::from_raw_parts(read, POINTER_BYTES) }, expected.bytes);
            } else {
                let wanted = if case.types[at].1 { &Value::Null } else { value };
                let read = read_value(case.types[at].0, row.values()[at], row.isnull()[at]);
                prop_assert_eq!(&read, wanted, "column {}", at);
            }
        }
        // Damaged, they are an error or some others.
        for cut in 0..payload.len() {
            let _ = layout.pointers(&payload[..cut]);
        }
    }

    #[test]
    fn the_stored_description_reads_back_and_refuses_damage(case in a_case(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let layout = layout(&case.types, &case.key);
        let bytes = layout.organization().to_bytes();
        prop_assert_eq!(&Organization::from_bytes(&bytes).unwrap(), layout.organization());
        if !bytes.is_empty() {
            let mut damaged = bytes.clone();
            let at = at.index(damaged.len());
            damaged[at] = byte;
            // Either refused or something else: never a panic.
            let _ = Organization::from_bytes(&damaged);
            prop_assert!(Organization::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        }
    }
}

/// An index on some columns of a table of these types, whose first column is
/// its key (lossless or not); the rest are INCLUDE columns. Its extended row.
fn index_of(types: &[(Type, bool)], keys: usize, key: Option<bool>) -> IndexLayout {
    let of_table = match key {
        None => Organization::RowId,
        Some(lossless) => Organization::Key {
            columns: vec![KeyColumnSpec {
                lossless,
                ..spec(0, Type::Int8, true)
            }],
        },
    };
    let columns = (0..keys).map(|at| KeyColumnSpec {
        nullable: true,
        ..spec(at, types[at].0, at % 2 == 1)
    });
    let organization = Organization::entries(columns.collect(), types.len() as i16, &of_table);
    let bytes = organization.to_bytes();
    assert_eq!(Organization::from_bytes(&bytes).unwrap(), organization);
    let attributes = types.iter().map(|(of, _)| attribute(*of, false)).collect();
    IndexLayout::assemble(Oid::from_u32(2), attributes, organization).unwrap()
}

proptest! {
    #[test]
    fn an_entry_gives_back_its_columns_and_the_reference(
        (types, keys, row) in prop::collection::vec(a_type(), 1..6)
            .prop_map(|types| -> Vec<_> {
                types.into_iter().map(|(of, _)| if of == Type::Interval { (Type::Uuid, false) } else { (of, false) }).collect()
            })
            .prop_flat_map(|types| {
                let row: Vec<_> = types.iter().map(|(of, _)| a_value(*of, true)).collect();
                (Just(types.clone()), 1..=types.len(), row)
            }),
        key in prop::option::of(any::<bool>()),
        id in any::<i64>(),
    ) {
        let index = index_of(&types, keys, key);
        let reference = match key {
            None => (id as u64).to_be_bytes(),
            Some(_) => (!(id as u64 ^ 1 << 63)).to_be_bytes(),
        };
        let (values, nulls, _memory) = datums(&types, &row);
        let (mut entry, mut payload) = (Vec::new(), Vec::new());
        let columns = unsafe { index.entry_of(&values, &nulls, &reference, &mut entry, &mut payload) }.unwrap();
        prop_assert_eq!(index.columns_len(&entry).unwrap(), columns);
        prop_assert_eq!(index.reference_of(&entry).unwrap(), &reference[..]);
        let mut wanted = row.clone();
        let mut all = types.clone();
        match (key, index.reference_attributes()) {
            (Some(true), [Some(number)]) => {
                prop_assert_eq!(*number, types.len());
                wanted.push(Value::Number(id));
                all.push((Type::Int8, false));
            }
            (_, reference) => prop_assert_eq!(reference, &[None]),
        }
        prop_assert_eq!(index.layout().attributes().len(), all.len());
        prop_assert_eq!(read_row(index.layout(), &all, &entry, &payload, &[1]).unwrap(), wanted);
    }

    #[test]
    fn the_stored_description_of_an_index_refuses_damage(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let types = [(Type::Int4, false), (Type::Text, false)];
        let bytes = index_of(&types, 2, Some(true)).layout().organization().to_bytes();
        let mut damaged = bytes.clone();
        let at = at.index(damaged.len());
        damaged[at] = byte;
        // Looking a comparison function up needs a server.
        let ordered = |organization: &Organization| {
            organization.key_layout().is_some_and(|keys| keys.is_ordered())
        };
        if let Some(organization) = Organization::from_bytes(&damaged).ok().filter(ordered) {
            let attributes = types.iter().map(|(of, _)| attribute(*of, false)).collect();
            let _ = IndexLayout::assemble(Oid::from_u32(2), attributes, organization);
        }
        prop_assert!(Organization::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    }
}

/// The layout of an index's description must not change without a new version.
#[test]
fn the_description_of_an_index_begins_with_its_mark() {
    let index = index_of(&[(Type::Int4, false)], 1, None);
    let bytes = index.layout().organization().to_bytes();
    assert_eq!(bytes[..8], *b"rwix\x01\0\x01\0");
}

#[test]
fn a_table_of_its_key_alone_stores_one_byte_of_payload() {
    let types = [(Type::Int8, false), (Type::Uuid, false)];
    let layout = layout(&types, &[(0, false), (1, false)]);
    let row = [Value::Number(5), Value::Bytes(vec![7; 16])];
    let (values, nulls, _memory) = datums(&types, &row);
    let mut payload = Vec::new();
    unsafe { layout.encode_payload(&values, &nulls, &mut payload) };
    assert_eq!(payload.len(), 1);
}

#[test]
fn a_thousand_columns_have_a_trailer_that_says_so() {
    let types = vec![(Type::Int2, false); 1000];
    let layout = layout(&types, &[]);
    let row: Vec<_> = (0..1000)
        .map(|n| {
            if n % 7 == 0 {
                Value::Null
            } else {
                Value::Number(n)
            }
        })
        .collect();
    let (values, nulls, _memory) = datums(&types, &row);
    let mut payload = Vec::new();
    unsafe { layout.encode_payload(&values, &nulls, &mut payload) };
    let read = read_row(&layout, &types, &[], &payload, &[500]).unwrap();
    assert_eq!(read, row);
}

#[test]
fn a_description_of_another_version_is_refused() {
    let layout = layout(&[(Type::Int4, false)], &[(0, false)]);
    let mut bytes = layout.organization().to_bytes();
    // rkyv lays the root last: the version is its first member.
    let refused = (0..bytes.len()).any(|at| {
        let before = bytes[at];
        bytes[at] = 2;
        let result = Organization::from_bytes(&bytes);
        bytes[at] = before;
        matches!(result, Err(Error::MalformedLayout(text)) if text.contains("version is 2"))
    });
    assert!(refused);
}
