//! What holds while several sessions work on the same rows.

use std::time::{Duration, Instant};

use anyhow::Result;
use postgres::Client;
use postgres::error::SqlState;
use rowref_tests::{Cluster, Options, access_method, verify};

const CLIENTS: u64 = 4;

fn number(client: &mut Client, query: &str) -> Result<i64> {
    Ok(client.query_one(query, &[])?.get(0))
}

fn finish(cluster: Cluster) -> Result<()> {
    let mut client = cluster.connect("postgres")?;
    let problems = verify::verify_all(&mut client, &access_method())?;
    assert!(problems.is_empty(), "{problems:#?}");
    drop(client);
    cluster.finish()
}

/// Runs `work` in several sessions at once, each with its own seed.
fn together(cluster: &Cluster, work: impl Fn(&mut Client, u64) -> Result<()> + Sync) {
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CLIENTS)
            .map(|seed| {
                let work = &work;
                scope.spawn(move || work(&mut cluster.connect("postgres")?, seed))
            })
            .collect();
        for worker in workers {
            worker
                .join()
                .expect("no panic")
                .expect("the session's work");
        }
    });
}

#[test]
fn transfers_between_rows_keep_their_sum_at_every_moment() -> Result<()> {
    let cluster = Cluster::start(Options::test().set("deadlock_timeout", "50ms"))?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "create table account (k int primary key, v bigint) using {};
         insert into account select i, 1000 from generate_series(1, 50) i",
        access_method()
    ))?;
    let end = Instant::now() + Duration::from_secs(4);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut reader = cluster.connect("postgres").expect("a connection");
            while Instant::now() < end {
                let sum = number(&mut reader, "select sum(v)::bigint from account");
                assert_eq!(sum.expect("an answer"), 50_000);
            }
        });
        together(&cluster, |session, seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            let isolation = ["read committed", "repeatable read"][seed as usize % 2];
            let mut done = 0;
            while Instant::now() < end {
                let (from, to) = (random.i32(1..=50), random.i32(1..=50));
                let amount = random.i64(1..100);
                let moved = session.batch_execute(&format!(
                    "begin isolation level {isolation};
                     update account set v = v - {amount} where k = {from};
                     update account set v = v + {amount} where k = {to};
                     commit"
                ));
                match moved {
                    Ok(()) => done += 1,
                    Err(error) => {
                        let code = error.code().cloned();
                        session.batch_execute("rollback")?;
                        assert!(
                            matches!(
                                code,
                                Some(SqlState::T_R_DEADLOCK_DETECTED)
                                    | Some(SqlState::T_R_SERIALIZATION_FAILURE)
                            ),
                            "{error:?}"
                        );
                    }
                }
            }
            assert!(done > 10, "only {done} transfers went through");
            Ok(())
        });
    });
    finish(cluster)
}

#[test]
fn one_counter_counts_every_increment_of_every_session() -> Result<()> {
    let cluster = Cluster::start(Options::test())?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "create table counter (k text primary key, n bigint) using {};
         insert into counter values ('it', 0)",
        access_method()
    ))?;
    together(&cluster, |session, _| {
        for _ in 0..500 {
            session.batch_execute("update counter set n = n + 1 where k = 'it'")?;
        }
        Ok(())
    });
    assert_eq!(
        number(&mut client, "select n from counter")?,
        500 * CLIENTS as i64
    );
    finish(cluster)
}

#[test]
fn of_several_inserts_of_one_key_exactly_one_wins() -> Result<()> {
    let cluster = Cluster::start(Options::test())?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "create table t (k int primary key, winner int) using {};
         create table won (k int, winner int) using heap",
        access_method()
    ))?;
    together(&cluster, |session, seed| {
        for k in 0..1000 {
            let inserted = session.batch_execute(&format!(
                "begin; insert into t values ({k}, {seed}); insert into won values ({k}, {seed}); commit"
            ));
            if let Err(error) = inserted {
                assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION), "{error:?}");
                session.batch_execute("rollback")?;
            }
        }
        Ok(())
    });
    assert_eq!(number(&mut client, "select count(*) from t")?, 1000);
    assert_eq!(
        number(
            &mut client,
            "select count(*) from t join won using (k, winner)"
        )?,
        1000
    );
    assert_eq!(number(&mut client, "select count(*) from won")?, 1000);
    finish(cluster)
}

