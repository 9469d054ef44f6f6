//! `bench pgbench`: pgbench's TPC-B-like transactions on tables of either kind,
//! as prepared statements, which the target is for, and as pgbench sends them if
//! it is not told otherwise.

use anyhow::{Context, Result, ensure};
use rowref_tests::Cluster;

use super::{Line, Target, middle};

/// A database of each kind; what is made in it gets that access method.
const DATABASES: [&str; 2] = ["bench_heap", "bench_ours"];

/// How statements are sent: planned once for each session, or each time.
const MODES: [&str; 2] = ["prepared", "simple"];

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
    let mut lines = Vec::new();
    for mode in MODES {
        let mut runs = [Vec::new(), Vec::new()];
        for repetition in 0..=repetitions {
            for (database, runs) in DATABASES.iter().zip(&mut runs) {
                println!("measuring: {database}, {mode}, {seconds} seconds");
                // Each run meets the same: nothing to write to the log as an
                // image but what it touches first.
                client.batch_execute("checkpoint")?;
                let run = run(cluster, database, mode, seconds)?;
                if repetition > 0 {
                    runs.push(run);
                }
            }
        }
        lines.extend(compared(&runs, mode, scale));
    }
    for database in DATABASES {
        let sums = cluster.connect(database)?.query_one(
            "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)
                and (select sum(tbalance) from pgbench_tellers) = (select sum(bbalance) from pgbench_branches)",
            &[],
        )?;
        ensure!(sums.get::<_, bool>(0), "{database}: the sums do not agree");
    }
    Ok(lines)
}

/// What the runs in one mode come to; prepared statements have targets.
fn compared(runs: &[Vec<Run>; 2], mode: &str, scale: u32) -> [Line; 2] {
    let of = |part: &dyn Fn(&Run) -> f64| {
        [&runs[0], &runs[1]].map(|runs| middle(runs.iter().map(part).collect()))
    };
    let [heap_rate, our_rate] = of(&|run| run.transactions_per_second);
    let [heap_wal, our_wal] = of(&|run| run.wal_per_transaction);
    let target = |target| {
        if mode == "prepared" {
            target
        } else {
            Target::None
        }
    };
    [
        Line {
            what: format!("pgbench, scale {scale}, 2 clients, {mode}"),
            heap: heap_rate,
            ours: our_rate,
            unit: "tps",
            target: target(Target::AtLeast(1.0)),
        },
        Line {
            what: "WAL per transaction".into(),
            heap: heap_wal,
            ours: our_wal,
            unit: "B",
            target: target(Target::AtMost(0.8)),
        },
    ]
}

fn run(cluster: &Cluster, database: &str, mode: &str, seconds: u32) -> Result<Run> {
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
            mode,
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
