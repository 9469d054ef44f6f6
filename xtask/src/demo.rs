//! `cargo xtask demo`: the main job on real data.
//!
//! Debian's package index is loaded into heap with a btree key and into a
//! table of the access method under test, both with the same columns. Then
//! both are measured, changed under concurrency, and the server is killed in
//! the middle of a load. Every claim that is printed has been checked.

mod interrupt;
pub mod load;
pub mod packages;
mod query;
mod transfer;

use std::time::Instant;

use anyhow::{Result, ensure};
use postgres::Client;
use rowref_tests::{Cluster, verify};

use crate::{prepare, server, table};
use packages::{DEPENDENCY_COLUMNS, PACKAGE_COLUMNS};

/// Says what comes next, with the time that has passed.
struct Progress(Instant);

impl Progress {
    fn say(&self, text: &str) {
        println!("\n[{:5.1} s] {text}", self.0.elapsed().as_secs_f64());
    }
}

/// A fresh database `demo` with two sets of tables.
fn create(cluster: &Cluster, am: &str) -> Result<Client> {
    let mut admin = cluster.connect("postgres")?;
    admin.batch_execute("drop database if exists demo with (force)")?;
    admin.batch_execute("create database demo")?;
    cluster.create_extension("demo")?;
    let mut client = cluster.connect("demo")?;
    for (suffix, method) in [("", am), ("_heap", "heap")] {
        client.batch_execute(&format!(
            "create table packages{suffix} ({PACKAGE_COLUMNS}) using {method};
             create table dependencies{suffix} ({DEPENDENCY_COLUMNS}) using {method};"
        ))?;
    }
    Ok(client)
}

/// Runs the demonstration.
pub fn run(am: &str) -> Result<bool> {
    prepare::for_server()?;
    let progress = Progress(Instant::now());
    progress.say("starting a private server");
    let mut cluster = server::start(am)?;
    let log_before = cluster.log().len();
    progress.say("reading Debian's package index");
    let index = packages::read()?;
    println!(
        "{} packages with {} dependencies from {}",
        table::thousands(index.packages.len() as f64),
        table::thousands(index.dependencies.len() as f64),
        index.source
    );
    let mut client = create(&cluster, am)?;

    progress.say(&format!("loading them into heap + btree and into {am}"));
    load::compare(&mut client, &index, am)?;

    progress.say("key lookups and key-prefix ranges, data in cache");
    query::compare(&mut client, am)?;

    progress.say(&format!("a key-prefix query on {am}"));
    query::explain(&mut client)?;

    progress.say("4 clients move amounts between rows, a fifth checks the sum");
    transfer::compare(&cluster, &index, am)?;
    let size_sum = transfer::sum(&mut client, "packages")?;

    progress.say("killing the server (SIGKILL to every process) in the middle of a load");
    drop(client);
    let outcome = interrupt::run(&mut cluster, &index, am)?;

    progress.say("verifying everything after recovery");
    let mut client = cluster.connect("demo")?;
    ensure!(
        transfer::sum(&mut client, "packages")? == size_sum,
        "LOST: the amounts moved before the crash no longer balance"
    );
    load::assert_equal(&mut client)?;
    let tables = verify::tables(&mut client, am)?;
    let problems = verify::verify_all(&mut client, am)?;
    ensure!(
        problems.is_empty(),
        "rowref.verify found:\n{}",
        problems.join("\n")
    );
    let log = cluster.log();
    let complaints = rowref_tests::log::complaints(
        log.get(log_before..).unwrap_or_default(),
        &["was terminated by signal 9".to_owned()],
    );
    ensure!(
        complaints.is_empty(),
        "the server complained:\n{}",
        complaints.join("\n")
    );
    if rowref_tests::needs_extension(am) {
        println!(
            "rowref.verify found no problem in {} tables: {}",
            tables.len(),
            tables.join(", ")
        );
    }
    println!("contents equal the heap tables' in both directions; sums balance");

    progress.say("done");
    println!("the server with database demo keeps running:");
    println!("  open psql on it:  cargo xtask server psql -d demo");
    println!(
        "               or:  {} \"{}\"",
        cluster.installation.program("psql").display(),
        cluster.conninfo("demo")
    );
    println!("  stop it:          cargo xtask server stop");
    println!("{outcome}");
    cluster.leave_running();
    Ok(true)
}
