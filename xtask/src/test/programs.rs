//! Running `cargo test` and counting what its programs report.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result};

use super::tally::Tally;
use crate::cargo;

/// Runs cargo with `arguments`, shows its output as it comes, and adds the
/// counts of every `test result:` line. A program that ends badly without
/// saying so (it did not compile, it crashed) counts as one failure.
pub fn run(tally: &mut Tally, arguments: &[&str], environment: &[(&str, String)]) -> Result<()> {
    let name = format!("cargo {}", arguments.join(" "));
    let mut with_continue = arguments.to_vec();
    with_continue.insert(1, "--no-fail-fast");
    let mut child = cargo::command(&with_continue)?
        .envs(environment.iter().map(|(name, value)| (*name, value)))
        .stdout(Stdio::piped())
        .spawn()
        .context("running cargo")?;
    let output = child.stdout.take().expect("stdout is piped");
    let (mut passed, mut failed, mut failures) = (0, 0, Vec::new());
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        if let Some(counts) = counts(&line) {
            passed += counts.0;
            failed += counts.1;
        } else if let Some(test) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            failures.push(test.to_owned());
        }
    }
    let status = child.wait()?;
    tally.add(passed, failed, failures);
    if !status.success() && failed == 0 {
        tally.fail(&name, &format!("{status}"));
    }
    Ok(())
}

/// Passed and failed of a line like
/// `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn counts(line: &str) -> Option<(usize, usize)> {
    let (_, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut numbers = rest.split("; ").map(|part| {
        part.split_whitespace()
            .next()
            .and_then(|number| number.parse().ok())
    });
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::counts;

    #[test]
    fn only_result_lines_are_counted() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(counts(line), Some((3, 2)));
        assert_eq!(counts("test a ... ok"), None);
    }
}
