//! Filling tables, and what filling costs.

use anyhow::{Context, Result};
use postgres::Client;
use rowref_tests::Cluster;

use super::meter::{self, Cost};
use super::{HEAP, Line, OURS, Target, middle, sql};
use crate::demo::{load::copy, packages};

/// Makes the two main tables with the same rows, loaded in the same random
/// order, and the lists of keys that drive the questions.
pub fn fill(client: &mut Client, am: &str, rows: i64) -> Result<()> {
    println!("loading {rows} rows in random order into both tables");
    client.batch_execute(&format!(
        "create table bench_source using heap as
           select i as k, i % 1000 as n, md5(i::text) || md5((i + 1)::text) || md5((i + 2)::text) as pad
           from generate_series(1::bigint, {rows}) i;
         create table bench_keys using heap as select k from bench_source order by hashint8extended(k, 1);
         create table bench_starts using heap as
           select 1 + (hashint8extended(i, 2) & 9223372036854775807) % ({rows} - 100) as k
           from generate_series(1, 10000) i;
         create table bench_updates using heap as
           select k from bench_source order by hashint8extended(k, 3) limit {rows} / 5;"
    ))?;
    for (table, method) in [(HEAP, "heap"), (OURS, am)] {
        client.batch_execute(&format!("set default_table_access_method = {method}"))?;
        client.batch_execute(&sql("schema.sql", table)?)?;
        client.batch_execute(&format!(
            "insert into {table} select * from bench_source order by hashint8extended(k, 4)"
        ))?;
    }
    client.batch_execute("reset default_table_access_method")?;
    for table in [HEAP, OURS, "bench_keys", "bench_starts", "bench_updates"] {
        client.batch_execute(&format!("vacuum analyze {table}"))?;
    }
    Ok(())
}

/// One COPY into a new table of each kind, in turns.
fn copies(
    client: &mut Client,
    am: &str,
    create: &str,
    file: &str,
    repetitions: usize,
) -> Result<([Vec<Cost>; 2], [i64; 2], i64)> {
    let mut costs = [Vec::new(), Vec::new()];
    let mut sizes = [0, 0];
    let mut rows = 0;
    for repetition in 0..=repetitions {
        for (which, method) in ["heap", am].iter().enumerate() {
            client.batch_execute(&format!(
                "create table bench_copied {create} using {method}"
            ))?;
            client.batch_execute("checkpoint")?;
            let (cost, copied) = meter::measure(client, |client| {
                Ok(client.execute(&format!("copy bench_copied from '{file}'"), &[])?)
            })?;
            rows = copied as i64;
            client.batch_execute("vacuum bench_copied")?;
            sizes[which] = client
                .query_one("select pg_total_relation_size('bench_copied')", &[])?
                .get(0);
            client.batch_execute("drop table bench_copied")?;
            if repetition > 0 {
                costs[which].push(cost);
            }
        }
    }
    Ok((costs, sizes, rows))
}

fn lines_of_copy(what: &str, costs: &[Vec<Cost>; 2], rows: i64) -> Vec<Line> {
    let of =
        |which: usize, part: &dyn Fn(&Cost) -> f64| middle(costs[which].iter().map(part).collect());
    let rate = |cost: &Cost| rows as f64 / cost.seconds;
    let wal = |cost: &Cost| cost.wal / 1048576.0;
    let cpu = |cost: &Cost| cost.cpu;
    let line = |name: &str, part: &dyn Fn(&Cost) -> f64, unit, target| Line {
        what: format!("{what}, {name}"),
        heap: of(0, part),
        ours: of(1, part),
        unit,
        target,
    };
    vec![
        line("rows/s", &rate, "rows/s", Target::AtLeast(1.1)),
        line("WAL", &wal, "MB", Target::AtMost(0.75)),
        line("CPU", &cpu, "s", Target::None),
    ]
}

/// COPY in key order of the main table's rows and of the demo's edge table,
/// and that table's size.
pub fn compare(
    cluster: &Cluster,
    client: &mut Client,
    am: &str,
    repetitions: usize,
) -> Result<Vec<Line>> {
    println!("measuring: COPY in key order");
    let directory = cluster.data().join("bench");
    std::fs::create_dir_all(&directory)?;
    cluster.installation.account.own(&directory)?;
    let file = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let main = file("main.copy");
    client.batch_execute(&format!(
        "copy (select * from bench_source order by k) to '{main}'"
    ))?;
    let create = sql("schema.sql", "bench_copied")?;
    let create = create
        .strip_prefix("create table bench_copied ")
        .context("schema.sql does not start with create table :t")?;
    let (costs, sizes, rows) = copies(client, am, create, &main, repetitions)?;
    let mut lines = lines_of_copy("COPY in key order", &costs, rows);
    lines.push(Line {
        what: "the copied table + key, size".into(),
        heap: sizes[0] as f64 / 1048576.0,
        ours: sizes[1] as f64 / 1048576.0,
        unit: "MB",
        target: Target::None,
    });

    println!("measuring: the edge table of Debian's packages");
    let index = packages::read()?;
    let columns = format!("({})", packages::DEPENDENCY_COLUMNS);
    client.batch_execute(&format!("create table bench_edges {columns} using heap"))?;
    copy(client, "bench_edges", &index.dependencies)?;
    let edges = file("edges.copy");
    client.batch_execute(&format!(
        "copy (select * from bench_edges order by package, architecture, version, kind, position, alternative) to '{edges}'"
    ))?;
    let (costs, sizes, rows) = copies(client, am, &columns, &edges, repetitions.min(3))?;
    lines.push(Line {
        what: format!("edge table ({rows} rows) + key, size"),
        heap: sizes[0] as f64 / 1048576.0,
        ours: sizes[1] as f64 / 1048576.0,
        unit: "MB",
        target: Target::AtMost(0.7),
    });
    lines.extend(lines_of_copy("edge table COPY in key order", &costs, rows));
    Ok(lines)
}
