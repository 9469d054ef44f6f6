//! Ranges and walk against a model: a sorted vector of rows, filtered by what
//! the scan keys say and stepped by position. The rows lie in the engine's
//! memory store on small pages, so that scans cross many leaves.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use engine::btree::Tree;
use engine::compare::Compare;
use engine::mem::{MemStore, TestSnapshot, TestTransactions};
use engine::mvcc::batch::Batch;
use engine::mvcc::scan::{Direction, Place, Range};
use engine::mvcc::{Versioned, Writer};
use pg::row::{KeyColumnSpec, KeyOrder, Organization};
use pgrx::pg_sys;
use proptest::prelude::*;
use rowref::key::{ColumnForm, KeyValue};

use super::convert::Operator;
use super::ranges::{KeyTypes, Ranges};
use super::walk::{Progress, Rows, Shared, Walk};

/// Values of an int2, an int4 and an int8 column, and the reference. Of a
/// primary key there are no nulls, and the reference is 0.
type Key = (Option<i16>, Option<i32>, Option<i64>, u8);

/// What an index is like.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Stored beside its table: columns can be null, and a reference follows.
    is_stored: bool,
    descending: [bool; 3],
    nulls_first: [bool; 3],
}

const PRIMARY: Shape = Shape {
    is_stored: false,
    descending: [false, true, false],
    nulls_first: [false; 3],
};

fn order(shape: Shape) -> KeyOrder {
    let column = |at: usize, form, type_oid: pg_sys::Oid, length| KeyColumnSpec {
        attribute: at as i16 + 1,
        form,
        type_oid: type_oid.to_u32(),
        collation: 0,
        compare_proc: 0,
        descending: shape.descending[at],
        nulls_first: shape.nulls_first[at],
        nullable: shape.is_stored,
        lossless: true,
        length,
        by_value: true,
        plain: false,
        align: length as u8,
    };
    let mut columns = vec![
        column(0, ColumnForm::Int2, pg_sys::INT2OID, 2),
        column(1, ColumnForm::Int4, pg_sys::INT4OID, 4),
        column(2, ColumnForm::Int8, pg_sys::INT8OID, 8),
    ];
    if shape.is_stored {
        columns.push(KeyColumnSpec {
            attribute: 4,
            nullable: false,
            descending: false,
            ..column(0, ColumnForm::Int4, pg_sys::INT4OID, 4)
        });
    }
    KeyOrder::new(Organization::Key { columns })
}

const INPUTS: [pg_sys::Oid; 3] = [pg_sys::INT2OID, pg_sys::INT4OID, pg_sys::INT8OID];

fn encode(order: &KeyOrder, key: Key) -> Vec<u8> {
    let mut out = Vec::new();
    let values = [
        key.0.map_or(KeyValue::Null, KeyValue::Int2),
        key.1.map_or(KeyValue::Null, KeyValue::Int4),
        key.2.map_or(KeyValue::Null, KeyValue::Int8),
        KeyValue::Int4(i32::from(key.3)),
    ];
    order
        .layout()
        .unwrap()
        .encode_values(&values[..order.columns().len()], &mut out)
        .unwrap();
    out
}

struct Stored<'t> {
    store: Versioned<'t, MemStore, KeyOrder, TestTransactions>,
    snapshot: TestSnapshot,
    is_stable: bool,
}

impl Rows for Stored<'_> {
    fn is_stable(&self) -> bool {
        self.is_stable
    }

    fn get(&self, key: &[u8], into: &mut Batch) -> bool {
        self.store.get(key, &self.snapshot, into).unwrap()
    }

    fn next_leaf(
        &self,
        range: &Range,
        direction: Direction,
        place: &mut Place,
        batch: &mut Batch,
    ) -> bool {
        self.store
            .next_leaf(range, direction, place, &self.snapshot, batch)
            .unwrap()
    }
}

/// What is said of a column.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Test {
    Compares(Operator),
    IsNull,
    IsNotNull,
}

/// One clause of a scan.
#[derive(Clone, Debug)]
struct Clause {
    column: usize,
    test: Test,
    /// Which integer type the arguments are of, from 0.
    argument_type: usize,
    arguments: Vec<i64>,
    is_array: bool,
}

/// A clause as the scan gets it.
pub enum Said {
    Key(pg_sys::ScanKeyData),
    /// Column, operator, type, and arguments any of which will do.
    Any(usize, Operator, pg_sys::Oid, Vec<pg_sys::Datum>),
}

