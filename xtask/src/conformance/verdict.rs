//! The verdicts that are expected, as committed in `tests/conformance`.
//!
//! One line for each test that differs from the control: its name, then the
//! kinds of difference with their counts. A test that is not named has none. A
//! run is worse than expected if a test shows a kind that is not harmless and is
//! not named, or more of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rowref_tests::installation::workspace;

use super::kind::{Differences, Kind};
use super::suite::Suite;

/// What is expected of each test that differs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expected(BTreeMap<String, BTreeMap<Kind, usize>>);

const HEAD: &str = "\
# Tests of PostgreSQL's own suite whose output with iot tables differs from that
# with heap under another name, and how. Written by
#     cargo xtask conformance --bless
# The reasons are in docs/conformance.md.
";

fn path(suite: Suite) -> PathBuf {
    workspace().join(format!("tests/conformance/{}.verdicts", suite.name()))
}

impl Expected {
    /// The committed verdicts of a suite.
    pub fn load(suite: Suite) -> Result<Expected> {
        let path = path(suite);
        if !path.exists() {
            return Ok(Expected::default());
        }
        let text = fs::read_to_string(&path)?;
        Expected::parse(&text).with_context(|| format!("reading {}", path.display()))
    }

    fn parse(text: &str) -> Result<Expected> {
        let mut tests = BTreeMap::new();
        for line in text.lines() {
            let mut words = line
                .split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace();
            let Some(test) = words.next() else { continue };
            let mut kinds = BTreeMap::new();
            for word in words {
                let (name, count) = match word.split_once('=') {
                    Some((name, count)) => (name, count.parse()?),
                    None => (word, 1),
                };
                let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == name) else {
                    bail!("{test}: there is no kind of difference \"{name}\"");
                };
                kinds.insert(kind, count);
            }
            tests.insert(test.to_owned(), kinds);
        }
        Ok(Expected(tests))
    }

    /// What makes a test worse than expected, if anything.
    pub fn complaint(&self, test: &str, found: &Differences) -> Option<String> {
        let nothing = BTreeMap::new();
        let expected = self.0.get(test).unwrap_or(&nothing);
        let mut worse = Vec::new();
        for (kind, count) in &found.kinds {
            let allowed = expected.get(kind).copied().unwrap_or(0);
            if !kind.is_harmless() && *count > allowed {
                worse.push(format!("{} {count} times, expected {allowed}", kind.name()));
            }
        }
        (!worse.is_empty()).then(|| {
            let mut text = worse.join("; ");
            for error in &found.errors {
                text += &format!("\n    {error}");
            }
            text
        })
    }

    /// Whether fewer harmful differences were found than are expected.
    pub fn is_better(&self, test: &str, found: &Differences) -> bool {
        let harm = |kinds: &BTreeMap<Kind, usize>| -> usize {
            let harmful = kinds.iter().filter(|(kind, _)| !kind.is_harmless());
            harmful.map(|(_, count)| count).sum()
        };
        let expected = self.0.get(test).map_or(0, harm);
        harm(&found.kinds) < expected
    }

    /// Takes over what was found of the tests that ran.
    pub fn adopt(&mut self, found: &BTreeMap<String, Differences>) {
        for (test, differences) in found {
            if differences.kinds.is_empty() {
                self.0.remove(test);
            } else {
                self.0.insert(test.clone(), differences.kinds.clone());
            }
        }
    }

    /// Writes the file.
    pub fn save(&self, suite: Suite) -> Result<()> {
        let path = path(suite);
        fs::create_dir_all(path.parent().context("the file lies in a folder")?)?;
        fs::write(&path, self.to_text()).with_context(|| format!("writing {}", path.display()))
    }

    fn to_text(&self) -> String {
        let mut text = HEAD.to_owned();
        for (test, kinds) in &self.0 {
            text += &format!("{test:<28}");
            for (kind, count) in kinds {
                // Counts of what is harmless change with every plan.
                if kind.is_harmless() {
                    text += &format!(" {}", kind.name());
                } else {
                    text += &format!(" {}={count}", kind.name());
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kinds: &[(Kind, usize)]) -> Differences {
        Differences {
            kinds: kinds.iter().copied().collect(),
            errors: vec!["why".into()],
        }
    }

    #[test]
    fn a_new_kind_and_a_higher_count_are_worse_and_harmless_ones_are_not() {
        let expected = Expected::parse("gin refused=2 plan # no gin\n").unwrap();
        assert_eq!(
            expected.complaint("gin", &found(&[(Kind::Refused, 2)])),
            None
        );
        assert_eq!(expected.complaint("gin", &found(&[(Kind::Order, 9)])), None);
        assert!(
            expected
                .complaint("gin", &found(&[(Kind::Refused, 3)]))
                .is_some()
        );
        assert!(
            expected
                .complaint("gin", &found(&[(Kind::Rows, 1)]))
                .is_some()
        );
        assert!(
            expected
                .complaint("other", &found(&[(Kind::Error, 1)]))
                .is_some()
        );
        assert!(expected.is_better("gin", &found(&[(Kind::Refused, 1)])));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut expected = Expected::default();
        let gin = found(&[(Kind::Refused, 2), (Kind::Plan, 5)]);
        expected.adopt(&BTreeMap::from([("gin".to_owned(), gin)]));
        let again = Expected::parse(&expected.to_text()).unwrap();
        assert_eq!(again.0["gin"][&Kind::Refused], 2);
        assert_eq!(again.0["gin"][&Kind::Plan], 1);
        expected.adopt(&BTreeMap::from([("gin".to_owned(), found(&[]))]));
        assert_eq!(expected, Expected::default());
        assert!(Expected::parse("t nonsense=1").is_err());
    }

    /// Each test that differs by more than names, ctids, sizes, order and plans
    /// has its reason in docs/conformance.md, and nothing else is listed there.
    #[test]
    fn the_document_gives_a_reason_for_each_harmful_difference() {
        let page = fs::read_to_string(workspace().join("docs/conformance.md")).unwrap();
        let (_, document) = page.split_once("## Differences, and why").unwrap();
        let mut unexplained = Vec::new();
        let mut known = Vec::new();
        for suite in Suite::ALL {
            for (test, kinds) in Expected::load(suite).unwrap().0 {
                if kinds.keys().any(|kind| !kind.is_harmless()) {
                    if !document.contains(&format!("`{test}`")) {
                        unexplained.push(test.clone());
                    }
                    known.push(test);
                }
            }
        }
        assert!(
            unexplained.is_empty(),
            "no reason is given for {unexplained:?}"
        );
        let listed = document
            .lines()
            .filter(|line| line.starts_with("| `"))
            .flat_map(|line| line.split('|').nth(1).unwrap_or_default().split('`'))
            .map(str::trim)
            .filter(|name| !name.is_empty() && *name != ",");
        let idle: Vec<&str> = listed
            .filter(|name| !known.iter().any(|test| test == name))
            .collect();
        assert!(
            idle.is_empty(),
            "a reason is given for {idle:?}, which do not differ"
        );
    }
}
