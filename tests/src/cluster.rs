//! One private cluster: made, started, stopped, killed, restarted, copied.
//!
//! A cluster listens on a Unix socket in its own directory only. `Drop` stops
//! the server and, for a temporary cluster, removes its files.

mod copy;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use postgres::{Client, Config, NoTls};
use tempfile::TempDir;

use crate::installation::{EXTENSION, Installation};
use crate::process::{self, Signal};

/// Part of the socket's file name; nothing listens on a network.
pub const PORT: u16 = 5415;

/// Longest time a start (with recovery) or a stop may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a cluster is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Table access method under test; anything but `heap` preloads the extension.
    pub access_method: String,
    /// Settings for `postgresql.conf`, later ones win.
    pub settings: Vec<(String, String)>,
    /// The server survives this process (`xtask server`, `xtask demo`).
    pub outlives_us: bool,
}

impl Options {
    /// For tests: the access method of the environment, no `fsync` (a killed
    /// process loses nothing the kernel has).
    pub fn test() -> Options {
        Options {
            access_method: crate::access_method(),
            settings: Vec::new(),
            outlives_us: false,
        }
        .set("fsync", "off")
        // A standby that is slower than the load must still find its WAL.
        .set("wal_keep_size", "2GB")
        .set("max_prepared_transactions", "10")
    }

    /// For measuring and for use: the server's own defaults.
    pub fn plain(access_method: &str) -> Options {
        Options {
            access_method: access_method.into(),
            settings: Vec::new(),
            outlives_us: false,
        }
    }

    /// Adds a setting.
    pub fn set(mut self, name: &str, value: &str) -> Options {
        self.settings.push((name.into(), value.into()));
        self
    }
}

/// How to stop a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Wait for clients to leave.
    Smart,
    /// Roll back and write a checkpoint.
    Fast,
    /// Stop at once; the next start recovers.
    Immediate,
}

/// A cluster and, while it runs, its server.
pub struct Cluster {
    /// Programs, staging, account.
    pub installation: Installation,
    options: Options,
    directory: PathBuf,
    temporary: Option<TempDir>,
    socket: PathBuf,
    child: Option<Child>,
    announced: Vec<String>,
}

impl Cluster {
    /// Makes a temporary cluster and starts it.
    pub fn start(options: Options) -> Result<Cluster> {
        let installation = Installation::for_access_method(&options.access_method)?;
        let mut cluster = Cluster::temporary(installation, options)?;
        cluster.initdb()?;
        cluster.start_server()?;
        cluster.create_extension("template1")?;
        cluster.create_extension("postgres")?;
        Ok(cluster)
    }

    /// A temporary, empty directory for a cluster.
    fn temporary(installation: Installation, options: Options) -> Result<Cluster> {
        let directory = tempfile::Builder::new().prefix("rowref-").tempdir()?;
        // Others may pass through (their sockets and files stay closed to
        // them), or the server's account could not enter a root's directory.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        installation.account.own(directory.path())?;
        let mut cluster = Cluster::open(installation, directory.path(), options)?;
        cluster.temporary = Some(directory);
        Ok(cluster)
    }

