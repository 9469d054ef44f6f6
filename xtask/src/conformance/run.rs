//! One run of a suite with one access method, in a cluster of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rowref_tests::{Cluster, Options, verify};

use super::source::{Source, copy_for_account};
use super::suite::{Part, Runner, Suite, build_library, verdicts};

/// The control: heap under another name. What differs with it differs because
/// the access method is not called `heap`, or because the server's version is
/// not the suite's.
pub const CONTROL: &str = "heapx";

/// How long a statement may run, and how long a whole suite.
const STATEMENT_LIMIT: Duration = Duration::from_secs(90);
const SUITE_LIMIT: Duration = Duration::from_secs(1800);

/// What a run gave.
pub struct Outcome {
    /// Tests by name: whether the runner was content.
    pub passed: BTreeMap<String, bool>,
    /// The folder with each test's output.
    pub results: PathBuf,
    /// What the server's log says of processes that died.
    pub crashes: Vec<String>,
    /// Statements that had to be stopped.
    pub stopped: u64,
    /// What `rowref.verify` says of the tables left behind.
    pub problems: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// What a test printed; empty if it did not come to that.
    pub fn printed(&self, test: &str) -> String {
        fs::read(self.results.join(format!("{test}.out")))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

/// Runs the tests of a suite's `parts` with `am`, and keeps what they print in
/// `keep`.
pub fn run(
    suite: Suite,
    parts: &[Part],
    am: &str,
    source: &Source,
    keep: &Path,
) -> Result<Outcome> {
    let started = Instant::now();
    let mut options = Options::test().set("autovacuum_naptime", "1min");
    options.access_method = if am == CONTROL { "heap" } else { am }.into();
    for (name, value) in suite.settings() {
        options = options.set(name, value);
    }
    let cluster = Cluster::start(options)?;
    let account = cluster.installation.account.clone();
    let workshop = tempfile::Builder::new().prefix("rowref-").tempdir()?;
    fs::set_permissions(workshop.path(), fs::Permissions::from_mode(0o755))?;
    let libraries = workshop.path().join("libraries");
    fs::create_dir(&libraries)?;
    build_library(source, &libraries, &cluster.installation)?;
    account.own(&libraries)?;

    if keep.exists() {
        fs::remove_dir_all(keep)?;
    }
    fs::create_dir_all(keep)?;
    let mut outcome = Outcome {
        passed: BTreeMap::new(),
        results: keep.to_owned(),
        crashes: Vec::new(),
        stopped: 0,
        problems: Vec::new(),
        took: Duration::ZERO,
    };
    for (number, part) in parts.iter().enumerate() {
        prepare_database(&cluster, part, am)?;
        let place = workshop.path().join(number.to_string());
        run_part(&cluster, part, &place, &libraries, &mut outcome)?;
        outcome.problems.extend(sound(&cluster, part.database)?);
        // The next one may want it for itself.
        if parts.len() > 1 {
            let mut client = cluster.connect("postgres")?;
            client.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots
                 where database = $1",
                &[&part.database],
            )?;
            client.batch_execute(&format!("drop database {} with (force)", part.database))?;
        }
    }
    outcome.crashes = crashes(&cluster.log());
    fs::write(keep.join("server.log"), cluster.log())?;
    outcome.took = started.elapsed();
    Ok(outcome)
}

/// One call of a runner, in `place`.
fn run_part(
    cluster: &Cluster,
    part: &Part,
    place: &Path,
    libraries: &Path,
    outcome: &mut Outcome,
) -> Result<()> {
    let account = cluster.installation.account.clone();
    let inputs = place.join("inputs");
    copy_for_account(&part.inputs, &inputs, &account)?;
    let outputs = place.join("outputs");
    fs::create_dir(&outputs)?;
    for folder in [place, &outputs] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        account.own(folder)?;
    }
    fs::write(inputs.join("schedule"), &part.schedule)?;

    let mut command = account.command(part.runner.program(&cluster.installation)?);
    command
        .arg("--use-existing")
        .arg(format!("--bindir={}", cluster.installation.bin.display()))
        .arg(format!("--host={}", cluster.socket().display()))
        .arg(format!("--port={}", rowref_tests::cluster::PORT))
        .arg("--user=postgres")
        .arg(format!("--dbname={}", part.database))
        .arg(format!("--inputdir={}", inputs.display()))
        .arg(format!("--outputdir={}", outputs.display()))
        .arg(format!("--schedule={}", inputs.join("schedule").display()))
        .env("PGISOLATIONTIMEOUT", "60")
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if part.runner == Runner::Regress {
        command.arg(format!("--dlpath={}", libraries.display()));
        command.arg("--max-concurrent-tests=20");
    }
    let child = command.spawn().context("starting the suite's runner")?;
    let runner = i32::try_from(child.id())?;
    let done = AtomicBool::new(false);
    let (output, stopped) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch(cluster, runner, &done));
        let output = child.wait_with_output();
        done.store(true, Ordering::Relaxed);
        (output, watch.join().unwrap_or_default())
    });
    let printed = String::from_utf8_lossy(&output?.stdout).into_owned();
    outcome.stopped += stopped;
    let verdicts = verdicts(&printed).into_iter();
    outcome
        .passed
        .extend(verdicts.map(|ran| (part.prefix.clone() + &ran.test, ran.passed)));

    let keep = outcome.results.join(&part.prefix);
    fs::create_dir_all(&keep)?;
    for entry in fs::read_dir(outputs.join("results")).into_iter().flatten() {
        let path = entry?.path();
        if path.is_file() {
            let name = path.file_name().context("a file has a name")?;
            fs::copy(&path, keep.join(name))?;
        }
    }
    fs::write(keep.join(format!("{}.txt", part.database)), &printed)?;
    Ok(())
}

