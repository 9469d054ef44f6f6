//! Files that get shorter: VACUUM gives the unused end of a table and of its
//! indexes back, whoever else uses the table before and after.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use postgres::Client;
use rowref_tests::{Cluster, Options, StopMode, access_method, verify};

fn number(client: &mut Client, query: &str) -> Result<i64> {
    Ok(client.query_one(query, &[])?.get(0))
}

/// Runs statements one by one: sent together they would be one transaction.
fn each(client: &mut Client, statements: &[&str]) -> Result<()> {
    for statement in statements {
        client.batch_execute(statement)?;
    }
    Ok(())
}

fn assert_sound(client: &mut Client) -> Result<()> {
    let problems = verify::verify_all(client, &access_method())?;
    assert!(problems.is_empty(), "{problems:#?}");
    Ok(())
}

/// Sizes of the table and of its index.
fn sizes(client: &mut Client) -> Result<(i64, i64)> {
    Ok((
        number(client, "select pg_relation_size('t')")?,
        number(client, "select pg_relation_size('t_v')")?,
    ))
}

fn create(client: &mut Client) -> Result<()> {
    each(
        client,
        &[
            &format!(
                "create table t (k int primary key, v bigint, pad text) using {}",
                access_method()
            ),
            "create index t_v on t (v)",
        ],
    )
}

const FILL: &str =
    "insert into t select i, i % 1000, repeat('x', 100) from generate_series(1, 40000) i
     on conflict do nothing";

/// The table and all ways to read it agree.
fn assert_rows(client: &mut Client, count: i64, sum: i64) -> Result<()> {
    for settings in [
        "set enable_seqscan = on; set enable_indexscan = off; set enable_indexonlyscan = off",
        "set enable_seqscan = off; set enable_indexscan = on; set enable_indexonlyscan = on",
    ] {
        client.batch_execute(settings)?;
        let query = "select count(*) from t where k > 0";
        ensure!(number(client, query)? == count, "{query} after {settings}");
        let query = "select coalesce(sum(k), 0)::bigint from t where v >= 0";
        ensure!(number(client, query)? == sum, "{query} after {settings}");
    }
    client.batch_execute("reset all")?;
    assert_sound(client)
}

fn shrinks_and_survives(images: &str) -> Result<()> {
    let mut cluster = Cluster::start(
        Options::test()
            .set("autovacuum", "off")
            .set("shared_buffers", "16MB")
            .set("full_page_writes", images),
    )?;
    let mut client = cluster.connect("postgres")?;
    // This one remembers where root and rightmost leaf were.
    let mut other = cluster.connect("postgres")?;
    create(&mut client)?;
    each(&mut client, &[FILL, "checkpoint"])?;
    for round in 0..3 {
        each(
            &mut client,
            &[FILL, "update t set v = v + 1 where k % 3 = 0"],
        )?;
        other.batch_execute(
            "insert into t values (50000, 0, 'last'); delete from t where k = 50000",
        )?;
        let before = sizes(&mut client)?;
        let kept = [100, 0, 2000][round];
        each(
            &mut client,
            &[&format!("delete from t where k > {kept}"), "vacuum t"],
        )?;
        let after = sizes(&mut client)?;
        ensure!(
            after.0 < before.0 / 8 && after.1 < before.1,
            "{before:?} {after:?}"
        );
        ensure!(
            number(
                &mut client,
                "select count(*) from pg_class where oid = 't'::regclass
                 and relpages = pg_relation_size('t') / 8192"
            )? == 1,
            "the catalogs know the new size"
        );
        each(
            &mut other,
            &[
                "insert into t values (60000, 5, 'last')",
                "delete from t where k = 60000",
            ],
        )?;
        assert_rows(&mut other, kept, kept * (kept + 1) / 2)?;
        if round == 1 {
            // Blocks that were cut off are there again, and are changed by what
            // is replayed.
            each(&mut client, &[FILL, "delete from t where k > 20000"])?;
        }
        cluster.kill9_server()?;
        cluster.start_server()?;
        client = cluster.connect("postgres")?;
        other = cluster.connect("postgres")?;
        if round != 1 {
            ensure!(
                sizes(&mut client)?.0 == after.0,
                "as it was before the crash"
            );
        }
        let kept = if round == 1 { 20000 } else { kept };
        assert_rows(&mut client, kept, kept * (kept + 1) / 2)?;
        if round == 0 {
            client.batch_execute("checkpoint")?;
        }
    }
    drop((client, other));
    cluster.finish()
}

