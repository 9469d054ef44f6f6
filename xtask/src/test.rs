//! `cargo xtask test`: every test, with one count at the end.

mod isolation;
mod programs;
mod regress;
mod script;
mod standby;
mod tally;

use std::fs;

use anyhow::Result;
use clap::Args;
use rowref_tests::installation::workspace;
use rowref_tests::{Installation, needs_extension};

use crate::{cargo, conformance, prepare};
pub use tally::Tally;

/// Which tests to run, and how.
#[derive(Args)]
pub struct Choice {
    /// Write the expected files from what the server answers now.
    #[arg(long)]
    bless: bool,
    /// Only these kinds (cargo, regress, isolation, standby,
    /// conformance, server); default all.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only files whose name contains this: regress, isolation and standby
    /// scripts, programs of server tests.
    #[arg(long)]
    filter: Option<String>,
}

impl Choice {
    fn wants(&self, kind: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == kind)
    }

    fn admits(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|text| name.contains(text))
    }
}

/// Runs the chosen tests; true when none failed.
pub fn run(am: &str, choice: &Choice) -> Result<bool> {
    prepare::for_server()?;
    let mut tally = Tally::default();
    if choice.wants("cargo") {
        let pure = ["rowref", "engine"];
        tally.section("pure tests");
        programs::run(&mut tally, &["test", "-p", "rowref", "-p", "engine"], &[])?;
        tally.section("latching under shuttle's schedules");
        // A program of its own: these latches work nowhere else.
        let mut schedules = vec!["test", "--release", "-p", "engine"];
        schedules.extend(["--features", "shuttle", "--test", "shuttle"]);
        programs::run(&mut tally, &schedules, &[])?;
        tally.section("tests of the other crates that run without a server");
        // One at a time: what does not compile in one must not hide the others.
        // Unit tests only; the programs of rowref-tests have their turn below.
        for (name, unit_tests) in cargo::testable()? {
            if !pure.contains(&name.as_str()) {
                let arguments = ["test", "--release", "-p", &name, unit_tests];
                programs::run(&mut tally, &arguments, &[])?;
            }
        }
    }
    if choice.only.iter().all(|kind| kind == "cargo") && !choice.only.is_empty() {
        return Ok(tally.finish());
    }
    if needs_extension(am) {
        tally.section("building the extension");
    }
    let installation = match Installation::for_access_method(am) {
        Ok(installation) => installation,
        Err(error) => {
            tally.fail("the extension builds", &format!("{error:#}"));
            return Ok(tally.finish());
        }
    };
    type Run = fn(&mut Tally, &str, &Choice) -> Result<()>;
    let kinds: [(&str, &str, Run); 3] = [
        ("regress", "SQL against expected answers", regress::run),
        ("isolation", "interleaved sessions", isolation::run),
        (
            "standby",
            "the same SQL with WAL consistency checking, replayed by a standby",
            standby::run,
        ),
    ];
    for (kind, title, run) in kinds {
        if choice.wants(kind) {
            tally.section(title);
            if let Err(error) = run(&mut tally, am, choice) {
                tally.fail(kind, &format!("{error:#}"));
            }
        }
    }
    if choice.wants("conformance") && choice.filter.is_none() && needs_extension(am) {
        tally.section("a sample of PostgreSQL's own suites");
        if let Err(error) = conformance::judge_sample(&mut tally, am) {
            tally.fail("conformance", &format!("{error:#}"));
        }
    }
    if choice.wants("server") {
        tally.section("recovery, concurrency and corruption");
        let mut environment = vec![("ROWREF_AM", am.to_owned())];
        if let Some(stage) = &installation.stage {
            environment.push(("ROWREF_STAGE", stage.to_string_lossy().into_owned()));
        }
        let programs = server_programs(choice)?;
        let mut arguments = vec!["test", "--release", "-p", "rowref-tests"];
        for program in &programs {
            arguments.extend(["--test", program]);
        }
        arguments.extend(["--", "--test-threads=2"]);
        if !programs.is_empty() {
            programs::run(&mut tally, &arguments, &environment)?;
        }
    }
    Ok(tally.finish())
}

/// The programs of `tests/tests` that are wanted, in order.
fn server_programs(choice: &Choice) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace().join("tests/tests"))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if path.extension().is_some_and(|it| it == "rs") && choice.admits(&name) {
            names.push(name.into_owned());
        }
    }
    names.sort();
    Ok(names)
}
