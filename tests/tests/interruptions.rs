//! Statements that are cancelled, time out or lose their session at any
//! moment: all or nothing of them is there, and nothing stays held.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use postgres::Client;
use postgres::error::SqlState;
use rowref_tests::{Cluster, Options, access_method, verify};

const SESSIONS: u64 = 3;

/// What a session's own table holds: so many rows, all with this value, and
/// the greatest key.
#[derive(Clone, Copy, PartialEq, Debug)]
struct State {
    rows: i64,
    value: i64,
    top: i64,
}

impl State {
    fn read(client: &mut Client, table: &str) -> Result<State> {
        let row = client.query_one(
            &format!(
                "select count(*), coalesce(min(v), 0), coalesce(max(v), 0), coalesce(max(k), 0) from {table}"
            ),
            &[],
        )?;
        let (least, value): (i64, i64) = (row.get(1), row.get(2));
        let state = State {
            rows: row.get(0),
            value,
            top: row.get(3),
        };
        ensure!(
            least == value,
            "{table}: some rows were updated and some not: {least} to {value}"
        );
        // The same by its key.
        client.batch_execute("set enable_seqscan = off")?;
        let by_key: i64 = client
            .query_one(&format!("select count(*) from {table} where k > -1"), &[])?
            .get(0);
        client.batch_execute("reset enable_seqscan")?;
        ensure!(
            by_key == state.rows,
            "{table}: {} rows, by key {by_key}",
            state.rows
        );
        Ok(state)
    }
}

/// The client is told that a COPY is done before the server has committed it,
/// unless the commit is a statement of its own.
fn copy_in(client: &mut Client, table: &str, state: State, rows: i64) -> Result<()> {
    client.batch_execute("begin")?;
    let mut writer = client.copy_in(&format!("copy {table} (k, v, pad) from stdin"))?;
    for row in 1..=rows {
        let line = format!(
            "{}	{}	copied
",
            state.top + row,
            state.value
        );
        writer.write_all(line.as_bytes())?;
    }
    writer.finish()?;
    // The COPY may have been cancelled after it said that it was done, and COMMIT
    // ends a transaction that failed without a complaint.
    client.batch_execute("select 1")?;
    client.batch_execute("commit")?;
    Ok(())
}

/// Does one thing to `table`; says what it holds if that succeeds.
fn work(client: &mut Client, table: &str, state: State, random: &mut Rng) -> (State, Result<()>) {
    let mut run = |sql: &str| Ok(client.batch_execute(&sql.replace('T', table))?);
    match random.u32(0..8) {
        0 | 1 if state.rows < 20_000 => {
            let after = State {
                rows: state.rows + 3000,
                top: state.top + 3000,
                ..state
            };
            (after, copy_in(client, table, state, 3000))
        }
        0..=3 => {
            let after = State {
                value: state.value + i64::from(state.rows > 0),
                ..state
            };
            (after, run("update T set v = v + 1"))
        }
        4 => {
            let keep = state.top - random.i64(0..1500).min(state.rows);
            let after = State {
                rows: state.rows,
                ..state
            };
            // Deleted and put back in one transaction: either way all are there.
            let sql = format!(
                "begin; create temp table aside on commit drop as select * from T where k > {keep};
                 delete from T where k > {keep}; insert into T select * from aside; commit"
            );
            (after, run(&sql))
        }
        5 => {
            let after = State {
                top: state.top + 100_000 * i64::from(state.rows > 0),
                ..state
            };
            (after, run("update T set k = k + 100000"))
        }
        6 => (
            state,
            run("drop table if exists T_copy; create table T_copy as select * from T; analyze T"),
        ),
        _ => (state, run("vacuum T")),
    }
}

/// Whether the statement's end is one of those we bring about. A connection
/// cut in the middle of a COPY has no SQLSTATE; that the server did not crash
/// is for its log to say.
fn was_interrupted(error: &anyhow::Error) -> bool {
    let inner = match error.downcast_ref::<std::io::Error>() {
        // What a COPY's writer reports.
        Some(error) => error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<postgres::Error>()),
        None => error.downcast_ref::<postgres::Error>(),
    };
    inner.and_then(postgres::Error::code).is_none_or(|code| {
        matches!(
            code,
            &SqlState::QUERY_CANCELED
                | &SqlState::ADMIN_SHUTDOWN
                | &SqlState::IN_FAILED_SQL_TRANSACTION
        )
    })
}