#[test]
fn inserts_into_the_same_leaves_split_them_without_losing_a_row() -> Result<()> {
    let cluster = Cluster::start(Options::test().set("shared_buffers", "4MB"))?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "create table t (k int primary key, pad text) using {}",
        access_method()
    ))?;
    together(&cluster, |session, seed| {
        // Interleaved keys: all sessions meet in every leaf.
        session.batch_execute(&format!(
            "do $$ begin for i in 0..24999 loop
               insert into t values (i * {CLIENTS} + {seed}, repeat('x', i % 40));
             end loop; end $$"
        ))?;
        Ok(())
    });
    assert_eq!(
        number(&mut client, "select count(*) from t")?,
        25_000 * CLIENTS as i64
    );
    assert_eq!(
        number(
            &mut client,
            "select count(*) from (select k, lag(k) over (order by k) p from t) s where k <> p + 1"
        )?,
        0
    );
    finish(cluster)
}

#[test]
fn scans_see_every_row_once_while_others_insert_delete_and_vacuum() -> Result<()> {
    let cluster = Cluster::start(Options::test().set("autovacuum", "off"))?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "create table t (k int primary key, fixed bool) using {};
         insert into t select i * 10, true from generate_series(1, 20000) i",
        access_method()
    ))?;
    let end = Instant::now() + Duration::from_secs(4);
    together(&cluster, |session, seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        while Instant::now() < end {
            match seed {
                0 => {
                    let seen = number(session, "select count(*) from t where fixed")?;
                    assert_eq!(seen, 20_000);
                }
                1 => {
                    session.batch_execute("set enable_seqscan = off")?;
                    let seen = session.query_one(
                        "select count(*), count(distinct k) from t where fixed and k > 0",
                        &[],
                    )?;
                    assert_eq!((seen.get(0), seen.get(1)), (20_000i64, 20_000i64));
                }
                2 => {
                    let from = random.i32(0..200_000);
                    session.batch_execute(&format!(
                        "insert into t select g.k, false
                         from generate_series({from}, {from} + 500) g(k)
                         where g.k % 10 <> 0 and not exists (select from t where t.k = g.k)"
                    ))?;
                    session.batch_execute(&format!(
                        "delete from t where not fixed and k between {from} and {from} + 300"
                    ))?;
                }
                _ => session.batch_execute("vacuum t")?,
            }
        }
        Ok(())
    });
    finish(cluster)
}

#[test]
fn upserts_of_the_same_keys_lose_and_invent_nothing() -> Result<()> {
    let cluster = Cluster::start(Options::test().set("deadlock_timeout", "50ms"))?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "create table counter (k int primary key, n bigint) using {0};
         create table tally (seed int primary key, n bigint) using {0}",
        access_method()
    ))?;
    let end = Instant::now() + Duration::from_secs(4);
    together(&cluster, |session, seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut added, mut taken, mut failed) = (0, 0, 0);
        while Instant::now() < end {
            let key = random.i32(1..=30);
            // Rows come and go, so that each upsert may go either way; some
            // sessions give up what they have done.
            let (ending, count) = match random.u8(0..8) {
                0 => ("rollback", 0),
                _ => ("commit", 1),
            };
            let upsert = format!(
                "begin;
                 insert into counter values ({key}, 1), ({}, 1)
                   on conflict (k) do update set n = counter.n + 1",
                key + 100
            );
            match session.batch_execute(&upsert) {
                Ok(()) => {
                    added += 2 * count;
                    session.batch_execute(ending)?;
                }
                Err(error) => {
                    failed += 1;
                    let code = error.code().expect("an error of the server's");
                    assert_eq!(*code, SqlState::T_R_DEADLOCK_DETECTED, "{error}");
                    session.batch_execute("rollback")?;
                }
            }
            let key = random.i32(1..=130);
            let removed = "delete from counter where k = $1 returning n";
            if let Some(row) = session.query_opt(removed, &[&key])? {
                taken += row.get::<_, i64>(0);
            }
            let there = "insert into counter values ($1, 0) on conflict do nothing";
            session.execute(there, &[&key])?;
        }
        assert!(added > 0 && taken > 0 && failed < added / 2);
        let told = "insert into tally values ($1, $2)";
        session.execute(told, &[&(seed as i32), &(added - taken)])?;
        Ok(())
    });
    let counted = number(&mut client, "select sum(n)::bigint from counter")?;
    let told = number(&mut client, "select sum(n)::bigint from tally")?;
    assert_eq!(counted, told);
    drop(client);
    finish(cluster)
}

