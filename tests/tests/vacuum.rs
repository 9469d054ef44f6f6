//! VACUUM as others see it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rowref_tests::{Cluster, Options, access_method};

#[test]
fn a_running_vacuum_says_how_far_it_has_come() -> Result<()> {
    let cluster = Cluster::start(Options::test().set("autovacuum", "off"))?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "create table t (k int primary key, pad text) using {};
         insert into t select i, repeat('x', 100) from generate_series(1, 50000) i;
         delete from t where k % 3 = 0",
        access_method()
    ))?;
    let mut observer = cluster.connect("postgres")?;
    std::thread::scope(|scope| -> Result<()> {
        let vacuum = scope.spawn(|| {
            // A page costs the same whether it was dirty before or not, and
            // twenty of them ten milliseconds.
            client.batch_execute(
                "set vacuum_cost_delay = 10; set vacuum_cost_limit = 20;
                 set vacuum_cost_page_hit = 1; set vacuum_cost_page_miss = 1;
                 set vacuum_cost_page_dirty = 1",
            )?;
            client.batch_execute("vacuum t")
        });
        let start = Instant::now();
        let mut seen = Vec::new();
        while !vacuum.is_finished() {
            for row in observer.query(
                "select phase, heap_blks_total, heap_blks_scanned
                 from pg_stat_progress_vacuum where relid = 't'::regclass",
                &[],
            )? {
                seen.push((
                    row.get::<_, String>(0),
                    row.get::<_, i64>(1),
                    row.get::<_, i64>(2),
                ));
            }
            ensure!(start.elapsed() < Duration::from_secs(60), "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        vacuum.join().expect("no panic")?;
        let scanning: Vec<_> = seen
            .iter()
            .filter(|(phase, total, _)| phase == "scanning heap" && *total > 0)
            .collect();
        ensure!(
            scanning.is_sorted_by_key(|(_, _, scanned)| scanned),
            "it goes back: {seen:?}"
        );
        ensure!(
            scanning
                .iter()
                .any(|(_, total, scanned)| 0 < *scanned && scanned < total),
            "it was never seen half done: {seen:?}"
        );
        ensure!(
            scanning.iter().all(|(_, total, scanned)| scanned <= total),
            "more than all: {seen:?}"
        );
        Ok(())
    })?;
    drop((client, observer));
    cluster.finish()
}

#[test]
fn a_running_vacuum_full_says_how_far_it_has_come() -> Result<()> {
    const ROWS: i64 = 300_000;
    let cluster = Cluster::start(Options::test().set("autovacuum", "off"))?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "create table t (k int primary key, pad text) using {};
         insert into t select i, repeat('x', 100) from generate_series(1, {ROWS}) i",
        access_method()
    ))?;
    let mut observer = cluster.connect("postgres")?;
    std::thread::scope(|scope| -> Result<()> {
        let vacuum = scope.spawn(|| client.batch_execute("vacuum full t"));
        let mut seen = Vec::new();
        while !vacuum.is_finished() {
            for row in observer.query(
                "select heap_blks_total, heap_blks_scanned, heap_tuples_written
                 from pg_stat_progress_cluster
                 where command = 'VACUUM FULL' and phase = 'seq scanning heap'
                   and heap_blks_total > 0",
                &[],
            )? {
                seen.push((
                    row.get::<_, i64>(0),
                    row.get::<_, i64>(1),
                    row.get::<_, i64>(2),
                ));
            }
        }
        vacuum.join().expect("no panic")?;
        ensure!(
            seen.is_sorted_by_key(|(_, scanned, written)| (*scanned, *written)),
            "it goes back: {seen:?}"
        );
        ensure!(
            seen.iter().any(|(total, scanned, written)| 0 < *scanned
                && scanned < total
                && (1..ROWS).contains(written)),
            "it was never seen half done: {seen:?}"
        );
        ensure!(
            seen.iter()
                .all(|(total, scanned, written)| scanned <= total && *written <= ROWS),
            "more than all: {seen:?}"
        );
        Ok(())
    })?;
    drop((client, observer));
    cluster.finish()
}
