//! `cargo xtask bench`: numbers against heap + btree, same server, same run.
//!
//! `benches/sql/README.md` describes the method.

mod big;
mod delete;
mod indexes;
mod load;
mod meter;
mod question;
mod tpcb;

use anyhow::Result;
use clap::Subcommand;
use postgres::Client;
use rowref_tests::installation::workspace;
use rowref_tests::{Cluster, Options};

use crate::{prepare, table};

/// What to measure.
#[derive(Subcommand)]
pub enum What {
    /// Lookups, ranges, scans, sizes, loads, updates and deletes, with targets.
    Core(Core),
    /// Four secondary indexes: builds, updates, deletes, scans, with targets.
    Indexes(Indexes),
    /// pgbench's TPC-B-like transactions, with targets.
    Pgbench(Pgbench),
}

/// Options of `bench pgbench`.
#[derive(clap::Args)]
pub struct Pgbench {
    /// Measured repetitions; the median counts.
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Size, as pgbench counts it: 100,000 accounts each.
    #[arg(long, default_value_t = 50)]
    scale: u32,
    /// Seconds of one run.
    #[arg(long, default_value_t = 15)]
    seconds: u32,
}

/// Options of `bench indexes`.
#[derive(clap::Args)]
pub struct Indexes {
    /// Measured repetitions; the median counts.
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Rows of each table.
    #[arg(long, default_value_t = 1_000_000)]
    rows: i64,
    /// Only one question.
    #[arg(long, value_enum)]
    only: Option<indexes::Only>,
}

/// Options of `bench core`.
#[derive(clap::Args)]
pub struct Core {
    /// Measured repetitions; the median counts.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// Rows of the main table.
    #[arg(long, default_value_t = 1_000_000)]
    rows: i64,
    /// Also COPY, UPDATE and DELETE this many rows and print the peak memory.
    #[arg(long, num_args = 0..=1, default_missing_value = "20000000")]
    big: Option<i64>,
    /// Only the big part.
    #[arg(long)]
    only_big: bool,
}

/// The two tables that are compared.
const HEAP: &str = "bench_heap";
const OURS: &str = "bench_ours";

/// One line of the report.
struct Line {
    what: String,
    heap: f64,
    ours: f64,
    unit: &'static str,
    target: Target,
}

/// What the ratio ours/heap should be.
#[derive(Clone, Copy)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
    None,
}

impl Target {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Target::AtMost(limit) => ratio <= limit,
            Target::AtLeast(limit) => ratio >= limit,
            Target::None => true,
        }
    }

    fn text(self) -> String {
        match self {
            Target::AtMost(limit) => format!("<= {limit:.2}"),
            Target::AtLeast(limit) => format!(">= {limit:.2}"),
            Target::None => String::new(),
        }
    }
}

impl Line {
    fn ratio(&self) -> f64 {
        self.ours / self.heap
    }

    fn cells(&self) -> Vec<String> {
        let show = |value: f64| match self.unit {
            "s" | "ms" => format!("{value:.3} {}", self.unit),
            "MB" => format!("{value:.1} MB"),
            unit => format!("{} {unit}", table::thousands(value)),
        };
        vec![
            self.what.clone(),
            show(self.heap),
            show(self.ours),
            format!("{:.2}", self.ratio()),
            self.target.text(),
            match (self.target, self.target.is_met(self.ratio())) {
                (Target::None, _) => "",
                (_, true) => "met",
                (_, false) => "MISSED",
            }
            .to_owned(),
        ]
    }
}

/// A file of `benches/sql` for one table.
fn sql(file: &str, table: &str) -> Result<String> {
    let text = std::fs::read_to_string(workspace().join("benches/sql").join(file))?;
    Ok(text.trim().replace(":t ", &format!("{table} ")))
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs the measurements. Missed targets are shown; they do not fail the run.
pub fn run(am: &str, what: &What) -> Result<bool> {
    prepare::for_server()?;
    let options = Options::plain(am)
        .set("shared_buffers", "3GB")
        .set("max_wal_size", "30GB")
        .set("checkpoint_timeout", "1h")
        .set("fsync", "off")
        .set("autovacuum", "off")
        .set("max_parallel_workers_per_gather", "0")
        .set("maintenance_work_mem", "512MB");
    println!("starting a private server");
    let cluster = Cluster::start(options)?;
    let mut client = cluster.connect("postgres")?;
    match what {
        What::Core(core) => {
            if !core.only_big {
                let mut lines = Vec::new();
                load::fill(&mut client, am, core.rows)?;
                lines.extend(question::compare(&mut client, core.repetitions)?);
                lines.extend(question::update(&mut client, core.repetitions)?);
                let rows = core.rows / 2;
                lines.extend(delete::compare(&mut client, am, rows, core.repetitions)?);
                lines.extend(load::compare(&cluster, &mut client, am, core.repetitions)?);
                report("core", am, &lines);
            }
            if core.big.is_some() || core.only_big {
                big::run(&mut client, am, core.big.unwrap_or(20_000_000))?;
            }
        }
        What::Indexes(Indexes {
            repetitions,
            rows,
            only,
        }) => {
            let lines = match only {
                None => indexes::compare(&cluster, &mut client, am, *rows, *repetitions)?,
                Some(indexes::Only::Or) => {
                    indexes::compare_or(&mut client, am, *rows, *repetitions)?
                }
            };
            report("indexes", am, &lines);
        }
        What::Pgbench(Pgbench {
            repetitions,
            scale,
            seconds,
        }) => {
            let lines = tpcb::compare(&cluster, am, *scale, *seconds, *repetitions)?;
            report("pgbench", am, &lines);
        }
    }
    drop(client);
    cluster.finish()?;
    Ok(true)
}

/// Prints the lines, and how many targets are met.
fn report(name: &str, am: &str, lines: &[Line]) {
    println!();
    table::print(
        &["", "heap + btree", am, "ratio", "target", ""],
        &lines.iter().map(Line::cells).collect::<Vec<_>>(),
    );
    let judged: Vec<_> = lines
        .iter()
        .filter(|line| !matches!(line.target, Target::None))
        .collect();
    let met = judged
        .iter()
        .filter(|line| line.target.is_met(line.ratio()))
        .count();
    println!("bench {name}: {met} of {} targets met", judged.len());
}

/// Id of the session's server process.
fn backend(client: &mut Client) -> Result<i32> {
    Ok(client.query_one("select pg_backend_pid()", &[])?.get(0))
}
