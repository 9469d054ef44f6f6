//! `cargo xtask anomalies`: random transactions by several sessions, judged by
//! whether their isolation level allows what they saw.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use rowref_tests::anomalies::{Level, Plan as Work, Shape, check, run as work};
use rowref_tests::{Cluster, Options};

use crate::prepare;

/// How long, which seed, how many sessions.
#[derive(Args)]
pub struct Plan {
    /// How long to go on, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What an earlier run printed. Sessions race, so a run is like that one,
    /// not the same.
    #[arg(long)]
    seed: Option<u64>,
    /// Sessions that work at the same time.
    #[arg(long, default_value_t = 6)]
    sessions: u64,
    /// Only this level: 1, 2 or 3 for READ COMMITTED, REPEATABLE READ,
    /// SERIALIZABLE.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=3))]
    level: Option<u8>,
}

/// Histories of a few seconds each, at each level and on each kind of table.
pub fn run(am: &str, plan: &Plan) -> Result<bool> {
    prepare::for_server()?;
    let seed = plan.seed.unwrap_or_else(|| fastrand::u64(0..1_000_000));
    println!("seed {seed}");
    let mut options = Options::test()
        .set("deadlock_timeout", "50ms")
        .set("max_prepared_transactions", "20");
    options.access_method = am.into();
    let cluster = Cluster::start(options)?;
    let levels = match plan.level {
        Some(number) => vec![Level::ALL[usize::from(number) - 1]],
        None => Level::ALL.to_vec(),
    };
    let end = Instant::now() + Duration::from_secs(plan.seconds);
    let (mut round, mut committed, mut clean) = (0, 0, true);
    while Instant::now() < end {
        for (level, shape) in levels
            .iter()
            .flat_map(|level| Shape::ALL.map(|shape| (*level, shape)))
        {
            let one = Work {
                level,
                shape,
                time: Duration::from_secs(3),
                seed: seed.wrapping_add(round),
                sessions: plan.sessions,
            };
            round += 1;
            let Some(history) = work(&cluster, one)? else {
                continue;
            };
            committed += history.transactions.iter().filter(|t| t.committed).count();
            let anomalies = check(&history, level);
            if !anomalies.is_empty() {
                clean = false;
                println!("{one:?}\n{anomalies:#?}");
            }
        }
    }
    cluster.finish()?;
    println!("{committed} transactions committed, seed {seed}");
    println!("{}", if clean { "no anomalies" } else { "ANOMALIES" });
    Ok(clean)
}
