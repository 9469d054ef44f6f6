//! The operating-system account a server runs under.
//!
//! PostgreSQL refuses to run as root. As root we run it as `postgres`; an
//! ordinary user runs it as itself.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Who the server runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// User and group to switch to; `None` stays who we are.
    switch: Option<(u32, u32)>,
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Our user id.
pub fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

impl Account {
    /// The account for this process: `postgres` for root, else ourselves.
    pub fn detect() -> Result<Account> {
        if !is_root() {
            return Ok(Account { switch: None });
        }
        let passwd = std::fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
        for line in passwd.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if fields.len() > 3 && fields[0] == "postgres" {
                return Ok(Account {
                    switch: Some((fields[2].parse()?, fields[3].parse()?)),
                });
            }
        }
        bail!("there is no user 'postgres' to run the server as (is postgresql-15 installed?)");
    }

    /// A command that runs under this account, away from our own directory
    /// (which the account may be unable to enter).
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        if let Some((uid, gid)) = self.switch {
            command.uid(uid).gid(gid);
            command.env("HOME", "/var/lib/postgresql");
        }
        command.current_dir("/");
        // pgrx puts Rust backtraces into the client-visible DETAIL when this is set.
        command.env_remove("RUST_BACKTRACE");
        for name in [
            "PGHOST",
            "PGPORT",
            "PGUSER",
            "PGDATABASE",
            "PGOPTIONS",
            "PGSERVICE",
        ] {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    /// Gives `path` to the account.
    pub fn own(&self, path: &Path) -> Result<()> {
        if let Some((uid, gid)) = self.switch {
            std::os::unix::fs::chown(path, Some(uid), Some(gid))
                .with_context(|| format!("giving {} to postgres", path.display()))?;
        }
        Ok(())
    }

    /// Whether the account can enter the existing directory `path`.
    pub fn can_enter(&self, path: &Path) -> bool {
        if self.switch.is_none() {
            return true;
        }
        self.command("/usr/bin/test")
            .arg("-x")
            .arg(path)
            .status()
            .is_ok_and(|status| status.success())
    }
}