fn session(cluster: &Cluster, number: u64, end: Instant) -> Result<(u32, u32)> {
    let table = format!("t{number}");
    let mut random = Rng::with_seed(number);
    let connect = || -> Result<Client> {
        let mut client = cluster.connect("postgres")?;
        client.batch_execute("set application_name = 'victim'")?;
        Ok(client)
    };
    // The one that looks is left alone.
    let mut observer = cluster.connect("postgres")?;
    let mut client = connect()?;
    let (mut done, mut interrupted) = (0, 0);
    while Instant::now() < end {
        let before = State::read(&mut observer, &table)?;
        if random.u32(0..3) == 0 {
            let limit = random.u32(1..60);
            // An interruption may meet this one, too.
            let _ = client.batch_execute(&format!("set statement_timeout = {limit}"));
        }
        let (after, result) = work(&mut client, &table, before, &mut random);
        match result {
            Ok(()) => {
                done += 1;
                let found = State::read(&mut observer, &table)?;
                ensure!(found == after, "{table}: {found:?}, not {after:?}");
            }
            Err(error) => {
                ensure!(was_interrupted(&error), "{table}: {error:?}");
                interrupted += 1;
            }
        }
        if client.is_closed() {
            client = connect()?;
        } else {
            // A cancellation on its way may still arrive.
            for _ in 0..20 {
                if client
                    .batch_execute("rollback; reset statement_timeout")
                    .is_ok()
                {
                    break;
                }
            }
            if client.is_closed() {
                client = connect()?;
            }
        }
        // The session is over or idle; wait until a lost one has let go.
        observer.batch_execute(&format!(
            "begin; lock table {table} in share row exclusive mode; commit"
        ))?;
        let found = State::read(&mut observer, &table)?;
        ensure!(
            found == before || found == after,
            "{table}: {found:?}, neither {before:?} nor {after:?}"
        );
    }
    Ok((done, interrupted))
}

#[test]
fn interrupted_statements_leave_all_or_nothing_and_hold_nothing() -> Result<()> {
    let mut cluster = Cluster::start(
        Options::test()
            .set("shared_buffers", "4MB")
            .set("autovacuum_naptime", "1s"),
    )?;
    // Sessions that we end may still have a temporary table to report on.
    cluster.announce("there is no transaction in progress");
    cluster.announce("canceling autovacuum task");
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "alter database postgres set default_table_access_method = {}",
        access_method()
    ))?;
    for number in 0..SESSIONS {
        client.batch_execute(&format!(
            "create table t{number} (k bigint primary key, v bigint not null, pad text) using {am};
             insert into t{number} select i, 0, repeat('x', 50) from generate_series(1, 3000) i",
            am = access_method()
        ))?;
    }
    let end = Instant::now() + Duration::from_secs(10);
    let over = AtomicBool::new(false);
    let (done, interrupted) = std::thread::scope(|scope| -> Result<(u32, u32)> {
        let hunter = scope.spawn(|| -> Result<()> {
            let mut hunter = cluster.connect("postgres")?;
            let mut random = Rng::with_seed(77);
            while !over.load(Ordering::Relaxed) {
                // No synchronization: the moment is meant to be any.
                std::thread::sleep(Duration::from_millis(random.u64(1..60)));
                let how = if random.u32(0..6) == 0 { "terminate" } else { "cancel" };
                hunter.query(
                    &format!(
                        "select pg_{how}_backend(pid) from pg_stat_activity
                         where application_name = 'victim' and state <> 'idle' order by random() limit 1"
                    ),
                    &[],
                )?;
            }
            Ok(())
        });
        let cluster = &cluster;
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|number| scope.spawn(move || session(cluster, number, end)))
            .collect();
        let mut sum = (0, 0);
        let mut failure = None;
        for session in sessions {
            match session.join().expect("no panic") {
                Ok((done, interrupted)) => sum = (sum.0 + done, sum.1 + interrupted),
                Err(error) => failure = Some(error),
            }
        }
        over.store(true, Ordering::Relaxed);
        hunter.join().expect("no panic").context("the hunter")?;
        failure.map_or(Ok(sum), Err)
    })?;
    ensure!(
        done > 5 && interrupted > 5,
        "too little happened: {done} done, {interrupted} interrupted"
    );
    // Nobody is left, and whoever comes finds every table free.
    let held: i64 = client
        .query_one(
            "select count(*) from pg_locks where relation is not null and pid <> pg_backend_pid()
             and relation in (select oid from pg_class where relname ~ '^t[0-9]')
             and pid in (select pid from pg_stat_activity where backend_type = 'client backend')",
            &[],
        )?
        .get(0);
    ensure!(held == 0, "{held} locks are still held");
    let problems = verify::verify_all(&mut client, &access_method())?;
    ensure!(problems.is_empty(), "{problems:#?}");
    for number in 0..SESSIONS {
        // Autovacuum may be at it, and gives way.
        client.batch_execute(&format!(
            "set lock_timeout = '30s'; begin; lock table t{number}; commit"
        ))?;
        client.batch_execute(&format!("vacuum (freeze) t{number}"))?;
    }
    drop(client);
    cluster.finish()
}

