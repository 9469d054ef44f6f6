//! DELETE of every tenth row, found by a scan of the table, and the VACUUM
//! behind it. Tables are made anew for each repetition.

use anyhow::{Result, ensure};
use postgres::Client;

use super::meter::{self, Cost};
use super::{Line, Target, middle};

/// The cost of both steps, for a table of either kind.
#[derive(Default)]
struct Costs {
    delete: Vec<Cost>,
    vacuum: Vec<Cost>,
}

impl Costs {
    /// The median over the repetitions.
    fn of(&self, part: impl Fn(&Cost, &Cost) -> f64) -> f64 {
        let steps = self.delete.iter().zip(&self.vacuum);
        middle(steps.map(|(delete, vacuum)| part(delete, vacuum)).collect())
    }
}

/// Compares the two kinds, taking turns.
pub fn compare(client: &mut Client, am: &str, rows: i64, repetitions: usize) -> Result<Vec<Line>> {
    println!("measuring: DELETE of a tenth, and VACUUM");
    let mut costs = [Costs::default(), Costs::default()];
    for repetition in 0..=repetitions {
        for (am, costs) in ["heap", am].into_iter().zip(&mut costs) {
            let (delete, vacuum) = once(client, am, rows)?;
            if repetition > 0 {
                costs.delete.push(delete);
                costs.vacuum.push(vacuum);
            }
        }
    }
    let line = |what: &str, part: &dyn Fn(&Cost, &Cost) -> f64, unit, target| Line {
        what: what.to_owned(),
        heap: costs[0].of(part),
        ours: costs[1].of(part),
        unit,
        target,
    };
    Ok(vec![
        line("DELETE of a tenth, CPU", &|d, _| d.cpu, "s", Target::None),
        line("VACUUM behind it, CPU", &|_, v| v.cpu, "s", Target::None),
        line("both, CPU", &|d, v| d.cpu + v.cpu, "s", Target::AtMost(0.5)),
        line("both", &|d, v| d.seconds + v.seconds, "s", Target::None),
        line(
            "both, WAL",
            &|d, v| (d.wal + v.wal) / 1e6,
            "MB",
            Target::None,
        ),
    ])
}

fn once(client: &mut Client, am: &str, rows: i64) -> Result<(Cost, Cost)> {
    client.batch_execute(&format!(
        "create table bench_delete (k int primary key, pad text not null) using {am};
         insert into bench_delete
             select i, 'row ' || i || repeat('.', 70) from generate_series(1, {rows}) i"
    ))?;
    client.batch_execute("vacuum analyze bench_delete")?;
    let (delete, count) = meter::measure(client, |client| {
        Ok(client.execute("delete from bench_delete where k % 10 = 0", &[])?)
    })?;
    ensure!(count as i64 == rows / 10, "{count} rows deleted");
    let (vacuum, ()) = meter::measure(client, |client| {
        Ok(client.batch_execute("vacuum bench_delete")?)
    })?;
    client.batch_execute("drop table bench_delete")?;
    Ok((delete, vacuum))
}