#[test]
fn upserts_by_several_unique_keys_leave_each_key_once() -> Result<()> {
    let cluster = Cluster::start(Options::test().set("deadlock_timeout", "50ms"))?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "create table t (k int primary key, a int unique, b int, n bigint) using {0};
         create unique index on t ((b % 1000)) where b > 0;
         create table tally (seed int primary key, n bigint) using {0}",
        access_method()
    ))?;
    let end = Instant::now() + Duration::from_secs(5);
    together(&cluster, |session, seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut added, mut refused) = (0, 0);
        while Instant::now() < end {
            let mut key = || random.i32(1..=20);
            let row = format!("({}, {}, {}, 1)", key(), key() + 100, key() + 200);
            let action = match random.u8(0..4) {
                0 => "do nothing",
                1 => "(k) do update set n = t.n + 1",
                2 => "(a) do update set n = t.n + 1, b = excluded.b",
                _ => "((b % 1000)) where b > 0 do update set n = t.n + 1, a = excluded.a",
            };
            let upsert = format!("insert into t values {row} on conflict {action}");
            match session.execute(&upsert, &[]) {
                Ok(rows) => added += rows as i64,
                // What is no arbiter is an error.
                Err(error) => {
                    refused += 1;
                    let code = error.code().expect("an error of the server's");
                    let is_expected = *code == SqlState::UNIQUE_VIOLATION
                        || *code == SqlState::T_R_DEADLOCK_DETECTED;
                    assert!(is_expected, "{error}");
                }
            }
            let removed = "delete from t where k = $1 or a = $2 returning n";
            let doomed = (random.i32(1..=20), random.i32(101..=120));
            if random.u8(0..3) == 0 {
                for row in session.query(removed, &[&doomed.0, &doomed.1])? {
                    added -= row.get::<_, i64>(0);
                }
            }
        }
        assert!(refused > 0, "the keys do get in each other's way");
        let told = "insert into tally values ($1, $2)";
        session.execute(told, &[&(seed as i32), &added])?;
        Ok(())
    });
    let counted = number(&mut client, "select coalesce(sum(n), 0)::bigint from t")?;
    let told = number(&mut client, "select sum(n)::bigint from tally")?;
    assert_eq!(counted, told);
    for by in ["k", "a", "b % 1000"] {
        let twice = format!("select count(*) - count(distinct {by}) from t");
        assert_eq!(number(&mut client, &twice)?, 0, "{by}");
    }
    drop(client);
    finish(cluster)
}

#[test]
fn excluded_values_are_there_once_and_on_conflict_never_deadlocks_over_them() -> Result<()> {
    let cluster = Cluster::start(Options::test().set("deadlock_timeout", "50ms"))?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "create table t (k bigint generated always as identity primary key, a int,
           exclude (a with =)) using {0};
         create table tally (seed int primary key, n bigint) using {0}",
        access_method()
    ))?;
    let end = Instant::now() + Duration::from_secs(4);
    together(&cluster, |session, seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut added = 0;
        while Instant::now() < end {
            let value = random.i32(1..=5);
            let arbiter = ["", "on constraint t_a_excl"][random.usize(0..2)];
            // Each is a transaction, which holds nothing that another waits for
            // but the row in question.
            let insert =
                format!("insert into t (a) values ({value}) on conflict {arbiter} do nothing");
            added += session.execute(&insert, &[])? as i64;
            let removed = "delete from t where a = $1";
            added -= session.execute(removed, &[&random.i32(1..=5)])? as i64;
        }
        let told = "insert into tally values ($1, $2)";
        session.execute(told, &[&(seed as i32), &added])?;
        Ok(())
    });
    let counted = number(&mut client, "select count(*) from t")?;
    let told = number(&mut client, "select sum(n)::bigint from tally")?;
    assert_eq!(counted, told);
    let twice = number(&mut client, "select count(*) - count(distinct a) from t")?;
    assert_eq!(twice, 0);
    drop(client);
    finish(cluster)
}
