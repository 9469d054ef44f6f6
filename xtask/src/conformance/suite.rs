//! What PostgreSQL's two suites are: their files, their runners, their verdicts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rowref_tests::installation::{Installation, ask_pg_config};

/// A suite of PostgreSQL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// SQL files with expected answers.
    Regress,
    /// Interleaved sessions.
    Isolation,
}

/// One test's verdict by the runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The test's name.
    pub test: String,
    /// Whether its output was one of the expected ones.
    pub passed: bool,
}

impl Suite {
    /// The suite's name: its folder's, and its file's among the verdicts.
    pub fn name(self) -> &'static str {
        match self {
            Suite::Regress => "regress",
            Suite::Isolation => "isolation",
        }
    }

    /// The database its runner works in.
    pub fn database(self) -> &'static str {
        match self {
            Suite::Regress => "regression",
            Suite::Isolation => "isolation_regression",
        }
    }

    /// The schedule that comes with the suite.
    pub fn schedule(self) -> &'static str {
        match self {
            Suite::Regress => "parallel_schedule",
            Suite::Isolation => "isolation_schedule",
        }
    }

    /// Where postgresql-server-dev has put the suite's runner.
    pub fn runner(self, installation: &Installation) -> Result<PathBuf> {
        let program = match self {
            Suite::Regress => "test/regress/pg_regress",
            Suite::Isolation => "test/isolation/pg_isolation_regress",
        };
        let library = ask_pg_config(&installation.pg_config, "--pgxs")?;
        library
            .ancestors()
            .map(|folder| folder.join(program))
            .find(|path| path.exists())
            .with_context(|| format!("{program} is missing (postgresql-server-dev-15 has it)"))
    }

    /// Compiles the one library the suite loads, and puts those beside it that
    /// the server has.
    pub fn build_library(
        self,
        sources: &Path,
        libraries: &Path,
        installation: &Installation,
    ) -> Result<()> {
        if self == Suite::Isolation {
            return Ok(());
        }
        let include = ask_pg_config(&installation.pg_config, "--includedir-server")?;
        let output = Command::new("gcc")
            .args([
                "-O1",
                "-w",
                "-fPIC",
                "-shared",
                "-fno-strict-aliasing",
                "-fwrapv",
            ])
            .arg("-I")
            .arg(&include)
            .arg("-o")
            .arg(libraries.join("regress.so"))
            .arg(sources.join("regress.c"))
            .output()
            .context("running gcc")?;
        ensure!(
            output.status.success(),
            "regress.c does not compile:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let server = ask_pg_config(&installation.pg_config, "--pkglibdir")?;
        for name in ["refint.so", "autoinc.so"] {
            fs::copy(server.join(name), libraries.join(name))
                .with_context(|| format!("copying {name} (postgresql-15 has it)"))?;
        }
        Ok(())
    }
}

/// The tests a schedule names, in order.
pub fn scheduled(schedule: &str) -> Vec<String> {
    schedule
        .lines()
        .filter_map(|line| line.trim().strip_prefix("test:"))
        .flat_map(str::split_whitespace)
        .map(str::to_owned)
        .collect()
}

/// A schedule that runs only the `wanted` tests, in groups as in `schedule`.
pub fn restrict(schedule: &str, wanted: &[String]) -> String {
    let mut text = String::new();
    for line in schedule.lines() {
        let Some(group) = line.trim().strip_prefix("test:") else {
            continue;
        };
        let kept: Vec<&str> = group
            .split_whitespace()
            .filter(|test| wanted.iter().any(|name| name == test))
            .collect();
        if !kept.is_empty() {
            text += &format!("test: {}\n", kept.join(" "));
        }
    }
    text
}

/// The verdicts in what pg_regress printed.
pub fn verdicts(printed: &str) -> Vec<Ran> {
    printed
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(" ... ")?;
            let name = name.trim();
            let test = name.strip_prefix("test ").unwrap_or(name).trim();
            let verdict = rest.trim_start();
            let passed = verdict.starts_with("ok");
            let failed = verdict.starts_with("FAILED") || verdict.starts_with("failed");
            (passed || failed).then(|| Ran {
                test: test.to_owned(),
                passed,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read_from_single_tests_and_from_groups() {
        let printed = "\
(using postmaster on /tmp, port 5415)
============== running regression test queries        ==============
test test_setup                   ... ok          190 ms
parallel group (2 tests):  char boolean
     boolean                      ... ok           60 ms
     char                         ... FAILED (test process exited with exit code 2)  9 ms
     random                       ... failed (ignored)       31 ms
";
        let found = verdicts(printed);
        let passed: Vec<bool> = found.iter().map(|ran| ran.passed).collect();
        assert_eq!(passed, [true, true, false, false]);
        assert_eq!(found[0].test, "test_setup");
        assert_eq!(found[3].test, "random");
    }

    #[test]
    fn a_restricted_schedule_keeps_order_and_groups() {
        let schedule = "# groups\ntest: setup\ntest: a b c\nignore: b\ntest: d\n";
        assert_eq!(scheduled(schedule), ["setup", "a", "b", "c", "d"]);
        let wanted = ["d".to_owned(), "c".to_owned(), "a".to_owned()];
        assert_eq!(restrict(schedule, &wanted), "test: a c\ntest: d\n");
    }
}
