//! What scans of indexes find while other sessions change what is indexed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use postgres::Client;
use postgres::error::SqlState;
use rowref_tests::{Cluster, Options, access_method, verify};

/// Ways to read the whole table: settings, query, and what the plan has to show.
/// Each returns how many rows there are and a sum over what is in them.
const WAYS: [(&str, &str, &str); 9] = [
    ("enable_indexscan = off", "from t", "Seq Scan"),
    (
        "enable_seqscan = off",
        "from (select * from t order by id) t",
        "Index Scan using t_pkey",
    ),
    (
        "enable_seqscan = off",
        "from (select * from t order by a) t",
        "Index Scan using t_a",
    ),
    (
        "enable_seqscan = off",
        "from (select * from t order by a desc nulls last, b) t",
        "Index Scan using t_ab",
    ),
    (
        "enable_seqscan = off; set local enable_indexonlyscan = off",
        "from (select * from t where a is null union all select * from t where a >= 0) t",
        "Index Scan using t_a",
    ),
    (
        "enable_seqscan = off",
        "from (select * from t order by b, a, c) t",
        "Index Only Scan using t_bac",
    ),
    (
        "enable_seqscan = off",
        "from (select id, c, b, a from t order by c desc) t",
        "Index Only Scan Backward using t_c",
    ),
    (
        "max_parallel_workers_per_gather = 2",
        "from (select id, a, b, c from t where c >= 0) t",
        "Parallel Index Only Scan using t_c",
    ),
    (
        "max_parallel_workers_per_gather = 2",
        "from t where id > -1",
        "Parallel Index Scan using t_pkey",
    ),
];

const SUM: &str =
    "select count(*), coalesce(sum(hashtext(row(t.id, t.a, t.b, t.c)::text)), 0)::bigint ";

fn read(session: &mut Client, way: (&str, &str, &str)) -> Result<(i64, i64)> {
    session.batch_execute(&format!("savepoint way; set local {}", way.0))?;
    if way.0.contains("parallel") {
        session.batch_execute("set local enable_seqscan = off")?;
    } else {
        session.batch_execute("set local max_parallel_workers_per_gather = 0")?;
    }
    let row = session.query_one(&format!("{SUM}{}", way.1), &[])?;
    session.batch_execute("rollback to way; release way")?;
    Ok((row.get(0), row.get(1)))
}

/// One change of a random kind. Values repeat, so that entries end and begin
/// again under the keys they had.
fn change(random: &mut fastrand::Rng, session: &mut Client) -> Result<()> {
    let (id, other) = (random.i32(0..600), random.i32(0..600));
    let (a, c) = (random.i32(0..8), random.i32(0..40));
    let statement = match random.u8(0..12) {
        0..3 => format!(
            "insert into t values ({id}, nullif({a}, 3), 'b' || {a} % 3, {c}) on conflict do nothing"
        ),
        3..5 => format!("update t set a = nullif({a}, 3) where id between {id} and {id} + 5"),
        5 => format!("update t set b = 'b' || {a} % 3, c = {c} where c = {c} + 1"),
        6 => format!("update t set c = {c} where a = {a} and id < {id}"),
        7 => format!(
            "update t set id = {other} where id = {id} and not exists (select from t where id = {other})"
        ),
        8 => format!("delete from t where id between {id} and {id} + 2"),
        9 => format!(
            "begin; update t set a = 7 - a, c = 39 - c where id % 7 = {a} % 7; delete from t where id < {id}; rollback"
        ),
        10 => format!(
            "begin; savepoint s; update t set a = {a}, b = 'gone' where c = {c}; rollback to s; update t set c = {c} where id = {id}; commit"
        ),
        _ => "vacuum t".into(),
    };
    match session.batch_execute(&statement) {
        Ok(()) => Ok(()),
        Err(error) => {
            let code = error.code().cloned();
            if statement.starts_with("begin") {
                session.batch_execute("rollback")?;
            }
            assert!(
                matches!(
                    code,
                    Some(SqlState::T_R_DEADLOCK_DETECTED | SqlState::UNIQUE_VIOLATION)
                ),
                "{statement}: {error:?}"
            );
            Ok(())
        }
    }
}

#[test]
fn every_way_to_read_tells_the_same_under_one_snapshot() -> Result<()> {
    let cluster = Cluster::start(Options::test().set("deadlock_timeout", "50ms"))?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "create table t (id int primary key, a int, b text, c int) using {};
         insert into t select i, nullif(i % 8, 3), 'b' || i % 3, i % 40 from generate_series(1, 600) i;
         create index t_a on t (a);
         create index t_ab on t (a desc nulls last, b);
         create index t_bac on t (b, a, c, id);
         create index t_c on t (c) include (b, a, id)",
        access_method()
    ))?;
    client.batch_execute("vacuum analyze t")?;
    let settings = "set enable_sort = off; set enable_bitmapscan = off; set jit = off;
        set parallel_setup_cost = 0; set parallel_tuple_cost = 0;
        set min_parallel_table_scan_size = 0; set min_parallel_index_scan_size = 0";
    client.batch_execute(settings)?;
    client.batch_execute("begin")?;
    for way in WAYS {
        client.batch_execute(&format!("savepoint way; set local {}", way.0))?;
        if way.0.contains("parallel") {
            client.batch_execute("set local enable_seqscan = off")?;
        } else {
            client.batch_execute("set local max_parallel_workers_per_gather = 0")?;
        }
        let plan: Vec<String> = client
            .query(&format!("explain (costs off) {SUM}{}", way.1), &[])?
            .iter()
            .map(|line| line.get(0))
            .collect();
        assert!(
            plan.iter().any(|line| line.contains(way.2)),
            "{}: {plan:#?}",
            way.2
        );
        client.batch_execute("rollback to way; release way")?;
    }
    client.batch_execute("rollback")?;

    let is_over = AtomicBool::new(false);
    let end = Instant::now() + Duration::from_secs(6);
    let reads = std::thread::scope(|scope| -> Result<usize> {
        let writers: Vec<_> = (0..2)
            .map(|seed| {
                let (cluster, is_over) = (&cluster, &is_over);
                scope.spawn(move || -> Result<()> {
                    let mut session = cluster.connect("postgres")?;
                    let mut random = fastrand::Rng::with_seed(seed);
                    while !is_over.load(Ordering::Relaxed) {
                        change(&mut random, &mut session)?;
                    }
                    Ok(())
                })
            })
            .collect();
        let mut reads = 0;
        let result = (|| -> Result<()> {
            while Instant::now() < end {
                client.batch_execute("begin isolation level repeatable read")?;
                let first = read(&mut client, WAYS[0])?;
                for way in WAYS.iter().chain(&WAYS) {
                    assert_eq!(read(&mut client, *way)?, first, "{} read {reads}", way.2);
                    reads += 1;
                }
                client.batch_execute("commit")?;
            }
            Ok(())
        })();
        is_over.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().expect("no panic")?;
        }
        result.map(|()| reads)
    })?;
    assert!(reads > 50, "only {reads} reads");
    let problems = verify::verify_all(&mut client, &access_method())?;
    assert!(problems.is_empty(), "{problems:#?}");
    drop(client);
    cluster.finish()
}
