//! Copies of a cluster: standbys, base backups, `pg_rewind`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{Cluster, expect_success};

impl Cluster {
    /// A running streaming standby of this server.
    pub fn standby(&self, settings: &[(&str, &str)]) -> Result<Cluster> {
        let mut standby = self.backup(settings, &["-R"])?;
        standby.start_server()?;
        Ok(standby)
    }

    /// A copy of this server's cluster, made by `pg_basebackup` while it runs.
    /// It is not started.
    pub fn backup(&self, settings: &[(&str, &str)], arguments: &[&str]) -> Result<Cluster> {
        let mut options = self.options.clone();
        for (name, value) in settings {
            options = options.set(name, value);
        }
        let copy = Cluster::temporary(self.installation.clone(), options)?;
        let output = self
            .installation
            .account
            .command(self.installation.program("pg_basebackup"))
            .args(["-d", &self.conninfo("postgres"), "-X", "stream"])
            .args(["-c", "fast", "--no-sync"])
            .args(arguments)
            .arg("-D")
            .arg(copy.data())
            .output()
            .context("running pg_basebackup")?;
        expect_success("pg_basebackup", &output)?;
        copy.configure()?;
        Ok(copy)
    }

    /// Takes this stopped server's cluster back to where it parted from
    /// `source`, which runs, and makes it a standby of it (`pg_rewind`).
    pub fn rewind(&self, source: &Cluster) -> Result<()> {
        let output = self
            .installation
            .account
            .command(self.installation.program("pg_rewind"))
            .args(["--source-server", &source.conninfo("postgres"), "-R", "-D"])
            .arg(self.data())
            .output()
            .context("running pg_rewind")?;
        expect_success("pg_rewind", &output)?;
        // With everything else came the source's own settings.
        self.configure()
    }

    /// Waits until `standby` has replayed all this server has written. Fails
    /// when the standby died.
    pub fn wait_for_replay(&self, standby: &Cluster) -> Result<()> {
        let target: String = self
            .connect("postgres")?
            .query_one("select pg_current_wal_insert_lsn()::text", &[])?
            .get(0);
        // Something must be written for the last records to be flushed.
        self.connect("postgres")?
            .batch_execute("select pg_switch_wal()")?;
        let start = Instant::now();
        let mut client = standby.connect("postgres")?;
        loop {
            let row = client.query_one(
                &format!("select coalesce(pg_last_wal_replay_lsn() >= '{target}'::pg_lsn, false)"),
                &[],
            );
            match row {
                Ok(row) if row.get::<_, bool>(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => bail!("the standby is gone: {error}\n{}", standby.log_tail(15)),
            }
            ensure!(
                start.elapsed() < Duration::from_secs(90),
                "the standby does not catch up:\n{}",
                standby.log_tail(15)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