/// A database as the suite's runner would make it, with the access method as
/// the one new tables get.
fn prepare_database(cluster: &Cluster, part: &Part, am: &str) -> Result<()> {
    let database = part.database;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!("create database {database} template template0"))?;
    for setting in [
        "lc_messages to 'C'",
        "lc_monetary to 'C'",
        "lc_numeric to 'C'",
        "lc_time to 'C'",
        "bytea_output to 'hex'",
        "timezone_abbreviations to 'Default'",
    ] {
        client.batch_execute(&format!("alter database {database} set {setting}"))?;
    }
    cluster.create_extension(database)?;
    if am == CONTROL {
        cluster.connect(database)?.batch_execute(&format!(
            "create access method {CONTROL} type table handler heap_tableam_handler"
        ))?;
    }
    if let Some(extension) = part.extension() {
        let create = format!("create extension {extension}");
        cluster.connect(database)?.batch_execute(&create)?;
    }
    // Not as the server's setting: template1 has no such access method.
    client.batch_execute(&format!(
        "alter database {database} set default_table_access_method = {am}"
    ))?;
    let mut probe = cluster.connect(database)?;
    probe.batch_execute("create table probe (a int)")?;
    let found: String = probe
        .query_one(
            "select amname::text from pg_class c join pg_am a on a.oid = c.relam
             where relname = 'probe'",
            &[],
        )?
        .get(0);
    probe.batch_execute("drop table probe")?;
    ensure!(found == am, "new tables are {found}, not {am}");
    Ok(())
}

/// Stops statements that run too long: first by a cancel, then by ending the
/// session, then by a kill, which restarts the server. At the suite's limit the
/// runner itself is ended. Returns how many statements had to be stopped.
fn watch(cluster: &Cluster, runner: i32, done: &AtomicBool) -> u64 {
    let started = Instant::now();
    let mut stopped = 0;
    let mut tick = 0u32;
    while !done.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
        if started.elapsed() > SUITE_LIMIT {
            let _ = rowref_tests::process::signal(runner, rowref_tests::process::Signal::TERM);
        }
        tick += 1;
        if !tick.is_multiple_of(50) {
            continue;
        }
        let Ok(mut client) = cluster.connect("postgres") else {
            continue;
        };
        let overdue = client.query(
            "select pid, extract(epoch from now() - query_start)::float8
             from pg_stat_activity
             where backend_type = 'client backend' and state = 'active'
               and pid <> pg_backend_pid() and now() - query_start > $1 * interval '1 s'",
            &[&STATEMENT_LIMIT.as_secs_f64()],
        );
        for row in overdue.unwrap_or_default() {
            let (pid, seconds): (i32, f64) = (row.get(0), row.get(1));
            let times = seconds / STATEMENT_LIMIT.as_secs_f64();
            if times > 1.5 {
                let _ = rowref_tests::process::signal(pid, rowref_tests::process::Signal::KILL);
            } else if times > 1.25 {
                let _ = client.execute("select pg_terminate_backend($1)", &[&pid]);
            } else {
                stopped += 1;
                let _ = client.execute("select pg_cancel_backend($1)", &[&pid]);
            }
        }
    }
    stopped
}

fn crashes(log: &str) -> Vec<String> {
    log.lines()
        .filter(|line| {
            line.contains("was terminated by signal")
                || line.contains("] PANIC:")
                || line.starts_with("TRAP:")
                || line.contains("Failed process was running")
        })
        .map(|line| line.chars().take(200).collect())
        .collect()
}

/// Whether every table that the tests leave behind is sound.
fn sound(cluster: &Cluster, database: &str) -> Result<Vec<String>> {
    let mut client = cluster.connect(database)?;
    let am = cluster.access_method();
    if !rowref_tests::needs_extension(am) {
        return Ok(Vec::new());
    }
    let mut problems = Vec::new();
    for table in verify::tables(&mut client, am)? {
        match verify::verify(&mut client, &table) {
            Ok(found) => problems.extend(found),
            Err(error) => problems.push(format!("{table}: {error:#}")),
        }
    }
    Ok(problems)
}
