//! Several clients change rows at once; the sum must stay.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use postgres::Client;
use rowref_tests::Cluster;

use super::packages::{Index, PACKAGE_KEY, key};
use crate::table::thousands;

const CLIENTS: u64 = 4;
const DURATION: Duration = Duration::from_secs(4);

/// Sum of all amounts.
pub fn sum(client: &mut Client, name: &str) -> Result<i64> {
    let query = format!("select sum(installed_size)::bigint from {name}");
    Ok(client.query_one(&query, &[])?.get(0))
}

/// Runs the clients on heap, then on the access method under test.
pub fn compare(cluster: &Cluster, index: &Index, am: &str) -> Result<()> {
    for (name, method) in [("packages_heap", "heap + btree"), ("packages", am)] {
        let (commits, checks) = run(cluster, index, name)?;
        println!(
            "  {method}: {} transfers/s; the sum was right each of the {checks} times it was checked meanwhile, and after",
            thousands(commits as f64 / DURATION.as_secs_f64())
        );
    }
    Ok(())
}

fn run(cluster: &Cluster, index: &Index, name: &str) -> Result<(u64, u64)> {
    let before = sum(&mut cluster.connect("demo")?, name)?;
    let end = Instant::now() + DURATION;
    let commits = AtomicU64::new(0);
    let mut checks = 0;
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..CLIENTS)
            .map(|seed| {
                let commits = &commits;
                scope.spawn(move || work(cluster, index, name, seed, end, commits))
            })
            .collect();
        let mut reader = cluster.connect("demo")?;
        while Instant::now() < end {
            let now = sum(&mut reader, name)?;
            ensure!(
                now == before,
                "{name}: the sum was {before}, a snapshot shows {now}"
            );
            checks += 1;
        }
        for worker in workers {
            worker.join().expect("a client panicked")?;
        }
        Ok(())
    })?;
    let after = sum(&mut cluster.connect("demo")?, name)?;
    ensure!(
        after == before,
        "{name}: the sum was {before} and is {after}"
    );
    Ok((commits.into_inner(), checks))
}

fn work(
    cluster: &Cluster,
    index: &Index,
    name: &str,
    seed: u64,
    end: Instant,
    commits: &AtomicU64,
) -> Result<()> {
    let mut client = cluster.connect("demo")?;
    let add = client.prepare(&format!(
        "update {name} set installed_size = installed_size + $4
         where package = $1 and architecture = $2 and version = $3"
    ))?;
    let mut random = fastrand::Rng::with_seed(seed);
    while Instant::now() < end {
        // In key order, so that two clients cannot wait for each other.
        let mut pair = [0, 0].map(|_| random.usize(..index.packages.len()));
        pair.sort_by_key(|&at| key(&index.packages[at], PACKAGE_KEY));
        let amount = random.i64(1..1000);
        let mut transaction = client.transaction()?;
        for (at, amount) in [(pair[0], -amount), (pair[1], amount)] {
            let columns: Vec<&str> = index.packages[at].split('\t').collect();
            let changed =
                transaction.execute(&add, &[&columns[0], &columns[1], &columns[2], &amount])?;
            ensure!(
                changed == 1,
                "{name}: {} was changed {changed} times",
                columns[0]
            );
        }
        transaction.commit()?;
        commits.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
