//! Random transactions by several sessions on a few keys, and what they were
//! told.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fastrand::Rng;
use postgres::error::SqlState;
use postgres::types::ToSql;
use postgres::{Client, Row};

use super::history::{Action, History, Key, Level, Tick, Transaction, Value, What};
use crate::Cluster;

/// How a table is organized, which decides how reads find their rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// By an integer key, which compares as bytes.
    Integer,
    /// By a numeric key, which its operator class compares.
    Numeric,
    /// By nothing: every search reads all of it.
    NoKey,
    /// By nothing, with a unique index on the key.
    Index,
    /// By another key, with an index that holds all that is read: what it says
    /// is what the reader gets.
    Covered,
}

impl Shape {
    /// All of them.
    pub const ALL: [Shape; 5] = [
        Shape::Integer,
        Shape::Numeric,
        Shape::NoKey,
        Shape::Index,
        Shape::Covered,
    ];

    fn definition(self) -> &'static str {
        match self {
            Shape::Integer => "k int primary key",
            Shape::Numeric => "k numeric primary key",
            Shape::NoKey => "k int",
            Shape::Index => "k int unique",
            Shape::Covered => {
                "id bigint generated always as identity primary key, k int, \
                 unique (k) include (v)"
            }
        }
    }

    fn is_unique(self) -> bool {
        self != Shape::NoKey
    }
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The level of all transactions.
    pub level: Level,
    /// The table.
    pub shape: Shape,
    /// For how long.
    pub time: Duration,
    /// What everything random comes from. Sessions race all the same.
    pub seed: u64,
    /// How many sessions.
    pub sessions: u64,
}

/// Keys are from 0 to here; at first every other one has a row.
const KEYS: Key = 48;

/// Makes a session read by an index where there is one.
const INDEXES_FIRST: &str = "set enable_seqscan = off; set enable_bitmapscan = off";

struct Bench<'c> {
    cluster: &'c Cluster,
    plan: Plan,
    clock: AtomicU64,
    values: AtomicI64,
    stop: AtomicBool,
}

/// Runs random transactions; `None` if there cannot be such a table yet.
pub fn run(cluster: &Cluster, plan: Plan) -> Result<Option<History>> {
    let mut client = cluster.connect("postgres")?;
    client.batch_execute("drop table if exists r")?;
    let made = client.batch_execute(&format!(
        "create table r ({}, v bigint not null, prev bigint, pad text) using {};
         alter table r alter pad set storage plain",
        plan.shape.definition(),
        cluster.access_method()
    ));
    match made {
        Err(error) if error.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED) => return Ok(None),
        made => made?,
    }
    client.batch_execute(&format!(
        "insert into r (k, v, prev, pad) select k, -1 - k, null, repeat('x', 300)
         from generate_series(0, {}, 2) k",
        KEYS - 1
    ))?;
    client.batch_execute("analyze r")?;
    if plan.shape == Shape::Covered {
        let read = "explain select v from r where k = 2";
        client.batch_execute(INDEXES_FIRST)?;
        let first: String = client.query(read, &[])?[0].get(0);
        anyhow::ensure!(first.contains("Index Only Scan"), "{read}: {first}");
    }
    let bench = Bench {
        cluster,
        plan,
        clock: AtomicU64::new(1),
        values: AtomicI64::new(1),
        stop: AtomicBool::new(false),
    };
    let mut history = History {
        initial: (0..KEYS)
            .step_by(2)
            .map(|key| (key, Value::from(-1 - key)))
            .collect(),
        transactions: Vec::new(),
    };
    let done = std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..plan.sessions)
            .map(|number| {
                let bench = &bench;
                scope.spawn(move || bench.session(number))
            })
            .collect();
        let vacuum = scope.spawn(|| bench.vacuum());
        let all: Vec<_> = sessions.into_iter().map(|each| each.join()).collect();
        bench.stop.store(true, Ordering::SeqCst);
        vacuum.join().expect("no panic").context("VACUUM")?;
        all.into_iter()
            .map(|each| each.expect("no panic"))
            .collect::<Result<Vec<_>>>()
    })?;
    history.transactions = done.into_iter().flatten().collect();
    Ok(Some(history))
}