#[test]
fn a_table_whose_rows_are_gone_shrinks_and_stays_so_after_a_crash() -> Result<()> {
    shrinks_and_survives("on")
}

#[test]
fn a_shorter_file_is_recovered_without_page_images_too() -> Result<()> {
    shrinks_and_survives("off")
}

#[test]
fn a_table_in_use_is_left_as_it_is_and_one_that_is_told_to_stay_too() -> Result<()> {
    let cluster = Cluster::start(Options::test().set("autovacuum", "off"))?;
    let mut client = cluster.connect("postgres")?;
    let mut other = cluster.connect("postgres")?;
    create(&mut client)?;
    each(&mut client, &[FILL, "delete from t where k > 10"])?;
    let before = sizes(&mut client)?;
    client.batch_execute("vacuum (truncate false) t")?;
    ensure!(sizes(&mut client)?.0 == before.0);
    each(
        &mut client,
        &["alter table t set (vacuum_truncate = false)", "vacuum t"],
    )?;
    ensure!(sizes(&mut client)?.0 == before.0);
    client.batch_execute("alter table t reset (vacuum_truncate)")?;
    other.batch_execute("begin; select from t limit 1")?;
    client.batch_execute("vacuum t")?;
    ensure!(sizes(&mut client)?.0 == before.0);
    other.batch_execute("commit")?;
    client.batch_execute("vacuum t")?;
    ensure!(sizes(&mut client)?.0 < before.0 / 8);
    assert_rows(&mut other, 10, 55)?;
    drop((client, other));
    cluster.finish()
}

#[test]
fn who_remembers_the_old_end_is_told_before_the_catalogs_say_so() -> Result<()> {
    let cluster = Cluster::start(Options::test().set("autovacuum", "off"))?;
    let mut client = cluster.connect("postgres")?;
    let mut other = cluster.connect("postgres")?;
    let mut holder = cluster.connect("postgres")?;
    let mut observer = cluster.connect("postgres")?;
    create(&mut client)?;
    each(
        &mut client,
        &[FILL, "delete from t where k between 11 and 39990"],
    )?;
    // The other session knows root and rightmost leaf, of table and index.
    each(
        &mut other,
        &[
            "insert into t values (50000, 5000)",
            "delete from t where k > 39990",
        ],
    )?;
    let before = sizes(&mut observer)?;
    // VACUUM has to wait before it can tell the catalogs, and has given up its
    // lock by then: a GRANT locks the row of pg_class and not the table.
    holder.batch_execute("begin; grant select on t to public")?;
    std::thread::scope(|scope| -> Result<()> {
        let vacuum = scope.spawn(|| client.batch_execute("vacuum t"));
        let mut meanwhile = || -> Result<()> {
            let start = Instant::now();
            while sizes(&mut observer)?.0 == before.0 {
                ensure!(start.elapsed() < Duration::from_secs(60), "no cut");
                std::thread::sleep(Duration::from_millis(5));
            }
            each(
                &mut other,
                &[
                    "insert into t values (50001, 5001)",
                    "delete from t where k > 20",
                ],
            )?;
            ensure!(!vacuum.is_finished(), "the catalogs know already");
            Ok(())
        };
        let outcome = meanwhile();
        holder.batch_execute("commit")?;
        vacuum.join().expect("no panic")?;
        outcome
    })?;
    assert_rows(&mut other, 10, 55)?;
    drop((client, other, holder, observer));
    cluster.finish()
}

