//! Comparing a recovered server with what clients were told.

use anyhow::{Context, Result, ensure};
use postgres::Client;
use rowref_tests::{Cluster, verify};

use super::client::padding;
use super::define::Defined;
use super::model::{Model, Rows};
use super::schema::{ACCOUNTS, BULK, NAMED, TOTAL};

/// A client's rows; fails on padding that does not belong to its row.
fn rows_of(session: &mut Client, client: usize) -> Result<Rows> {
    let mut rows = Rows::new();
    for (table, key, value) in [
        ("ledger", "k", "v"),
        ("log", "lpad(seq::text, 12, '0')", "v"),
        ("bulk", "lpad(k::text, 9, '0')", "n"),
    ] {
        let condition = if table == "bulk" { "and n <> 0" } else { "" };
        let query =
            format!("select {key}, {value}, pad from {table} where client = {client} {condition}");
        for row in session.query(&query, &[])? {
            let (key, value, pad): (String, i64, String) = (row.get(0), row.get(1), row.get(2));
            ensure!(
                pad == padding(value, pad.len()),
                "{table} {key}: the row's parts do not belong together"
            );
            ensure!(
                rows.insert((table, key.clone()), (value, pad.len()))
                    .is_none(),
                "{table} {key} of client {client} is there twice"
            );
        }
    }
    Ok(rows)
}

fn number(session: &mut Client, query: &str) -> Result<i64> {
    Ok(session
        .query_one(query, &[])
        .with_context(|| query.to_owned())?
        .get(0))
}

/// Checks everything; returns how many rows it looked at.
pub fn run(cluster: &Cluster, models: &mut [Model], defined: &mut Defined) -> Result<u64> {
    let mut session = cluster.connect("postgres")?;
    // A transaction of a dead client that still held a row would stop this.
    session
        .batch_execute("set statement_timeout = '120s'; set max_parallel_workers_per_gather = 0")?;
    let mut audited = defined.audit(&mut session)?;
    for model in models.iter_mut() {
        let found = rows_of(&mut session, model.client)?;
        audited += found.len() as u64;
        model.reconcile(found).map_err(anyhow::Error::msg)?;
    }
    let sum = number(
        &mut session,
        "select ((select sum(v) from account) + (select sum(v) from named))::bigint",
    )?;
    ensure!(
        sum == TOTAL,
        "the accounts' sum is {sum} instead of {TOTAL}"
    );
    for (table, expected) in [("account", ACCOUNTS), ("named", NAMED), ("bulk", BULK)] {
        let rows = number(&mut session, &format!("select count(*) from {table}"))?;
        ensure!(
            rows == i64::from(expected),
            "{table} has {rows} rows instead of {expected}"
        );
        audited += rows as u64;
    }
    both_ways_agree(&mut session)?;
    audited += references_hold(&mut session)?;
    let problems = verify::verify_all(&mut session, cluster.access_method())?;
    ensure!(
        problems.is_empty(),
        "rowref.verify found:\n{}",
        problems.join("\n")
    );
    Ok(audited)
}

/// Scanning a table, scanning its key and looking up each key find the same rows.
fn both_ways_agree(session: &mut Client) -> Result<()> {
    for (table, key) in [
        ("ledger", "client, k"),
        ("account", "k"),
        ("named", "k"),
        ("bulk", "k"),
    ] {
        let scan = number(session, &format!("select count(*) from {table}"))?;
        session.batch_execute("set enable_seqscan = off; set enable_bitmapscan = off")?;
        let ordered = number(
            session,
            &format!("select count(*) from (select {key} from {table} order by {key}) s"),
        )?;
        session.batch_execute(
            "reset enable_seqscan; set enable_hashjoin = off; set enable_mergejoin = off",
        )?;
        let looked_up = number(
            session,
            &format!(
                "select count(*) from (select {key} from {table} limit 20000) s join {table} using ({key})"
            ),
        )?;
        session.batch_execute(
            "reset enable_bitmapscan; reset enable_hashjoin; reset enable_mergejoin",
        )?;
        ensure!(
            scan == ordered && looked_up == scan.min(20000),
            "{table}: {scan} rows by scan, {ordered} in key order, {looked_up} by key"
        );
    }
    Ok(())
}

/// Every reference leads to its row, by the index and without: each ledger row
/// has its one note, each account its two holdings.
fn references_hold(session: &mut Client) -> Result<u64> {
    let mut looked_at = 0;
    for setting in ["off", "on"] {
        session.batch_execute(&format!(
            "set enable_hashjoin = {setting}; set enable_mergejoin = {setting}"
        ))?;
        let loose = number(
            session,
            "select count(*) from note n left join ledger l using (client, k) where l.client is null",
        )?;
        let unnoted = number(
            session,
            "select count(*) from ledger l left join note n using (client, k) where n.id is null",
        )?;
        let held = number(
            session,
            "select count(*) from account a join holding h on h.account = a.k",
        )?;
        ensure!(
            loose == 0 && unnoted == 0 && held == 2 * i64::from(ACCOUNTS),
            "{loose} notes without their ledger row, {unnoted} ledger rows without a note, \
             {held} holdings of accounts"
        );
        looked_at += held as u64;
    }
    session.batch_execute("reset enable_hashjoin; reset enable_mergejoin")?;
    Ok(looked_at + number(session, "select count(*) from note")? as u64)
}
