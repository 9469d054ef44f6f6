//! CREATE INDEX and REINDEX CONCURRENTLY while others write: the index that
//! comes of it says what the table says.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use postgres::Client;
use postgres::error::SqlState;
use rowref_tests::installation::EXTENSION;
use rowref_tests::{Cluster, Options, access_method, needs_extension, verify};

/// Rows that the writers work on.
const ROWS: i32 = 300;
const WRITERS: u64 = 3;

/// One transaction of a writer's: a few changes of every kind, of rows that it
/// shares with the others, some of them rolled back, in whole or in part.
fn change(client: &mut Client, random: &mut fastrand::Rng) -> Result<(), postgres::Error> {
    let isolation = ["read committed", "repeatable read"][random.usize(..2)];
    client.batch_execute(&format!("begin isolation level {isolation}"))?;
    for _ in 0..random.i32(1..5) {
        let (k, v) = (random.i32(1..=ROWS), random.i32(1..=20));
        if random.i32(..8) == 0 {
            // Others begin and end meanwhile.
            client.batch_execute("select pg_sleep(0.02)")?;
        }
        let statement = match random.i32(..10) {
            0 | 1 => format!("delete from t where k = {k}"),
            2 | 3 => format!(
                "insert into t values ({k}, {v}, 'u{k}', 'new') on conflict (k) do update set a = excluded.a"
            ),
            4 => format!("update t set k = {} where k = {k}", k + 1000 * v),
            5 => format!("update t set c = 'c{v}' where k = {k}"),
            6 => format!("update t set a = a, c = c || '.' where k = {k}"),
            7 => format!("update t set b = b || '{v}' where k = {k}"),
            _ => format!("update t set a = {v} where k = {k}"),
        };
        if random.i32(..6) == 0 {
            client.batch_execute(&format!(
                "savepoint s; {statement}; rollback to s; update t set a = {v} where k = {k}"
            ))?;
        } else {
            client.batch_execute(&statement)?;
        }
    }
    let end = if random.i32(..5) == 0 {
        "rollback"
    } else {
        "commit"
    };
    client.batch_execute(end)
}

fn write(cluster: &Cluster, seed: u64, stop: &AtomicBool) -> Result<u64> {
    let mut client = cluster.connect("postgres")?;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        match change(&mut client, &mut random) {
            Ok(()) => done += 1,
            Err(error) => {
                let code = error.code().cloned();
                assert!(
                    matches!(
                        code,
                        Some(
                            SqlState::UNIQUE_VIOLATION
                                | SqlState::T_R_SERIALIZATION_FAILURE
                                | SqlState::T_R_DEADLOCK_DETECTED
                        )
                    ),
                    "{error:?}"
                );
                client.batch_execute("rollback")?;
            }
        }
    }
    Ok(done)
}

/// Ends the writers when it goes.
struct Stopping<'s>(&'s AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The table by each of its indexes, and by itself.
fn assert_indexes_agree(client: &mut Client) -> Result<()> {
    let problems = verify::verify(client, "t")?;
    assert!(problems.is_empty(), "{problems:#?}");
    let digest = |client: &mut Client, query: &str| -> Result<String> {
        let query = format!(
            "select coalesce(md5(string_agg(x::text, ',' order by x::text)), '') from ({query}) x"
        );
        Ok(client.query_one(&query, &[])?.get(0))
    };
    let rows = "select k, a, b, c from t";
    client.batch_execute("set enable_seqscan = on; set enable_indexscan = off; set enable_indexonlyscan = off; set enable_bitmapscan = off")?;
    let table = digest(client, rows)?;
    let partial = digest(client, &format!("{rows} where a > 10"))?;
    client.batch_execute(
        "set enable_seqscan = off; set enable_indexscan = on; set enable_indexonlyscan = on",
    )?;
    for order in ["a, c", "b", "a desc, b"] {
        assert_eq!(
            digest(client, &format!("{rows} order by {order} offset 0"))?,
            table,
            "{order}"
        );
    }
    assert_eq!(
        digest(
            client,
            &format!("{rows} where a > 10 order by lower(c) offset 0")
        )?,
        partial
    );
    Ok(())
}

#[test]
fn an_index_made_while_others_write_says_what_the_table_says() -> Result<()> {
    let mut options = Options::test().set("deadlock_timeout", "20ms");
    if needs_extension(&access_method()) {
        options = options.set("wal_consistency_checking", EXTENSION);
    }
    let mut cluster = Cluster::start(options)?;
    cluster.announce("deadlock detected");
    let standby = cluster.standby(&[])?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "create table t (k int primary key, a int, b text, c text) using {} with (parallel_workers = 2);
         insert into t select i, i % 20, 'u' || i, 'c' from generate_series(1, {ROWS}) i",
        access_method()
    ))?;
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| -> Result<u64> {
        let writers: Vec<_> = (0..WRITERS)
            .map(|seed| {
                let (cluster, stop) = (&cluster, &stop);
                scope.spawn(move || write(cluster, seed, stop))
            })
            .collect();
        // Also when an assertion fails: the writers are waited for.
        let _stopping = Stopping(&stop);
        let built = (|| -> Result<()> {
            for round in 0..12 {
                for definition in [
                    "index concurrently t_a on t (a) include (c)",
                    "unique index concurrently t_b on t (b)",
                    "index concurrently t_d on t (a desc, b)",
                    "index concurrently t_l on t (lower(c)) where a > 10",
                ] {
                    let made = client.batch_execute(&format!("create {definition}"));
                    // Two rows may have the same b for a moment, so long as
                    // nobody forbids it.
                    if let Err(error) = made {
                        assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION), "{error:?}");
                        client.batch_execute("drop index t_b")?;
                        client.batch_execute("update t set b = b || '/' || k")?;
                        client.batch_execute("create unique index t_b on t (b)")?;
                    }
                }
                client.batch_execute("begin; lock table t in share mode")?;
                assert_indexes_agree(&mut client)?;
                client.batch_execute("commit")?;
                client.batch_execute("reindex table concurrently t")?;
                client.batch_execute("begin; lock table t in share mode")?;
                assert_indexes_agree(&mut client)?;
                client.batch_execute("commit")?;
                if round < 11 {
                    client.batch_execute("drop index concurrently t_a")?;
                    client.batch_execute("drop index concurrently t_d")?;
                    client.batch_execute("drop index t_b, t_l")?;
                }
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        let mut written = 0;
        for writer in writers {
            written += writer.join().expect("no panic")?;
        }
        built.map(|()| written)
    })?;
    assert!(written > 100, "the writers were at work: {written}");
    assert_indexes_agree(&mut client)?;
    drop(client);
    // Whoever reads a copy finds the same, by each of the indexes.
    cluster.wait_for_replay(&standby)?;
    assert_indexes_agree(&mut standby.connect("postgres")?)?;
    standby.finish()?;
    cluster.finish()
}