impl Clause {
    fn passes(&self, key: Key) -> bool {
        let value = [key.0.map(i64::from), key.1.map(i64::from), key.2][self.column];
        let (operator, value) = match (self.test, value) {
            (Test::IsNull, value) => return value.is_none(),
            (Test::IsNotNull, value) => return value.is_some(),
            (Test::Compares(_), None) => return false,
            (Test::Compares(operator), Some(value)) => (operator, value),
        };
        self.arguments.iter().any(|argument| match operator {
            Operator::Less => value < *argument,
            Operator::LessEqual => value <= *argument,
            Operator::Equal => value == *argument,
            Operator::GreaterEqual => value >= *argument,
            Operator::Greater => value > *argument,
        })
    }

    fn said(&self) -> Said {
        match self.test {
            Test::Compares(operator) if self.is_array => Said::Any(
                self.column,
                operator,
                INPUTS[self.argument_type],
                self.arguments.iter().map(|one| (*one).into()).collect(),
            ),
            _ => Said::Key(self.key()),
        }
    }

    fn key(&self) -> pg_sys::ScanKeyData {
        let (flags, strategy) = match self.test {
            Test::Compares(operator) => (0, operator as u16 + 1),
            Test::IsNull => (pg_sys::SK_ISNULL | pg_sys::SK_SEARCHNULL, 0),
            Test::IsNotNull => (pg_sys::SK_ISNULL | pg_sys::SK_SEARCHNOTNULL, 0),
        };
        pg_sys::ScanKeyData {
            sk_flags: flags as i32,
            sk_attno: self.column as i16 + 1,
            sk_strategy: strategy,
            sk_subtype: INPUTS[self.argument_type],
            sk_collation: pg_sys::InvalidOid,
            // SAFETY: a structure of numbers and nullable pointers.
            sk_func: unsafe { MaybeUninit::zeroed().assume_init() },
            sk_argument: self.arguments[0].into(),
        }
    }
}

const OPERATORS: [Operator; 5] = [
    Operator::Less,
    Operator::LessEqual,
    Operator::Equal,
    Operator::GreaterEqual,
    Operator::Greater,
];

fn clause() -> impl Strategy<Value = Clause> {
    (0..3usize, 0..10usize, 0..3usize, any::<bool>()).prop_flat_map(
        |(column, operator, argument_type, is_array)| {
            let far = [i64::from(i16::MAX), i64::from(i32::MAX), i64::MAX][argument_type];
            let argument = prop_oneof![12 => -1i64..7, 1 => Just(far), 1 => Just(-far)];
            let count = if is_array { 1..5 } else { 1..2 };
            proptest::collection::vec(argument, count).prop_map(move |arguments| Clause {
                column,
                test: match operator {
                    0..5 => Test::Compares(OPERATORS[operator]),
                    5 => Test::IsNull,
                    6 => Test::IsNotNull,
                    // Equality more often than not, or few scans would find rows.
                    _ => Test::Compares(Operator::Equal),
                },
                argument_type,
                arguments,
                is_array,
            })
        },
    )
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Forward,
    Backward,
    Mark,
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Forward),
        4 => Just(Step::Backward),
        1 => Just(Step::Mark),
        1 => Just(Step::Restore),
    ]
}

/// Where the model stands: at a row's index, or off either end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Fresh,
    Before,
    Row(usize),
    Behind,
}

fn advance(at: At, count: usize, backward: bool) -> At {
    let next = match (at, backward) {
        (At::Fresh | At::Before, false) => 0,
        (At::Fresh | At::Behind, true) => count.wrapping_sub(1),
        (At::Row(row), false) => row + 1,
        (At::Row(row), true) => row.wrapping_sub(1),
        (At::Before, true) => return At::Before,
        (At::Behind, false) => return At::Behind,
    };
    match (next < count, backward) {
        (true, _) => At::Row(next),
        (false, false) => At::Behind,
        (false, true) => At::Before,
    }
}

