//! What clients do until the server is taken from them.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use postgres::Client;
use postgres::error::{Error, SqlState};

use super::Round;
use super::model::{Model, Place, Rows};
use super::schema::{ACCOUNTS, BULK, FAR, NAMED, TOTAL, clear_unfinished};

/// Whether the error says that the server is gone or going.
pub fn server_went_away(client: &Client, error: &Error) -> bool {
    client.is_closed()
        || error.is_closed()
        || error.code().is_none_or(|code| {
            *code == SqlState::ADMIN_SHUTDOWN
                || *code == SqlState::CRASH_SHUTDOWN
                || *code == SqlState::CANNOT_CONNECT_NOW
        })
}

/// How a transaction ended.
enum Ended {
    Committed(Rows),
    /// A deadlock or a wanted rollback.
    RolledBack,
    /// The server went away before a commit was sent.
    Lost,
    /// The server went away and may have committed.
    Unknown(Rows),
}

/// Runs transactions until the server goes away.
pub fn work(mut session: Client, model: &mut Model, round: &Round, mut random: Rng) -> Result<()> {
    let pid = session.query_one("select pg_backend_pid()", &[]);
    if let Ok(row) = pid {
        round.backends[model.client].store(row.get(0), Ordering::SeqCst);
    }
    while !round.stop.load(Ordering::SeqCst) {
        match transact(&mut session, model, &mut random)
            .with_context(|| format!("client {}", model.client))?
        {
            Ended::Committed(rows) => {
                model.rows = rows;
                model.commits += 1;
            }
            Ended::RolledBack => {}
            Ended::Lost => break,
            Ended::Unknown(rows) => {
                model.in_flight = Some(rows);
                break;
            }
        }
    }
    Ok(())
}

/// One transaction of one to six steps.
fn transact(session: &mut Client, model: &mut Model, random: &mut Rng) -> Result<Ended> {
    let mut transaction = Transaction {
        session,
        rows: model.rows.clone(),
        client: model.client,
        sequence: &mut model.sequence,
    };
    let isolation = ["read committed", "repeatable read"][random.usize(0..2)];
    let mut ran = transaction.send(&format!("begin isolation level {isolation}"));
    for _ in 0..random.u32(1..=6) {
        if ran.is_ok() {
            ran = transaction.step(random);
        }
    }
    let rows = transaction.rows;
    if let Err(Trouble::Sql(error)) = ran {
        if server_went_away(session, &error) {
            return Ok(Ended::Lost);
        }
        let expected = matches!(
            error.code(),
            Some(&SqlState::T_R_DEADLOCK_DETECTED | &SqlState::T_R_SERIALIZATION_FAILURE)
        );
        ensure!(expected, "{error:?}");
        return finish(session, "rollback", rows);
    }
    if let Err(Trouble::Wrong(what)) = ran {
        anyhow::bail!(what);
    }
    let word = if random.u32(0..10) == 0 {
        "rollback"
    } else {
        "commit"
    };
    finish(session, word, rows)
}

fn finish(session: &mut Client, word: &str, rows: Rows) -> Result<Ended> {
    let commit = word == "commit";
    match session.batch_execute(word) {
        Ok(()) if commit => Ok(Ended::Committed(rows)),
        Ok(()) => Ok(Ended::RolledBack),
        Err(error) => {
            ensure!(server_went_away(session, &error), "{word}: {error:?}");
            Ok(if commit {
                Ended::Unknown(rows)
            } else {
                Ended::Lost
            })
        }
    }
}

/// Why a step did not work.
enum Trouble {
    Sql(Error),
    /// The server answered, and wrongly.
    Wrong(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Sql(error)
    }
}

/// An open transaction with the rows as it sees them.
struct Transaction<'a> {
    session: &'a mut Client,
    rows: Rows,
    client: usize,
    sequence: &'a mut u64,
}

/// The padding of a row, from its value: a torn or mixed-up row shows.
pub fn padding(value: i64, length: usize) -> String {
    let letter = char::from(b'a' + (value.rem_euclid(26)) as u8);
    letter.to_string().repeat(length)
}

