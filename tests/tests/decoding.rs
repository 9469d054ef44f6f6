//! Logical decoding tells of a table's changes what it would tell of heap's.

use anyhow::Result;
use postgres::Client;
use rowref_tests::{Cluster, Options, access_method, verify};
use std::time::{Duration, Instant};

fn start() -> Result<Cluster> {
    Cluster::start(Options::test().set("wal_level", "logical"))
}

/// What a slot tells, without transactions' ids. Within a transaction the
/// changes are sorted: where no key says in which order rows are come to, heap
/// and we differ.
fn decoded(client: &mut Client) -> Result<Vec<String>> {
    let rows = client.query(
        "select data from pg_logical_slot_get_changes('s', null, null, 'include-xids', 'off')",
        &[],
    )?;
    let mut lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let is_change = |line: &String| line.starts_with("table ");
    for transaction in lines.chunk_by_mut(|one, next| is_change(one) == is_change(next)) {
        transaction.sort();
    }
    Ok(lines)
}

/// Statements on a table that is called `t` in all of them, from a seed.
fn history(seed: u64) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut statements = Vec::new();
    for _ in 0..120 {
        let key = random.i32(1..60);
        let other = random.i32(60..120);
        statements.push(match random.u32(0..14) {
            0..=2 => format!("insert into t select i, i, 'row ' || i from generate_series({other}, {other} + 4) i where not exists (select from t where k = i)"),
            3 | 4 => format!("update t set v = v + 1 where k between {key} and {key} + 5"),
            5 => format!("update t set k = k + 1000 where k = {key}"),
            6 => format!("delete from t where k = {key}"),
            7 => format!("update t set note = null where k = {key}"),
            8 => format!("begin; update t set v = 7 where k < {key}; savepoint s; delete from t where k > {key}; rollback to s; delete from t where k = {other}; commit"),
            9 => format!("begin; delete from t; insert into t values ({key}, 0, 'gone'); rollback"),
            10 => format!("update t set note = repeat('long ', 300) where k = {other}"),
            12 => format!("insert into t select i, 0, 'new' from generate_series({key}, {key} + 90, 10) i on conflict do nothing"),
            // Out of line, and then left alone by other updates.
            11 => format!("update t set note = (select string_agg(md5((t.k * i)::text), '') from generate_series(1, 300) i) where k between {key} and {key} + 2"),
            _ => format!("with moved as (delete from t where k = {key} returning *) insert into t select k + 2000, v, note from moved where not exists (select from t where t.k = moved.k + 2000)"),
        });
    }
    statements.push("copy t from program 'seq -f \"%.0f\t1\tcopied\" 5001 5040'".into());
    // Long values of several rows that are stored together.
    statements.push(
        r#"copy t from program $$for i in 6001 6002 6003; do printf '%s\t1\t%s\n' $i "$(seq -s , $i $((i + 2500)))"; done$$"#
            .into(),
    );
    statements.push("truncate t".into());
    statements
}

#[test]
fn decoded_changes_are_those_of_heap_under_every_replica_identity() -> Result<()> {
    let cluster = start()?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute("select pg_create_logical_replication_slot('s', 'test_decoding')")?;
    for (identity, key) in [
        ("default", "primary key"),
        ("full", "primary key"),
        ("nothing", "primary key"),
        ("default", ""),
        ("full", ""),
    ] {
        let mut told = Vec::new();
        for am in ["heap", &access_method()] {
            client.batch_execute(&format!(
                "create table t (k int {key}, v int, note text) using {am};
                 alter table t replica identity {identity};
                 insert into t select i, i, 'row ' || i from generate_series(1, 80) i"
            ))?;
            for statement in history(7) {
                client.batch_execute(&statement)?;
            }
            if !key.is_empty() {
                client.batch_execute(
                    "insert into t select i, 1, 'x' from generate_series(1, 9) i;
                     insert into t select i, 2, 'y' from generate_series(5, 19) i
                       on conflict (k) do update set v = t.v + excluded.v, note = 'upserted'",
                )?;
            }
            client.batch_execute("drop table t")?;
            let changes = decoded(&mut client)?;
            assert!(changes.len() > 400, "{} changes", changes.len());
            told.push(changes);
        }
        let [heap, ours] = &told[..] else {
            unreachable!("two tables")
        };
        for (heap, ours) in heap.iter().zip(ours) {
            assert_eq!(ours, heap, "identity {identity} {key}");
        }
        assert_eq!(ours.len(), heap.len());
    }
    cluster.finish()
}

