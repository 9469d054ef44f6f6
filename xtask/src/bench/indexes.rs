//! `bench indexes`: what four secondary indexes cost, and what they give.

use anyhow::{Context, Result, ensure};
use postgres::Client;
use rowref_tests::Cluster;

use super::meter::{self, Cost};
use super::{HEAP, Line, OURS, Target, middle};

const TABLES: [&str; 2] = [HEAP, OURS];

/// The indexed columns: a number of few values, one of many, a text, a date.
const INDEXED: [&str; 4] = ["a", "b", "c", "d"];

/// A question that can be asked alone.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Only {
    /// OR over two indexed columns, of few rows and of many.
    Or,
}

/// Values of either column that are asked for in the OR with a target: of
/// 10,007 and of 9,001.
const VALUES: i64 = 20;

/// Fills both tables and measures all there is.
pub fn compare(
    cluster: &Cluster,
    client: &mut Client,
    am: &str,
    rows: i64,
    repetitions: usize,
) -> Result<Vec<Line>> {
    fill(client, am, rows)?;
    let mut lines = vec![build(client, repetitions.min(3))?];
    lines.extend(either(client, rows, VALUES, repetitions)?);
    lines.extend(update(cluster, client, rows, repetitions)?);
    lines.push(covered(client, rows)?);
    lines.extend(delete(client, rows)?);
    Ok(lines)
}

/// Fills both tables and asks for few rows and for many, by OR.
pub fn compare_or(
    client: &mut Client,
    am: &str,
    rows: i64,
    repetitions: usize,
) -> Result<Vec<Line>> {
    fill(client, am, rows)?;
    for table in TABLES {
        client.batch_execute(&format!(
            "create index on {table} (a); create index on {table} (d)"
        ))?;
        client.batch_execute(&format!("vacuum analyze {table}"))?;
    }
    let mut lines = Vec::new();
    for values in [1, VALUES, 100, 500] {
        lines.extend(either(client, rows, values, repetitions)?);
    }
    Ok(lines)
}

fn fill(client: &mut Client, am: &str, rows: i64) -> Result<()> {
    println!("loading {rows} rows into both tables");
    for (table, method) in [(HEAP, "heap"), (OURS, am)] {
        client.batch_execute(&format!(
            "create table {table} (k bigint primary key, a int not null, b bigint not null,
                                   c text not null, d date not null, payload text not null)
               using {method};
             insert into {table}
               select i, i % 10007, hashint8extended(i, 1), md5(i::text), date '2000-01-01' + (i % 9001)::int,
                      repeat('p', 40) || i
                 from generate_series(1::bigint, {rows}) i"
        ))?;
    }
    client.batch_execute("checkpoint")?;
    Ok(())
}

/// Builds an index of each kind, repeatedly; the last ones stay.
fn build(client: &mut Client, repetitions: usize) -> Result<Line> {
    println!("measuring: CREATE INDEX");
    let mut seconds = [Vec::new(), Vec::new()];
    for _ in 0..repetitions.max(1) {
        for (table, seconds) in TABLES.iter().zip(&mut seconds) {
            let mut sum = 0.0;
            for column in INDEXED {
                let index = format!("{table}_{column}");
                client.batch_execute(&format!("drop index if exists {index}"))?;
                let (cost, ()) = meter::measure(client, |client| {
                    Ok(client
                        .batch_execute(&format!("create index {index} on {table} ({column})"))?)
                })?;
                sum += cost.seconds;
            }
            seconds.push(sum);
        }
    }
    for table in TABLES {
        client.batch_execute(&format!("vacuum analyze {table}"))?;
    }
    let [heap, ours] = seconds.map(middle);
    Ok(Line {
        what: "CREATE INDEX, four of them".into(),
        heap,
        ours,
        unit: "s",
        target: Target::AtMost(1.3),
    })
}

/// OR over two indexed columns, by the clock and by the backend's CPU.
fn either(client: &mut Client, rows: i64, values: i64, repetitions: usize) -> Result<Vec<Line>> {
    println!("measuring: OR over two indexed columns, {values} values of each");
    // Of 10 million rows some plans' costs are so near to `jit_above_cost` that
    // it is the sample of ANALYZE that decides, for each table by itself, whether
    // a compilation as long as the whole query is measured with it.
    client.batch_execute("set enable_seqscan = off; set jit = off")?;
    let mut costs: [Vec<Cost>; 2] = [Vec::new(), Vec::new()];
    let mut answers = Vec::new();
    for repetition in 0..=repetitions {
        for (table, costs) in TABLES.iter().zip(&mut costs) {
            let question = format!(
                "select count(*), sum(length(payload)) from {table}
                  where a between 100 and 99 + {values}
                     or d between '2001-01-01' and date '2000-12-31' + {values}"
            );
            let (cost, row) =
                meter::measure(client, |client| Ok(client.query_one(&question, &[])?))?;
            answers.push((row.get::<_, i64>(0), row.get::<_, i64>(1)));
            if repetition > 0 {
                costs.push(cost);
            }
        }
    }
    client.batch_execute("reset enable_seqscan; reset jit")?;
    ensure!(
        answers.windows(2).all(|pair| pair[0] == pair[1]),
        "OR: answers differ: {answers:?}"
    );
    let what = format!(
        "OR over two indexed columns of {rows} rows, {} found",
        answers[0].0
    );
    let line = |what, part: fn(&Cost) -> f64, target| {
        let [heap, ours] = &costs;
        let [heap, ours] = [heap, ours].map(|costs| middle(costs.iter().map(part).collect()));
        Line {
            what,
            heap,
            ours,
            unit: "s",
            target,
        }
    };
    let target = if values == VALUES {
        Target::AtMost(1.0)
    } else {
        Target::None
    };
    Ok(vec![
        line(what.clone(), |cost| cost.seconds, target),
        line(format!("{what}, CPU"), |cost| cost.cpu, Target::None),
    ])
}

