//! Interleaved sessions, by PostgreSQL's own isolationtester.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rowref_tests::installation::{ask_pg_config, workspace};
use rowref_tests::{Cluster, Options};

use super::script::{self, Script};
use super::{Choice, Tally};

/// The tester that postgresql-server-dev-15 ships.
fn tester(cluster: &Cluster) -> Result<PathBuf> {
    let library = ask_pg_config(&cluster.installation.pg_config, "--pgxs")?;
    let path = library
        .ancestors()
        .map(|folder| folder.join("test/isolation/isolationtester"))
        .find(|path| path.exists());
    path.context("isolationtester is missing (postgresql-server-dev-15 has it)")
}

fn answer(cluster: &Cluster, tester: &PathBuf, script: &Script) -> Result<String> {
    let database = format!("isolation_{}", script.name);
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!("create database \"{database}\""))?;
    client.batch_execute(&format!(
        "alter database \"{database}\" set default_table_access_method = {};
         alter database \"{database}\" set statement_timeout = '300s'",
        cluster.access_method()
    ))?;
    let output = Command::new(tester)
        .arg(cluster.conninfo(&database))
        .env("PGISOLATIONTIMEOUT", "60")
        .stdin(File::open(&script.input)?)
        .output()
        .context("running isolationtester")?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    Ok(text)
}

/// Runs every spec on one cluster.
pub fn run(tally: &mut Tally, am: &str, choice: &Choice) -> Result<()> {
    let mut options = Options::test();
    options.access_method = am.into();
    let mut cluster = Cluster::start(options)?;
    let tester = tester(&cluster)?;
    ensure!(tester.exists(), "no isolationtester");
    let results = tempfile::tempdir()?;
    let directory = workspace().join("tests/isolation");
    for script in script::find(&directory, "specs", "spec", am, choice)? {
        for text in script.announcements()? {
            cluster.announce(&text);
        }
        let name = format!("isolation {}", script.name);
        let logged = cluster.log_length();
        let answered = answer(&cluster, &tester, &script);
        let crash = cluster.recover_from_crash(logged)?;
        let complaint = match (answered, crash) {
            (Ok(answer), None) => script.compare(&answer, results.path(), choice.bless)?,
            (Ok(answer), Some(crash)) => {
                let difference = script.compare(&answer, results.path(), false)?;
                Some(format!("{crash}\n{}", difference.unwrap_or_default()))
            }
            (Err(error), crash) => Some(format!("{error:#}\n{}", crash.unwrap_or_default())),
        };
        tally.judge(&name, complaint);
    }
    tally.judge(
        "isolation: the server logged nothing unannounced",
        cluster.finish().err().map(|error| format!("{error:#}")),
    );
    Ok(())
}
