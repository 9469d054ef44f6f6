//! What survives the end of a server, however it ends.

use anyhow::Result;
use postgres::Client;
use rowref_tests::{Cluster, Options, StopMode, access_method, verify};

fn start() -> Result<Cluster> {
    Cluster::start(Options::test().set("shared_buffers", "16MB"))
}

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

fn create(client: &mut Client) -> Result<()> {
    client.batch_execute(&format!(
        "create table t (k int primary key, v bigint, pad text) using {}",
        access_method()
    ))?;
    Ok(())
}

fn assert_sound(client: &mut Client) -> Result<()> {
    let problems = verify::verify_all(client, &access_method())?;
    assert!(problems.is_empty(), "{problems:#?}");
    Ok(())
}

#[test]
fn committed_rows_survive_kill9_of_the_server_and_uncommitted_ones_do_not() -> Result<()> {
    let mut cluster = start()?;
    let mut client = cluster.connect("postgres")?;
    create(&mut client)?;
    each(
        &mut client,
        &[
            "insert into t select i, i, repeat('x', 100) from generate_series(1, 20000) i",
            "update t set v = v + 1 where k % 3 = 0",
            "delete from t where k % 10 = 0",
            "begin",
            "insert into t select i, 0, '' from generate_series(100001, 120000) i",
            "update t set v = -1 where k % 7 = 0",
            "delete from t where k % 11 = 0",
        ],
    )?;
    // A later commit of another session carries the open transaction's records
    // to disk.
    cluster
        .connect("postgres")?
        .batch_execute("insert into t values (-1, 0, 'last')")?;
    cluster.kill9_server()?;
    cluster.start_server()?;
    let mut client = cluster.connect("postgres")?;
    assert_eq!(number(&mut client, "select count(*) from t")?, 18001);
    let sum: i64 = (1..=20000)
        .filter(|k| k % 10 != 0)
        .map(|k| k + i64::from(k % 3 == 0))
        .sum();
    assert_eq!(number(&mut client, "select sum(v)::bigint from t")?, sum);
    assert_sound(&mut client)?;
    cluster.finish()
}

/// Entries of deleted rows end a little later than the rows: killed in between,
/// the deletion has not happened in any index.
#[test]
fn a_deletion_that_is_killed_between_rows_and_index_entries_has_not_happened() -> Result<()> {
    let mut cluster = start()?;
    let mut client = cluster.connect("postgres")?;
    create(&mut client)?;
    each(
        &mut client,
        &[
            "create index t_v on t (v)",
            "create index t_pad on t (pad, v)",
            "insert into t select i, i % 100, 'p' || i from generate_series(1, 20000) i",
            "delete from t where k % 10 = 0",
            "create function deletes() returns void language plpgsql as $$
             begin
                 delete from t where k % 3 = 0;
                 perform pg_sleep(600);
             end $$",
            // Some are settled for want of memory, and some are not.
            "alter system set work_mem = '64kB'",
            "select pg_reload_conf()",
        ],
    )?;
    let mut victim = cluster.connect("postgres")?;
    let sleeper = std::thread::spawn(move || victim.batch_execute("select deletes()"));
    let asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    while number(&mut client, asleep)? == 0 {
        std::thread::yield_now();
    }
    // Carries the running transaction's records to disk.
    client.batch_execute("insert into t values (-1, 0, 'last')")?;
    cluster.kill9_server()?;
    assert!(sleeper.join().expect("the thread ends").is_err());
    cluster.start_server()?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute("set enable_seqscan = off; set enable_bitmapscan = off")?;
    for counted in ["v >= 0", "pad >= ''", "k > -2"] {
        let query = format!("select count(*) from t where {counted}");
        assert_eq!(number(&mut client, &query)?, 18001, "{counted}");
    }
    assert_sound(&mut client)?;
    if rowref_tests::access_method() != "heap" {
        let problems = "select count(*) from rowref.verify('t', true)";
        assert_eq!(number(&mut client, problems)?, 0);
    }
    cluster.finish()
}

