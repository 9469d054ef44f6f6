//! A disk that is full at any moment, and a lock table that is: a clear error,
//! the transaction rolled back, nothing held, and the table sound and usable
//! as soon as there is room again.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use postgres::Client;
use postgres::error::SqlState;
use rowref_tests::{Cluster, Options, access_method, needs_extension, verify};

const PAGE: u64 = 8192;

/// A file system in memory, mounted for a tablespace. Only root may.
struct Disk {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Disk {
    fn mount(megabytes: u64) -> Result<Option<Disk>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let directory = tempfile::Builder::new().prefix("rowref-disk-").tempdir()?;
        let path = directory.path().join("mounted");
        std::fs::create_dir(&path)?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "none"])
            .arg(&path)
            .status()?;
        let disk = Disk {
            path,
            _directory: directory,
        };
        // A container may be forbidden to.
        Ok(status.success().then_some(disk))
    }

    /// Where the tablespace is.
    fn tablespace(&self) -> PathBuf {
        self.path.join("tablespace")
    }

    /// Takes all room but so many pages.
    fn leave(&self, pages: u64) -> Result<()> {
        let mut ballast = File::create(self.path.join("ballast"))?;
        let state = rustix::fs::statvfs(&self.path)?;
        let room = state.f_bavail * state.f_frsize;
        let zeros = vec![0; room.saturating_sub(pages * PAGE) as usize];
        ballast.write_all(&zeros)?;
        Ok(())
    }

    fn make_room(&self) -> Result<()> {
        File::create(self.path.join("ballast"))?;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// Others have to be able to enter the directories on the way to it.
fn open_to_all(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for part in path.ancestors().take(3) {
        if part.starts_with(std::env::temp_dir()) && part != std::env::temp_dir() {
            std::fs::set_permissions(part, std::fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

fn number(client: &mut Client, query: &str) -> Result<i64> {
    Ok(client.query_one(query, &[])?.get(0))
}

/// A number that changes if a row does.
fn contents(client: &mut Client) -> Result<i64> {
    number(
        client,
        "select coalesce(sum(hashtextextended(t::text, 7) % 1000000), 0)::bigint from t",
    )
}

/// What a statement that met a full disk left behind; `before` is what the
/// table held.
fn look_after(client: &mut Client, other: &mut Client, what: &str, before: i64) -> Result<()> {
    client.batch_execute("rollback")?;
    let after = contents(client)?;
    ensure!(
        after == before,
        "{what}: the table holds something else now"
    );
    let held = number(
        client,
        "select count(*) from pg_locks where pid = pg_backend_pid() and relation is distinct from
         'pg_locks'::regclass and locktype <> 'virtualxid'",
    )?;
    ensure!(held == 0, "{what}: {held} locks are left");
    // Nobody else finds the table taken, nor a page of it.
    other.batch_execute("begin; lock table t in access exclusive mode nowait; commit")?;
    let problems = verify::verify(other, "t")?;
    ensure!(problems.is_empty(), "{what}: {problems:#?}");
    ensure!(
        contents(other)? == before,
        "{what}: others see something else"
    );
    Ok(())
}

/// Runs a statement on a disk with so many free pages, and again with room;
/// whether it failed the first time.
fn run_short(
    disk: &Disk,
    client: &mut Client,
    other: &mut Client,
    statement: &str,
    pages: u64,
) -> Result<bool> {
    let before = contents(client)?;
    disk.leave(pages)?;
    let first = client.batch_execute(statement);
    let what = format!("{statement} with {pages} pages");
    let failed = match first {
        Ok(()) => false,
        Err(error) => {
            let answer = error
                .as_db_error()
                .with_context(|| format!("{what}: {error:?}"))?;
            ensure!(answer.code() == &SqlState::DISK_FULL, "{what}: {answer:?}");
            ensure!(answer.hint().is_some(), "{what}: no hint: {answer:?}");
            look_after(client, other, &what, before)?;
            true
        }
    };
    disk.make_room()?;
    if failed {
        client
            .batch_execute(statement)
            .with_context(|| format!("{what}: the second time"))?;
    }
    let problems = verify::verify(other, "t")?;
    ensure!(problems.is_empty(), "{what}: {problems:#?}");
    Ok(failed)
}

/// A cluster with a small disk, and two sessions.
fn with_small_disk(work: impl FnOnce(&Disk, &mut Client, &mut Client) -> Result<()>) -> Result<()> {
    if !needs_extension(&access_method()) {
        return Ok(());
    }
    let Some(disk) = Disk::mount(40)? else {
        eprintln!("no file system can be mounted here");
        return Ok(());
    };
    let mut cluster = Cluster::start(Options::test().set("autovacuum", "off"))?;
    std::fs::create_dir(disk.tablespace())?;
    open_to_all(&disk.tablespace())?;
    cluster.installation.account.own(&disk.tablespace())?;
    let mut client = cluster.connect("postgres")?;
    let place = disk.tablespace();
    client.batch_execute(&format!(
        "create tablespace small location '{}'",
        place.display()
    ))?;
    client.batch_execute("set default_tablespace = small")?;
    let mut other = cluster.connect("postgres")?;
    work(&disk, &mut client, &mut other)?;
    client.batch_execute("drop table if exists t")?;
    client.batch_execute("drop tablespace small")?;
    drop((client, other));
    // What looks for damage ends a transaction that there need not be.
    cluster.announce("there is no transaction in progress");
    cluster.finish()
}

fn create(client: &mut Client, rows: i64) -> Result<()> {
    client.batch_execute(&format!(
        "drop table if exists t;
         create table t (k int primary key, v int, pad text) using {};
         alter table t alter pad set storage plain;
         insert into t select i, 0, repeat('x', 1500) from generate_series(2, 2 * {rows}, 2) i",
        access_method()
    ))?;
    Ok(())
}

#[test]
fn a_split_that_finds_no_room_on_any_level_leaves_a_sound_tree() -> Result<()> {
    with_small_disk(|disk, client, other| {
        // How many rows are there when the root splits, inserted in order.
        create(client, 1)?;
        client.batch_execute(
            "do $$
             declare
               n int := 1;
             begin
               while (select levels from rowref.relation_stats('t')) < 3 loop
                 for i in 1..20 loop
                   n := n + 1;
                   insert into t values (2 * n, 0, repeat('x', 1500));
                 end loop;
               end loop;
             end $$",
        )?;
        let most = number(client, "select count(*) from t")?;
        let mut failed = 0;
        let mut unfinished = 0;
        for short in 0..4 {
            create(client, most - 20)?;
            let levels = number(
                client,
                "select levels::bigint from rowref.relation_stats('t')",
            )?;
            ensure!(levels == 2, "the root has split before");
            // One row after the other, each as a transaction, until one has met
            // the full disk: so the first one to need `short` pages and one more.
            for next in most - 19..=most + 5 {
                let insert = format!("insert into t values ({}, 0, repeat('x', 1500))", 2 * next);
                disk.leave(short)?;
                let before = contents(client)?;
                let result = client.batch_execute(&insert);
                let Err(error) = result else { continue };
                ensure!(error.code() == Some(&SqlState::DISK_FULL), "{error:?}");
                failed += 1;
                look_after(client, other, &insert, before)?;
                unfinished += number(
                    client,
                    "select incomplete_splits from rowref.relation_stats('t')",
                )?;
                // Readers find all, whatever is unfinished.
                let found = number(client, "select count(*) from t where k > 0")?;
                ensure!(found == next - 1, "{found} rows, not {}", next - 1);
                disk.make_room()?;
                client.batch_execute(&insert)?;
                let now = contents(other)?;
                look_after(client, other, &insert, now)?;
                // Whoever comes to the place next ends what was begun.
                client.batch_execute(
                    "do $$
                     begin
                       for i in 1..12 loop
                         insert into t select max(k) + 2, 0, repeat('x', 1500) from t;
                       end loop;
                     end $$",
                )?;
                let left = number(
                    client,
                    "select incomplete_splits from rowref.relation_stats('t')",
                )?;
                ensure!(left == 0, "{left} splits were not ended");
                break;
            }
            disk.make_room()?;
            client.batch_execute("vacuum t")?;
            let problems = verify::verify(other, "t")?;
            ensure!(problems.is_empty(), "{problems:#?}");
        }
        ensure!(failed >= 3, "the disk was full {failed} times only");
        ensure!(unfinished > 0, "no split was cut short between its levels");
        Ok(())
    })
}

#[test]
fn statements_on_a_full_disk_leave_nothing_and_go_through_when_there_is_room() -> Result<()> {
    with_small_disk(|disk, client, other| {
        for statement in [
            "insert into t select i, 1, repeat('y', 1500) from generate_series(1, 201, 2) i",
            "insert into t select i, 1, repeat('y', 1500) from generate_series(1000, 1100) i",
            "update t set v = v + 1",
            "update t set k = k + 10000",
            "update t set pad = pad || repeat('z', 3000) where k % 3 = 0",
            "delete from t where k % 4 = 0",
            "select k from t for update",
            "create table u as select * from t; drop table u",
            "alter table t drop constraint t_pkey; alter table t add primary key (v, k)",
            "alter table t alter v type bigint",
            "vacuum full t",
            "cluster t using t_pkey",
            "reindex table t",
            "vacuum t",
            "begin; truncate t; insert into t select i, 2, 'x' from generate_series(1, 5000) i; commit",
            "begin; savepoint a; update t set v = v + 1; release a; delete from t; commit",
        ] {
            let mut failed = 0;
            for pages in [0, 1, 3, 8, 21] {
                create(client, 200)?;
                failed += u32::from(run_short(disk, client, other, statement, pages)?);
            }
            // These need no room on the disk, or have enough.
            let spares = ["for update", "vacuum t", "delete from t where", "reindex"];
            ensure!(
                failed > 0 || spares.iter().any(|part| statement.contains(part)),
                "{statement} never met the full disk"
            );
        }
        Ok(())
    })
}

#[test]
fn a_copy_on_a_full_disk_leaves_nothing() -> Result<()> {
    with_small_disk(|disk, client, other| {
        for pages in [0, 1, 2, 7, 30] {
            create(client, 50)?;
            let before = contents(client)?;
            disk.leave(pages)?;
            let mut copy = || -> Result<()> {
                let mut writer = client.copy_in("copy t from stdin")?;
                for row in 0..2000 {
                    writeln!(writer, "{}\t1\t{}", 2 * row + 1, "c".repeat(300))?;
                }
                writer.finish()?;
                Ok(())
            };
            let error = copy().expect_err("there was room");
            let code = error
                .downcast_ref::<postgres::Error>()
                .and_then(|error| error.code());
            ensure!(code == Some(&SqlState::DISK_FULL), "{error:?}");
            look_after(client, other, "copy", before)?;
            disk.make_room()?;
        }
        Ok(())
    })
}

/// Where nothing can be mounted, a limit on the size of files does: the write
/// that crosses it is cut short, as on a full disk.
#[test]
fn a_file_that_may_not_grow_is_a_full_disk() -> Result<()> {
    if !needs_extension(&access_method()) {
        return Ok(());
    }
    let mut cluster = Cluster::start(Options::test().set("autovacuum", "off"))?;
    let mut client = cluster.connect("postgres")?;
    let mut other = cluster.connect("postgres")?;
    // Larger than a segment of the log, which has to be written all the same.
    create(&mut client, 14_000)?;
    let backend = number(&mut client, "select pg_backend_pid()::bigint")?;
    // By the server's own account: root need not be allowed to, in a container.
    let limit = |size: &str| -> Result<()> {
        let mut command = cluster.installation.account.command("prlimit");
        command.args([&format!("--pid={backend}"), &format!("--fsize={size}:")]);
        ensure!(command.status()?.success(), "{command:?}");
        Ok(())
    };
    for (pages, statement) in [
        (
            0,
            "insert into t select i, 1, repeat('y', 1500) from generate_series(1, 1999, 2) i",
        ),
        (
            3,
            "insert into t select i, 1, repeat('y', 1500) from generate_series(1, 1999, 2) i",
        ),
        (5, "update t set k = -k"),
    ] {
        let before = contents(&mut client)?;
        let size = number(&mut client, "select pg_relation_size('t')")? as u64;
        // The last write may have been cut short before.
        let size = size / PAGE * PAGE;
        limit(&(size + pages * PAGE + PAGE / 2).to_string())?;
        let error = client.batch_execute(statement).expect_err("there was room");
        ensure!(error.code() == Some(&SqlState::DISK_FULL), "{error:?}");
        limit("unlimited")?;
        look_after(&mut client, &mut other, statement, before)?;
    }
    client.batch_execute("update t set k = -k")?;
    client.batch_execute("vacuum t")?;
    let problems = verify::verify(&mut other, "t")?;
    ensure!(problems.is_empty(), "{problems:#?}");
    drop((client, other));
    // What looks for damage ends a transaction that there need not be.
    cluster.announce("there is no transaction in progress");
    cluster.finish()
}

#[test]
fn a_full_lock_table_is_told_with_a_hint_and_leaves_nothing() -> Result<()> {
    if !needs_extension(&access_method()) {
        return Ok(());
    }
    let mut cluster = Cluster::start(
        Options::test()
            .set("autovacuum", "off")
            .set("max_locks_per_transaction", "10"),
    )?;
    let mut client = cluster.connect("postgres")?;
    let mut other = cluster.connect("postgres")?;
    let mut hog = cluster.connect("postgres")?;
    create(&mut client, 200)?;
    let told = |error: &postgres::Error, what: &str| -> Result<()> {
        let answer = error
            .as_db_error()
            .with_context(|| format!("{what}: {error:?}"))?;
        ensure!(
            answer.code() == &SqlState::OUT_OF_MEMORY || answer.code().code() == "53200",
            "{what}: {answer:?}"
        );
        ensure!(
            answer
                .hint()
                .is_some_and(|hint| hint.contains("max_locks_per_transaction")),
            "{what}: {answer:?}"
        );
        Ok(())
    };
    other.batch_execute("begin; update t set v = 1 where k = 2")?;
    for statement in [
        // The queue for the row.
        "update t set v = 2 where k = 2",
        "select from t where k = 2 for update",
        "delete from t where k = 2",
        // The lock under which a file grows.
        "insert into t select i, 1, repeat('y', 1500) from generate_series(3, 399, 2) i",
        "update t set k = k + 10000 where k > 2",
    ] {
        // What it needs besides, it has before it is too late.
        client.batch_execute("begin; insert into t values (1, 0, 'x')")?;
        // Advisory locks of a session outlive the statement that fails.
        let error = hog
            .batch_execute("select pg_advisory_lock(i) from generate_series(1, 1000000) i")
            .expect_err("the lock table has no end");
        told(&error, "the hog")?;
        let error = client.batch_execute(statement).expect_err("there was room");
        told(&error, statement)?;
        client.batch_execute("rollback")?;
        hog.batch_execute("select pg_advisory_unlock_all()")?;
        let rows = number(&mut client, "select count(*) from t")?;
        ensure!(rows == 200, "{statement}: {rows} rows");
    }
    other.batch_execute("commit")?;
    let before = contents(&mut client)?;
    look_after(&mut client, &mut other, "a full lock table", before)?;
    client.batch_execute("update t set v = 2; insert into t values (1, 0, 'x')")?;
    drop((client, other, hog));
    // What looks for damage ends a transaction that there need not be.
    cluster.announce("there is no transaction in progress");
    cluster.finish()
}
