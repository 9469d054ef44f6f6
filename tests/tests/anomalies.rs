//! Random transactions at each isolation level, judged by what they saw.

use std::time::Duration;

use anyhow::Result;
use rowref_tests::anomalies::{Kind, Level, Plan, Shape, check, run};
use rowref_tests::{Cluster, Options, access_method, verify};

const SEED: u64 = 20;

fn cluster() -> Result<Cluster> {
    Cluster::start(
        Options::test()
            .set("deadlock_timeout", "50ms")
            .set("max_prepared_transactions", "20"),
    )
}

fn finish(cluster: Cluster) -> Result<()> {
    let mut client = cluster.connect("postgres")?;
    let problems = verify::verify_all(&mut client, &access_method())?;
    assert!(problems.is_empty(), "{problems:#?}");
    drop(client);
    cluster.finish()
}

#[test]
fn each_level_keeps_what_it_promises() -> Result<()> {
    let cluster = cluster()?;
    for (nth, level) in Level::ALL.into_iter().enumerate() {
        for shape in Shape::ALL {
            let plan = Plan {
                level,
                shape,
                time: Duration::from_secs(2),
                seed: SEED + nth as u64,
                sessions: 6,
            };
            let Some(history) = run(&cluster, plan)? else {
                println!("{plan:?}: no such table yet");
                continue;
            };
            let committed = history.transactions.iter().filter(|t| t.committed).count();
            println!("{plan:?}: {committed} of {}", history.transactions.len());
            assert!(committed > 100, "{plan:?}");
            let anomalies = check(&history, level);
            assert!(anomalies.is_empty(), "{plan:?}\n{anomalies:#?}");
        }
    }
    finish(cluster)
}

/// The same work at a weaker level shows that the checker would see it.
#[test]
fn weaker_levels_are_caught() -> Result<()> {
    let cluster = cluster()?;
    for (level, judged_as, kinds) in [
        (
            Level::ReadCommitted,
            Level::RepeatableRead,
            vec![Kind::LostUpdate, Kind::SkewedRead],
        ),
        (
            Level::RepeatableRead,
            Level::Serializable,
            vec![Kind::WriteSkew],
        ),
    ] {
        // Chance decides how soon.
        let mut found: Vec<Kind> = Vec::new();
        for attempt in 0..10 {
            let plan = Plan {
                level,
                shape: Shape::Integer,
                time: Duration::from_secs(2),
                seed: SEED + attempt,
                sessions: 6,
            };
            let history = run(&cluster, plan)?.expect("a table with a key");
            found.extend(check(&history, judged_as).iter().map(|a| a.kind));
            if kinds.iter().all(|kind| found.contains(kind)) {
                break;
            }
        }
        for kind in kinds {
            assert!(found.contains(&kind), "{level:?}: {found:?}");
        }
    }
    finish(cluster)
}