#[test]
fn everybody_goes_on_while_files_shrink_and_grow_and_a_standby_follows() -> Result<()> {
    let cluster = Cluster::start(Options::test().set("autovacuum", "off"))?;
    let mut client = cluster.connect("postgres")?;
    create(&mut client)?;
    // These stay: everybody always sees them.
    client.batch_execute("insert into t select -i, i, 'stays' from generate_series(1, 100) i")?;
    // Without a limit, replay and a query could wait for each other: the lock is
    // given up there only when VACUUM's commit is replayed, and in between comes
    // pruning that a query with a snapshot, waiting for the lock, is in the way
    // of. So it is with heaps.
    let standby = cluster.standby(&[("max_standby_streaming_delay", "1s")])?;
    let over = AtomicBool::new(false);
    let cuts = AtomicU32::new(0);
    // Until it has happened a few times, for VACUUM takes no table out of busy
    // hands.
    let (start, cuts_wanted) = (Instant::now(), 3);
    let goes_on = || {
        let least = start.elapsed() < Duration::from_secs(8);
        let most = start.elapsed() < Duration::from_secs(90);
        !over.load(Ordering::Relaxed)
            && (least || most && cuts.load(Ordering::Relaxed) < cuts_wanted)
    };
    std::thread::scope(|scope| -> Result<()> {
        let guarded = |mut work: Box<dyn FnMut() -> Result<()> + Send>| {
            let (over, goes_on) = (&over, &goes_on);
            move || -> Result<()> {
                while goes_on() {
                    if let Err(error) = work() {
                        over.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(())
            }
        };
        let mut sessions = Vec::new();
        for writer in 0..2 {
            let mut client = cluster.connect("postgres")?;
            let mut base = 1_000_000 * (writer + 1);
            sessions.push(scope.spawn(guarded(Box::new(move || {
                client.batch_execute(&format!(
                    "insert into t select {base} + i, i % 50, repeat('x', 150)
                       from generate_series(1, 3000) i"
                ))?;
                client.batch_execute(&format!(
                    "update t set v = v + 1 where k between {base} and {base} + 300"
                ))?;
                client.batch_execute(&format!(
                    "delete from t where k between {base} and {base} + 2990"
                ))?;
                base += 3000;
                Ok(())
            }))));
        }
        for (server, is_standby) in [(&cluster, false), (&standby, true)] {
            let mut client = server.connect("postgres")?;
            let mut nth = 0;
            sessions.push(scope.spawn(guarded(Box::new(move || {
                nth += 1;
                if client.is_closed() {
                    client = server.connect("postgres")?;
                }
                let how = ["reset enable_seqscan", "set enable_seqscan = off"][nth % 2];
                for query in [
                    "select count(*) from t where k < 0",
                    "select count(*) from t where v between 1 and 100 and pad = 'stays'",
                    "select sum(k)::bigint / -5050 * 100 from t where k between -200 and -1",
                ] {
                    let found = client
                        .batch_execute(how)
                        .and_then(|()| client.query_one(query, &[]));
                    match found {
                        Ok(row) => ensure!(row.get::<_, i64>(0) == 100, "{query}"),
                        Err(error)
                            if is_standby
                                && error.as_db_error().is_none_or(|error| {
                                    error.message().contains("conflict with recovery")
                                }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(())
            }))));
        }
        let mut client = cluster.connect("postgres")?;
        let cuts = &cuts;
        sessions.push(scope.spawn(guarded(Box::new(move || {
            let before = sizes(&mut client)?;
            client.batch_execute("vacuum t")?;
            let after = sizes(&mut client)?;
            cuts.fetch_add(u32::from(after.0 < before.0), Ordering::Relaxed);
            Ok(())
        }))));
        for session in sessions {
            session.join().expect("no panic")?;
        }
        Ok(())
    })?;
    ensure!(
        cuts.load(Ordering::Relaxed) >= cuts_wanted,
        "hardly anything was ever cut off"
    );
    each(&mut client, &["delete from t where k > 0", "vacuum t"])?;
    let (table, _) = sizes(&mut client)?;
    ensure!(table <= 4 * 8192, "{table}");
    assert_sound(&mut client)?;
    cluster.wait_for_replay(&standby)?;
    let mut copy = standby.connect("postgres")?;
    ensure!(sizes(&mut copy)? == sizes(&mut client)?);
    assert_sound(&mut copy)?;
    let digest = "select hashtextextended(string_agg(t::text, ',' order by k), 0) from t";
    ensure!(number(&mut copy, digest)? == number(&mut client, digest)?);
    drop((client, copy));
    standby.finish()?;
    cluster.finish()
}

/// All rows of a table by its index and without, and the sizes of both files.
fn whole(client: &mut Client, table: &str) -> Result<(i64, String, String, i64, i64)> {
    let query = format!(
        "select count(*), md5(string_agg(x::text, ',' order by k)),
                (select md5(string_agg(k || '/' || v, ',' order by v, k)) from {table} where v >= 0),
                pg_relation_size('{table}'), pg_relation_size('{table}_v')
         from {table} x"
    );
    let row = client.query_one(&query, &[])?;
    Ok((row.get(0), row.get(1), row.get(2), row.get(3), row.get(4)))
}

#[test]
fn a_primary_whose_files_shrank_after_it_went_astray_is_rewound() -> Result<()> {
    let mut first = Cluster::start(
        Options::test()
            .set("wal_log_hints", "on")
            .set("autovacuum", "off"),
    )?;
    let mut client = first.connect("postgres")?;
    let tables = ["here", "there", "everywhere", "again"];
    for table in tables {
        each(
            &mut client,
            &[
                &format!(
                    "create table {table} (k int primary key, v bigint, pad text) using {}",
                    access_method()
                ),
                &format!("create index {table}_v on {table} (v)"),
                &format!(
                    "insert into {table} select i, i % 1000, repeat('x', 100) from generate_series(1, 20000) i"
                ),
            ],
        )?;
    }
    let mut second = first.standby(&[])?;
    first.wait_for_replay(&second)?;
    let mut other = second.connect("postgres")?;
    other.batch_execute("select pg_promote()")?;
    let before = whole(&mut client, "here")?;
    let shrink = |client: &mut Client, table: &str| -> Result<()> {
        each(
            client,
            &[
                &format!("delete from {table} where k > 300"),
                &format!("vacuum {table}"),
            ],
        )?;
        let after = whole(client, table)?;
        ensure!(
            after.3 < before.3 / 4 && after.4 < before.4,
            "{table}: {before:?} {after:?}"
        );
        Ok(())
    };
    // The ends that the old primary cuts off come back from the new one, and the
    // other way round; where it cuts and writes anew, what was written goes.
    for table in ["here", "everywhere", "again"] {
        shrink(&mut client, table)?;
    }
    client.batch_execute(
        "insert into again select i, i, repeat('y', 200) from generate_series(301, 12000) i",
    )?;
    for table in ["there", "everywhere"] {
        shrink(&mut other, table)?;
    }
    other.batch_execute("update again set v = v + 1 where k % 100 = 0")?;
    drop(client);
    first.announce("terminating walreceiver");
    second.announce("could not receive data from WAL stream");
    first.stop(StopMode::Fast)?;
    other.batch_execute("checkpoint")?;
    first.rewind(&second)?;
    first.start_server()?;
    second.wait_for_replay(&first)?;
    let mut rewound = first.connect("postgres")?;
    for table in tables {
        ensure!(
            whole(&mut rewound, table)? == whole(&mut other, table)?,
            "{table}"
        );
    }
    assert_sound(&mut rewound)?;
    // Life goes on where the files were cut, and is followed.
    each(
        &mut other,
        &[
            "insert into everywhere select i, i, repeat('z', 100) from generate_series(301, 9000) i",
            "delete from again where k > 10",
            "vacuum again",
        ],
    )?;
    second.wait_for_replay(&first)?;
    for table in tables {
        ensure!(
            whole(&mut rewound, table)? == whole(&mut other, table)?,
            "{table}, later"
        );
    }
    assert_sound(&mut rewound)?;
    drop((rewound, other));
    first.finish()?;
    second.finish()
}
