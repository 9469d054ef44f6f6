//! Saying what was found.

use std::collections::BTreeMap;

use super::kind::{Differences, Kind};
use super::run::{CONTROL, Outcome};
use super::suite::Suite;

/// What two runs of a suite gave.
pub struct Found {
    /// Tests in the schedule.
    pub tests: usize,
    /// The differences of each test that ran.
    pub differences: BTreeMap<String, Differences>,
}

fn kinds_in_words(differences: &Differences) -> String {
    let kinds = &differences.kinds;
    let words: Vec<String> = kinds
        .iter()
        .map(|(kind, count)| format!("{}={count}", kind.name()))
        .collect();
    words.join(" ")
}

/// Prints the tests that differ, worst first, then counts by kind, and returns
/// the summary.
pub fn print(
    suite: Suite,
    am: &str,
    found: &Found,
    control: &Outcome,
    outcome: &Outcome,
) -> String {
    let mut differing: Vec<(&String, &Differences)> = found
        .differences
        .iter()
        .filter(|(_, differences)| differences.worst().is_some())
        .collect();
    differing.sort_by_key(|(_, differences)| differences.worst());
    for (test, differences) in &differing {
        let worst = differences.worst().map_or("", Kind::name);
        println!("  {test:<28} {worst:<14} {}", kinds_in_words(differences));
        for error in &differences.errors {
            println!("      {error}");
        }
    }
    for line in &outcome.crashes {
        println!("  server: {line}");
    }
    for line in &outcome.problems {
        println!("  verify: {line}");
    }
    let mut by_worst: BTreeMap<Kind, usize> = BTreeMap::new();
    for kind in differing.iter().filter_map(|(_, found)| found.worst()) {
        *by_worst.entry(kind).or_default() += 1;
    }
    let counts: Vec<String> = by_worst
        .iter()
        .map(|(kind, count)| format!("{} {count}", kind.name()))
        .collect();
    let passed = |outcome: &Outcome| outcome.passed.values().filter(|passed| **passed).count();
    let harmful = differing
        .iter()
        .filter(|(_, found)| found.worst().is_some_and(|kind| !kind.is_harmless()));
    let summary = format!(
        "{}: {} tests; passed {} with {am}, {} with {CONTROL}; {} as with {CONTROL}, {} differ harmlessly, {} beyond that",
        suite.name(),
        found.tests,
        passed(outcome),
        passed(control),
        found.tests - differing.len(),
        differing.len() - harmful.clone().count(),
        harmful.count(),
    );
    println!("  worst kinds: {}", counts.join(", "));
    println!(
        "  {CONTROL} took {:.0} s, {am} {:.0} s",
        control.took.as_secs_f64(),
        outcome.took.as_secs_f64()
    );
    summary
}