#[test]
fn without_preloading_everything_says_what_to_do() -> Result<()> {
    if !rowref_tests::needs_extension(&access_method()) {
        return Ok(());
    }
    let mut cluster = Cluster::start(Options::test())?;
    let mut client = cluster.connect("postgres")?;
    client
        .batch_execute("create table t (k int primary key) using iot; insert into t values (1)")?;
    drop(client);
    cluster.set("shared_preload_libraries", "")?;
    // An unclean end would need the library for recovery.
    cluster.restart(rowref_tests::StopMode::Fast)?;
    let mut client = cluster.connect("postgres")?;
    for statement in [
        "select * from t",
        "insert into t values (2)",
        "create table u (k int primary key) using iot",
        "drop extension pg_rowref cascade; create extension pg_rowref",
    ] {
        let error = client
            .batch_execute(statement)
            .expect_err("it works without being preloaded");
        let answer = error.as_db_error().context("no answer")?;
        ensure!(
            answer.code() == &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "{statement}: {answer:?}"
        );
        ensure!(
            answer
                .hint()
                .is_some_and(|hint| hint.contains("shared_preload_libraries")),
            "{statement}: {answer:?}"
        );
        client.batch_execute("rollback")?;
    }
    drop(client);
    cluster.announce("there is no transaction in progress");
    cluster.finish()
}

/// Processes that help a session, and files that they share.
fn helpers_and_files(client: &mut Client) -> Result<(i64, i64)> {
    let row = client.query_one(
        "select (select count(*) from pg_stat_activity
                  where backend_type = 'parallel worker' and query like 'create index%'),
                (select count(*) from pg_ls_dir('base') as d(name)
                  cross join lateral pg_ls_dir('base/' || name, true, false) where name = 'pgsql_tmp')",
        &[],
    )?;
    Ok((row.get(0), row.get(1)))
}

#[test]
fn a_build_with_workers_that_is_cancelled_leaves_neither_processes_nor_files() -> Result<()> {
    if access_method() == "heap" {
        return Ok(());
    }
    let mut cluster = Cluster::start(Options::test())?;
    // A worker may be gone by the time it is its turn to be ended.
    cluster.announce("is not a PostgreSQL backend process");
    cluster.create_extension("postgres")?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "create table t (k int primary key, a text) using {} with (parallel_workers = 2);
         insert into t select i, repeat(md5(i::text), 4) from generate_series(1, 20000) i;
         create function slow(k int) returns int immutable parallel safe language plpgsql as
           $$ begin if k = 19000 then perform pg_sleep(600); end if; return k; end $$",
        access_method()
    ))?;
    let mut watcher = cluster.connect("postgres")?;
    for whom in ["leader", "worker"] {
        let cancelled = std::thread::scope(|scope| -> Result<_> {
            let running = scope.spawn(|| {
                client.batch_execute(
                    "set parallel_leader_participation = off; set maintenance_work_mem = '1MB'",
                )?;
                client.batch_execute("create index x on t (a, slow(k))")
            });
            // Workers are at it, one has got to the slow row, and files are there.
            let begun = Instant::now();
            loop {
                let (helpers, files) = helpers_and_files(&mut watcher)?;
                let asleep: i64 = watcher
                    .query_one(
                        "select count(*) from pg_stat_activity where wait_event = 'PgSleep'",
                        &[],
                    )?
                    .get(0);
                if helpers > 0 && files > 0 && asleep > 0 {
                    break;
                }
                ensure!(
                    begun.elapsed() < Duration::from_secs(120),
                    "no worker: {helpers}, {files}, {asleep}"
                );
                std::thread::sleep(Duration::from_millis(20));
            }
            let kind = if whom == "leader" {
                "client backend"
            } else {
                "parallel worker"
            };
            watcher.execute(
                "select pg_cancel_backend(pid) from pg_stat_activity
                  where query like 'create index%' and backend_type = $1",
                &[&kind],
            )?;
            Ok(running.join().expect("the client's thread"))
        })?;
        let error = cancelled.expect_err("a cancelled build");
        assert_eq!(
            error.code(),
            Some(&SqlState::QUERY_CANCELED),
            "{whom}: {error:?}"
        );
        // The client is told of the error before the leader cleans up.
        let told = Instant::now();
        while told.elapsed() < Duration::from_secs(60) && helpers_and_files(&mut watcher)? != (0, 0)
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(helpers_and_files(&mut watcher)?, (0, 0), "{whom}");
    }
    client.batch_execute("create or replace function slow(k int) returns int immutable parallel safe language sql as 'select k'; create index x on t (a, slow(k))")?;
    assert_eq!(verify::verify(&mut client, "t")?, Vec::<String>::new());
    drop((client, watcher));
    cluster.finish()
}
