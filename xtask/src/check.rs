//! `cargo xtask check`: what must hold before a commit, without a server.

use anyhow::{Context, Result};

use crate::{cargo, prepare};

/// A named cargo call of the check.
struct Step {
    name: &'static str,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

const STEPS: &[Step] = &[
    Step {
        name: "format",
        arguments: &["fmt", "--all", "--check"],
        environment: &[],
    },
    Step {
        name: "clippy",
        // Release, so that pgrx's bindings are generated once for all commands.
        arguments: &[
            "clippy",
            "--quiet",
            "--release",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        environment: &[],
    },
    Step {
        name: "rustdoc",
        arguments: &["doc", "--quiet", "--release", "--workspace", "--no-deps"],
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
    },
    Step {
        name: "pure tests",
        arguments: &["test", "--quiet", "-p", "rowref", "-p", "engine"],
        environment: &[],
    },
    Step {
        name: "latching under shuttle's schedules",
        // Release: it tries some hundred thousand schedules.
        arguments: &[
            "test",
            "--quiet",
            "--release",
            "-p",
            "engine",
            "--features",
            "shuttle",
            "--test",
            "shuttle",
        ],
        environment: &[],
    },
];

/// Runs every step, even after one has failed, and names the failed ones.
pub fn run() -> Result<bool> {
    prepare::for_server()?;
    prepare::component("fmt", "rustfmt")?;
    prepare::component("clippy", "clippy")?;
    let mut failed = Vec::new();
    for step in STEPS {
        println!("==> {}: cargo {}", step.name, step.arguments.join(" "));
        let status = cargo::command(step.arguments)?
            .envs(step.environment.iter().copied())
            .status()
            .context("running cargo")?;
        if !status.success() {
            failed.push(step.name);
        }
    }
    if failed.is_empty() {
        println!("check: all {} steps passed", STEPS.len());
    } else {
        println!("check: FAILED: {}", failed.join(", "));
    }
    Ok(failed.is_empty())
}