#[test]
fn killing_a_backend_loses_nothing_of_the_others() -> Result<()> {
    let mut cluster = start()?;
    let mut client = cluster.connect("postgres")?;
    create(&mut client)?;
    client.batch_execute("insert into t select i, i, '' from generate_series(1, 5000) i")?;
    let mut victim = cluster.connect("postgres")?;
    let pid = victim.query_one("select pg_backend_pid()", &[])?.get(0);
    victim.batch_execute("begin; update t set v = 0; delete from t where k < 100")?;
    cluster.kill9_backend(pid)?;
    let mut client = cluster.connect("postgres")?;
    assert_eq!(
        number(&mut client, "select sum(v)::bigint from t")?,
        12_502_500
    );
    // The dead transaction holds no row.
    client.batch_execute("set statement_timeout = '20s'; update t set v = v + 1")?;
    assert_sound(&mut client)?;
    cluster.finish()
}

#[test]
fn every_kind_of_table_ddl_survives_a_crash_in_each_outcome() -> Result<()> {
    let mut cluster = start()?;
    let am = access_method();
    let mut client = cluster.connect("postgres")?;
    for name in ["kept", "truncated", "dropped"] {
        client.batch_execute(&format!(
            "create table {name} (k int primary key) using {am};
             insert into {name} select generate_series(1, 1000)"
        ))?;
    }
    each(
        &mut client,
        &[
            "checkpoint",
            "truncate truncated",
            "insert into truncated values (7)",
            "drop table dropped",
        ],
    )?;
    client.batch_execute(&format!(
        "begin; create table never (k int primary key) using {am};
         insert into never select generate_series(1, 1000); rollback"
    ))?;
    client.batch_execute(
        "begin; truncate kept; insert into kept values (1); drop table truncated; rollback",
    )?;
    client.batch_execute(&format!(
        "begin; create table twice (k int primary key) using {am};
         insert into twice values (1); truncate twice; insert into twice values (2); commit"
    ))?;
    cluster.kill9_server()?;
    cluster.start_server()?;
    let mut client = cluster.connect("postgres")?;
    assert_eq!(number(&mut client, "select count(*) from kept")?, 1000);
    assert_eq!(
        number(&mut client, "select sum(k)::bigint from truncated")?,
        7
    );
    assert_eq!(number(&mut client, "select sum(k)::bigint from twice")?, 2);
    for name in ["dropped", "never"] {
        let query = format!("select count(*) from pg_class where relname = '{name}'");
        assert_eq!(number(&mut client, &query)?, 0, "{name}");
    }
    assert_sound(&mut client)?;
    cluster.finish()
}

#[test]
fn minimal_wal_keeps_a_table_loaded_in_its_own_transaction() -> Result<()> {
    let options = Options::test()
        .set("wal_level", "minimal")
        .set("max_wal_senders", "0");
    let mut cluster = Cluster::start(options)?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "begin;
         create table t (k int primary key, v int) using {am};
         insert into t select i, i from generate_series(1, 50000) i;
         commit",
        am = access_method()
    ))?;
    client.batch_execute("insert into t select i, i from generate_series(50001, 60000) i")?;
    cluster.kill9_server()?;
    cluster.start_server()?;
    let mut client = cluster.connect("postgres")?;
    assert_eq!(number(&mut client, "select count(*) from t")?, 60000);
    assert_eq!(
        number(
            &mut client,
            "select count(*) from t where k between 40001 and 55000"
        )?,
        15000
    );
    assert_sound(&mut client)?;
    cluster.finish()
}

#[test]
fn unlogged_rows_are_gone_after_a_crash_and_the_table_is_usable() -> Result<()> {
    let mut cluster = start()?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "create unlogged table u (k int primary key) using {};
         insert into u select generate_series(1, 1000)",
        access_method()
    ))?;
    cluster.restart(StopMode::Fast)?;
    let mut client = cluster.connect("postgres")?;
    assert_eq!(number(&mut client, "select count(*) from u")?, 1000);
    cluster.kill9_server()?;
    cluster.start_server()?;
    let mut client = cluster.connect("postgres")?;
    assert_eq!(number(&mut client, "select count(*) from u")?, 0);
    client.batch_execute("insert into u select generate_series(1, 10)")?;
    assert_eq!(number(&mut client, "select count(*) from u")?, 10);
    cluster.finish()
}

