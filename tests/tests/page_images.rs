//! What a crash makes of a page is of no account: its image is in the log.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Result, ensure};
use postgres::Client;
use rowref_tests::{Cluster, Options, access_method, needs_extension, verify};

const PAGE: u64 = 8192;

/// Text that is all alike.
const ALIKE: &str = "repeat('x', 60) || k";
/// Bytes that no compressor makes anything of.
const NOISE: &str = "encode(sha512(k::text::bytea), 'base64')";

/// Where the server's own images are expected.
#[derive(Clone, Copy, PartialEq)]
enum Servers {
    Few,
    Most,
    Some,
}

fn number(client: &mut Client, query: &str) -> Result<i64> {
    Ok(client.query_one(query, &[])?.get(0))
}

fn each(client: &mut Client, statements: &[&str]) -> Result<()> {
    for statement in statements {
        client.batch_execute(statement)?;
    }
    Ok(())
}

/// A server that writes no checkpoint unless it is asked to, and checks what it
/// reads from its files.
fn start() -> Result<Cluster> {
    let options = Options::test()
        .set("autovacuum", "off")
        .set("checkpoint_timeout", "1h")
        .set("max_wal_size", "8GB");
    let mut cluster = Cluster::start(options)?;
    cluster.stop(rowref_tests::StopMode::Fast)?;
    let installation = &cluster.installation;
    let enabled = installation
        .account
        .command(installation.program("pg_checksums"))
        .args(["--enable", "--no-sync", "-D"])
        .arg(cluster.data())
        .output()?;
    ensure!(enabled.status.success(), "pg_checksums: {enabled:?}");
    cluster.start_server()?;
    Ok(cluster)
}

/// Blocks of a relation that were changed since the last checkpoint began.
fn changed(client: &mut Client, relation: &str) -> Result<Vec<u64>> {
    let query = format!(
        "select block from generate_series(0, pg_relation_size('{relation}') / {PAGE} - 1) block,
                pg_control_checkpoint() c
         where (page_header(get_raw_page('{relation}', block))).lsn > c.redo_lsn"
    );
    let rows = client.query(&query, &[])?;
    Ok(rows.iter().map(|row| row.get::<_, i64>(0) as u64).collect())
}

/// Overwrites blocks: with nothing, with something that looks newer than any
/// record, or from the middle on, as a torn write does.
fn spoil(file: &File, blocks: &[u64]) -> Result<()> {
    let length = file.metadata()?.len();
    for &block in blocks.iter().filter(|&&block| block * PAGE < length) {
        let (from, byte) = match block % 3 {
            0 => (0, 0),
            1 => (0, 0xa5),
            _ => (PAGE / 2, 0x5a),
        };
        file.write_all_at(&vec![byte; (PAGE - from) as usize], block * PAGE + from)?;
    }
    // And the last one may be missing.
    if blocks
        .last()
        .is_some_and(|&last| (last + 1) * PAGE == length)
    {
        file.set_len(length - PAGE)?;
    }
    Ok(())
}

const SUMS: &[&str] = &[
    "select count(*)::text || sum(hashtextextended(t::text, 0)::numeric) from t",
    "select count(*)::text || sum(v) from t where v > -1",
    "select count(*)::text || sum(k) from t where k > -1",
];

