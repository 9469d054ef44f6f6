//! What PostgreSQL's suites are: their files, their runners, their verdicts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rowref_tests::installation::{Installation, ask_pg_config};

use super::source::Source;

/// A suite of PostgreSQL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// SQL files with expected answers.
    Regress,
    /// Interleaved sessions.
    Isolation,
    /// The tests of those contrib modules that `MODULES` names.
    Contrib,
}

/// The contrib modules whose tests make tables with B-tree indexes, write to
/// tables, or read what was written to them. Those that are there for other
/// kinds of index, or for the pages of heap, would show nothing but refusals.
const MODULES: [&str; 16] = [
    "citext",
    "hstore",
    "ltree",
    "tablefunc",
    "postgres_fdw",
    "dblink",
    "lo",
    "isn",
    "cube",
    "seg",
    "earthdistance",
    "pgcrypto",
    "tsm_system_rows",
    "tsm_system_time",
    "unaccent",
    "test_decoding",
];

/// A program that runs tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runner {
    /// `pg_regress`.
    Regress,
    /// `pg_isolation_regress`.
    Isolation,
}

/// What one call of a runner takes.
pub struct Part {
    /// The program.
    pub runner: Runner,
    /// The folder with its tests.
    pub inputs: PathBuf,
    /// What stands before a test's name to make it unique in the suite.
    pub prefix: String,
    /// The database it works in, which is made for it.
    pub database: &'static str,
    /// The tests, in groups.
    pub schedule: String,
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
    /// All of them.
    pub const ALL: [Suite; 3] = [Suite::Regress, Suite::Isolation, Suite::Contrib];

    /// The suite's name: its file's among the verdicts.
    pub fn name(self) -> &'static str {
        match self {
            Suite::Regress => "regress",
            Suite::Isolation => "isolation",
            Suite::Contrib => "contrib",
        }
    }

    /// What its server needs in `postgresql.conf`.
    pub fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Suite::Regress | Suite::Isolation => &[],
            Suite::Contrib => &[
                ("wal_level", "logical"),
                ("max_replication_slots", "4"),
                ("logical_decoding_work_mem", "64kB"),
            ],
        }
    }

    /// The runs it takes.
    pub fn parts(self, source: &Source) -> Result<Vec<Part>> {
        let of_folder = |runner: Runner, name: &str, database| -> Result<Part> {
            let inputs = source.tests().join(name);
            let schedule = match runner {
                Runner::Regress => "parallel_schedule",
                Runner::Isolation => "isolation_schedule",
            };
            Ok(Part {
                schedule: fs::read_to_string(inputs.join(schedule))?,
                runner,
                inputs,
                prefix: String::new(),
                database,
            })
        };
        match self {
            Suite::Regress => Ok(vec![of_folder(Runner::Regress, "regress", "regression")?]),
            Suite::Isolation => Ok(vec![of_folder(
                Runner::Isolation,
                "isolation",
                "isolation_regression",
            )?]),
            Suite::Contrib => {
                let mut parts = Vec::new();
                for module in MODULES {
                    parts.extend(module_parts(&source.contrib().join(module), module)?);
                }
                Ok(parts)
            }
        }
    }
}

/// The runs a contrib module takes, as its makefile has them.
fn module_parts(folder: &Path, module: &str) -> Result<Vec<Part>> {
    let makefile = fs::read_to_string(folder.join("Makefile"))
        .with_context(|| format!("reading the makefile of {module}"))?;
    let runs = [
        (Runner::Regress, "REGRESS", "contrib_regression"),
        (Runner::Isolation, "ISOLATION", "isolation_regression"),
    ];
    let parts = runs.into_iter().filter_map(|(runner, variable, database)| {
        let tests = assigned(&makefile, variable);
        let schedule: String = tests.iter().map(|test| format!("test: {test}\n")).collect();
        (!tests.is_empty()).then(|| Part {
            runner,
            inputs: folder.to_owned(),
            prefix: format!("{module}/"),
            database,
            schedule,
        })
    });
    Ok(parts.collect())
}

/// The words that a makefile assigns to a variable.
fn assigned(makefile: &str, variable: &str) -> Vec<String> {
    let joined = makefile.replace("\\\n", " ");
    joined
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| name.trim() == variable)
        .flat_map(|(_, words)| words.split_whitespace())
        .map(str::to_owned)
        .collect()
}

impl Part {
    /// Its tests, by the names they have in the suite.
    pub fn tests(&self) -> Vec<String> {
        let tests = scheduled(&self.schedule).into_iter();
        tests.map(|test| self.prefix.clone() + &test).collect()
    }

    /// Leaves only the `wanted` tests, and what they stand on.
    pub fn restrict(&mut self, wanted: &[String]) {
        let mut wanted: Vec<String> = wanted
            .iter()
            .filter_map(|test| test.strip_prefix(&self.prefix))
            .map(str::to_owned)
            .collect();
        // The tables that nearly all of PostgreSQL's own tests read.
        if self.runner == Runner::Regress && self.prefix.is_empty() {
            wanted.push("test_setup".into());
        }
        self.schedule = restrict(&self.schedule, &wanted);
    }

    /// The extension that the runner makes before the tests.
    pub fn extension(&self) -> Option<&str> {
        let module = self.prefix.strip_suffix('/')?;
        // Its regression tests make it themselves.
        (self.runner == Runner::Isolation && module == "postgres_fdw").then_some(module)
    }
}

impl Runner {
    /// Where postgresql-server-dev has put it.
    pub fn program(self, installation: &Installation) -> Result<PathBuf> {
        let program = match self {
            Runner::Regress => "test/regress/pg_regress",
            Runner::Isolation => "test/isolation/pg_isolation_regress",
        };
        let library = ask_pg_config(&installation.pg_config, "--pgxs")?;
        library
            .ancestors()
            .map(|folder| folder.join(program))
            .find(|path| path.exists())
            .with_context(|| format!("{program} is missing (postgresql-server-dev-15 has it)"))
    }
}

/// Compiles the one library that regression tests load, and puts those beside
/// it that the server has.
pub fn build_library(source: &Source, libraries: &Path, installation: &Installation) -> Result<()> {
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
        .arg(source.tests().join("regress/regress.c"))
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

/// The tests a schedule names, in order.
fn scheduled(schedule: &str) -> Vec<String> {
    schedule
        .lines()
        .filter_map(|line| line.trim().strip_prefix("test:"))
        .flat_map(str::split_whitespace)
        .map(str::to_owned)
        .collect()
}

/// A schedule that runs only the `wanted` tests, in groups as in `schedule`.
fn restrict(schedule: &str, wanted: &[String]) -> String {
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
    fn a_makefile_s_tests_are_read_over_continued_lines() {
        let makefile = "REGRESS = ddl xact \\\n\tspill\nREGRESS_OPTS = --x\nISOLATION= mxact\n";
        assert_eq!(assigned(makefile, "REGRESS"), ["ddl", "xact", "spill"]);
        assert_eq!(assigned(makefile, "ISOLATION"), ["mxact"]);
        assert!(assigned(makefile, "NONE").is_empty());
    }

    #[test]
    fn a_restricted_schedule_keeps_order_and_groups() {
        let schedule = "# groups\ntest: setup\ntest: a b c\nignore: b\ntest: d\n";
        assert_eq!(scheduled(schedule), ["setup", "a", "b", "c", "d"]);
        let wanted = ["d".to_owned(), "c".to_owned(), "a".to_owned()];
        assert_eq!(restrict(schedule, &wanted), "test: a c\ntest: d\n");
    }
}
