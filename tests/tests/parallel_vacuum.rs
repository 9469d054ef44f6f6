//! VACUUM with workers that is cut short, or has others beside it: whatever
//! happens to whom, everything is sound, nobody is left behind, and the next
//! VACUUM gets to its end.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postgres::Client;
use postgres::error::SqlState;
use rowref_tests::{Cluster, Options, StopMode, access_method, needs_extension, verify};

const PAGE: u64 = 8192;
const PATIENCE: Duration = Duration::from_secs(60);

fn options() -> Options {
    Options::test()
        .set("autovacuum", "off")
        .set("min_parallel_index_scan_size", "0")
}

/// A table with three indexes, of which `t_v` is the largest: the first that a
/// worker takes.
fn fill(client: &mut Client) -> Result<()> {
    client.batch_execute(&format!(
        "create table t (k int primary key, a int, v text, pad text) using {};
         create index t_a on t (a); create index t_ak on t (a, k); create index t_v on t (v);
         insert into t select i, i % 1000, repeat(md5(i::text), 3), repeat('x', 20)
           from generate_series(1, 30000) i",
        access_method()
    ))?;
    client.batch_execute("delete from t where k % 3 = 0")?;
    Ok(())
}

fn workers(client: &mut Client) -> Result<Vec<i32>> {
    let rows = client.query(
        "select pid from pg_stat_activity
         where backend_type = 'parallel worker' and query like 'vacuum%'",
        &[],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Nobody is left, nothing is locked, everything is sound; and what was not done
/// is done by the next VACUUM, workers and all.
fn assert_well(client: &mut Client) -> Result<()> {
    let start = Instant::now();
    while !workers(client)?.is_empty() {
        ensure!(start.elapsed() < PATIENCE, "workers are left behind");
        std::thread::sleep(Duration::from_millis(5));
    }
    client.batch_execute("begin; lock table t in access exclusive mode nowait; commit")?;
    let problems = verify::verify_all(client, &access_method())?;
    ensure!(problems.is_empty(), "{problems:#?}");
    client.batch_execute("vacuum (parallel 2, freeze) t")?;
    let problems = verify::verify_all(client, &access_method())?;
    ensure!(problems.is_empty(), "{problems:#?}");
    let row = client.query_one(
        "select count(*), (select age(relfrozenxid) from pg_class where relname = 't') from t",
        &[],
    )?;
    let (rows, age): (i64, i32) = (row.get(0), row.get(1));
    ensure!(rows == 20_000, "{rows} rows");
    ensure!(age <= 2, "relfrozenxid is {age} transactions old");
    Ok(())
}

/// Starts a slow VACUUM in a session of its own, and does something once its
/// workers are there; the VACUUM's end.
fn while_it_runs(
    cluster: &Cluster,
    observer: &mut Client,
    act: impl FnOnce(&mut Client, i32, &[i32]) -> Result<()>,
) -> Result<std::result::Result<(), postgres::Error>> {
    let mut client = cluster.connect("postgres")?;
    let leader: i32 = client.query_one("select pg_backend_pid()", &[])?.get(0);
    client.batch_execute("set vacuum_cost_delay = 20; set vacuum_cost_limit = 20")?;
    std::thread::scope(|scope| {
        let vacuum = scope.spawn(|| client.batch_execute("vacuum (parallel 2) t"));
        let start = Instant::now();
        let found = loop {
            let found = workers(observer)?;
            if found.len() == 2 {
                break found;
            }
            ensure!(!vacuum.is_finished(), "it ended before it was looked at");
            ensure!(start.elapsed() < PATIENCE, "no workers: {found:?}");
            std::thread::sleep(Duration::from_millis(2));
        };
        act(observer, leader, &found)?;
        Ok(vacuum.join().expect("no panic"))
    })
}

#[test]
fn an_interrupted_leader_or_worker_ends_all_of_it() -> Result<()> {
    let cluster = Cluster::start(options())?;
    let mut observer = cluster.connect("postgres")?;
    fill(&mut observer)?;
    for (statement, whom, code) in [
        ("select pg_cancel_backend($1)", 0, SqlState::QUERY_CANCELED),
        ("select pg_cancel_backend($1)", 1, SqlState::QUERY_CANCELED),
        (
            "select pg_terminate_backend($1)",
            2,
            SqlState::ADMIN_SHUTDOWN,
        ),
        (
            "select pg_terminate_backend($1)",
            0,
            SqlState::ADMIN_SHUTDOWN,
        ),
    ] {
        let ended = while_it_runs(&cluster, &mut observer, |observer, leader, workers| {
            let pid = [leader, workers[0], workers[1]][whom];
            observer.query_one(statement, &[&pid])?;
            Ok(())
        })?;
        let error = ended.expect_err("it was interrupted");
        ensure!(
            error.code().is_none_or(|found| *found == code),
            "{statement} of {whom}: {error:?}"
        );
    }
    assert_well(&mut observer)?;
    drop(observer);
    cluster.finish()
}

#[test]
fn a_killed_worker_or_server_leaves_everything_sound() -> Result<()> {
    let mut cluster = Cluster::start(options().set("full_page_writes", "off"))?;
    let mut observer = cluster.connect("postgres")?;
    fill(&mut observer)?;
    let mut victim = 0;
    // It is still at work when this returns, but for the server's end.
    let mut client = cluster.connect("postgres")?;
    client.batch_execute("set vacuum_cost_delay = 20; set vacuum_cost_limit = 20")?;
    let ended = std::thread::scope(|scope| {
        let vacuum = scope.spawn(|| client.batch_execute("vacuum (parallel 2) t"));
        let start = Instant::now();
        while victim == 0 {
            victim = workers(&mut observer)?.first().copied().unwrap_or(0);
            ensure!(start.elapsed() < PATIENCE, "no workers");
        }
        cluster.kill9_backend(victim)?;
        Ok(vacuum.join().expect("no panic"))
    })?;
    ensure!(ended.is_err(), "it got to its end without a worker");
    let mut observer = cluster.connect("postgres")?;
    let problems = verify::verify_all(&mut observer, &access_method())?;
    ensure!(problems.is_empty(), "{problems:#?}");
    let mut client = cluster.connect("postgres")?;
    client.batch_execute("set vacuum_cost_delay = 20; set vacuum_cost_limit = 20")?;
    std::thread::scope(|scope| -> Result<()> {
        let vacuum = scope.spawn(|| client.batch_execute("vacuum (parallel 2) t"));
        let start = Instant::now();
        while workers(&mut observer)?.len() < 2 {
            ensure!(start.elapsed() < PATIENCE, "no workers");
        }
        cluster.kill9_server()?;
        ensure!(
            vacuum.join().expect("no panic").is_err(),
            "the server is gone"
        );
        Ok(())
    })?;
    cluster.start_server()?;
    assert_well(&mut cluster.connect("postgres")?)?;
    cluster.finish()
}

#[test]
fn what_a_worker_raises_the_command_raises() -> Result<()> {
    if !needs_extension(&access_method()) {
        return Ok(());
    }
    let mut cluster = Cluster::start(options())?;
    let mut client = cluster.connect("postgres")?;
    fill(&mut client)?;
    let file = cluster.relation_file("postgres", "t_v")?;
    drop(client);
    cluster.stop(StopMode::Fast)?;
    let file = std::fs::File::options().write(true).open(file)?;
    file.write_all_at(&[0xff; 600], 5 * PAGE + 24)?;
    cluster.start_server()?;
    let mut client = cluster.connect("postgres")?;
    let before: i64 = client
        .query_one(
            "select relfrozenxid::text::bigint from pg_class where relname = 't'",
            &[],
        )?
        .get(0);
    // The leader is slow enough at the table for workers to come.
    client.batch_execute("set vacuum_cost_delay = 20; set vacuum_cost_limit = 20")?;
    for _ in 0..2 {
        let error = client
            .batch_execute("vacuum (parallel 2, freeze) t")
            .expect_err("an index is damaged");
        let error = error.as_db_error().context("no answer")?;
        ensure!(
            error.code() == &SqlState::DATA_CORRUPTED || error.code() == &SqlState::INDEX_CORRUPTED,
            "{error:?}"
        );
        ensure!(
            error
                .where_()
                .is_some_and(|place| place.contains("parallel worker")),
            "not a worker's: {error:?}"
        );
        let after: i64 = client
            .query_one(
                "select relfrozenxid::text::bigint from pg_class where relname = 't'",
                &[],
            )?
            .get(0);
        ensure!(after == before, "nothing is known of the index");
    }
    client.batch_execute("reset vacuum_cost_delay")?;
    client.batch_execute("reindex index t_v")?;
    assert_well(&mut client)?;
    drop(client);
    cluster.finish()
}

#[test]
fn writers_beside_it_lose_nothing() -> Result<()> {
    let cluster = Cluster::start(options().set("shared_buffers", "16MB"))?;
    let mut client = cluster.connect("postgres")?;
    fill(&mut client)?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let writers: Vec<_> = (0..2)
            .map(|which| {
                let (cluster, over) = (&cluster, &over);
                scope.spawn(move || -> Result<()> {
                    let mut client = cluster.connect("postgres")?;
                    let mut round = 0;
                    while !over.load(Ordering::Relaxed) {
                        // Rows of its own: those of one parity, that are there.
                        let mine = format!("k % 3 <> 0 and k % 2 = {which} and k / 2 % 7 = {}", round % 7);
                        client.batch_execute(&format!("update t set a = a + 1, v = md5(v) where {mine}"))?;
                        client.batch_execute(&format!(
                            "begin; create temp table aside on commit drop as select * from t where {mine};
                             delete from t where {mine}; savepoint s; insert into t select * from aside;
                             rollback to s; insert into t select * from aside; commit"
                        ))?;
                        round += 1;
                    }
                    Ok(())
                })
            })
            .collect();
        let result =
            (0..15).try_for_each(|_| client.batch_execute("vacuum (parallel 2, truncate off) t"));
        over.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().expect("no panic")?;
        }
        Ok(result?)
    })?;
    assert_well(&mut client)?;
    drop(client);
    cluster.finish()
}