#[test]
fn a_subscriber_has_every_row_of_its_publisher() -> Result<()> {
    let publisher = start()?;
    let subscriber = start()?;
    let mut here = publisher.connect("postgres")?;
    let mut there = subscriber.connect("postgres")?;
    let am = access_method();
    let schema = |am: &str| {
        format!(
            "create table account (k int primary key, v bigint, note text) using {am};
             create table log (n int, what text) using {am};
             alter table log replica identity full;
             create table part (k int primary key, v int) partition by range (k);
             create table part1 partition of part for values from (0) to (1000) using {am};
             create table part2 partition of part for values from (1000) to (9000) using heap"
        )
    };
    here.batch_execute(&schema(&am))?;
    there.batch_execute(&schema(&am))?;
    // Some rows are copied, the others streamed.
    here.batch_execute(
        "insert into account select i, i, 'old' from generate_series(1, 3000) i;
         create publication everything for all tables",
    )?;
    there.batch_execute(&format!(
        "create subscription mine connection '{}' publication everything",
        publisher.conninfo("postgres").replace('\'', "''")
    ))?;
    std::thread::scope(|scope| {
        for seed in 0..3u64 {
            let publisher = &publisher;
            scope.spawn(move || {
                let mut client = publisher.connect("postgres").expect("a connection");
                let mut random = fastrand::Rng::with_seed(seed);
                for n in 0..150 {
                    let key = random.u32(1..3000);
                    let statement = match random.u32(0..6) {
                        0 => format!("delete from account where k = {key}"),
                        1 => format!("insert into account values ({}, 0, 'new')", 10_000 + n * 3 + seed),
                        2 => format!("update account set k = -k, note = 'moved' where k = {key}"),
                        3 => format!("begin; insert into log values ({n}, 'kept'); savepoint s; insert into log values ({n}, 'undone'); rollback to s; update account set v = v + 1 where k between {key} and {key} + 20; commit"),
                        4 => format!("insert into part values ({}, {n})", (n * 3 + seed) * 9),
                        _ => format!("update part set k = k + 900 where k = {}; delete from log where n = {}", key / 2, n / 2),
                    };
                    // Two may meet at one key; whatever remains is compared.
                    let _ = client.batch_execute(&statement);
                }
            });
        }
    });
    let target: String = here
        .query_one("select pg_current_wal_insert_lsn()::text", &[])?
        .get(0);
    let start = Instant::now();
    loop {
        // The main worker goes on while others still copy their tables.
        let copied: bool = there
            .query_one(
                "select bool_and(srsubstate = 'r') from pg_subscription_rel",
                &[],
            )?
            .get(0);
        let streamed: bool = here
            .query_one(
                &format!(
                    "select coalesce(bool_and(replay_lsn >= '{target}'), false)
                       from pg_stat_replication where application_name = 'mine'"
                ),
                &[],
            )?
            .get(0);
        if copied && streamed {
            break;
        }
        assert!(
            start.elapsed() < Duration::from_secs(90),
            "the subscriber does not catch up:\n{}",
            subscriber.log_tail(20)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    for table in ["account", "log", "part", "part1", "part2"] {
        let query = format!(
            "select count(*), md5(string_agg(x::text, ',' order by x::text)) from {table} x"
        );
        let (ours, theirs) = (here.query_one(&query, &[])?, there.query_one(&query, &[])?);
        assert!(ours.get::<_, i64>(0) > 0, "{table} is empty");
        assert_eq!(
            ours.get::<_, Option<String>>(1),
            theirs.get::<_, Option<String>>(1),
            "{table}"
        );
    }
    there.batch_execute("drop subscription mine")?;
    let problems = verify::verify_all(&mut there, &am)?;
    assert!(problems.is_empty(), "{problems:#?}");
    drop((here, there));
    publisher.finish()?;
    subscriber.finish()
}