/// Changes many pages after a checkpoint, kills the server, spoils all of them
/// on disk, and looks whether recovery brings everything back.
fn survives(pad: &str, setting: &[(&str, &str)], servers: Servers) -> Result<()> {
    let mut cluster = start()?;
    for (name, value) in setting {
        let mut client = cluster.connect("postgres")?;
        client.batch_execute(&format!("alter system set {name} = '{value}'"))?;
        client.batch_execute("select pg_reload_conf()")?;
    }
    let mut client = cluster.connect("postgres")?;
    each(
        &mut client,
        &[
            "create extension pageinspect",
            &format!(
                "create table t (k int primary key, v bigint, pad text) using {}",
                access_method()
            ),
            "create index t_v on t (v)",
            &format!("insert into t select k, k, {pad} from generate_series(2, 60000, 2) k"),
            "vacuum (freeze) t",
            "checkpoint",
            "select pg_stat_reset_shared('wal')",
            // Splits: the new page, its right sibling and the parent in one record.
            &format!("insert into t select k, -k, {pad} from generate_series(10001, 15000, 2) k"),
            "update t set v = v + 1 where k % 5 = 0",
            "update t set pad = left(pad, 40) where k between 30000 and 31000",
            // Merges, and pages that are deleted and reused.
            "delete from t where k between 40000 and 50000",
            "vacuum t",
            &format!("insert into t select k, k, {pad} from generate_series(70001, 72000) k"),
            "begin",
            "delete from t where k % 6 = 0",
            "rollback",
            // A file that is cut off after its last pages were changed.
            "update t set v = v where k > 52000",
            "delete from t where k > 54000",
            "vacuum t",
            "select pg_stat_force_next_flush()",
        ],
    )?;
    let images = number(&mut client, "select wal_fpi from pg_stat_wal")?;
    client.batch_execute("set enable_seqscan = off; set enable_bitmapscan = off")?;
    let sums = |client: &mut Client| -> Result<Vec<String>> {
        SUMS.iter()
            .map(|sum| Ok(client.query_one(*sum, &[])?.get(0)))
            .collect()
    };
    let before = sums(&mut client)?;
    let mut files = Vec::new();
    for relation in ["t", "t_v"] {
        let blocks = changed(&mut client, relation)?;
        assert!(blocks.len() > 100, "{relation}: {} blocks", blocks.len());
        files.push((cluster.relation_file("postgres", relation)?, blocks));
    }
    let blocks: i64 = files.iter().map(|(_, blocks)| blocks.len() as i64).sum();
    if needs_extension(&access_method()) {
        match servers {
            Servers::Few => assert!(images * 5 < blocks, "{images} images of {blocks}"),
            Servers::Most => assert!(images * 2 > blocks, "{images} images of {blocks}"),
            Servers::Some => assert!(
                images * 10 > blocks && images * 10 < blocks * 9,
                "{images} images of {blocks}"
            ),
        }
    }
    cluster.kill9_server()?;
    for (file, blocks) in &files {
        spoil(&File::options().write(true).open(file)?, blocks)?;
    }
    cluster.start_server()?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute("set enable_seqscan = off; set enable_bitmapscan = off")?;
    assert_eq!(sums(&mut client)?, before);
    let problems = verify::verify_all(&mut client, &access_method())?;
    assert!(problems.is_empty(), "{problems:#?}");
    each(&mut client, &["update t set v = v + 1", "vacuum t"])?;
    let problems = verify::verify_all(&mut client, &access_method())?;
    assert!(problems.is_empty(), "{problems:#?}");
    cluster.finish()
}

#[test]
fn pages_lost_on_disk_come_back_from_compressed_images() -> Result<()> {
    survives(ALIKE, &[], Servers::Few)
}

#[test]
fn pages_that_do_not_compress_come_back_from_the_servers_images() -> Result<()> {
    survives(NOISE, &[], Servers::Some)
}

#[test]
fn both_kinds_of_image_go_together() -> Result<()> {
    let pad = format!("case when k / 2000 % 2 = 0 then {ALIKE} else {NOISE} end");
    survives(&pad, &[("wal_compression", "pglz")], Servers::Some)
}

#[test]
fn the_first_change_of_a_new_session_has_a_compressed_image_too() -> Result<()> {
    if !needs_extension(&access_method()) {
        return Ok(());
    }
    let cluster = start()?;
    let mut client = cluster.connect("postgres")?;
    each(
        &mut client,
        &[
            &format!(
                "create table t (k int primary key, pad text) using {}",
                access_method()
            ),
            &format!("insert into t select k, {ALIKE} from generate_series(1, 10000) k"),
            "vacuum (freeze) t",
        ],
    )?;
    for (key, setting, images) in [(1, "on", ""), (5000, "off", " fpi=1")] {
        client.batch_execute("checkpoint")?;
        let mut session = cluster.connect("postgres")?;
        session.batch_execute(&format!("set rowref.compress_images = {setting}"))?;
        let plan = session.query(
            &format!(
                "explain (analyze, wal, costs off, timing off, summary off)
                 update t set pad = 'y' || pad where k = {key}"
            ),
            &[],
        )?;
        let mut lines = plan.iter().map(|line| line.get::<_, String>(0));
        let wal = lines.find(|line| line.trim().starts_with("WAL"));
        let wal = wal.expect("it logs");
        let wal = wal.trim().rsplit_once(" bytes").expect("so many bytes");
        assert_eq!(wal.0, format!("WAL: records=1{images}"));
    }
    cluster.finish()
}

#[test]
fn without_the_setting_all_images_are_the_servers() -> Result<()> {
    if !needs_extension(&access_method()) {
        return Ok(());
    }
    survives(ALIKE, &[("rowref.compress_images", "off")], Servers::Most)
}
