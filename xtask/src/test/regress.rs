//! SQL files, run by psql and compared with expected answers.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::PathBuf;

use anyhow::{Context, Result};
use rowref_tests::installation::workspace;
use rowref_tests::{Cluster, Options};

use super::script::{self, Script};
use super::{Choice, Tally};

fn directory() -> PathBuf {
    workspace().join("tests/regress")
}

/// The chosen SQL files.
pub fn scripts(am: &str, choice: &Choice) -> Result<Vec<Script>> {
    script::find(&directory(), "sql", "sql", am, choice)
}

/// Runs one file in a fresh database; returns what psql printed. The file
/// finds the access method in the psql variable `am` and as the default.
pub fn answer(cluster: &Cluster, script: &Script) -> Result<String> {
    let database = format!("regress_{}", script.name);
    let am = cluster.access_method();
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!("create database \"{database}\""))?;
    client.batch_execute(&format!(
        "alter database \"{database}\" set default_table_access_method = {am};
         alter database \"{database}\" set timezone = 'PST8PDT';
         alter database \"{database}\" set datestyle = 'Postgres, MDY';
         alter database \"{database}\" set intervalstyle = 'postgres_verbose'"
    ))?;
    let input =
        File::open(&script.input).with_context(|| format!("opening {}", script.input.display()))?;
    // Both streams go to one file, so that messages keep their place.
    let mut output = tempfile::tempfile()?;
    cluster
        .client_program("psql")
        .args(["-X", "-a", "-q", "-v", &format!("am={am}"), "-d", &database])
        .stdin(input)
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .status()
        .context("running psql")?;
    output.rewind()?;
    let mut answer = Vec::new();
    output.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Runs every file on one cluster.
pub fn run(tally: &mut Tally, am: &str, choice: &Choice) -> Result<()> {
    let mut options = Options::test();
    options.access_method = am.into();
    let mut cluster = Cluster::start(options)?;
    let results = tempfile::tempdir()?;
    for script in scripts(am, choice)? {
        for text in script.announcements()? {
            cluster.announce(&text);
        }
        let name = format!("regress {}", script.name);
        let logged = cluster.log_length();
        let answered = answer(&cluster, &script);
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
    let problems = verify_databases(&cluster)?;
    tally.judge(
        "regress: every table left behind is sound",
        (!problems.is_empty()).then(|| problems.join("\n")),
    );
    tally.judge(
        "regress: the server logged nothing unannounced",
        cluster.finish().err().map(|error| format!("{error:#}")),
    );
    Ok(())
}

/// What `rowref.verify` says about every table of every regress database.
pub fn verify_databases(cluster: &Cluster) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for database in databases(cluster)? {
        let mut client = cluster.connect(&database)?;
        match rowref_tests::verify::verify_all(&mut client, cluster.access_method()) {
            Ok(found) => problems.extend(found.iter().map(|line| format!("{database}: {line}"))),
            Err(error) => problems.push(format!("{database}: {error:#}")),
        }
    }
    Ok(problems)
}

/// The databases regress files ran in.
pub fn databases(cluster: &Cluster) -> Result<Vec<String>> {
    Ok(cluster
        .connect("postgres")?
        .query(
            "select datname::text from pg_database where datname like 'regress%' order by 1",
            &[],
        )?
        .iter()
        .map(|row| row.get(0))
        .collect())
}
