//! Histories with planted anomalies: the checker has to find each, and nothing
//! in what is right.

use super::check::{Kind, check};
use super::history::{Action, History, Key, Level, Transaction, Value, What};

/// A history in the making. Each call of a method takes a moment of its own.
struct Plot {
    history: History,
    clock: u64,
}

impl Plot {
    /// Keys 1 and 2 have rows with the values 10 and 20, key 3 has none.
    fn new() -> Plot {
        Plot {
            history: History {
                initial: vec![(1, 10), (2, 20)],
                transactions: Vec::new(),
            },
            clock: 0,
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn begin(&mut self) -> usize {
        let begun = self.tick();
        self.history.transactions.push(Transaction {
            begun,
            ..Transaction::default()
        });
        self.history.transactions.len() - 1
    }

    fn act(&mut self, number: usize, undone: Option<u32>, what: What) {
        let action = Action {
            asked: self.tick(),
            answered: self.tick(),
            what,
            undone,
        };
        self.history.transactions[number].actions.push(action);
    }

    fn read(&mut self, number: usize, key: Key, value: Option<Value>) {
        self.act(number, None, What::Read(key, value));
    }

    fn scan(&mut self, number: usize, rows: &[(Key, Value)]) {
        self.act(number, None, What::Scan(1, 4, rows.to_vec()));
    }

    fn write(&mut self, number: usize, key: Key, over: Option<Value>, value: Option<Value>) {
        self.act(number, None, What::Write { key, over, value });
    }

    fn end(&mut self, number: usize, committed: bool) {
        let tick = self.tick();
        let transaction = &mut self.history.transactions[number];
        (transaction.committed, transaction.ended) = (committed, tick);
    }

    /// The kinds found at each level.
    fn judge(&self) -> [Vec<Kind>; 3] {
        Level::ALL.map(|level| check(&self.history, level).iter().map(|a| a.kind).collect())
    }
}

const NOTHING: Vec<Kind> = Vec::new();

#[test]
fn one_after_the_other_is_right_at_every_level() {
    let mut plot = Plot::new();
    for (over, value) in [(10, 11), (11, 12), (12, 13)] {
        let one = plot.begin();
        plot.scan(one, &[(1, over), (2, 20)]);
        plot.write(one, 1, Some(over), Some(value));
        plot.read(one, 1, Some(value));
        plot.end(one, true);
    }
    let last = plot.begin();
    plot.write(last, 1, Some(13), None);
    plot.write(last, 3, None, Some(30));
    plot.scan(last, &[(2, 20), (3, 30)]);
    plot.end(last, true);
    assert_eq!(plot.judge(), [NOTHING, NOTHING, NOTHING]);
}

#[test]
fn what_was_rolled_back_must_not_be_seen() {
    let mut plot = Plot::new();
    let (writer, reader) = (plot.begin(), plot.begin());
    plot.write(writer, 1, Some(10), Some(11));
    plot.read(reader, 1, Some(11));
    plot.end(writer, false);
    plot.end(reader, true);
    assert!(
        plot.judge()
            .iter()
            .all(|found| *found == [Kind::AbortedRead])
    );

    let mut plot = Plot::new();
    let (writer, reader) = (plot.begin(), plot.begin());
    let write = What::Write {
        key: 1,
        over: Some(10),
        value: Some(11),
    };
    plot.act(writer, Some(1), write);
    plot.read(writer, 1, Some(10));
    plot.read(reader, 1, Some(11));
    plot.end(writer, true);
    plot.end(reader, true);
    assert!(
        plot.judge()
            .iter()
            .all(|found| *found == [Kind::AbortedRead])
    );
}

#[test]
fn what_its_writer_replaced_must_not_be_seen() {
    let mut plot = Plot::new();
    let (writer, reader) = (plot.begin(), plot.begin());
    plot.write(writer, 1, Some(10), Some(11));
    plot.read(reader, 1, Some(11));
    plot.write(writer, 1, Some(11), Some(12));
    plot.end(writer, true);
    plot.end(reader, true);
    assert_eq!(plot.judge()[0], [Kind::IntermediateRead]);
}

#[test]
fn writes_of_two_keys_in_two_orders_are_found() {
    let mut plot = Plot::new();
    let (a, b) = (plot.begin(), plot.begin());
    plot.write(a, 1, Some(10), Some(11));
    plot.write(b, 1, Some(11), Some(12));
    plot.write(b, 2, Some(20), Some(21));
    plot.write(a, 2, Some(21), Some(22));
    plot.end(a, true);
    plot.end(b, true);
    assert!(
        plot.judge()
            .iter()
            .all(|found| *found == [Kind::DirtyWrite])
    );
}

#[test]
fn a_version_replaced_twice_is_found() {
    let mut plot = Plot::new();
    let (a, b) = (plot.begin(), plot.begin());
    plot.write(a, 1, Some(10), Some(11));
    plot.end(a, true);
    plot.write(b, 1, Some(10), Some(12));
    plot.end(b, true);
    assert!(
        plot.judge()
            .iter()
            .all(|found| found.contains(&Kind::WriteOrder))
    );
}

#[test]
fn two_who_saw_each_others_writes_are_found() {
    let mut plot = Plot::new();
    let (a, b) = (plot.begin(), plot.begin());
    plot.write(a, 1, Some(10), Some(11));
    plot.write(b, 2, Some(20), Some(21));
    plot.read(a, 2, Some(21));
    plot.read(b, 1, Some(11));
    plot.end(a, true);
    plot.end(b, true);
    assert!(
        plot.judge()
            .iter()
            .all(|found| *found == [Kind::CircularFlow])
    );
}

#[test]
fn a_lost_update_is_found_from_repeatable_read_on() {
    let mut plot = Plot::new();
    let (a, b) = (plot.begin(), plot.begin());
    plot.read(a, 1, Some(10));
    plot.write(b, 1, Some(10), Some(11));
    plot.end(b, true);
    plot.write(a, 1, Some(11), Some(12));
    plot.end(a, true);
    let [committed, repeatable, serializable] = plot.judge();
    assert_eq!(committed, NOTHING);
    assert_eq!(repeatable, [Kind::LostUpdate]);
    assert!(serializable.contains(&Kind::LostUpdate));
}

#[test]
fn half_of_a_transaction_seen_is_found_from_repeatable_read_on() {
    let mut plot = Plot::new();
    let (a, b) = (plot.begin(), plot.begin());
    plot.read(a, 1, Some(10));
    plot.write(b, 1, Some(10), Some(11));
    plot.write(b, 3, None, Some(30));
    plot.end(b, true);
    plot.read(a, 3, Some(30));
    plot.end(a, true);
    let [committed, repeatable, _] = plot.judge();
    assert_eq!(committed, NOTHING);
    assert_eq!(repeatable, [Kind::SkewedRead]);
}

#[test]
fn write_skew_is_found_when_serializable_alone() {
    // Of rows, and of a row that is not there yet.
    for (key, over, value) in [(2, Some(20), 21), (3, None, 30)] {
        let mut plot = Plot::new();
        let (a, b) = (plot.begin(), plot.begin());
        plot.scan(a, &[(1, 10), (2, 20)]);
        plot.scan(b, &[(1, 10), (2, 20)]);
        plot.write(a, 1, Some(10), Some(11));
        plot.write(b, key, over, Some(value));
        plot.end(a, true);
        plot.end(b, true);
        assert_eq!(plot.judge(), [NOTHING, NOTHING, vec![Kind::WriteSkew]]);
    }
}

#[test]
fn the_read_only_anomaly_is_found_when_serializable() {
    let mut plot = Plot::new();
    let withdrawal = plot.begin();
    plot.scan(withdrawal, &[(1, 10), (2, 20)]);
    let deposit = plot.begin();
    plot.read(deposit, 2, Some(20));
    plot.write(deposit, 2, Some(20), Some(21));
    plot.end(deposit, true);
    let report = plot.begin();
    plot.scan(report, &[(1, 10), (2, 21)]);
    plot.end(report, true);
    plot.write(withdrawal, 1, Some(10), Some(11));
    plot.end(withdrawal, true);
    assert_eq!(plot.judge(), [NOTHING, NOTHING, vec![Kind::WriteSkew]]);
}

#[test]
fn a_key_given_anew_by_who_saw_the_old_row_is_found_when_serializable() {
    let mut plot = Plot::new();
    let (a, b) = (plot.begin(), plot.begin());
    plot.read(a, 1, Some(10));
    plot.write(b, 1, Some(10), None);
    plot.end(b, true);
    plot.write(a, 1, None, Some(11));
    plot.end(a, true);
    assert_eq!(plot.judge(), [NOTHING, NOTHING, vec![Kind::WriteSkew]]);
}

#[test]
fn a_snapshot_of_before_the_transaction_is_found() {
    let mut plot = Plot::new();
    let writer = plot.begin();
    plot.write(writer, 1, Some(10), Some(11));
    plot.write(writer, 3, None, Some(30));
    plot.end(writer, true);
    let reader = plot.begin();
    plot.scan(reader, &[(1, 10), (2, 20)]);
    plot.end(reader, true);
    assert!(
        plot.judge()
            .iter()
            .all(|found| *found == [Kind::Stale, Kind::Stale])
    );
}

#[test]
fn a_transaction_sees_its_own_writes_and_each_row_once() {
    let mut plot = Plot::new();
    let one = plot.begin();
    plot.write(one, 1, Some(10), Some(11));
    plot.read(one, 1, Some(10));
    plot.scan(one, &[(1, 11), (2, 20), (2, 20)]);
    plot.end(one, true);
    assert!(
        plot.judge()
            .iter()
            .all(|found| *found == [Kind::OwnWrite, Kind::WrongScan])
    );
}
