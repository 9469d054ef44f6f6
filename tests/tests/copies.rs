//! Copies of the data: base backups, point-in-time recovery, `pg_rewind`, and
//! queries on a standby while its primary prunes, splits and merges.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use postgres::Client;
use postgres::error::SqlState;
use rowref_tests::{Cluster, Options, StopMode, access_method, verify};

fn create(client: &mut Client) -> Result<()> {
    client.batch_execute(&format!(
        "create table t (k int primary key, v bigint, pad text) using {};
         insert into t select i, 0, repeat('x', i % 200) from generate_series(1, 20000) i;
         insert into t select -i, 0, 'account' from generate_series(1, 100) i",
        access_method()
    ))?;
    Ok(())
}

/// All rows of `t`, as one number of them and one digest.
fn rows(client: &mut Client) -> Result<(i64, String)> {
    let row = client.query_one(
        "select count(*), coalesce(md5(string_agg(t::text, ',' order by k)), '') from t",
        &[],
    )?;
    Ok((row.get(0), row.get(1)))
}

fn assert_sound(client: &mut Client) -> Result<()> {
    let problems = verify::verify_all(client, &access_method())?;
    assert!(problems.is_empty(), "{problems:#?}");
    Ok(())
}

/// Changes of every kind, so many that leaves split, merge and are used again.
/// Transfers among the rows with negative keys keep `sum(v)` at 0.
fn churn(client: &mut Client, random: &mut fastrand::Rng) -> Result<()> {
    let key = random.i32(1..20000);
    let done = match random.u32(0..8) {
        0..=3 => client.batch_execute(&format!(
            "begin; update t set v = v + 5 where k = {}; update t set v = v - 5 where k = {}; commit",
            random.i32(-100..0),
            random.i32(-100..0)
        )),
        4 => client.batch_execute(&format!(
            "insert into t select i, 0, repeat('y', i % 300) from generate_series({key}, {key} + 400) i
              where not exists (select from t where k = i)"
        )),
        5 => client.batch_execute(&format!(
            "delete from t where k between {key} and {key} + 600"
        )),
        6 => client.batch_execute(&format!(
            "update t set pad = repeat('z', 250 - length(pad) % 250) where k between {key} and {key} + 100"
        )),
        _ => client.batch_execute("vacuum t"),
    };
    match done {
        Err(error) => match error.code() {
            Some(code) if *code == SqlState::T_R_DEADLOCK_DETECTED => {
                Ok(client.batch_execute("rollback")?)
            }
            // Both sessions came to the same gap.
            Some(code) if *code == SqlState::UNIQUE_VIOLATION => Ok(()),
            _ => Err(error.into()),
        },
        Ok(()) => Ok(()),
    }
}

/// Runs `work` while two sessions change the table.
fn under_load<R>(cluster: &Cluster, work: impl FnOnce() -> Result<R>) -> Result<R> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|seed| {
                let over = &over;
                scope.spawn(move || -> Result<u32> {
                    let mut client = cluster.connect("postgres")?;
                    let mut random = fastrand::Rng::with_seed(seed);
                    let mut done = 0;
                    while !over.load(Ordering::Relaxed) {
                        churn(&mut client, &mut random)?;
                        done += 1;
                    }
                    Ok(done)
                })
            })
            .collect();
        let result = work();
        over.store(true, Ordering::Relaxed);
        for writer in writers {
            let done = writer.join().expect("no panic")?;
            ensure!(done > 0, "a writer did nothing");
        }
        result
    })
}

