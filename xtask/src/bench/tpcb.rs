//! `bench pgbench`: pgbench's TPC-B-like transactions on tables of either kind.

use anyhow::{Context, Result, ensure};
use rowref_tests::Cluster;

use super::{Line, Target, middle};

/// A database of each kind; what is made in it gets that access method.
const DATABASES: [&str; 2] = ["bench_heap", "bench_ours"];

/// What one run of pgbench says.
struct Run {
    transactions_per_second: f64,
    wal_per_transaction: f64,
}

/// Fills both databases and runs pgbench on them in turns.
pub fn compare(
    cluster: &Cluster,
    am: &str,
    scale: u32,
    seconds: u32,
    repetitions: usize,
) -> Result<Vec<Line>> {
    let mut client = cluster.connect("postgres")?;
    for (database, method) in DATABASES.iter().zip(["heap", am]) {
        println!("filling {database}, scale {scale}");
        client.batch_execute(&format!("create database {database}"))?;
        client.batch_execute(&format!(
            "alter database {database} set default_table_access_method = {method}"
        ))?;
        pgbench(cluster, database, &["-i", "-q", "-s", &scale.to_string()])?;
    }
    let mut runs = [Vec::new(), Vec::new()];
    for repetition in 0..=repetitions {
        for (database, runs) in DATABASES.iter().zip(&mut runs) {
            println!("measuring: {database}, {seconds} seconds");
            // Each run meets the same: nothing to write to the log as an image
            // but what it touches first.
            client.batch_execute("checkpoint")?;
            let run = run(cluster, database, seconds)?;
            if repetition > 0 {
                runs.push(run);
            }
        }
    }
    for database in DATABASES {
        let sums = cluster.connect(database)?.query_one(
            "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)
                and (select sum(tbalance) from pgbench_tellers) = (select sum(bbalance) from pgbench_branches)",
            &[],
        )?;
        ensure!(sums.get::<_, bool>(0), "{database}: the sums do not agree");
    }
    let of = |part: &dyn Fn(&Run) -> f64| {
        let [heap, ours] = &runs;
        [heap, ours].map(|runs| middle(runs.iter().map(part).collect()))
    };
    let [heap_rate, our_rate] = of(&|run| run.transactions_per_second);
    let [heap_wal, our_wal] = of(&|run| run.wal_per_transaction);
    Ok(vec![
        Line {
            what: format!("pgbench, scale {scale}, 2 clients"),
            heap: heap_rate,
            ours: our_rate,
            unit: "tps",
            target: Target::AtLeast(1.0),
        },
        Line {
            what: "WAL per transaction".into(),
            heap: heap_wal,
            ours: our_wal,
            unit: "B",
            target: Target::AtMost(0.8),
        },
    ])
}

fn run(cluster: &Cluster, database: &str, seconds: u32) -> Result<Run> {
    let mut client = cluster.connect("postgres")?;
    let mut wal = || -> Result<i64> {
        let query = "select (pg_current_wal_insert_lsn() - '0/0')::bigint";
        Ok(client.query_one(query, &[])?.get(0))
    };
    let before = wal()?;
    let said = pgbench(
        cluster,
        database,
        &[
            "-n",
            "-M",
            "prepared",
            "-c",
            "2",
            "-j",
            "1",
            "-T",
            &seconds.to_string(),
        ],
    )?;
    let written = (wal()? - before) as f64;
    let transactions = figure(&said, "number of transactions actually processed: ")?;
    Ok(Run {
        transactions_per_second: figure(&said, "tps = ")?,
        wal_per_transaction: written / transactions,
    })
}

/// The number behind a phrase in what pgbench prints.
fn figure(said: &str, phrase: &str) -> Result<f64> {
    let (_, rest) = said
        .split_once(phrase)
        .with_context(|| format!("pgbench does not say {phrase:?}:\n{said}"))?;
    let number = rest.split([' ', '\n', '/']).next().unwrap_or_default();
    number
        .parse()
        .with_context(|| format!("pgbench says {phrase:?} {number:?}"))
}

fn pgbench(cluster: &Cluster, database: &str, arguments: &[&str]) -> Result<String> {
    let output = cluster
        .client_program("pgbench")
        .args(arguments)
        .arg(database)
        .output()
        .context("running pgbench")?;
    ensure!(
        output.status.success(),
        "pgbench failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_pgbench_prints() {
        let said = "number of clients: 2\nnumber of transactions actually processed: 1234/5000\n\
                    tps = 617.123456 (without initial connection time)\n";
        let count = figure(said, "number of transactions actually processed: ").unwrap();
        assert_eq!(count, 1234.0);
        assert_eq!(figure(said, "tps = ").unwrap(), 617.123456);
        assert!(figure(said, "latency").is_err());
    }
}