    /// The cluster in `directory`, which may not have been made yet and whose
    /// server may or may not run.
    pub fn open(installation: Installation, directory: &Path, options: Options) -> Result<Cluster> {
        fs::create_dir_all(directory)?;
        installation.account.own(directory)?;
        // The server's working directory is compared with this path.
        let directory = &directory.canonicalize()?;
        let mut socket = directory.join("run");
        // A socket's path has room for about 100 bytes.
        if socket.as_os_str().len() > 80 {
            let name: String = directory
                .to_string_lossy()
                .bytes()
                .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
                })
                .to_string();
            socket = std::env::temp_dir().join(format!("rowref-run-{name}"));
        }
        fs::create_dir_all(&socket)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o700))?;
        installation.account.own(&socket)?;
        Ok(Cluster {
            installation,
            options,
            directory: directory.to_owned(),
            temporary: None,
            socket,
            child: None,
            announced: Vec::new(),
        })
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The directory of the server's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The server's log file.
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The table access method this cluster was made for.
    pub fn access_method(&self) -> &str {
        &self.options.access_method
    }

    /// Whether the cluster has been made.
    pub fn exists(&self) -> bool {
        self.data().join("PG_VERSION").exists()
    }

    /// Makes the cluster: C locale, UTF-8, superuser `postgres`, trust (only
    /// the account itself and root can reach the socket).
    pub fn initdb(&mut self) -> Result<()> {
        let account = &self.installation.account;
        let output = account
            .command(self.installation.program("initdb"))
            .args(["--no-locale", "-E", "UTF8", "-U", "postgres", "-A", "trust"])
            .args(["--no-sync", "--no-instructions", "-D"])
            .arg(self.data())
            .output()
            .context("running initdb")?;
        expect_success("initdb", &output)?;
        self.configure()
    }

    /// Writes the settings file that `postgresql.conf` includes.
    pub fn configure(&self) -> Result<()> {
        let mut text = format!(
            "listen_addresses = ''\nport = {PORT}\nunix_socket_directories = '{}'\n\
             log_line_prefix = '%m [%p] '\nlog_timezone = UTC\nmax_connections = 60\n\
             jit = off\n",
            self.socket.display()
        );
        if let (Some(stage), Some(library)) =
            (&self.installation.stage, self.installation.library()?)
        {
            text += &format!(
                "extension_destdir = '{}'\nshared_preload_libraries = '{}'\n",
                stage.display(),
                library.display()
            );
        }
        for (name, value) in &self.options.settings {
            text += &format!("{name} = '{}'\n", value.replace('\'', "''"));
        }
        let conf = self.data().join("postgresql.conf");
        let base = fs::read_to_string(&conf)?;
        if !base.contains("rowref.conf") {
            fs::write(&conf, base + "\ninclude = 'rowref.conf'\n")?;
        }
        fs::write(self.data().join("rowref.conf"), text)?;
        self.installation
            .account
            .own(&self.data().join("rowref.conf"))
    }

    /// Changes a setting for the next start (or reload).
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        self.options.settings.push((name.into(), value.into()));
        self.configure()
    }

    /// Id of the running server's first process.
    pub fn postmaster(&self) -> Option<i32> {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let pid: i32 = text.lines().next()?.trim().parse().ok()?;
        let ours = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|path| path == self.data());
        (process::is_alive(pid) && ours).then_some(pid)
    }

    /// Starts the server and waits until it takes connections.
    pub fn start_server(&mut self) -> Result<()> {
        ensure!(self.postmaster().is_none(), "the server runs already");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let mut command = self
            .installation
            .account
            .command(self.installation.program("postgres"));
        command.arg("-D").arg(self.data());
        command.stdout(log.try_clone()?).stderr(log);
        // A session that connects elsewhere (dblink, postgres_fdw) and names no
        // host means this server.
        command.env("PGHOST", &self.socket);
        if self.options.outlives_us {
            // Ctrl-C in our terminal must not reach it.
            command.process_group(0);
        }
        let child = command.spawn().context("starting postgres")?;
        let pid = child.id() as i32;
        self.child = Some(child);
        self.wait_ready(pid)
    }

    /// Waits until the server `pid` says it is ready.
    fn wait_ready(&mut self, pid: i32) -> Result<()> {
        let start = Instant::now();
        loop {
            let status = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            let mut lines = status.lines();
            let ours = lines.next() == Some(pid.to_string().as_str());
            if ours && matches!(lines.nth(6).map(str::trim), Some("ready" | "standby")) {
                return Ok(());
            }
            let ended = match &mut self.child {
                Some(child) => child.try_wait()?.is_some(),
                None => !process::is_alive(pid),
            };
            if ended {
                self.child = None;
                bail!("the server did not start:\n{}", self.log_tail(15));
            }
            if start.elapsed() > PATIENCE {
                bail!(
                    "the server is not ready after {PATIENCE:?}:\n{}",
                    self.log_tail(15)
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the server takes connections again after it restarted
    /// itself (a backend was killed).
    pub fn wait_accepting(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            match self.connect("postgres") {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > PATIENCE => {
                    bail!(
                        "no connection after {PATIENCE:?}: {error:#}\n{}",
                        self.log_tail(15)
                    )
                }
                Err(_) if self.postmaster().is_none() => {
                    bail!("the server died:\n{}", self.log_tail(15))
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// The last lines of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Stops the server and waits for its end.
    pub fn stop(&mut self, mode: StopMode) -> Result<()> {
        let Some(pid) = self.postmaster() else {
            self.child = None;
            return Ok(());
        };
        let signal = match mode {
            StopMode::Smart => Signal::TERM,
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        };
        process::signal(pid, signal)?;
        self.reap(pid)
    }

    /// Stops and starts the server.
    pub fn restart(&mut self, mode: StopMode) -> Result<()> {
        self.stop(mode)?;
        self.start_server()
    }

    /// Sends SIGKILL to the whole server: first process, then all it started.
    /// Nothing gets to write a last word.
    pub fn kill9_server(&mut self) -> Result<()> {
        let pid = self.postmaster().context("no server runs")?;
        let children = process::children(pid);
        process::signal(pid, Signal::KILL)?;
        for &child in &children {
            process::signal(child, Signal::KILL)?;
        }
        self.reap(pid)?;
        for child in children {
            process::wait_gone(child, PATIENCE)?;
        }
        // A server of an earlier run is not our child: it stays a zombie until
        // whoever inherited it takes notice, and a new server would take it
        // for a running one.
        let start = Instant::now();
        while process::exists(pid) && start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if process::exists(pid) {
            fs::remove_file(self.data().join("postmaster.pid"))?;
        }
        Ok(())
    }

    /// Sends SIGKILL to one backend; the server then restarts itself, which
    /// is announced to the log's judge. Returns when it takes connections.
    pub fn kill9_backend(&mut self, backend: i32) -> Result<()> {
        let postmaster = self.postmaster().context("no server runs")?;
        ensure!(
            process::children(postmaster).contains(&backend),
            "process {backend} is no backend of ours"
        );
        self.announce_crash();
        let logged = self.log_length();
        process::signal(backend, Signal::KILL)?;
        process::wait_gone(backend, PATIENCE)?;
        self.wait_restarted(logged)
    }

    /// Waits until the server, which has lost a process after the log's first
    /// `logged` bytes, has restarted itself. A connection made before would be
    /// cut with those of the lost process's siblings.
    fn wait_restarted(&self, logged: u64) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let log = self.log_since(logged)?;
            let crash = log.rfind("was terminated by signal").unwrap_or(0);
            if log[crash..].contains("database system is ready") {
                return self.wait_accepting();
            }
            ensure!(
                self.postmaster().is_some(),
                "the server died:\n{}",
                self.log_tail(15)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the server did not restart itself:\n{}", self.log_tail(15))
    }

    /// How far the log has got.
    pub fn log_length(&self) -> u64 {
        fs::metadata(self.log_path()).map_or(0, |data| data.len())
    }

    /// If the server lost a process after the log's first `logged` bytes:
    /// waits until it is back and returns what it said of the loss.
    pub fn recover_from_crash(&self, logged: u64) -> Result<Option<String>> {
        let log = self.log_since(logged)?;
        let Some(line) = log
            .lines()
            .find(|line| line.contains("was terminated by signal"))
        else {
            return Ok(None);
        };
        self.wait_restarted(logged)?;
        let failed = log
            .lines()
            .find(|line| line.contains("Failed process was running"))
            .unwrap_or_default();
        Ok(Some(format!("{line}\n{failed}")))
    }

    /// What the server has logged after the log's first `offset` bytes.
    pub fn log_since(&self, offset: u64) -> Result<String> {
        let mut file = File::open(self.log_path())?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn reap(&mut self, pid: i32) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            let start = Instant::now();
            while child.try_wait()?.is_none() {
                if start.elapsed() > PATIENCE {
                    self.child = Some(child);
                    bail!("the server {pid} did not end:\n{}", self.log_tail(15));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            return Ok(());
        }
        process::wait_gone(pid, PATIENCE)
    }

    /// A connection as superuser.
    pub fn connect(&self, database: &str) -> Result<Client> {
        Config::new()
            .host_path(&self.socket)
            .port(PORT)
            .user("postgres")
            .dbname(database)
            .application_name("rowref-tests")
            .connect_timeout(Duration::from_secs(10))
            .connect(NoTls)
            .with_context(|| format!("connecting to {database}"))
    }

    /// A libpq connection string.
    pub fn conninfo(&self, database: &str) -> String {
        format!(
            "host={} port={PORT} user=postgres dbname={database}",
            self.socket.display()
        )
    }

    /// One of the server's client programs, run as ourselves.
    pub fn client_program(&self, name: &str) -> Command {
        let mut command = Command::new(self.installation.program(name));
        command
            .env("PGHOST", &self.socket)
            .env("PGPORT", PORT.to_string())
            .env("PGUSER", "postgres")
            .env_remove("PGOPTIONS")
            .env("LC_ALL", "C");
        command
    }

    /// Runs a script through `psql`, stopping at the first error; returns what
    /// it printed, unaligned, tuples only.
    pub fn psql(&self, database: &str, script: &str) -> Result<String> {
        let mut child = self
            .client_program("psql")
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                database,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child
            .stdin
            .take()
            .expect("stdin is piped")
            .write_all(script.as_bytes())?;
        let output = child.wait_with_output()?;
        expect_success("psql", &output)?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Creates the extension in a database, if this cluster has it.
    pub fn create_extension(&self, database: &str) -> Result<()> {
        if self.installation.stage.is_some() {
            let mut client = self.connect(database)?;
            client
                .batch_execute(&format!("create extension if not exists {EXTENSION}"))
                .context("CREATE EXTENSION")?;
        }
        Ok(())
    }

    /// Announces that log lines containing `text` are expected.
    pub fn announce(&mut self, text: &str) {
        if !self.announced.iter().any(|known| known == text) {
            self.announced.push(text.into());
        }
    }

    /// Announces what a server logs when we kill one of its processes.
    pub fn announce_crash(&mut self) {
        self.announce("was terminated by signal 9");
        self.announce("terminating connection because of crash of another server process");
    }

    /// Log lines that nobody announced.
    pub fn complaints(&self) -> Vec<String> {
        crate::log::complaints(&self.log(), &self.announced)
    }

    /// The end of a test: stops the server and fails if its log holds a
    /// warning, panic or crash that was not announced.
    pub fn finish(mut self) -> Result<()> {
        self.stop(StopMode::Fast)?;
        let complaints = self.complaints();
        ensure!(
            complaints.is_empty(),
            "the server's log holds lines nobody announced:\n{}",
            complaints.join("\n")
        );
        Ok(())
    }

    /// Leaves the server running when this value goes away.
    pub fn leave_running(mut self) {
        self.child = None;
        self.options.outlives_us = true;
    }

    /// Stops the server and keeps its files for whoever has to understand a
    /// failure; returns where they are.
    pub fn keep(mut self) -> Result<PathBuf> {
        self.stop(StopMode::Immediate)?;
        if let Some(temporary) = self.temporary.take() {
            let _ = temporary.keep();
        }
        Ok(self.directory.clone())
    }

    /// Path of a relation's first file, relative parts resolved.
    pub fn relation_file(&self, database: &str, relation: &str) -> Result<PathBuf> {
        let path: String = self
            .connect(database)?
            .query_one(
                &format!("select pg_relation_filepath('{relation}'::regclass)"),
                &[],
            )?
            .get(0);
        Ok(self.data().join(path))
    }

    /// Empties the log, so that what follows is judged alone.
    pub fn forget_log(&self) -> Result<()> {
        File::create(self.log_path())?;
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.options.outlives_us {
            return;
        }
        // Immediate: nobody needs the data any more, and it cannot hang on a
        // client. A server that ignores even that is killed.
        if self.stop(StopMode::Immediate).is_err() && self.postmaster().is_some() {
            let _ = self.kill9_server();
        }
        if self.temporary.is_some() && !self.socket.starts_with(&self.directory) {
            let _ = fs::remove_dir_all(&self.socket);
        }
    }
}

fn expect_success(what: &str, output: &Output) -> Result<()> {
    ensure!(
        output.status.success(),
        "{what} failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
