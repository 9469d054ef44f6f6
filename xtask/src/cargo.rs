//! Running cargo from within cargo.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rowref_tests::installation::{find_pg_config, workspace};

/// A cargo command in the workspace's root.
pub fn command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(arguments)
        .current_dir(workspace())
        .env("PGRX_PG_CONFIG_PATH", find_pg_config()?);
    // Set by the outer `cargo run` for this package; a build script of another
    // one must not see them.
    for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "CARGO_PKG_VERSION"] {
        command.env_remove(name);
    }
    Ok(command)
}

/// A package of the workspace.
struct Member {
    name: String,
    folder: PathBuf,
}

/// The workspace's packages.
fn members() -> Result<Vec<Member>> {
    let manifest = std::fs::read_to_string(workspace().join("Cargo.toml"))?;
    let list = manifest
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .context("Cargo.toml lists no members")?
        .0;
    let mut members = Vec::new();
    for folder in list.split(',') {
        let folder = folder.trim().trim_matches('"');
        if folder.is_empty() {
            continue;
        }
        let folder = workspace().join(folder);
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml"))?;
        let package = manifest.split("[package]").nth(1).unwrap_or_default();
        let name = package
            .lines()
            .find_map(|line| line.trim().strip_prefix("name = "))
            .with_context(|| format!("{}/Cargo.toml has no name", folder.display()))?
            .trim_matches('"')
            .to_owned();
        members.push(Member { name, folder });
    }
    Ok(members)
}

/// Whether a source file below `folder` holds a test.
fn holds_tests(folder: &Path) -> Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let found = if path.is_dir() {
            holds_tests(&path)?
        } else {
            path.extension().is_some_and(|ending| ending == "rs")
                && std::fs::read_to_string(&path)?.contains("#[test]")
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The packages with unit tests. A package without any is left out: one that
/// leans on pgrx does not even link a test program unless it stands in for
/// the server's symbols, which only those do that have something to test.
///
/// Each with the option that names its unit tests: not every package has a
/// library.
pub fn testable() -> Result<Vec<(String, &'static str)>> {
    let mut names = Vec::new();
    for member in members()? {
        if holds_tests(&member.folder.join("src"))? {
            let has_library = member.folder.join("src/lib.rs").exists();
            names.push((member.name, if has_library { "--lib" } else { "--bins" }));
        }
    }
    Ok(names)
}