impl Bench<'_> {
    fn tick(&self) -> Tick {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Numbers for as many values as one statement may write.
    fn fresh(&self) -> Value {
        self.values.fetch_add(Value::from(KEYS), Ordering::SeqCst)
    }

    /// Leaves are pruned and merged all the time.
    fn vacuum(&self) -> Result<()> {
        let mut client = self.cluster.connect("postgres")?;
        while !self.stop.load(Ordering::SeqCst) {
            client.batch_execute("vacuum r")?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn session(&self, number: u64) -> Result<Vec<Transaction>> {
        let mut client = self.cluster.connect("postgres")?;
        // The others read so small a table as a whole.
        if number.is_multiple_of(2) {
            client.batch_execute(INDEXES_FIRST)?;
        }
        let mut random = Rng::with_seed(self.plan.seed.wrapping_mul(1009).wrapping_add(number));
        let end = Instant::now() + self.plan.time;
        let mut done = Vec::new();
        while Instant::now() < end {
            let session = Session {
                bench: self,
                client: &mut client,
                random: &mut random,
                actions: Vec::new(),
                savepoint: None,
                savepoints: 0,
            };
            done.push(session.transaction(&format!("p{number}"))?);
        }
        Ok(done)
    }
}

/// A session within one transaction.
struct Session<'s> {
    bench: &'s Bench<'s>,
    client: &'s mut Client,
    random: &'s mut Rng,
    actions: Vec<Action>,
    savepoint: Option<u32>,
    savepoints: u32,
}

/// Errors that end a transaction and nothing else.
fn is_expected(error: &postgres::Error) -> bool {
    let expected = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::UNIQUE_VIOLATION,
        SqlState::LOCK_NOT_AVAILABLE,
    ];
    error.code().is_some_and(|code| expected.contains(code))
}

