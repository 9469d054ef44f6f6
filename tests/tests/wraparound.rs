//! Transaction ids are numbers that come round again: whatever stays unfrozen
//! for two thousand million of them would turn from the past into the future.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use postgres::Client;
use rowref_tests::{Cluster, Options, StopMode, access_method, verify};

/// Transaction ids in one file of `pg_xact`; the first of a file needs no
/// earlier one to exist.
const IDS_PER_FILE: u64 = 1 << 20;

/// Moves the next transaction id on, as if so many transactions had been.
fn jump(cluster: &mut Cluster, files: u64) -> Result<()> {
    let next: i64 = cluster
        .connect("postgres")?
        .query_one("select pg_current_xact_id()::text::bigint", &[])?
        .get(0);
    let to = (next as u64 / IDS_PER_FILE + files) * IDS_PER_FILE;
    // Zero, one and two are no transactions.
    let to = if to as u32 == 0 {
        to + IDS_PER_FILE
    } else {
        to
    };
    cluster.stop(StopMode::Fast)?;
    let output = cluster
        .installation
        .account
        .command(cluster.installation.program("pg_resetwal"))
        .args(["-x", &(to as u32).to_string()])
        .args(["-e", &(to >> 32).to_string(), "-D"])
        .arg(cluster.data())
        .output()?;
    ensure!(output.status.success(), "pg_resetwal: {output:?}");
    cluster.start_server()
}

/// Waits until autovacuum has frozen what was older than the jump, everywhere.
fn wait_for_autovacuum(cluster: &Cluster) -> Result<()> {
    let mut client = cluster.connect("postgres")?;
    let start = Instant::now();
    loop {
        let age: i32 = client
            .query_one("select max(age(datfrozenxid)) from pg_database", &[])?
            .get(0);
        if age < 10_000_000 {
            return Ok(());
        }
        ensure!(
            start.elapsed() < Duration::from_secs(120),
            "nothing is frozen, the oldest database is {age} transactions old:\n{}",
            cluster.log_tail(20)
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn answers(client: &mut Client) -> Result<Vec<String>> {
    [
        "select count(*)::text || ' ' || sum(k) || ' ' || md5(string_agg(v, ',' order by k)) from t",
        "select string_agg(k || v, ',' order by k) from t where k between 990 and 1010",
        "select count(*)::text || ' ' || md5(string_agg(v, ',' order by v)) from keyless",
    ]
    .iter()
    .map(|query| Ok(client.query_one(*query, &[])?.get(0)))
    .collect()
}

#[test]
fn rows_stay_what_they_are_while_transaction_ids_go_round() -> Result<()> {
    let am = access_method();
    let mut cluster = Cluster::start(
        Options::test()
            .set("autovacuum_naptime", "1s")
            .set("autovacuum_freeze_max_age", "100000")
            .set("vacuum_freeze_min_age", "1000")
            .set("autovacuum_multixact_freeze_max_age", "10000")
            .set("log_autovacuum_min_duration", "-1"),
    )?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "create table t (k int primary key, v text) using {am};
         create table keyless (v text) using {am};
         insert into t select i, 'row ' || i from generate_series(1, 3000) i;
         insert into keyless select 'row ' || i from generate_series(1, 500) i"
    ))?;
    for statement in [
        "update t set v = 'new' where k % 7 = 0",
        "delete from t where k % 11 = 0",
        "update t set k = -k where k % 13 = 0",
        "begin; update t set v = 'undone'; delete from t where k < 500; rollback",
        "begin; select from t for update; commit",
        "begin; select from t for key share; commit",
        "delete from keyless where v like '%7'",
    ] {
        client.batch_execute(statement)?;
    }
    let expected = answers(&mut client)?;
    drop(client);
    // Four times 1,500 million: more than once around.
    for round in 0..4 {
        jump(&mut cluster, 1500)?;
        let mut client = cluster.connect("postgres")?;
        assert_eq!(
            answers(&mut client)?,
            expected,
            "round {round}, before freezing"
        );
        drop(client);
        wait_for_autovacuum(&cluster)?;
        let mut client = cluster.connect("postgres")?;
        assert_eq!(answers(&mut client)?, expected, "round {round}, frozen");
        // Entries of this round's age, to be frozen in the next.
        client.batch_execute(
            "update t set v = v where k % 5 = 0;
             delete from keyless where v = 'row 1'; insert into keyless values ('row 1')",
        )?;
        for statement in ["begin", "select from t for share", "commit"] {
            client.batch_execute(statement)?;
        }
        let oldest: i32 = client
            .query_one(
                "select max(age(relfrozenxid)) from pg_class where relname in ('t', 'keyless')",
                &[],
            )?
            .get(0);
        assert!(oldest < 10_000_000, "{oldest}");
        let problems = verify::verify_all(&mut client, &am)?;
        assert!(problems.is_empty(), "{problems:#?}");
    }
    // Multixacts are heap's; a table of ours must not hold them back.
    let mut client = cluster.connect("postgres")?;
    client.batch_execute("vacuum freeze t")?;
    let behind: i32 = client
        .query_one(
            "select mxid_age(relminmxid) from pg_class where relname = 't'",
            &[],
        )?
        .get(0);
    assert!(behind < 100, "{behind}");
    drop(client);
    cluster.announce("oldest");
    cluster.announce("must be vacuumed within");
    cluster.finish()
}
