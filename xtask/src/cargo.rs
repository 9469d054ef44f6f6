//! Running cargo from within cargo.

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

/// Names of the workspace's packages.
fn members() -> Result<Vec<String>> {
    let manifest = std::fs::read_to_string(workspace().join("Cargo.toml"))?;
    let list = manifest
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .context("Cargo.toml lists no members")?
        .0;
    let mut names = Vec::new();
    for folder in list.split(',') {
        let folder = folder.trim().trim_matches('"');
        if folder.is_empty() {
            continue;
        }
        let manifest = std::fs::read_to_string(workspace().join(folder).join("Cargo.toml"))?;
        let package = manifest.split("[package]").nth(1).unwrap_or_default();
        let name = package
            .lines()
            .find_map(|line| line.trim().strip_prefix("name = "))
            .with_context(|| format!("{folder}/Cargo.toml has no name"))?;
        names.push(name.trim_matches('"').to_owned());
    }
    Ok(names)
}

/// The packages whose test programs can be linked: those that do not lean on
/// pgrx, whose symbols exist only inside a server.
pub fn testable() -> Result<Vec<String>> {
    let mut testable = Vec::new();
    for name in members()? {
        let output = command(&[
            "tree",
            "--prefix",
            "none",
            "--edges",
            "normal,dev",
            "-p",
            &name,
        ])?
        .output()
        .context("running cargo tree")?;
        let tree = String::from_utf8_lossy(&output.stdout);
        if output.status.success() && !tree.lines().any(|line| line.starts_with("pgrx ")) {
            testable.push(name);
        }
    }
    Ok(testable)
}
