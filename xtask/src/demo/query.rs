//! Reading by key and by key prefix.

use std::time::Instant;

use anyhow::{Result, ensure};
use postgres::Client;

use crate::table::{self, thousands};

/// Joins by nested loop only, one process, so that the inner side is what is measured.
const BY_KEY: &str = "set enable_hashjoin = off; set enable_mergejoin = off;
    set max_parallel_workers_per_gather = 0; set enable_material = off; set enable_memoize = off";

/// Rounds that are measured, after one that warms the cache.
const ROUNDS: usize = 5;

/// Median seconds of the same question to heap and to the other table, asked
/// in turns, so that a busy machine disturbs both alike; and the number of
/// rows, on which they have to agree.
fn compare_one(client: &mut Client, heap: &str, ours: &str) -> Result<(f64, f64, i64)> {
    let mut times = [Vec::new(), Vec::new()];
    let mut answers = Vec::new();
    for round in 0..=ROUNDS {
        for (query, times) in [heap, ours].iter().zip(&mut times) {
            let start = Instant::now();
            answers.push(client.query_one(*query, &[])?.get::<_, i64>(0));
            if round > 0 {
                times.push(start.elapsed().as_secs_f64());
            }
        }
    }
    ensure!(
        answers.windows(2).all(|pair| pair[0] == pair[1]),
        "answers differ: {answers:?}: {ours}"
    );
    let [heap, ours] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    });
    Ok((heap, ours, answers[0]))
}

/// Measures both kinds of table with the same questions.
pub fn compare(client: &mut Client, am: &str) -> Result<()> {
    client.batch_execute(
        "create table picked using heap as
           select package, architecture, version, kind, position, alternative from dependencies_heap
           order by hashtext(package || version || kind || position || '/' || alternative) limit 100000;
         create table picked_packages using heap as
           select package, architecture, version from packages_heap
           order by hashtext(package || version) limit 20000;
         analyze picked; analyze picked_packages",
    )?;
    client.batch_execute(BY_KEY)?;
    let questions: [(&str, &str); 3] = [
        (
            "100 000 lookups by full key (6 columns)",
            "select (count(*) + 0 * sum(length(target)))::bigint from picked join {d} using
             (package, architecture, version, kind, position, alternative)",
        ),
        (
            "20 000 lookups of packages",
            "select (count(*) + 0 * sum(size))::bigint from picked_packages join {p} using
             (package, architecture, version)",
        ),
        (
            "20 000 ranges by key prefix (package, architecture)",
            "select (count(*) + 0 * sum(length(target)))::bigint from picked_packages k join {d} d on
             d.package = k.package and d.architecture = k.architecture",
        ),
    ];
    let mut rows = Vec::new();
    for (title, question) in questions {
        let on = |suffix: &str| {
            question
                .replace("{d}", &format!("dependencies{suffix}"))
                .replace("{p}", &format!("packages{suffix}"))
        };
        let (heap, ours, found) = compare_one(client, &on("_heap"), &on(""))?;
        rows.push(vec![
            title.to_owned(),
            thousands(found as f64),
            format!("{:.0} ms", heap * 1e3),
            format!("{:.0} ms", ours * 1e3),
            format!("{:.2}", ours / heap),
        ]);
    }
    client.batch_execute("reset all")?;
    table::print(&["", "rows", "heap + btree", am, "ratio"], &rows);
    Ok(())
}

/// Shows how the server reads a prefix of the key.
pub fn explain(client: &mut Client) -> Result<()> {
    let busiest: String = client
        .query_one(
            "select package from dependencies_heap group by package
             order by (package = 'postgresql-15') desc, count(*) desc, package limit 1",
            &[],
        )?
        .get(0);
    let query = format!(
        "select kind, position, target, requirement from dependencies
         where package = '{}' order by architecture, version, kind, position, alternative",
        busiest.replace('\'', "''")
    );
    println!("  {query}");
    let explain = format!("explain (analyze, buffers, costs off) {query}");
    for row in client.query(&explain, &[])? {
        println!("  {}", row.get::<_, String>(0));
    }
    Ok(())
}
