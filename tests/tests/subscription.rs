//! A table that a subscription fills: the apply worker looks for its rows
//! under a dirty snapshot, which judges each row when it is returned.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use postgres::Client;
use rowref_tests::{Cluster, Options, access_method, verify};

fn wait_until(client: &mut Client, condition: &str) -> Result<()> {
    let start = Instant::now();
    while !client
        .query_one(&format!("select {condition}"), &[])?
        .get::<_, bool>(0)
    {
        ensure!(
            start.elapsed() < Duration::from_secs(30),
            "it never came to be: {condition}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Without a key the worker reads the whole table for each row. What it finds
/// on the row's page behind the row is none of its business.
#[test]
fn a_row_is_applied_beside_an_open_transaction_on_the_same_page() -> Result<()> {
    let cluster = Cluster::start(Options::test().set("wal_level", "logical"))?;
    let mut publisher = cluster.connect("postgres")?;
    publisher.batch_execute("create database subscriber")?;
    publisher.batch_execute(
        "create table t (k int, v text) using heap;
         alter table t replica identity full;
         insert into t select i, 'old' from generate_series(1, 20) i;
         create publication p for table t",
    )?;
    publisher.batch_execute("select pg_create_logical_replication_slot('s', 'pgoutput')")?;
    let mut subscriber = cluster.connect("subscriber")?;
    subscriber.batch_execute(&format!(
        "create table t (k int, v text) using {}",
        access_method()
    ))?;
    subscriber.batch_execute(&format!(
        "create subscription s connection '{}' publication p with (create_slot = false, slot_name = s)",
        cluster.conninfo("postgres")
    ))?;
    wait_until(&mut subscriber, "(select count(*) = 20 from t)")?;
    wait_until(
        &mut subscriber,
        "(select bool_and(srsubstate = 'r') from pg_subscription_rel)",
    )?;

    // Behind the rows in question, a row that is not committed.
    let mut other = cluster.connect("subscriber")?;
    other.batch_execute("begin; insert into t values (1000, 'open')")?;
    publisher.batch_execute("delete from t where k = 3; update t set v = 'new' where k = 5")?;
    wait_until(
        &mut subscriber,
        "not exists (select from t where k = 3) and (select v = 'new' from t where k = 5)",
    )?;
    other.batch_execute("commit")?;

    // A row that is being changed here is waited for, and then found as it is.
    other.batch_execute("begin; update t set v = 'mine' where k = 7")?;
    publisher.batch_execute("delete from t where k = 7")?;
    publisher.batch_execute("update t set v = 'last' where k = 9")?;
    wait_until(
        &mut subscriber,
        "exists (select from pg_locks where locktype = 'transactionid' and not granted)",
    )?;
    other.batch_execute("rollback")?;
    wait_until(
        &mut subscriber,
        "not exists (select from t where k = 7) and (select v = 'last' from t where k = 9)",
    )?;
    let problems = verify::verify_all(&mut subscriber, &access_method())?;
    ensure!(problems.is_empty(), "{problems:#?}");

    // Rows that a scan returns are found again, until there are none.
    publisher.batch_execute("delete from t")?;
    wait_until(&mut subscriber, "(select count(*) = 1 from t)")?;
    subscriber.batch_execute("alter subscription s disable")?;
    subscriber.batch_execute("alter subscription s set (slot_name = none)")?;
    subscriber.batch_execute("drop subscription s")?;
    drop((publisher, subscriber, other));
    cluster.finish()
}