/// Updates while an old snapshot is held: no HOT update for heap, no pruning
/// for anybody.
fn update(
    cluster: &Cluster,
    client: &mut Client,
    rows: i64,
    repetitions: usize,
) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    let changed = rows / 20;
    for (what, assignment, rate, wal) in [
        (
            "an unindexed column",
            "payload = payload || 'x'",
            Target::AtLeast(2.5),
            Target::AtMost(0.3),
        ),
        (
            "one indexed column of four",
            "a = a + 1",
            Target::None,
            Target::AtMost(0.6),
        ),
    ] {
        println!("measuring: update of {what}, under an old snapshot");
        let mut old = cluster.connect("postgres")?;
        old.batch_execute("begin isolation level repeatable read; select count(*) from pg_class")?;
        let mut costs: [Vec<Cost>; 2] = [Vec::new(), Vec::new()];
        for repetition in 0..=repetitions {
            for (table, costs) in TABLES.iter().zip(&mut costs) {
                // Every twentieth row, others each time: all over the table.
                let statement =
                    format!("update {table} set {assignment} where k % 20 = {repetition} % 20");
                let (cost, count) =
                    meter::measure(client, |client| Ok(client.execute(&statement, &[])?))?;
                ensure!(count as i64 == changed, "{count} rows changed");
                if repetition > 0 {
                    costs.push(cost);
                }
            }
        }
        old.batch_execute("commit")?;
        let rows = changed as f64;
        let of = |part: &dyn Fn(&Cost) -> f64| {
            let [heap, ours] = &costs;
            [heap, ours].map(|costs| middle(costs.iter().map(part).collect()))
        };
        let [heap, ours] = of(&|cost| rows / cost.seconds);
        lines.push(Line {
            what: format!("update of {what}, rows/s"),
            heap,
            ours,
            unit: "rows/s",
            target: rate,
        });
        let [heap, ours] = of(&|cost| cost.wal / rows);
        lines.push(Line {
            what: format!("update of {what}, WAL per row"),
            heap,
            ours,
            unit: "B",
            target: wal,
        });
    }
    Ok(lines)
}

/// An index-only scan right behind those updates, without a VACUUM.
fn covered(client: &mut Client, rows: i64) -> Result<Line> {
    println!("measuring: an index-only scan right behind the updates");
    client.batch_execute("set enable_seqscan = off; set enable_bitmapscan = off")?;
    let mut touched = Vec::new();
    let mut answers = Vec::new();
    for table in TABLES {
        let question = format!("select count(*) from {table} where a between 2000 and 2999");
        let plan = client
            .query(
                &format!("explain (analyze, buffers, costs off, timing off) {question}"),
                &[],
            )?
            .iter()
            .map(|row| row.get::<_, String>(0))
            .collect::<Vec<_>>()
            .join("\n");
        ensure!(plan.contains("Index Only Scan"), "{plan}");
        touched.push(buffers(&plan).with_context(|| plan.clone())?);
        answers.push(client.query_one(&question, &[])?.get::<_, i64>(0));
    }
    client.batch_execute("reset enable_seqscan; reset enable_bitmapscan")?;
    ensure!(answers[0] == answers[1], "answers differ: {answers:?}");
    Ok(Line {
        what: format!("index-only scan of a tenth of {rows} rows, buffers"),
        heap: touched[0],
        ours: touched[1],
        unit: "buffers",
        target: Target::AtMost(0.2),
    })
}

/// The first "Buffers: shared hit=… read=…" of a plan, added up.
fn buffers(plan: &str) -> Option<f64> {
    let line = plan.lines().find(|line| line.contains("Buffers: shared"))?;
    let mut sum = 0.0;
    for word in line.split_whitespace() {
        if let Some(number) = word
            .strip_prefix("hit=")
            .or_else(|| word.strip_prefix("read="))
        {
            sum += number.parse::<f64>().ok()?;
        }
    }
    Some(sum)
}

/// Deleting a tenth, and the VACUUM behind it.
fn delete(client: &mut Client, rows: i64) -> Result<Vec<Line>> {
    println!("measuring: DELETE of a tenth, and VACUUM");
    for table in TABLES {
        client.batch_execute(&format!("vacuum analyze {table}"))?;
    }
    let mut deletes = Vec::new();
    let mut vacuums = Vec::new();
    for table in TABLES {
        let (cost, count) = meter::measure(client, |client| {
            Ok(client.execute(&format!("delete from {table} where k % 10 = 3"), &[])?)
        })?;
        ensure!(count as i64 == rows / 10, "{count} rows deleted");
        deletes.push(cost.seconds);
        let (cost, ()) = meter::measure(client, |client| {
            Ok(client.batch_execute(&format!("vacuum {table}"))?)
        })?;
        vacuums.push(cost.seconds);
    }
    Ok(vec![
        Line {
            what: "VACUUM after deleting a tenth".into(),
            heap: vacuums[0],
            ours: vacuums[1],
            unit: "s",
            target: Target::AtMost(0.5),
        },
        Line {
            what: "DELETE of a tenth and that VACUUM".into(),
            heap: deletes[0] + vacuums[0],
            ours: deletes[1] + vacuums[1],
            unit: "s",
            target: Target::AtMost(1.2),
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_a_plan_are_hits_and_reads_of_its_first_line() {
        let plan =
            "Aggregate\n  Buffers: shared hit=12 read=30\n  -> Scan\n  Buffers: shared hit=7";
        assert_eq!(buffers(plan), Some(42.0));
        assert_eq!(buffers("Aggregate"), None);
    }
}