#[test]
fn a_backup_taken_under_load_recovers_to_the_point_that_was_named() -> Result<()> {
    let mut cluster = Cluster::start(Options::test().set("deadlock_timeout", "50ms"))?;
    let archive = cluster.data().join("archive");
    fs::create_dir(&archive)?;
    cluster.installation.account.own(&archive)?;
    cluster.set("archive_mode", "on")?;
    cluster.set(
        "archive_command",
        &format!("cp %p {}/%f", archive.display()),
    )?;
    cluster.restart(StopMode::Fast)?;
    let mut client = cluster.connect("postgres")?;
    create(&mut client)?;
    let settings = [
        ("archive_mode", "off"),
        ("recovery_target_name", "here"),
        ("recovery_target_action", "promote"),
        (
            "restore_command",
            &format!("cp {}/%f %p", archive.display()),
        ),
    ];
    let mut copy = under_load(&cluster, || {
        let copy = cluster.backup(&settings, &[])?;
        // What came after the backup is in the archive alone.
        std::thread::sleep(Duration::from_secs(2));
        Ok(copy)
    })?;
    let expected = rows(&mut client)?;
    client.batch_execute("select pg_create_restore_point('here')")?;
    client.batch_execute("delete from t where k % 2 = 0")?;
    client.batch_execute("vacuum t")?;
    let last: String = client
        .query_one("select pg_walfile_name(pg_switch_wal())", &[])?
        .get(0);
    let start = Instant::now();
    while !archive.join(&last).exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "not archived");
        std::thread::sleep(Duration::from_millis(50));
    }
    fs::write(copy.data().join("recovery.signal"), "")?;
    copy.installation
        .account
        .own(&copy.data().join("recovery.signal"))?;
    copy.start_server()?;
    let mut restored = copy.connect("postgres")?;
    let start = Instant::now();
    while restored
        .query_one("select pg_is_in_recovery()", &[])?
        .get(0)
    {
        assert!(start.elapsed() < Duration::from_secs(90), "not promoted");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(rows(&mut restored)?, expected);
    assert_sound(&mut restored)?;
    restored.batch_execute("insert into t values (0, 0, 'life goes on')")?;
    drop((client, restored));
    cluster.finish()?;
    copy.finish()
}

#[test]
fn a_primary_that_went_astray_is_rewound_and_follows_the_new_one() -> Result<()> {
    let mut first = Cluster::start(
        Options::test()
            .set("wal_log_hints", "on")
            .set("deadlock_timeout", "50ms"),
    )?;
    let mut client = first.connect("postgres")?;
    create(&mut client)?;
    let mut second = first.standby(&[])?;
    under_load(&first, || {
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    })?;
    first.wait_for_replay(&second)?;
    second
        .connect("postgres")?
        .batch_execute("select pg_promote()")?;
    // Both go on, apart from each other: pages of the table are changed here,
    // there, and on both sides.
    under_load(&first, || {
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    })?;
    under_load(&second, || {
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    })?;
    drop(client);
    first.announce("terminating walreceiver");
    second.announce("could not receive data from WAL stream");
    first.stop(StopMode::Fast)?;
    second.connect("postgres")?.batch_execute("checkpoint")?;
    first.rewind(&second)?;
    first.start_server()?;
    second.wait_for_replay(&first)?;
    let expected = rows(&mut second.connect("postgres")?)?;
    let mut rewound = first.connect("postgres")?;
    assert_eq!(rows(&mut rewound)?, expected);
    assert_sound(&mut rewound)?;
    drop(rewound);
    first.finish()?;
    second.finish()
}

