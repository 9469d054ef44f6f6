//! Ranges and walk against a model: a sorted vector of rows, filtered by what
//! the scan keys say and stepped by position. The rows lie in the engine's
//! memory store on small pages, so that scans cross many leaves.

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
use super::walk::{Rows, Walk};

/// (int2 ascending, int4 descending, int8 ascending)
type Key = (i16, i32, i64);

fn order() -> KeyOrder {
    let column = |attribute, form, type_oid: pg_sys::Oid, length, descending| KeyColumnSpec {
        attribute,
        form,
        type_oid: type_oid.to_u32(),
        collation: 0,
        compare_proc: 0,
        descending,
        nulls_first: descending,
        nullable: false,
        lossless: true,
        length,
        by_value: true,
        plain: false,
        align: length as u8,
    };
    KeyOrder::new(Organization::Key {
        columns: vec![
            column(1, ColumnForm::Int2, pg_sys::INT2OID, 2, false),
            column(2, ColumnForm::Int4, pg_sys::INT4OID, 4, true),
            column(3, ColumnForm::Int8, pg_sys::INT8OID, 8, false),
        ],
    })
}

const INPUTS: [pg_sys::Oid; 3] = [pg_sys::INT2OID, pg_sys::INT4OID, pg_sys::INT8OID];

fn encode(order: &KeyOrder, key: Key) -> Vec<u8> {
    let mut out = Vec::new();
    order
        .layout()
        .unwrap()
        .encode_values(
            &[
                KeyValue::Int2(key.0),
                KeyValue::Int4(key.1),
                KeyValue::Int8(key.2),
            ],
            &mut out,
        )
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

/// One clause of a scan.
#[derive(Clone, Debug)]
struct Clause {
    column: usize,
    operator: Operator,
    /// Which integer type the arguments are of, from 0.
    argument_type: usize,
    arguments: Vec<i64>,
    is_array: bool,
}

impl Clause {
    fn passes(&self, key: Key) -> bool {
        let value = [i64::from(key.0), i64::from(key.1), key.2][self.column];
        self.arguments.iter().any(|argument| match self.operator {
            Operator::Less => value < *argument,
            Operator::LessEqual => value <= *argument,
            Operator::Equal => value == *argument,
            Operator::GreaterEqual => value >= *argument,
            Operator::Greater => value > *argument,
        })
    }

    fn datums(&self) -> Vec<pg_sys::Datum> {
        self.arguments
            .iter()
            .map(|argument| (*argument).into())
            .collect()
    }

    fn key(&self) -> pg_sys::ScanKeyData {
        pg_sys::ScanKeyData {
            sk_flags: 0,
            sk_attno: self.column as i16 + 1,
            sk_strategy: self.operator as u16 + 1,
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
    (0..3usize, 0..8usize, 0..3usize, any::<bool>()).prop_flat_map(
        |(column, operator, argument_type, is_array)| {
            let far = [i64::from(i16::MAX), i64::from(i32::MAX), i64::MAX][argument_type];
            let argument = prop_oneof![12 => -1i64..7, 1 => Just(far), 1 => Just(-far)];
            let count = if is_array { 1..5 } else { 1..2 };
            proptest::collection::vec(argument, count).prop_map(move |arguments| Clause {
                column,
                // Equality more often than not, or few scans would find rows.
                operator: OPERATORS.get(operator).copied().unwrap_or(Operator::Equal),
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

/// The whole story of one scan.
fn check(
    keys: &[Key],
    clauses: &[Clause],
    steps: &[Step],
    is_stable: bool,
) -> Result<(), TestCaseError> {
    let order = order();
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

    let types = KeyTypes {
        order: &order,
        inputs: &INPUTS,
    };
    let mut ranges = Ranges::default();
    if clauses.iter().any(|clause| clause.is_array) {
        ranges.set_clauses(
            clauses.iter().map(|clause| {
                (
                    clause.column,
                    clause.operator,
                    INPUTS[clause.argument_type],
                    clause.datums(),
                )
            }),
            types,
        );
    } else {
        let keys: Vec<_> = clauses.iter().map(Clause::key).collect();
        // SAFETY: the arguments are integers of the types they name.
        unsafe { ranges.set(&keys, types) };
    }
    let passes = |key: Key| clauses.iter().all(|clause| clause.passes(key));
    let mut expected: Vec<(Vec<u8>, Key)> = keys
        .iter()
        .filter(|key| passes(**key))
        .map(|key| (encode(&order, *key), *key))
        .collect();
    expected.sort();
    expected.dedup();
    let by_bytes = |bytes: &[u8]| {
        keys.iter()
            .copied()
            .find(|key| encode(&order, *key) == bytes)
    };

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
                let found = loop {
                    if !walk.next(&mut ranges, &rows, backward) {
                        break None;
                    }
                    let key = walk.row().0.key.to_vec();
                    let row = by_bytes(&key).expect("only stored rows come out");
                    if passes(row) {
                        break Some(key);
                    }
                    // What the executor does with a row of a lossy scan.
                    prop_assert!(ranges.recheck(), "{row:?} came out of an exact scan");
                };
                at = advance(at, expected.len(), backward);
                let wanted = match at {
                    At::Row(row) => Some(expected[row].0.clone()),
                    _ => None,
                };
                prop_assert_eq!(found, wanted);
            }
        }
    }
    Ok(())
}

fn keys() -> impl Strategy<Value = Vec<Key>> {
    proptest::collection::vec((0i16..6, 0i32..6, 0i64..6), 0..120).prop_map(|mut keys| {
        keys.sort();
        keys.dedup();
        keys
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_scan_visits_the_rows_of_its_keys_in_order_whichever_way_it_is_stepped(
        keys in keys(),
        clauses in proptest::collection::vec(clause(), 0..5),
        steps in proptest::collection::vec(step(), 1..80),
        is_stable in any::<bool>(),
    ) {
        check(&keys, &clauses, &steps, is_stable)?;
    }

    #[test]
    fn a_whole_scan_finds_every_row_either_way(
        keys in keys(),
        clauses in proptest::collection::vec(clause(), 0..4),
        backward in any::<bool>(),
    ) {
        let step = if backward { Step::Backward } else { Step::Forward };
        check(&keys, &clauses, &vec![step; keys.len() + 2], true)?;
    }

    #[test]
    fn equality_on_all_columns_is_a_point(
        keys in keys(),
        key in (0i16..6, 0i32..6, 0i64..6),
        steps in proptest::collection::vec(step(), 1..10),
    ) {
        let clauses: Vec<Clause> = [i64::from(key.0), i64::from(key.1), key.2]
            .into_iter()
            .enumerate()
            .map(|(column, value)| Clause {
                column,
                operator: Operator::Equal,
                argument_type: column,
                arguments: vec![value],
                is_array: false,
            })
            .collect();
        let order = order();
        let keys_of_scan: Vec<_> = clauses.iter().map(Clause::key).collect();
        let mut ranges = Ranges::default();
        // SAFETY: the arguments are integers of the types they name.
        unsafe { ranges.set(&keys_of_scan, KeyTypes { order: &order, inputs: &INPUTS }) };
        prop_assert_eq!(ranges.point(), Some(&encode(&order, key)[..]));
        check(&keys, &clauses, &steps, true)?;
    }
}

#[test]
fn keys_of_the_model_sort_as_the_order_says() {
    let order = order();
    let (a, b) = (encode(&order, (1, 5, 0)), encode(&order, (1, 4, 0)));
    assert!(
        Compare::compare(&order, &a, &b).is_lt(),
        "the second column descends"
    );
}
