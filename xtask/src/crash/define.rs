//! Definitions under fire: one client gives a table of its own a primary key and
//! takes it away, rewrites it, empties it, and has VACUUM cut its file. Nobody
//! else writes to it, so what it has to hold after a crash is known exactly.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use postgres::Client;

use super::Round;
use super::client::server_went_away;

/// Most rows that the table has: a few dozen leaves, and some of its indexes'.
const ROWS_MAX: i64 = 3000;

/// What the table holds: rows 1 to `rows`, all with the same value, from which
/// their padding follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct State {
    rows: i64,
    value: i64,
    has_key: bool,
}

/// What is known of the table: acknowledged, and asked for.
#[derive(Default)]
pub struct Defined {
    state: State,
    in_flight: Option<State>,
    /// Acknowledged commands.
    pub commands: u64,
}

/// Creates the table, empty.
pub fn create(client: &mut Client, am: &str) -> Result<()> {
    Ok(client.batch_execute(&format!(
        "create table redefined (k bigint not null, v bigint, pad text) using {am};
         alter table redefined alter pad set storage external;
         create index redefined_v on redefined (v, k);
         create unique index redefined_pad on redefined ((k % 7), k) include (v)"
    ))?)
}

/// A row's padding, in SQL: every fiftieth is long.
fn padding_of(k: &str, v: &str) -> String {
    format!(
        "repeat(chr(97 + ({v} % 26)::int), case when {k} % 50 = 0 then 3000 else ({k} % 90)::int end)"
    )
}

fn insert(from: i64, to: i64, value: i64) -> String {
    let pad = padding_of("i", &value.to_string());
    format!("insert into redefined select i, {value}, {pad} from generate_series({from}, {to}) i")
}

/// One command, or some in one transaction, and what comes of it.
fn choose(state: State, random: &mut Rng) -> (String, State) {
    let State {
        rows,
        value,
        has_key,
    } = state;
    let key = if has_key {
        "alter table redefined drop constraint redefined_pkey"
    } else {
        "alter table redefined add primary key (k)"
    };
    let pad = padding_of("k", "(v + 1)");
    let update = format!("update redefined set v = v + 1, pad = {pad}");
    let key_changed = State {
        has_key: !has_key,
        ..state
    };
    let updated = State {
        value: value + i64::from(rows > 0),
        ..state
    };
    match random.u32(0..100) {
        0..20 => (key.into(), key_changed),
        20..28 => (
            format!("begin; {update}; {key}; commit"),
            State {
                has_key: !has_key,
                ..updated
            },
        ),
        28..34 => (format!("begin; {key}; {update}; rollback"), state),
        34..42 => ("cluster redefined using redefined_v".into(), state),
        42..50 => ("vacuum full redefined".into(), state),
        50..60 => {
            let filled = State {
                rows: random.i64(1..ROWS_MAX),
                value: value + 1,
                has_key,
            };
            let fill = insert(1, filled.rows, filled.value);
            let end = ["commit", "rollback"][usize::from(random.u32(0..4) == 0)];
            let state = if end == "commit" { filled } else { state };
            (format!("begin; truncate redefined; {fill}; {end}"), state)
        }
        60..64 => (
            "truncate redefined".into(),
            State {
                rows: 0,
                value: 0,
                has_key,
            },
        ),
        64..74 => {
            let rows = random.i64(0..=rows);
            let value = if rows == 0 { 0 } else { value };
            let state = State {
                rows,
                value,
                has_key,
            };
            (format!("delete from redefined where k > {rows}"), state)
        }
        74..84 => ("vacuum redefined".into(), state),
        84..90 => (update, updated),
        _ if rows < ROWS_MAX => {
            let more = random.i64(rows + 1..=ROWS_MAX);
            let state = State {
                rows: more,
                ..state
            };
            (insert(rows + 1, more, value), state)
        }
        _ => ("vacuum freeze redefined".into(), state),
    }
}

/// Redefines the table until the server goes away.
pub fn work(
    session: &mut Client,
    defined: &mut Defined,
    round: &Round,
    mut random: Rng,
) -> Result<()> {
    while !round.stop.load(Ordering::SeqCst) {
        let (command, state) = choose(defined.state, &mut random);
        match session.batch_execute(&command) {
            Ok(()) => {
                defined.state = state;
                defined.commands += 1;
            }
            Err(error) => {
                ensure!(server_went_away(session, &error), "{command}: {error:?}");
                defined.in_flight = Some(state);
                break;
            }
        }
    }
    Ok(())
}

/// What the table holds; fails on rows that are not of one state.
fn found(session: &mut Client, by_index: bool) -> Result<State> {
    let (on, off) = if by_index {
        ("index", "seq")
    } else {
        ("seq", "index")
    };
    session.batch_execute(&format!(
        "set enable_bitmapscan = off; set enable_{off}scan = off; set enable_{on}scan = on"
    ))?;
    let pad = padding_of("k", "v");
    let row = session.query_one(
        &format!(
            "select count(*), count(distinct k), coalesce(min(k), 1), coalesce(max(k), 0),
                    count(distinct v), coalesce(max(v), 0), count(*) filter (where pad is distinct from {pad})
             from redefined where v >= 0"
        ),
        &[],
    )?;
    session
        .batch_execute("reset enable_bitmapscan; reset enable_seqscan; reset enable_indexscan")?;
    let [rows, keys, first, last, values, value, torn]: [i64; 7] =
        std::array::from_fn(|nth| row.get(nth));
    ensure!(
        rows == keys && first == 1 && last == rows && values <= 1 && torn == 0,
        "redefined has {rows} rows under {keys} keys from {first} to {last}, \
         {values} values, {torn} rows whose parts do not belong together"
    );
    let has_key = session.query_one(
        "select count(*) from pg_index where indrelid = 'redefined'::regclass and indisprimary",
        &[],
    )?;
    Ok(State {
        rows,
        value,
        has_key: has_key.get::<_, i64>(0) == 1,
    })
}

impl Defined {
    /// Compares with what the server has, by each way to read it, and goes on
    /// from there; how many rows that are.
    pub fn audit(&mut self, session: &mut Client) -> Result<u64> {
        let state = found(session, false).context("read in order")?;
        let by_index = found(session, true).context("read by an index")?;
        ensure!(
            state == by_index,
            "redefined is {state:?}, and {by_index:?} by an index"
        );
        let in_flight = self.in_flight.take();
        ensure!(
            state == self.state || Some(state) == in_flight,
            "redefined is {state:?}; acknowledged {:?}, in flight {in_flight:?}",
            self.state
        );
        self.state = state;
        Ok(state.rows as u64)
    }
}