/// A session on a standby. What it reads of the catalogs to begin may be in the
/// way of recovery, too, and then it is ended before it has begun.
fn connect_again(standby: &Cluster) -> Result<Client> {
    let start = Instant::now();
    loop {
        match standby.connect("postgres") {
            Err(_) if standby.postmaster().is_some() && start.elapsed().as_secs() < 30 => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

/// One long transaction on a standby: each of its queries has to give the first
/// one's answer, whatever is pruned meanwhile, or to end by a conflict with
/// recovery. Returns how many answers there were, and conflicts.
fn watch(standby: &Cluster, end: Instant) -> Result<(u32, u32)> {
    let mut client = connect_again(standby)?;
    let (mut answers, mut conflicts) = (0, 0);
    while Instant::now() < end {
        if client
            .batch_execute("begin isolation level repeatable read")
            .is_err()
        {
            client = connect_again(standby)?;
            continue;
        }
        let mut first = None;
        for at in 0..20 {
            // Through a sequential scan, and through the key both ways.
            let query = match at % 3 {
                0 => {
                    "set local enable_indexscan = off; select count(*), sum(v)::bigint, sum(k)::bigint from t"
                }
                1 => {
                    "set local enable_indexscan = on; select count(*), sum(v)::bigint, sum(k)::bigint from (select * from t where k > -1000 order by k) x"
                }
                _ => {
                    "select count(*), sum(v)::bigint, sum(k)::bigint from (select * from t where k > -1000 order by k desc) x"
                }
            };
            let (set, select) = query.split_once("; ").unwrap_or(("", query));
            let answer = client
                .batch_execute(set)
                .and_then(|()| client.query_one(select, &[]));
            match answer {
                Ok(row) => {
                    let row: (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
                    assert_eq!(row.1, 0, "the sum of v");
                    assert_eq!(row, *first.get_or_insert(row), "query {at} of one snapshot");
                    answers += 1;
                }
                Err(error) => {
                    // Between two queries the session itself is ended.
                    let is_conflict = match error.code() {
                        Some(code) => [
                            SqlState::T_R_SERIALIZATION_FAILURE,
                            SqlState::ADMIN_SHUTDOWN,
                        ]
                        .contains(code),
                        None => standby.postmaster().is_some(),
                    };
                    ensure!(is_conflict, "{error:#}\n{}", standby.log_tail(10));
                    conflicts += 1;
                    break;
                }
            }
        }
        if client.batch_execute("rollback").is_err() {
            client = connect_again(standby)?;
        }
    }
    Ok((answers, conflicts))
}

#[test]
fn long_queries_on_a_standby_see_one_snapshot_or_are_cancelled() -> Result<()> {
    let cluster = Cluster::start(
        Options::test()
            .set("shared_buffers", "16MB")
            .set("deadlock_timeout", "50ms"),
    )?;
    let mut client = cluster.connect("postgres")?;
    create(&mut client)?;
    // Replay that never gives up and a query that waits for the lock under which
    // files are cut off could wait for each other (as with heaps).
    client.batch_execute("alter table t set (vacuum_truncate = false)")?;
    // One gives way to queries, the other ends them at once.
    let patient = cluster.standby(&[("max_standby_streaming_delay", "-1")])?;
    let strict = cluster.standby(&[("max_standby_streaming_delay", "0")])?;
    let end = Instant::now() + Duration::from_secs(8);
    let (waited, cancelled) = under_load(&cluster, || {
        std::thread::scope(|scope| {
            let patient = scope.spawn(|| watch(&patient, end));
            let strict = scope.spawn(|| watch(&strict, end));
            let patient = patient.join().expect("no panic")?;
            let strict = strict.join().expect("no panic")?;
            Ok((patient, strict))
        })
    })?;
    assert!(waited.0 > 20 && waited.1 == 0, "{waited:?}");
    assert!(cancelled.0 > 20 && cancelled.1 > 0, "{cancelled:?}");
    let expected = rows(&mut client)?;
    for standby in [patient, strict] {
        cluster.wait_for_replay(&standby)?;
        assert_eq!(rows(&mut standby.connect("postgres")?)?, expected);
        standby.finish()?;
    }
    assert_sound(&mut client)?;
    drop(client);
    cluster.finish()
}

/// What a build leaves out, and what it freezes, is for the primary's snapshots to
/// say; a standby's older ones end, or are right.
#[test]
fn older_snapshots_of_a_standby_are_not_shown_what_was_built_without_them() -> Result<()> {
    // Heaps end no snapshot when they are written anew, and show it other rows.
    let mut definitions = vec!["create index on t (a)"];
    if access_method() != "heap" {
        definitions.extend([
            "create index concurrently on t (a)",
            "vacuum full t",
            "alter table t drop constraint t_pkey",
            "alter table t drop constraint t_pkey; alter table t add primary key (a)",
        ]);
    }
    let cluster = Cluster::start(Options::test())?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute("create table other (k int)")?;
    let standby = cluster.standby(&[("max_standby_streaming_delay", "0")])?;
    for definition in definitions {
        client.batch_execute(&format!(
            "drop table if exists t;
             create table t (k int primary key, a int not null) using {};
             insert into t select i, i from generate_series(1, 1000) i",
            access_method()
        ))?;
        cluster.wait_for_replay(&standby)?;
        let mut reader = connect_again(&standby)?;
        reader.batch_execute(
            "set enable_seqscan = off; set enable_bitmapscan = off;
             begin isolation level repeatable read; select count(*) from other",
        )?;
        client.batch_execute(
            "delete from t where k % 2 = 0; insert into t select i, i from generate_series(1001, 3000) i",
        )?;
        for statement in definition.split("; ") {
            client.batch_execute(statement)?;
        }
        cluster.wait_for_replay(&standby)?;
        match reader.query_one("select count(*) from t where a > 0", &[]) {
            Ok(row) => assert_eq!(row.get::<_, i64>(0), 1000, "{definition}"),
            Err(error) => {
                let is_conflict = error.code().is_none_or(|code| {
                    [
                        SqlState::T_R_SERIALIZATION_FAILURE,
                        SqlState::ADMIN_SHUTDOWN,
                    ]
                    .contains(code)
                });
                ensure!(is_conflict, "{definition}: {error:#}");
            }
        }
    }
    drop(client);
    standby.finish()?;
    cluster.finish()
}