/// A padding's length: usually short, now and then too long for its row.
fn padding_length(random: &mut Rng, usual: usize) -> usize {
    if random.u32(0..8) == 0 {
        random.usize(2_000..9_000)
    } else {
        random.usize(0..usual)
    }
}

impl Transaction<'_> {
    fn send(&mut self, statement: &str) -> Result<(), Trouble> {
        Ok(self.session.batch_execute(statement)?)
    }

    /// Runs a statement that has to change exactly `expected` rows.
    fn change(&mut self, statement: &str, expected: usize) -> Result<(), Trouble> {
        let changed = self.session.execute(statement, &[])?;
        if changed as usize != expected {
            return Err(Trouble::Wrong(format!(
                "{changed} rows instead of {expected}: {statement}"
            )));
        }
        Ok(())
    }

    fn step(&mut self, random: &mut Rng) -> Result<(), Trouble> {
        match random.u32(0..100) {
            0..20 => self.transfer(random),
            20..26 => self.move_account(random),
            26..38 => self.bulk(random),
            38..46 => self.range(random),
            46..54 => self.inside_savepoint(random),
            54..75 => self.log(random),
            _ => self.ledger(random),
        }
    }

    /// Work that is undone by a savepoint; sometimes an error undoes it.
    fn inside_savepoint(&mut self, random: &mut Rng) -> Result<(), Trouble> {
        let before = self.rows.clone();
        self.send("savepoint s")?;
        for _ in 0..random.u32(1..4) {
            match random.u32(0..3) {
                0 => self.log(random)?,
                1 => self.range(random)?,
                _ => self.ledger(random)?,
            }
        }
        match random.u32(0..3) {
            0 => return self.send("release s"),
            1 => {}
            _ => self.insert_existing(random)?,
        }
        self.send("rollback to s")?;
        self.rows = before;
        Ok(())
    }

    /// Inserting a key that is there has to fail.
    fn insert_existing(&mut self, random: &mut Rng) -> Result<(), Trouble> {
        let Some(place) = self.pick("ledger", random) else {
            return Ok(());
        };
        let client = self.client;
        let statement = format!("insert into ledger values ({client}, '{}', 0, '')", place.1);
        match self.session.batch_execute(&statement) {
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(()) => Err(Trouble::Wrong(format!("no unique violation: {statement}"))),
        }
    }

    /// One of the client's rows in a table.
    fn pick(&self, table: &'static str, random: &mut Rng) -> Option<Place> {
        let from = (table, key(random));
        let after = self.rows.range(from..).find(|(place, _)| place.0 == table);
        let any = || self.rows.range((table, String::new())..).next();
        after
            .or_else(any)
            .map(|(place, _)| place.clone())
            .filter(|place| place.0 == table)
    }

    fn ledger(&mut self, random: &mut Rng) -> Result<(), Trouble> {
        let client = self.client;
        let place = ("ledger", key(random));
        let (value, length) = (random.i64(0..1_000_000), padding_length(random, 300));
        let pad = padding(value, length);
        let insert = format!(
            "insert into ledger values ({client}, '{}', {value}, '{pad}')",
            place.1
        );
        if !self.rows.contains_key(&place) {
            let on_conflict = [
                "",
                " on conflict do nothing",
                " on conflict (client, lower(k)) do update set v = -1",
            ];
            let on_conflict = on_conflict[random.usize(0..on_conflict.len())];
            self.change(&format!("{insert}{on_conflict}"), 1)?;
            self.rows.insert(place, (value, length));
            return Ok(());
        }
        let at = format!("where client = {client} and k = '{}'", place.1);
        match random.u32(0..4) {
            0 => {
                self.change(&format!("delete from ledger {at}"), 1)?;
                self.rows.remove(&place);
            }
            1 => {
                let to = ("ledger", key(random));
                if self.rows.contains_key(&to) {
                    return Ok(());
                }
                self.change(&format!("update ledger set k = '{}' {at}", to.1), 1)?;
                let row = self.rows.remove(&place).expect("the row is there");
                self.rows.insert(to, row);
            }
            way => {
                let update = match way {
                    2 => format!("update ledger set v = {value}, pad = '{pad}' {at}"),
                    _ => format!(
                        "{insert} on conflict (client, k) do update \
                         set v = excluded.v, pad = excluded.pad"
                    ),
                };
                self.change(&update, 1)?;
                self.rows.insert(place, (value, length));
            }
        }
        Ok(())
    }

    /// Statements over ranges of keys.
    fn range(&mut self, random: &mut Rng) -> Result<(), Trouble> {
        let client = self.client;
        let (low, high) = (key(random), key(random));
        let bounds = ("ledger", low.clone())..("ledger", high.clone());
        let places: Vec<Place> = if low < high {
            self.rows
                .range(bounds)
                .map(|(place, _)| place.clone())
                .collect()
        } else {
            Vec::new()
        };
        let at = format!("where client = {client} and k >= '{low}' and k < '{high}'");
        match random.u32(0..6) {
            0 if places.len() < 400 => {
                self.change(&format!("delete from ledger {at}"), places.len())?;
                for place in &places {
                    self.rows.remove(place);
                }
            }
            0..3 => {
                self.change(&format!("update ledger set v = v + 26 {at}"), places.len())?;
                for place in &places {
                    self.rows.get_mut(place).expect("the row is there").0 += 26;
                }
            }
            3..5 => {
                let number: i64 = self
                    .session
                    .query_one(&format!("select count(*) from ledger {at}"), &[])?
                    .get(0);
                if number as usize != places.len() {
                    return Err(Trouble::Wrong(format!(
                        "client {client} sees {number} of its {} rows {at}",
                        places.len()
                    )));
                }
            }
            _ => {
                // A batch of new keys around one place: leaves split.
                let base = key(random);
                let fresh: Vec<String> = (0..40)
                    .map(|i| format!("{base}-{i:03}"))
                    .filter(|k| !self.rows.contains_key(&("ledger", k.clone())))
                    .collect();
                if fresh.is_empty() {
                    return Ok(());
                }
                let values: Vec<String> = fresh
                    .iter()
                    .map(|k| format!("({client}, '{k}', 3, '{}')", padding(3, 120)))
                    .collect();
                self.change(
                    &format!("insert into ledger values {}", values.join(", ")),
                    fresh.len(),
                )?;
                for k in fresh {
                    self.rows.insert(("ledger", k), (3, 120));
                }
            }
        }
        Ok(())
    }

    /// The table without a key.
    fn log(&mut self, random: &mut Rng) -> Result<(), Trouble> {
        let client = self.client;
        let (value, length) = (random.i64(0..1000), padding_length(random, 100));
        let pad = padding(value, length);
        let held = self
            .rows
            .range(("log", String::new())..("log", "~".into()))
            .count();
        if held < 300 && random.u32(0..2) == 0 {
            *self.sequence += 1;
            let sequence = *self.sequence;
            self.change(
                &format!("insert into log values ({client}, {sequence}, {value}, '{pad}')"),
                1,
            )?;
            self.rows
                .insert(("log", format!("{sequence:012}")), (value, length));
            return Ok(());
        }
        let nth = random.usize(0..held.max(1));
        let place = self
            .rows
            .range(("log", String::new())..("log", "~".into()))
            .nth(nth)
            .map(|(place, _)| place.clone());
        let Some(place) = place else {
            return Ok(());
        };
        let sequence: u64 = place.1.parse().expect("a number was stored");
        let at = format!("where client = {client} and seq = {sequence}");
        if random.bool() || held >= 300 {
            self.change(&format!("delete from log {at}"), 1)?;
            self.rows.remove(&place);
        } else {
            self.change(
                &format!("update log set v = {value}, pad = '{pad}' {at}"),
                1,
            )?;
            self.rows.insert(place, (value, length));
        }
        Ok(())
    }

    /// A row of the table that is larger than the server's buffers. Clients
    /// take turns in it, so their rows share leaves.
    fn bulk(&mut self, random: &mut Rng) -> Result<(), Trouble> {
        let clients = 64;
        let k = random.i32(0..BULK / clients) * clients + 1 + self.client as i32 % clients;
        let place = ("bulk", format!("{k:09}"));
        let value = self.rows.get(&place).map_or(0, |row| row.0) + 1;
        self.change(
            &format!(
                "update bulk set n = {value}, client = {}, pad = '{}' where k = {k}",
                self.client,
                padding(value, 150)
            ),
            1,
        )?;
        self.rows.insert(place, (value, 150));
        Ok(())
    }

    /// Moves an amount between shared accounts of two tables.
    fn transfer(&mut self, random: &mut Rng) -> Result<(), Trouble> {
        let amount = random.i64(-50..50);
        let k = random.i32(1..=ACCOUNTS);
        let name = random.i32(1..=NAMED);
        let mut updates = [
            format!(
                "update account set v = v - {amount}, pad = repeat('p', {}) where k in ({k}, {})",
                random.u32(0..80),
                k + FAR
            ),
            format!("update named set v = v + {amount} where k = 'account {name}'"),
        ];
        // The order is random, so that deadlocks happen and are resolved.
        random.shuffle(&mut updates);
        for update in &updates {
            self.change(update, 1)?;
        }
        Ok(())
    }

    /// Changes a shared account's key, there and back.
    fn move_account(&mut self, random: &mut Rng) -> Result<(), Trouble> {
        let k = random.i32(1..=ACCOUNTS);
        let far = k + FAR;
        self.change(
            &format!("update account set k = {k} + {far} - k where k in ({k}, {far})"),
            1,
        )
    }
}

