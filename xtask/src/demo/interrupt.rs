//! SIGKILL in the middle of a load, and what the client was promised.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use postgres::Client;
use rowref_tests::Cluster;

use super::load;
use super::packages::{DEPENDENCY_COLUMNS, DEPENDENCY_KEY, Index, key};
use crate::table::thousands;

/// Rows per transaction of the load.
const BATCH: usize = 500;

fn copy_batch(client: &mut Client, lines: &[String]) -> Result<()> {
    load::copy(client, "interrupted", lines)
}

/// Loads in batches, kills the server after about two fifths of them, restarts
/// it and compares what is there with what was acknowledged. Returns the
/// closing line.
pub fn run(cluster: &mut Cluster, index: &Index, am: &str) -> Result<String> {
    let batches: Vec<&[String]> = index.dependencies.chunks(BATCH).collect();
    cluster.connect("demo")?.batch_execute(&format!(
        "create table interrupted ({DEPENDENCY_COLUMNS}) using {am}"
    ))?;
    let acknowledged = AtomicUsize::new(0);
    let enough = batches.len() * 2 / 5;
    std::thread::scope(|scope| -> Result<()> {
        let mut client = cluster.connect("demo")?;
        let (acknowledged, batches) = (&acknowledged, &batches);
        let loader = scope.spawn(move || {
            for batch in batches.iter() {
                if copy_batch(&mut client, batch).is_err() {
                    return;
                }
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
        });
        while acknowledged.load(Ordering::SeqCst) < enough && !loader.is_finished() {
            std::thread::sleep(Duration::from_micros(200));
        }
        cluster.kill9_server()?;
        loader.join().expect("the loader panicked");
        Ok(())
    })?;
    let acknowledged = acknowledged.into_inner();
    if acknowledged == batches.len() || acknowledged < enough {
        bail!("the load ended after {acknowledged} commits, not in its middle");
    }
    println!("  killed after {acknowledged} acknowledged commits of {BATCH} rows");
    cluster.start_server()?;
    println!("  restarted; the server recovered");

    let mut client = cluster.connect("demo")?;
    let present: HashSet<String> = client
        .query(
            "select concat_ws(E'\\t', package, architecture, version, kind, position, alternative)
             from interrupted",
            &[],
        )?
        .iter()
        .map(|row| row.get(0))
        .collect();
    let found = |batch: &[String]| {
        batch
            .iter()
            .filter(|line| present.contains(key(line, DEPENDENCY_KEY)))
            .count()
    };
    for (number, batch) in batches[..acknowledged].iter().enumerate() {
        ensure!(
            found(batch) == batch.len(),
            "LOST: of the acknowledged commit {number}, {} of {} rows are there",
            found(batch),
            batch.len()
        );
    }
    // The commit in flight may have happened without the client hearing of it,
    // but only as a whole.
    let in_flight = found(batches[acknowledged]);
    ensure!(
        in_flight == 0 || in_flight == batches[acknowledged].len(),
        "TORN: {in_flight} rows of the unacknowledged commit are there"
    );
    let expected = acknowledged * BATCH + in_flight;
    ensure!(
        present.len() == expected,
        "{} rows are there instead of {expected}",
        present.len()
    );
    println!(
        "  all {} acknowledged rows are there; of the commit in flight {}",
        thousands((acknowledged * BATCH) as f64),
        if in_flight == 0 {
            "nothing"
        } else {
            "all rows"
        }
    );
    let rest = acknowledged + usize::from(in_flight > 0);
    for batch in &batches[rest..] {
        copy_batch(&mut client, batch)?;
    }
    let missing: i64 = client
        .query_one(
            "select count(*) from ((table dependencies_heap except table interrupted)
             union all (table interrupted except table dependencies_heap)) d",
            &[],
        )?
        .get(0);
    ensure!(
        missing == 0,
        "after the load went on, {missing} rows differ from heap's"
    );
    println!("  the load went on to its end and equals heap's");
    Ok(format!(
        "nothing acknowledged was lost: all {} acknowledged commits ({} rows) survived the SIGKILL",
        acknowledged,
        thousands((acknowledged * BATCH) as f64)
    ))
}