impl Session<'_> {
    fn transaction(mut self, name: &str) -> Result<Transaction> {
        let level = self.bench.plan.level.sql();
        self.client
            .batch_execute(&format!("begin isolation level {level}"))?;
        let begun = self.bench.tick();
        let mut result = Ok(());
        for _ in 0..self.random.u32(1..=5) {
            result = self.step();
            if result.is_err() {
                break;
            }
        }
        let gives_up = result.is_err() || self.random.u32(0..100) < 8;
        if gives_up {
            self.client.batch_execute("rollback")?;
        } else {
            // One that fails to commit is over.
            result = self.commit(name);
        }
        let committed = !gives_up && result.is_ok();
        if let Err(error) = result
            && !is_expected(&error)
        {
            return Err(error).context("a statement of a random transaction");
        }
        Ok(Transaction {
            begun,
            actions: self.actions,
            committed,
            ended: self.bench.tick(),
        })
    }

    fn commit(&mut self, name: &str) -> Result<(), postgres::Error> {
        if self.random.u32(0..100) < 5 {
            self.client
                .batch_execute(&format!("prepare transaction '{name}'"))?;
            return self
                .client
                .batch_execute(&format!("commit prepared '{name}'"));
        }
        self.client.batch_execute("commit")
    }

    fn key(&mut self) -> Key {
        // Some keys are hot.
        if self.random.bool() {
            self.random.i32(0..6)
        } else {
            self.random.i32(0..KEYS)
        }
    }

    fn ask(
        &mut self,
        sql: &str,
        arguments: &[&(dyn ToSql + Sync)],
    ) -> Result<(Tick, Vec<Row>, Tick), postgres::Error> {
        let asked = self.bench.tick();
        let rows = self.client.query(sql, arguments)?;
        Ok((asked, rows, self.bench.tick()))
    }

    fn note(&mut self, asked: Tick, answered: Tick, what: What) {
        self.actions.push(Action {
            asked,
            answered,
            what,
            undone: self.savepoint,
        });
    }

    fn step(&mut self) -> Result<(), postgres::Error> {
        let unique = self.bench.plan.shape.is_unique();
        match self.random.u32(0..100) {
            0..25 => self.look_up(""),
            25..33 => {
                let strengths = ["update", "no key update", "share", "key share"];
                let strength = strengths[self.random.usize(0..4)];
                self.look_up(&format!("for {strength}"))
            }
            33..45 => self.scan(),
            45..70 => self.update(),
            70..76 => self.update_range(),
            76..82 => self.delete(),
            82..92 if unique => self.upsert(),
            92..96 if unique => self.move_row(),
            _ => self.undo(),
        }
    }

    /// One key, as a value of the column's type.
    fn look_up(&mut self, lock: &str) -> Result<(), postgres::Error> {
        let key = self.key();
        let sql = format!("select v from r where k = {key} {lock}");
        let (asked, rows, answered) = self.ask(&sql, &[])?;
        let rows = rows.iter().map(|row| (key, row.get(0))).collect();
        let rows = self.without_ghosts(rows);
        assert!(rows.len() <= 1, "one row under a key: {sql}");
        let what = match rows.first() {
            None if !lock.is_empty() => What::Missed(key),
            row => What::Read(key, row.map(|row| row.1)),
        };
        self.note(asked, answered, what);
        Ok(())
    }

    fn scan(&mut self) -> Result<(), postgres::Error> {
        let (from, to) = (self.random.i32(0..KEYS), self.random.i32(0..=KEYS));
        let (from, to) = (from.min(to), from.max(to));
        let range = match self.random.u32(0..4) {
            0 => format!("k >= {from} and k < {to} order by k"),
            1 => format!("k >= {from} and k < {to} order by k desc"),
            2 => format!("k >= {from} and k < {to}"),
            // No index serves that.
            _ => format!("k + 0 >= {from} and k + 0 < {to}"),
        };
        let sql = format!("select k::int, v from r where {range}");
        let (asked, rows, answered) = self.ask(&sql, &[])?;
        let rows = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let rows = self.without_ghosts(rows);
        self.note(asked, answered, What::Scan(from, to, rows));
        Ok(())
    }

    /// A heap shows two rows of one key to a transaction that has inserted it
    /// anew after its snapshot's row was deleted by another. The one of its own
    /// is what counts.
    fn without_ghosts(&self, rows: Vec<(Key, Value)>) -> Vec<(Key, Value)> {
        let own = |(key, value): &(Key, Value)| {
            self.actions.iter().any(|action| {
                matches!(&action.what, What::Write { key: k, value: Some(v), .. } if k == key && v == value)
            })
        };
        let is_ghost = |row: &(Key, Value)| {
            !own(row) && rows.iter().any(|other| other.0 == row.0 && own(other))
        };
        rows.iter().copied().filter(|row| !is_ghost(row)).collect()
    }

    /// A statement that writes one key or finds no row there.
    fn write(
        &mut self,
        key: Key,
        value: Option<Value>,
        sql: &str,
        arguments: &[&(dyn ToSql + Sync)],
    ) -> Result<(), postgres::Error> {
        let (asked, rows, answered) = self.ask(sql, arguments)?;
        assert!(rows.len() <= 1, "one row under a key: {sql}");
        let what = match rows.first() {
            Some(row) => What::Write {
                key,
                over: row.get(0),
                value,
            },
            None => What::Missed(key),
        };
        self.note(asked, answered, what);
        Ok(())
    }

    fn update(&mut self) -> Result<(), postgres::Error> {
        let (key, value) = (self.key(), self.bench.fresh());
        // Rows grow and shrink, so that leaves split.
        let length = self.random.i32(100..400);
        let sql = format!(
            "update r set prev = v, v = $1, pad = repeat('y', {length}) where k = {key} returning prev"
        );
        self.write(key, Some(value), &sql, &[&value])
    }

    fn delete(&mut self) -> Result<(), postgres::Error> {
        let key = self.key();
        let sql = format!("delete from r where k = {key} returning v");
        self.write(key, None, &sql, &[])
    }

    fn upsert(&mut self) -> Result<(), postgres::Error> {
        let (key, value) = (self.key(), self.bench.fresh());
        let insert =
            format!("insert into r (k, v, prev, pad) values ({key}, $1, null, repeat('z', 300))");
        let sql = if self.random.bool() {
            format!("{insert} returning prev")
        } else {
            format!(
                "{insert} on conflict (k) do update set prev = r.v, v = excluded.v returning prev"
            )
        };
        self.write(key, Some(value), &sql, &[&value])
    }

    fn update_range(&mut self) -> Result<(), postgres::Error> {
        let (from, base) = (self.random.i32(0..KEYS), self.bench.fresh());
        let to = (from + 5).min(KEYS);
        let sql = format!(
            "update r set prev = v, v = ($1::bigint + k)::bigint where k >= {from} and k < {to}
             returning k::int, prev, v"
        );
        let (asked, rows, answered) = self.ask(&sql, &[&base])?;
        let mut absent: Vec<Key> = (from..to).collect();
        for row in &rows {
            let key = row.get(0);
            absent.retain(|other| *other != key);
            let what = What::Write {
                key,
                over: row.get(1),
                value: row.get(2),
            };
            self.note(asked, answered, what);
        }
        for key in absent {
            self.note(asked, answered, What::Missed(key));
        }
        Ok(())
    }

    /// A row gets another key: it is gone from the one and new under the other.
    fn move_row(&mut self) -> Result<(), postgres::Error> {
        let (from, to) = (self.key(), self.random.i32(0..KEYS));
        if from == to {
            return Ok(());
        }
        let value = self.bench.fresh();
        let sql =
            format!("update r set k = {to}, prev = v, v = $1 where k = {from} returning prev");
        let (asked, rows, answered) = self.ask(&sql, &[&value])?;
        let Some(row) = rows.first() else {
            self.note(asked, answered, What::Missed(from));
            return Ok(());
        };
        for (key, over, value) in [(from, row.get(0), None), (to, None, Some(value))] {
            self.note(asked, answered, What::Write { key, over, value });
        }
        Ok(())
    }

    /// Something that is rolled back at once.
    fn undo(&mut self) -> Result<(), postgres::Error> {
        if self.savepoint.is_some() {
            return Ok(());
        }
        self.client.batch_execute("savepoint s")?;
        self.savepoints += 1;
        self.savepoint = Some(self.savepoints);
        let done = self.update().and_then(|()| self.step());
        self.savepoint = None;
        done?;
        self.client.batch_execute("rollback to s")
    }
}
