//! The one door to the project: `cargo xtask <command>`.
//!
//! Every command first makes sure that what it needs is installed, and ends by
//! saying what happened. Servers are private clusters; the system's clusters
//! are never touched.

#![forbid(unsafe_code)]

mod anomalies;
mod bench;
mod cargo;
mod check;
mod conformance;
mod crash;
mod demo;
mod install;
mod prepare;
mod server;
mod table;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Command line.
#[derive(Parser)]
#[command(name = "cargo xtask", about = "Everything one does with pg_rowref")]
struct Arguments {
    /// Table access method under test (`heap` runs every flow without the extension).
    #[arg(long, global = true, default_value_t = rowref_tests::access_method())]
    am: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Format, clippy, rustdoc and the tests that need no server.
    Check,
    /// Every test; ends with `N passed, N failed`.
    Test(test::Choice),
    /// The main job on real data: load, compare with heap, crash, verify.
    Demo,
    /// Measure against heap + btree in the same run.
    Bench {
        #[command(subcommand)]
        what: bench::What,
    },
    /// Random work, SIGKILLs at random moments, and an audit after each.
    Crash(crash::Plan),
    /// Random transactions at each isolation level, judged by what they saw.
    Anomalies(anomalies::Plan),
    /// PostgreSQL's own suites, set against heap under another name.
    Conformance(conformance::Plan),
    /// A private server with the extension preloaded.
    Server {
        #[command(subcommand)]
        action: server::Action,
    },
    /// Build and install the extension where pg_config says.
    Install {
        /// pg_config of the server to install into.
        #[arg(long)]
        pg_config: PathBuf,
        /// Root below which everything is put (for packagers).
        #[arg(long)]
        destdir: Option<PathBuf>,
    },
}

fn run(arguments: Arguments) -> Result<bool> {
    let am = arguments.am.as_str();
    match arguments.command {
        Command::Check => check::run(),
        Command::Test(choice) => test::run(am, &choice),
        Command::Demo => demo::run(am),
        Command::Bench { what } => bench::run(am, &what),
        Command::Crash(plan) => crash::run(am, &plan),
        Command::Anomalies(plan) => anomalies::run(am, &plan),
        Command::Conformance(plan) => conformance::run(am, &plan),
        Command::Server { action } => server::run(am, &action),
        Command::Install { pg_config, destdir } => install::run(&pg_config, destdir.as_deref()),
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