/// A key of varying length; most share long prefixes.
fn key(random: &mut Rng) -> String {
    let prefix = ["common/prefix/of/many/keys/", "c", "other-", ""][random.usize(0..4)];
    format!("{prefix}{:03}", random.u32(0..250))
}

/// Checkpoints, vacuums, builds indexes and looks at the sum until the server
/// goes away.
pub fn keep_house(session: &mut Client, round: &Round, mut random: Rng) -> Result<()> {
    clear_unfinished(session)?;
    while !round.stop.load(Ordering::SeqCst) {
        std::thread::sleep(std::time::Duration::from_millis(random.u64(20..300)));
        let tables = [
            "ledger", "log", "bulk", "account", "named", "holding", "note",
        ];
        let table = tables[random.usize(0..tables.len())];
        let statements = match random.u32(0..12) {
            0..2 => vec!["checkpoint".to_owned()],
            2..5 => vec![format!("vacuum {table}")],
            5 => vec![format!("vacuum freeze {table}")],
            6 => vec![format!("analyze {table}")],
            7 => vec![format!("reindex table concurrently {table}")],
            8 => vec![
                "create index concurrently extra on ledger (v, client) include (k)".to_owned(),
                "drop index concurrently extra".to_owned(),
            ],
            _ => {
                let sum = session.query_one(
                    "select ((select sum(v) from account) + (select sum(v) from named))::bigint",
                    &[],
                );
                match sum {
                    Ok(row) => {
                        let sum: i64 = row.get(0);
                        ensure!(sum == TOTAL, "a snapshot shows {sum} instead of {TOTAL}");
                    }
                    Err(error) => {
                        ensure!(server_went_away(session, &error), "sum: {error:?}");
                        break;
                    }
                }
                continue;
            }
        };
        for statement in statements {
            let Err(error) = session.batch_execute(&statement) else {
                continue;
            };
            // Two that wait for each other: a builder for a writer, and the
            // writer for a lock that the builder holds.
            if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) {
                clear_unfinished(session)?;
                break;
            }
            ensure!(server_went_away(session, &error), "{statement}: {error:?}");
            return Ok(());
        }
    }
    Ok(())
}
