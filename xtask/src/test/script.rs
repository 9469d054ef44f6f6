//! Files with an input and an expected output.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Choice;

/// An input file with the place of its expected output.
pub struct Script {
    /// File name without its ending.
    pub name: String,
    /// What to run.
    pub input: PathBuf,
    /// What it has to print.
    expected: PathBuf,
}

/// The chosen files of `directory/inputs` that end in `ending`, by name. A file
/// whose name starts with an access method's (`iot_…`) is for that one alone.
pub fn find(
    directory: &Path,
    inputs: &str,
    ending: &str,
    am: &str,
    choice: &Choice,
) -> Result<Vec<Script>> {
    let mut scripts = Vec::new();
    let from = directory.join(inputs);
    if !from.exists() {
        return Ok(scripts);
    }
    for entry in fs::read_dir(from)? {
        let input = entry?.path();
        if input.extension().is_some_and(|found| found == ending) {
            let name = input
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let foreign = am == "heap" && name.starts_with("iot_");
            if choice.admits(&name) && !foreign {
                scripts.push(Script {
                    expected: directory.join("expected").join(format!("{name}.out")),
                    name,
                    input,
                });
            }
        }
    }
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(scripts)
}

impl Script {
    /// Log texts the file announces with lines `-- announces: text` (or `#`).
    pub fn announcements(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(&self.input)?;
        Ok(text
            .lines()
            .filter_map(|line| {
                let comment = line.trim_start_matches(['-', '#', ' ']);
                comment.strip_prefix("announces: ").map(str::to_owned)
            })
            .collect())
    }

    /// Compares `answer` with the expected file, or writes that file. Returns
    /// the difference, if any.
    ///
    /// A second expected file `NAME_1.out` is accepted as well, as
    /// PostgreSQL's own runner does.
    pub fn compare(&self, answer: &str, results: &Path, bless: bool) -> Result<Option<String>> {
        if bless {
            fs::create_dir_all(self.expected.parent().expect("a file has a parent"))?;
            fs::write(&self.expected, answer)?;
            return Ok(None);
        }
        let alternative = self.expected.with_file_name(format!("{}_1.out", self.name));
        for expected in [&self.expected, &alternative] {
            if fs::read(expected).is_ok_and(|text| text == answer.as_bytes()) {
                return Ok(None);
            }
        }
        if !self.expected.exists() {
            return Ok(Some(format!(
                "{} is missing; write it with --bless and read it",
                self.expected.display()
            )));
        }
        let actual = results.join(format!("{}.out", self.name));
        fs::write(&actual, answer)?;
        let diff = Command::new("diff")
            .arg("-u")
            .args([&self.expected, &actual])
            .output()
            .context("running diff")?;
        let text = String::from_utf8_lossy(&diff.stdout);
        // One runaway file must not bury all other results.
        let lines: Vec<&str> = text.lines().take(200).collect();
        Ok(Some(lines.join("\n")))
    }
}