#[test]
fn a_standby_answers_like_its_primary_and_can_take_over() -> Result<()> {
    let mut primary = start()?;
    let mut client = primary.connect("postgres")?;
    create(&mut client)?;
    let mut standby = primary.standby(&[])?;
    each(
        &mut client,
        &[
            "insert into t select i, i, repeat('y', 50) from generate_series(1, 20000) i",
            "update t set v = v * 2 where k % 2 = 0",
            "delete from t where k % 5 = 0",
            "vacuum t",
            "insert into t select i, i, 'again' from generate_series(5, 20000, 10) i",
            "update t set k = -k where k % 1000 = 1",
        ],
    )?;
    primary.wait_for_replay(&standby)?;
    let query = "select count(*), sum(v)::bigint, sum(k)::bigint,
                 sum(hashtextextended(t::text, 0)::numeric)::text from t";
    let fingerprint = |client: &mut Client| -> Result<(i64, i64, i64, String)> {
        let row = client.query_one(query, &[])?;
        Ok((row.get(0), row.get(1), row.get(2), row.get(3)))
    };
    let mut reader = standby.connect("postgres")?;
    assert_eq!(fingerprint(&mut client)?, fingerprint(&mut reader)?);
    let by_key = "select v from t where k = 12345";
    assert_eq!(number(&mut client, by_key)?, number(&mut reader, by_key)?);
    let before = fingerprint(&mut client)?;
    primary.kill9_server()?;
    // The standby only notices that its primary went away.
    standby.announce("terminating walreceiver");
    reader.batch_execute("select pg_promote()")?;
    assert_eq!(fingerprint(&mut reader)?, before);
    reader.batch_execute("insert into t values (1000000, 1, 'promoted')")?;
    assert_sound(&mut reader)?;
    standby.finish()
}

#[test]
fn long_values_survive_a_crash_whole_and_a_standby_reads_the_same() -> Result<()> {
    let mut primary = start()?;
    let mut client = primary.connect("postgres")?;
    create(&mut client)?;
    client.batch_execute(
        "create function noise(seed int, bytes int) returns text language sql immutable as $$
           select left(string_agg(md5(seed || ':' || i), ''), bytes)
           from generate_series(0, bytes / 32) i $$",
    )?;
    let standby = primary.standby(&[])?;
    each(
        &mut client,
        &[
            "insert into t select i, i, noise(i, 3000 + i * 10) from generate_series(1, 500) i",
            "update t set v = v + 1",
            "update t set pad = noise(k + 1000, 5000) where k % 3 = 0",
            "update t set k = k + 1000 where k % 7 = 0",
            "delete from t where k % 5 = 0",
            "vacuum t",
            "begin",
            "update t set pad = noise(-k, 4000), v = -1 where k < 200",
            "delete from t where k between 200 and 300",
            "insert into t select -i, 0, noise(i, 4000) from generate_series(1, 100) i",
        ],
    )?;
    // Carries the open transaction's records to disk.
    let mut other = primary.connect("postgres")?;
    other.batch_execute("insert into t values (5000, 0, noise(5000, 20000))")?;
    primary.wait_for_replay(&standby)?;
    let query = "select count(*), sum(v)::bigint, sum(length(pad))::bigint,
                 sum(hashtextextended(t::text, 0)::numeric)::text from t";
    let fingerprint = |client: &mut Client| -> Result<(i64, i64, i64, String)> {
        let row = client.query_one(query, &[])?;
        Ok((row.get(0), row.get(1), row.get(2), row.get(3)))
    };
    let mut reader = standby.connect("postgres")?;
    let before = fingerprint(&mut other)?;
    assert_eq!(fingerprint(&mut reader)?, before);
    primary.kill9_server()?;
    primary.start_server()?;
    let mut client = primary.connect("postgres")?;
    assert_eq!(fingerprint(&mut client)?, before);
    let wrong = "select count(*) from t where k < 1000 and pad <>
                 case when k % 3 = 0 then noise(k + 1000, 5000) else noise(k, 3000 + k * 10) end";
    assert_eq!(number(&mut client, wrong)?, 0);
    assert_sound(&mut client)?;
    // What the crash left of the open transaction goes with VACUUM, and with
    // all rows all values.
    each(&mut client, &["delete from t", "vacuum t"])?;
    let toast: String = client
        .query_one(
            "select reltoastrelid::regclass::text from pg_class where relname = 't'",
            &[],
        )?
        .get(0);
    assert_eq!(
        number(&mut client, &format!("select count(*) from {toast}"))?,
        0
    );
    standby.finish()?;
    primary.finish()
}
