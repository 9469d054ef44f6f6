//! `cargo xtask server`: a private server to play with.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Subcommand;
use rowref_tests::installation::{persistent_directory, workspace};
use rowref_tests::{Cluster, Installation, Options, StopMode, account, needs_extension};

use crate::prepare;

/// What to do with the private server.
#[derive(Subcommand)]
pub enum Action {
    /// Build the extension, make the cluster if there is none, start it.
    Start,
    /// Stop it.
    Stop,
    /// Say whether it runs and how to connect.
    Status,
    /// Open psql on it; further arguments go to psql.
    Psql {
        /// Arguments for psql.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// Where the private server lives; says so when it is not `target/server`.
pub fn directory() -> Result<PathBuf> {
    let account = account::Account::detect()?;
    let root = persistent_directory(&account)?;
    if root != workspace().join("target") {
        println!(
            "the server's user cannot enter {}; using {} instead",
            workspace().join("target").display(),
            root.display()
        );
    }
    Ok(root.join("server"))
}

/// The private server's cluster, whatever its state.
pub fn open(am: &str, build: bool) -> Result<Cluster> {
    let installation = if build {
        Installation::for_access_method(am)?
    } else {
        Installation::plain()?
    };
    let mut options = Options::plain(am)
        .set("shared_buffers", "256MB")
        .set("max_wal_size", "4GB");
    options.outlives_us = true;
    Cluster::open(installation, &directory()?, options)
}

/// Prints how to connect to a running server.
pub fn print_connection(cluster: &Cluster) {
    println!(
        "connect:  cargo xtask server psql\n     or:  {} \"{}\"",
        cluster.installation.program("psql").display(),
        cluster.conninfo("postgres")
    );
}

/// Builds, makes and starts; restarts a running server whose library is older
/// than the one just built.
pub fn start(am: &str) -> Result<Cluster> {
    if needs_extension(am) {
        println!("building the extension");
    }
    let mut cluster = open(am, true)?;
    if !cluster.exists() {
        println!("making a cluster in {}", cluster.data().display());
        cluster.initdb()?;
    }
    cluster.configure()?;
    match cluster.postmaster() {
        Some(pid) if runs_current_library(pid, &cluster)? => {
            println!("the server (process {pid}) runs already");
        }
        Some(pid) => {
            println!("the library has changed: restarting the server (process {pid})");
            cluster.restart(StopMode::Fast)?;
        }
        None => cluster.start_server()?,
    }
    cluster.create_extension("template1")?;
    cluster.create_extension("postgres")?;
    Ok(cluster)
}

/// Whether the running server has mapped the library that is staged now: a
/// replaced file shows as deleted in the process's memory map.
fn runs_current_library(pid: i32, cluster: &Cluster) -> Result<bool> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    Ok(match cluster.installation.library()? {
        Some(library) => maps
            .lines()
            .any(|line| line.ends_with(&*library.to_string_lossy())),
        None => true,
    })
}

/// Runs one action.
pub fn run(am: &str, action: &Action) -> Result<bool> {
    prepare::for_server()?;
    match action {
        Action::Start => {
            let cluster = start(am)?;
            let pid = cluster.postmaster().unwrap_or_default();
            print_connection(&cluster);
            println!(
                "the server runs (process {pid}, log {}); stop it with: cargo xtask server stop",
                cluster.log_path().display()
            );
            cluster.leave_running();
        }
        Action::Stop => {
            let mut cluster = open(am, false)?;
            match cluster.postmaster() {
                Some(pid) => {
                    cluster.stop(StopMode::Fast)?;
                    println!(
                        "stopped the server (process {pid}); its data stay in {}",
                        cluster.data().display()
                    );
                }
                None => println!("no server runs; nothing to stop"),
            }
        }
        Action::Status => {
            let cluster = open(am, false)?;
            match cluster.postmaster() {
                Some(pid) => {
                    print_connection(&cluster);
                    println!("the server runs (process {pid})");
                }
                None => {
                    println!("no server runs; start one with: cargo xtask server start");
                    return Ok(false);
                }
            }
        }
        Action::Psql { arguments } => {
            let cluster = open(am, false)?;
            if cluster.postmaster().is_none() {
                bail!("no server runs; start one with: cargo xtask server start");
            }
            let mut psql = cluster.client_program("psql");
            psql.env_remove("LC_ALL")
                .env("PGDATABASE", "postgres")
                .args(arguments);
            return Err(psql.exec().into());
        }
    }
    Ok(true)
}