/// Works on an index of such a shape with such entries.
fn with_rows<R>(
    shape: Shape,
    keys: &[Key],
    is_stable: bool,
    work: impl FnOnce(&KeyOrder, &Stored<'_>) -> R,
) -> R {
    let order = order(shape);
    let pages = MemStore::new(512);
    Tree::<'_, _, KeyOrder>::create(&pages, &[], true).unwrap();
    let tree = Tree::new(&pages, &order);
    let transactions = TestTransactions::new();
    let store = Versioned {
        tree: &tree,
        transactions: &transactions,
    };
    let mut session = transactions.session();
    let xid = session.begin();
    for key in keys {
        let writer = Writer {
            xid,
            cid: session.cid(),
        };
        store
            .insert(writer, &encode(&order, *key), b"payload", 0)
            .unwrap();
    }
    session.commit();
    let rows = Stored {
        store,
        snapshot: transactions.snapshot(),
        is_stable,
    };
    work(&order, &rows)
}

fn ranges_of(clauses: &[Clause], types: KeyTypes<'_>) -> Ranges {
    let mut ranges = Ranges::default();
    if clauses.iter().any(|clause| clause.is_array) {
        let said: Vec<_> = clauses.iter().map(Clause::said).collect();
        ranges.set_clauses(&said, types);
    } else {
        let keys: Vec<_> = clauses.iter().map(Clause::key).collect();
        // SAFETY: the arguments are integers of the types they name.
        unsafe { ranges.set(&keys, types) };
    }
    ranges
}

/// The entries that a scan should find, in order.
fn expected(order: &KeyOrder, keys: &[Key], clauses: &[Clause]) -> Vec<Vec<u8>> {
    let mut expected: Vec<_> = keys
        .iter()
        .filter(|key| clauses.iter().all(|clause| clause.passes(**key)))
        .map(|key| encode(order, *key))
        .collect();
    expected.sort();
    expected.dedup();
    expected
}

/// The whole story of one scan.
fn check(
    shape: Shape,
    keys: &[Key],
    clauses: &[Clause],
    steps: &[Step],
    is_stable: bool,
) -> Result<(), TestCaseError> {
    with_rows(shape, keys, is_stable, |order, rows| {
        check_steps(order, rows, keys, clauses, steps)
    })
}

fn check_steps(
    order: &KeyOrder,
    rows: &Stored<'_>,
    keys: &[Key],
    clauses: &[Clause],
    steps: &[Step],
) -> Result<(), TestCaseError> {
    let types = KeyTypes {
        order,
        inputs: &INPUTS,
    };
    let mut ranges = ranges_of(clauses, types);
    let expected = expected(order, keys, clauses);
    prop_assert!(!ranges.recheck(), "integers can all be said in key bytes");

    let mut walk = Walk::default();
    walk.restart();
    let (mut at, mut mark) = (At::Fresh, At::Fresh);
    for step in steps {
        match step {
            Step::Mark => {
                walk.mark(&ranges);
                // A mark off the rows goes back to the beginning.
                mark = if let At::Row(_) = at { at } else { At::Fresh };
            }
            Step::Restore => {
                walk.restore(&mut ranges);
                at = mark;
            }
            Step::Forward | Step::Backward => {
                let backward = matches!(step, Step::Backward);
                let found = walk
                    .next(&mut ranges, types, rows, None::<&Alone>, backward)
                    .then(|| walk.row().0.key.to_vec());
                at = advance(at, expected.len(), backward);
                let wanted = match at {
                    At::Row(row) => Some(expected[row].clone()),
                    _ => None,
                };
                prop_assert_eq!(found, wanted);
            }
        }
    }
    Ok(())
}

/// What the participants of a parallel scan share.
struct Alone(RefCell<Progress>);

impl Shared for Alone {
    fn hold<R>(&self, work: impl FnOnce(&mut Progress) -> R) -> R {
        work(&mut self.0.borrow_mut())
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    (any::<bool>(), any::<[bool; 3]>(), any::<[bool; 3]>()).prop_map(
        |(is_stored, descending, nulls_first)| Shape {
            is_stored,
            descending,
            nulls_first,
        },
    )
}

/// A shape and entries that fit it.
fn shape_and_keys() -> impl Strategy<Value = (Shape, Vec<Key>)> {
    let value = || prop_oneof![1 => Just(None), 5 => (0i8..6).prop_map(Some)];
    let key = (value(), value(), value(), 0u8..4);
    (shape(), proptest::collection::vec(key, 0..120)).prop_map(|(shape, keys)| {
        let mut keys: Vec<Key> = keys
            .into_iter()
            .map(|(a, b, c, reference)| {
                // Of a primary key a null is taken for yet another value.
                let number = |value: Option<i8>| match value {
                    None if !shape.is_stored => Some(6),
                    value => value,
                };
                (
                    number(a).map(i16::from),
                    number(b).map(i32::from),
                    number(c).map(i64::from),
                    if shape.is_stored { reference } else { 0 },
                )
            })
            .collect();
        keys.sort();
        keys.dedup();
        (shape, keys)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_scan_visits_the_rows_of_its_keys_in_order_whichever_way_it_is_stepped(
        (shape, keys) in shape_and_keys(),
        clauses in proptest::collection::vec(clause(), 0..5),
        steps in proptest::collection::vec(step(), 1..80),
        is_stable in any::<bool>(),
    ) {
        check(shape, &keys, &clauses, &steps, is_stable)?;
    }

    #[test]
    fn a_whole_scan_finds_every_row_either_way(
        (shape, keys) in shape_and_keys(),
        clauses in proptest::collection::vec(clause(), 0..4),
        backward in any::<bool>(),
    ) {
        let step = if backward { Step::Backward } else { Step::Forward };
        check(shape, &keys, &clauses, &vec![step; keys.len() + 2], true)?;
    }

    #[test]
    fn participants_of_a_parallel_scan_find_each_row_once_and_each_in_order(
        (shape, keys) in shape_and_keys(),
        clauses in proptest::collection::vec(clause(), 0..4),
        turns in proptest::collection::vec(0usize..3, 0..200),
        backward in any::<bool>(),
    ) {
        with_rows(shape, &keys, true, |order, rows| -> Result<(), TestCaseError> {
            let types = KeyTypes { order, inputs: &INPUTS };
            let shared = Alone(RefCell::default());
            let mut workers: Vec<_> = (0..3)
                .map(|_| (Walk::default(), ranges_of(&clauses, types), Vec::new(), false))
                .collect();
            // Whoever is left at the end finishes alone.
            for turn in turns.into_iter().chain((0..3).flat_map(|turn| vec![turn; 130])) {
                let (walk, ranges, found, is_over) = &mut workers[turn];
                if *is_over {
                    continue;
                }
                if walk.next(ranges, types, rows, Some(&shared), backward) {
                    found.push(walk.row().0.key.to_vec());
                } else {
                    *is_over = true;
                }
            }
            let mut all = Vec::new();
            for (_, _, mut found, is_over) in workers {
                prop_assert!(is_over);
                if backward {
                    found.reverse();
                }
                prop_assert!(found.is_sorted());
                all.extend(found);
            }
            all.sort();
            prop_assert_eq!(all, expected(order, &keys, &clauses));
            Ok(())
        })?;
    }

    #[test]
    fn equality_on_all_columns_of_a_primary_key_is_a_point(
        values in (0i16..6, 0i32..6, 0i64..6),
        steps in proptest::collection::vec(step(), 1..10),
    ) {
        let key = (Some(values.0), Some(values.1), Some(values.2), 0);
        let clauses: Vec<Clause> = [i64::from(values.0), i64::from(values.1), values.2]
            .into_iter()
            .enumerate()
            .map(|(column, value)| Clause {
                column,
                test: Test::Compares(Operator::Equal),
                argument_type: column,
                arguments: vec![value],
                is_array: false,
            })
            .collect();
        let order = order(PRIMARY);
        let ranges = ranges_of(&clauses, KeyTypes { order: &order, inputs: &INPUTS });
        prop_assert_eq!(ranges.point(), Some(&encode(&order, key)[..]));
        check(PRIMARY, &[key], &clauses, &steps, true)?;
    }
}

#[test]
fn keys_of_the_model_sort_as_the_order_says() {
    let shape = Shape {
        is_stored: true,
        nulls_first: [true, false, false],
        ..PRIMARY
    };
    let order = order(shape);
    let ascending = [
        (None, Some(5), None, 0),
        (Some(1), Some(5), None, 0),
        (Some(1), Some(4), Some(3), 0),
        (Some(1), Some(4), Some(3), 1),
        (Some(1), Some(4), None, 0),
        (Some(1), None, Some(0), 0),
    ];
    for pair in ascending.windows(2) {
        let (a, b) = (encode(&order, pair[0]), encode(&order, pair[1]));
        assert!(Compare::compare(&order, &a, &b).is_lt(), "{pair:?}");
    }
}
