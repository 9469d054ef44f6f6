//! Damage on disk is named, never served.

use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use postgres::error::SqlState;
use rowref_tests::{Cluster, Options, StopMode, access_method, needs_extension, verify};

const PAGE: u64 = 8192;

/// What to write where in a page.
type Damage = (&'static str, fn(&mut [u8]));

/// Damage that no reader may take for data. Every page holds a header, a slot
/// array after it, bodies at the end, and the special space last.
const DAMAGES: &[Damage] = &[
    ("header overwritten", |page| page[8..24].fill(0xff)),
    ("lower bound beyond upper", |page| {
        page[12..14].copy_from_slice(&8000u16.to_le_bytes());
        page[14..16].copy_from_slice(&100u16.to_le_bytes());
    }),
    ("special space overwritten", |page| page[8160..].fill(0xee)),
    ("slots overwritten", |page| page[24..600].fill(0xfe)),
    ("slots zeroed", |page| page[24..600].fill(0)),
    ("bodies overwritten", |page| page[4000..8100].fill(0xff)),
];

/// A table of a few dozen pages, stopped, with one page damaged.
fn damaged(block: u64, damage: fn(&mut [u8])) -> Result<Cluster> {
    let mut cluster = Cluster::start(Options::test().set("autovacuum", "off"))?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "create table t (k int primary key, v text) using {};
         insert into t select i, repeat('v', 20) from generate_series(1, 5000) i",
        access_method()
    ))?;
    let file = cluster.relation_file("postgres", "t")?;
    cluster.stop(StopMode::Fast)?;
    let file = std::fs::File::options().read(true).write(true).open(file)?;
    let mut page = vec![0; PAGE as usize];
    file.read_exact_at(&mut page, block * PAGE)
        .context("the table has too few pages")?;
    damage(&mut page);
    file.write_all_at(&page, block * PAGE)?;
    cluster.start_server()?;
    Ok(cluster)
}

#[test]
fn each_damage_is_found_by_verify_and_kills_no_backend() -> Result<()> {
    if !needs_extension(&access_method()) {
        return Ok(());
    }
    for (name, damage) in DAMAGES {
        let mut cluster = damaged(5, *damage)?;
        let mut client = cluster.connect("postgres")?;
        let found = match verify::verify(&mut client, "t") {
            Ok(problems) => !problems.is_empty(),
            Err(error) => {
                let code = error
                    .downcast_ref::<postgres::Error>()
                    .and_then(|error| error.code().cloned());
                code == Some(SqlState::DATA_CORRUPTED)
            }
        };
        assert!(found, "verify does not see: {name}");
        // Reading may fail with the right code, or answer from elsewhere; it
        // may not crash or hang.
        client.batch_execute("set statement_timeout = '20s'")?;
        for query in [
            "select count(*) from t",
            "select * from t where k = 2500",
            "select * from t where k between 300 and 900 order by k desc",
        ] {
            if let Err(error) = client.query(query, &[]) {
                let code = error.code().context(format!("{name}: {error}"))?;
                assert!(
                    code == &SqlState::DATA_CORRUPTED || code == &SqlState::INDEX_CORRUPTED,
                    "{name}: {query}: {error:?}"
                );
            }
        }
        cluster.announce("page verification failed");
        cluster.finish()?;
    }
    Ok(())
}

#[test]
fn a_page_of_a_foreign_table_is_refused() -> Result<()> {
    if !needs_extension(&access_method()) {
        return Ok(());
    }
    let mut cluster = Cluster::start(Options::test().set("autovacuum", "off"))?;
    let mut client = cluster.connect("postgres")?;
    client.batch_execute(&format!(
        "create table t (k int primary key, v text) using {am};
         create table h (k int, v text) using heap;
         insert into t select i, repeat('v', 20) from generate_series(1, 5000) i;
         insert into h select i, repeat('v', 20) from generate_series(1, 5000) i",
        am = access_method()
    ))?;
    let (ours, heap) = (
        cluster.relation_file("postgres", "t")?,
        cluster.relation_file("postgres", "h")?,
    );
    cluster.stop(StopMode::Fast)?;
    let mut page = vec![0; PAGE as usize];
    std::fs::File::open(heap)?.read_exact_at(&mut page, 3 * PAGE)?;
    std::fs::File::options()
        .write(true)
        .open(ours)?
        .write_all_at(&page, 3 * PAGE)?;
    cluster.start_server()?;
    let mut client = cluster.connect("postgres")?;
    let error = client
        .query("select count(*) from t", &[])
        .expect_err("a heap page was read as one of ours");
    assert_eq!(error.code(), Some(&SqlState::DATA_CORRUPTED), "{error:?}");
    cluster.finish()
}
