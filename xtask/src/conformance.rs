//! `cargo xtask conformance`: PostgreSQL's own suites with our tables as the
//! ones that CREATE TABLE makes, set against heap under another name.

mod classify;
mod kind;
mod output;
mod report;
mod run;
mod source;
mod suite;
mod verdict;

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Result, bail};
use clap::Args;
use rowref_tests::installation::workspace;

use crate::prepare;
use crate::test::Tally;
use report::Found;
use suite::{Part, Suite};
use verdict::Expected;

/// What to run.
#[derive(Args)]
pub struct Plan {
    /// Only this suite.
    #[arg(long)]
    suite: Option<Suite>,
    /// Only these tests (and what they stand on).
    #[arg(long = "test", value_delimiter = ',')]
    tests: Vec<String>,
    /// Only the sample that `cargo xtask test` runs.
    #[arg(long)]
    sample: bool,
    /// Write the expected verdicts from what is found.
    #[arg(long)]
    bless: bool,
}

/// Runs the chosen tests; true when none is worse than expected.
pub fn run(am: &str, plan: &Plan) -> Result<bool> {
    prepare::for_server()?;
    let source = source::obtain()?;
    let mut summaries = Vec::new();
    let mut worse = 0;
    for suite in Suite::ALL {
        if plan.suite.is_some_and(|chosen| chosen != suite) {
            continue;
        }
        let wanted = if plan.sample {
            sample(suite)?
        } else {
            plan.tests.clone()
        };
        println!("==> {} of PostgreSQL {}", suite.name(), source.version);
        let (found, summary) = measure(suite, am, &source, &wanted)?;
        let mut expected = Expected::load(suite)?;
        let mut complaints = Vec::new();
        let mut better = Vec::new();
        for (test, differences) in &found.differences {
            if let Some(complaint) = expected.complaint(test, differences) {
                complaints.push(format!("  {test}: {complaint}"));
            } else if expected.is_better(test, differences) {
                better.push(test.as_str());
            }
        }
        if plan.bless {
            expected.adopt(&found.differences);
            expected.save(suite)?;
        } else {
            if !complaints.is_empty() {
                println!("worse than expected:\n{}", complaints.join("\n"));
            }
            if !better.is_empty() {
                println!(
                    "better than expected (--bless takes it over): {}",
                    better.join(" ")
                );
            }
            worse += complaints.len();
        }
        summaries.push(format!(
            "{summary}; {} worse than expected",
            complaints.len()
        ));
    }
    println!("\n{}", summaries.join("\n"));
    Ok(worse == 0)
}

/// One suite with the control and with `am`.
fn measure(
    suite: Suite,
    am: &str,
    source: &source::Source,
    wanted: &[String],
) -> Result<(Found, String)> {
    let mut parts = suite.parts(source)?;
    let known: Vec<String> = parts.iter().flat_map(Part::tests).collect();
    for test in wanted {
        if !known.contains(test) {
            bail!("{} has no test \"{test}\"", suite.name());
        }
    }
    if !wanted.is_empty() {
        for part in &mut parts {
            part.restrict(wanted);
        }
        parts.retain(|part| !part.schedule.is_empty());
    }
    let tests: Vec<String> = parts.iter().flat_map(Part::tests).collect();
    let keep = workspace().join("target/conformance/results");
    let folder = |am: &str| keep.join(format!("{}-{am}", suite.name()));
    let run = |am: &str| run::run(suite, &parts, am, source, &folder(am));
    let control = run(run::CONTROL)?;
    let outcome = run(am)?;
    let mut differences = BTreeMap::new();
    for test in &tests {
        let found = match (control.passed.get(test), outcome.passed.get(test)) {
            // Both are among the suite's expected outputs.
            (Some(true), Some(true)) => kind::Differences::default(),
            _ => classify::compare(&control.printed(test), &outcome.printed(test), am),
        };
        differences.insert(test.clone(), found);
    }
    let found = Found {
        tests: tests.len(),
        differences,
    };
    let summary = report::print(suite, am, &found, &control, &outcome);
    if outcome.stopped > 0 {
        println!("  {} statements had to be stopped", outcome.stopped);
    }
    if !outcome.problems.is_empty() {
        bail!("{} problems in tables left behind", outcome.problems.len());
    }
    Ok((found, summary))
}

/// The tests of the sample, from `tests/conformance/sample`.
fn sample(suite: Suite) -> Result<Vec<String>> {
    let text = fs::read_to_string(workspace().join("tests/conformance/sample"))?;
    Ok(text
        .lines()
        .filter_map(|line| line.strip_prefix(suite.name())?.strip_prefix(':'))
        .flat_map(str::split_whitespace)
        .map(str::to_owned)
        .collect())
}

/// How many tests may be run a second time.
const AGAIN_MAX: usize = 5;

/// The layer of `cargo xtask test`: the sample, each test against what is
/// expected of it.
pub fn judge_sample(tally: &mut Tally, am: &str) -> Result<()> {
    let source = match source::obtain() {
        Ok(source) => source,
        Err(error) => {
            println!("skipped conformance: PostgreSQL's sources cannot be had: {error:#}");
            return Ok(());
        }
    };
    for suite in Suite::ALL {
        let (mut found, summary) = measure(suite, am, &source, &sample(suite)?)?;
        println!("{summary}");
        let expected = Expected::load(suite)?;
        // On a busy machine sessions may report in another order than the test
        // expects, with heap as well. What is broken fails twice.
        let again: Vec<String> = found
            .differences
            .iter()
            .filter(|(test, differences)| expected.complaint(test, differences).is_some())
            .map(|(test, _)| test.clone())
            .collect();
        if (1..=AGAIN_MAX).contains(&again.len()) {
            println!("once more: {}", again.join(" "));
            let (second, _) = measure(suite, am, &source, &again)?;
            for test in &again {
                if let Some(differences) = second.differences.get(test) {
                    found.differences.insert(test.clone(), differences.clone());
                }
            }
        }
        for (test, differences) in &found.differences {
            let name = format!("conformance {} {test}", suite.name());
            tally.judge(&name, expected.complaint(test, differences));
        }
    }
    Ok(())
}
