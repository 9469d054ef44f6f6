//! Reading and updating two tables that hold the same rows.

use anyhow::{Result, ensure};
use postgres::Client;

use super::meter::{self, Cost};
use super::{HEAP, Line, OURS, Target, middle, sql};

/// Nested loops only, so that the inner side is what is measured.
const BY_KEY: &str = "set enable_hashjoin = off; set enable_mergejoin = off;
    set enable_material = off; set enable_memoize = off";

/// Asks a question of both tables in turns.
fn in_turns(
    client: &mut Client,
    file: &str,
    repetitions: usize,
    before: &dyn Fn(&mut Client, &str) -> Result<()>,
    ask: &dyn Fn(&mut Client, &str) -> Result<i64>,
) -> Result<[Vec<Cost>; 2]> {
    let mut costs = [Vec::new(), Vec::new()];
    let mut answers = Vec::new();
    for repetition in 0..=repetitions {
        for (table, costs) in [HEAP, OURS].iter().zip(&mut costs) {
            let statement = sql(file, table)?;
            before(client, table)?;
            let (cost, answer) = meter::measure(client, |client| ask(client, &statement))?;
            answers.push(answer);
            if repetition > 0 {
                costs.push(cost);
            }
        }
    }
    ensure!(
        answers.windows(2).all(|pair| pair[0] == pair[1]),
        "{file}: answers differ: {answers:?}"
    );
    Ok(costs)
}

fn of(costs: &[Cost], part: impl Fn(&Cost) -> f64) -> f64 {
    middle(costs.iter().map(part).collect())
}

fn count(client: &mut Client, statement: &str) -> Result<i64> {
    Ok(client.query_one(statement, &[])?.get(0))
}

/// Lookups, ranges, scans.
pub fn compare(client: &mut Client, repetitions: usize) -> Result<Vec<Line>> {
    let questions = [
        (
            "lookup.sql",
            "1 lookup per row by key, CPU",
            Target::AtMost(0.9),
        ),
        (
            "range.sql",
            "10 000 ranges of 100 rows after random load, CPU",
            Target::AtMost(0.35),
        ),
        ("scan.sql", "sequential scan, CPU", Target::AtMost(1.1)),
    ];
    let mut lines = Vec::new();
    for (file, what, target) in questions {
        println!("measuring: {what}");
        if file != "scan.sql" {
            client.batch_execute(BY_KEY)?;
        }
        let costs = in_turns(client, file, repetitions, &|_, _| Ok(()), &count)?;
        client.batch_execute(
            "reset enable_hashjoin; reset enable_mergejoin; reset enable_material; reset enable_memoize",
        )?;
        let [heap, ours] = costs.map(|costs| of(&costs, |cost| cost.cpu));
        lines.push(Line {
            what: what.into(),
            heap,
            ours,
            unit: "s",
            target,
        });
    }
    Ok(lines)
}

/// Updates by key. Each is rolled forward and vacuumed, so that every
/// repetition meets the same table.
pub fn update(client: &mut Client, repetitions: usize) -> Result<Vec<Line>> {
    let change = |client: &mut Client, statement: &str| -> Result<i64> {
        Ok(client.execute(statement, &[])? as i64)
    };
    let vacuum = |client: &mut Client, table: &str| -> Result<()> {
        Ok(client.batch_execute(&format!("vacuum {table}"))?)
    };
    let checkpoint = |client: &mut Client, table: &str| -> Result<()> {
        client.batch_execute(&format!("vacuum {table}"))?;
        Ok(client.batch_execute("checkpoint")?)
    };
    let rows = count(client, "select count(*) from bench_updates")? as f64;
    client.batch_execute(BY_KEY)?;
    let mut lines = Vec::new();
    println!("measuring: update of a payload column by key");
    let [heap, ours] = in_turns(client, "update.sql", repetitions, &vacuum, &change)?;
    let rate = |cost: &Cost| rows / cost.seconds;
    lines.push(Line {
        what: "update by key, WAL per row".into(),
        heap: of(&heap, |cost| cost.wal) / rows,
        ours: of(&ours, |cost| cost.wal) / rows,
        unit: "B",
        target: Target::AtMost(1.0),
    });
    lines.push(Line {
        what: "update by key, rows/s".into(),
        heap: of(&heap, rate),
        ours: of(&ours, rate),
        unit: "rows/s",
        target: Target::AtLeast(1.0),
    });
    lines.push(Line {
        what: "update by key, CPU".into(),
        heap: of(&heap, |cost| cost.cpu),
        ours: of(&ours, |cost| cost.cpu),
        unit: "s",
        target: Target::None,
    });
    println!("measuring: the same right after a checkpoint");
    let [heap, ours] = in_turns(
        client,
        "update.sql",
        repetitions.min(2),
        &checkpoint,
        &change,
    )?;
    lines.push(Line {
        what: "update by key after a checkpoint, WAL per row".into(),
        heap: of(&heap, |cost| cost.wal) / rows,
        ours: of(&ours, |cost| cost.wal) / rows,
        unit: "B",
        target: Target::None,
    });
    client.batch_execute(
        "reset enable_hashjoin; reset enable_mergejoin; reset enable_material; reset enable_memoize",
    )?;
    Ok(lines)
}
