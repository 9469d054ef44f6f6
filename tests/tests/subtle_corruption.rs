//! Small damages, each of which a page could pass for sound with: `verify`
//! names every one of them, and whatever else is asked of the table answers or
//! says that its data is corrupt. The format is `docs/FORMAT.md`'s.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use postgres::Client;
use postgres::error::SqlState;
use rowref_tests::{Cluster, Options, StopMode, access_method, needs_extension, verify};

const PAGE: usize = 8192;
const SPECIAL: usize = 8160;
const SLOTS: usize = 24;
const LEAF: u8 = 0x72;
const INNER: u8 = 0x73;
const MAGIC: [u8; 4] = 0x6672_7772_u32.to_le_bytes();

type Page = Vec<u8>;

fn u16_at(page: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([page[at], page[at + 1]]))
}

fn u32_at(page: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(page[at..at + 4].try_into().expect("four bytes"))
}

fn set_u32(page: &mut [u8], at: usize, value: u32) {
    page[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn slot(index: usize) -> usize {
    SLOTS + 8 * index
}

/// Where the cell of a slot begins.
fn cell(page: &[u8], index: usize) -> usize {
    u16_at(page, slot(index))
}

fn swap_slots(page: &mut [u8], one: usize, other: usize) {
    for byte in 0..8 {
        page.swap(slot(one) + byte, slot(other) + byte);
    }
}

/// A table's file, page by page.
struct Table {
    pages: Vec<Page>,
}

impl Table {
    fn read(path: &Path) -> Result<Table> {
        let bytes = std::fs::read(path)?;
        Ok(Table {
            pages: bytes.chunks(PAGE).map(<[u8]>::to_vec).collect(),
        })
    }

    fn write(&self, path: &Path) -> Result<()> {
        let file = File::options().write(true).open(path)?;
        file.set_len((self.pages.len() * PAGE) as u64)?;
        file.write_all_at(&self.pages.concat(), 0)?;
        Ok(())
    }

    /// A leaf with neighbours on both sides, and its block.
    fn leaf(&mut self) -> &mut Page {
        let block = self.leaf_block();
        &mut self.pages[block]
    }

    fn leaf_block(&self) -> usize {
        (6..self.pages.len())
            .find(|&block| {
                let page = &self.pages[block];
                page[SPECIAL] == LEAF
                    && u32_at(page, SPECIAL + 4) != u32::MAX
                    && u32_at(page, SPECIAL + 8) != u32::MAX
            })
            .expect("a leaf in the middle")
    }

    fn root(&mut self) -> &mut Page {
        self.pages
            .iter_mut()
            .find(|page| page[SPECIAL] == INNER)
            .expect("an inner page")
    }

    /// Where the metapage's archive has its magic number; the format's version
    /// follows.
    fn magic(&self) -> usize {
        self.pages[0]
            .windows(4)
            .position(|bytes| bytes == MAGIC)
            .expect("a magic number")
    }
}

type Damage = (&'static str, fn(&mut Table));

const DAMAGES: &[Damage] = &[
    ("two neighbouring slots swapped", |t| {
        swap_slots(t.leaf(), 10, 11);
    }),
    ("two distant slots swapped", |t| swap_slots(t.leaf(), 3, 40)),
    ("two slots with one cell", |t| {
        let page = t.leaf();
        let (from, to) = (slot(10), slot(11));
        page.copy_within(from..from + 4, to);
    }),
    ("a slot's cell begins a byte late", |t| {
        let page = t.leaf();
        page[slot(10)] ^= 1;
    }),
    ("a slot's cell is longer than it was", |t| {
        let page = t.leaf();
        page[slot(10) + 2] += 1;
    }),
    ("a slot points behind the page", |t| {
        let page = t.leaf();
        page[slot(10) + 1] = 0x7f;
    }),
    ("a slot points into the slots", |t| {
        let page = t.leaf();
        page[slot(10)..slot(10) + 2].copy_from_slice(&40u16.to_le_bytes());
    }),
    ("a slot's key bytes are not its cell's", |t| {
        let page = t.leaf();
        page[slot(10) + 5] ^= 0x40;
    }),
    ("a key that is greater than its neighbours", |t| {
        let page = t.leaf();
        // flags, xmin, cid, sequence, key length: the key's last byte is the
        // last before the payload.
        let at = cell(page, 10);
        let mut key = at + 5;
        for _ in 0..2 {
            while page[key] & 0x80 != 0 {
                key += 1;
            }
            key += 1;
        }
        let length = usize::from(page[key]);
        page[key + length] ^= 0xff;
    }),
    ("a version of an unknown kind", |t| {
        let page = t.leaf();
        let at = cell(page, 10);
        page[at] |= 7;
    }),
    ("one slot less", |t| {
        let page = t.leaf();
        let lower = u16_at(page, 12) as u16 - 8;
        page[12..14].copy_from_slice(&(lower - 3).to_le_bytes());
    }),
    ("the upper fence changed", |t| {
        let page = t.leaf();
        let end = u16_at(page, SPECIAL + 20) + u16_at(page, SPECIAL + 22);
        page[end - 1] ^= 0xff;
    }),
    ("the lower fence changed", |t| {
        let page = t.leaf();
        let end = u16_at(page, SPECIAL + 16) + u16_at(page, SPECIAL + 18);
        page[end - 1] ^= 0xff;
    }),
    ("the upper fence taken for infinite", |t| {
        let page = t.leaf();
        page[SPECIAL + 20..SPECIAL + 24].fill(0);
    }),
    ("a page that is its own right sibling", |t| {
        let block = t.leaf_block() as u32;
        set_u32(t.leaf(), SPECIAL + 8, block);
    }),
    ("a right link that leaves a page out", |t| {
        let next = u32_at(t.leaf(), SPECIAL + 8) as usize;
        let over_next = u32_at(&t.pages[next], SPECIAL + 8);
        set_u32(t.leaf(), SPECIAL + 8, over_next);
    }),
    ("a right link behind the file's end", |t| {
        set_u32(t.leaf(), SPECIAL + 8, 100_000);
    }),
    ("a right link to the metapage", |t| {
        set_u32(t.leaf(), SPECIAL + 8, 0)
    }),
    ("a left link to elsewhere", |t| {
        set_u32(t.leaf(), SPECIAL + 4, 2)
    }),
    ("a leaf that calls itself inner", |t| {
        t.leaf()[SPECIAL] = INNER
    }),
    ("a page of no kind", |t| t.leaf()[SPECIAL] = 0x33),
    ("a leaf on level 3", |t| t.leaf()[SPECIAL + 1] = 3),
    ("a longer prefix", |t| t.leaf()[SPECIAL + 24] += 1),
    ("garbage counted wrong", |t| t.leaf()[SPECIAL + 26] ^= 0x55),
    ("two downlinks exchanged", |t| {
        let page = t.root();
        let (one, other) = (cell(page, 3), cell(page, 4));
        for byte in 0..4 {
            page.swap(one + byte, other + byte);
        }
    }),
    ("a downlink behind the file's end", |t| {
        let page = t.root();
        let at = cell(page, 3);
        set_u32(page, at, 100_000);
    }),
    ("a downlink to the root itself", |t| {
        let root = t
            .pages
            .iter()
            .position(|page| page[SPECIAL] == INNER)
            .expect("an inner page") as u32;
        let page = t.root();
        let at = cell(page, 3);
        set_u32(page, at, root);
    }),
    ("a page of zeros", |t| t.leaf().fill(0)),
    ("a page written to the wrong place", |t| {
        let from = t.pages[4].clone();
        *t.leaf() = from;
    }),
    ("a file without its last pages", |t| {
        let keep = t.pages.len() - 3;
        t.pages.truncate(keep);
    }),
    ("a metapage of zeros", |t| t.pages[0].fill(0)),
    ("a metapage with another magic number", |t| {
        let at = t.magic();
        t.pages[0][at] ^= 1;
    }),
    ("a format of the future", |t| {
        let at = t.magic();
        t.pages[0][at + 4] = 99;
    }),
    ("a root that is a leaf", |t| {
        let at = t.magic();
        // Magic, version, padding, root.
        set_u32(&mut t.pages[0], at + 8, 7);
    }),
    ("a root behind the file's end", |t| {
        let at = t.magic();
        set_u32(&mut t.pages[0], at + 8, 100_000);
    }),
];

fn is_corrupt(error: &postgres::Error) -> bool {
    matches!(
        error.code(),
        Some(&SqlState::DATA_CORRUPTED | &SqlState::INDEX_CORRUPTED)
    )
}

/// What `verify` says: problems, or the error that it ends with.
fn found(client: &mut Client, table: &str) -> Result<String> {
    match verify::verify(client, table) {
        Ok(problems) => Ok(problems.join("\n")),
        Err(error) => {
            let error = error.downcast::<postgres::Error>()?;
            ensure!(is_corrupt(&error), "{table}: verify ends with {error:?}");
            Ok(format!("{error:?}"))
        }
    }
}

#[test]
fn verify_names_each_of_many_small_damages_and_no_statement_crashes_on_one() -> Result<()> {
    if !needs_extension(&access_method()) {
        return Ok(());
    }
    let mut cluster = Cluster::start(Options::test().set("autovacuum", "off"))?;
    let mut client = cluster.connect("postgres")?;
    let mut files = Vec::new();
    for table in 0..=DAMAGES.len() {
        client.batch_execute(&format!(
            "create table t{table} (k int primary key, v text) using {am};
             insert into t{table} select i, repeat('v', 20) from generate_series(1, 5000) i",
            am = access_method()
        ))?;
        files.push(cluster.relation_file("postgres", &format!("t{table}"))?);
    }
    drop(client);
    cluster.stop(StopMode::Fast)?;
    for ((_, damage), file) in DAMAGES.iter().zip(&files) {
        let mut table = Table::read(file)?;
        damage(&mut table);
        table.write(file)?;
    }
    cluster.start_server()?;
    let mut missed = Vec::new();
    for (table, (name, _)) in DAMAGES.iter().enumerate() {
        let mut client = cluster.connect("postgres")?;
        client.batch_execute("set statement_timeout = '20s'")?;
        let table = format!("t{table}");
        match found(&mut client, &table) {
            Ok(found) if found.is_empty() => missed.push(format!("{name}: not found")),
            Ok(_) => {}
            Err(error) => missed.push(format!("{name}: {error:#}")),
        }
        for statement in [
            "select count(*), max(v) from T",
            "set enable_seqscan = off; select v from T where k = 700",
            "select k from T where k between 300 and 3000 order by k desc",
            "select count(*) from T where k > 100",
            "update T set v = 'w' where k between 500 and 1500",
            "update T set k = -k where k between 600 and 800",
            "insert into T select i, 'new' from generate_series(-20000, -19000) i",
            "delete from T where k between 400 and 2000",
            "analyze T",
            "vacuum T",
        ] {
            let statement = statement.replace('T', &table);
            for part in statement.split("; ") {
                if let Err(error) = client.batch_execute(part)
                    && !is_corrupt(&error)
                {
                    missed.push(format!("{name}: {part}: {error:?}"));
                    if client.is_closed() {
                        cluster.announce_crash();
                        cluster.wait_accepting()?;
                        client = cluster.connect("postgres")?;
                        client.batch_execute("set statement_timeout = '20s'")?;
                    }
                }
            }
        }
    }
    let mut client = cluster.connect("postgres")?;
    let sound = format!("t{}", DAMAGES.len());
    let found = found(&mut client, &sound)?;
    ensure!(found.is_empty(), "the sound table is not: {found}");
    ensure!(missed.is_empty(), "{}", missed.join("\n"));
    drop(client);
    cluster.finish()
}

#[test]
fn a_format_of_the_future_and_a_missing_file_are_told_in_words() -> Result<()> {
    if !needs_extension(&access_method()) {
        return Ok(());
    }
    let mut cluster = Cluster::start(Options::test().set("autovacuum", "off"))?;
    let mut client = cluster.connect("postgres")?;
    for table in ["future", "missing"] {
        client.batch_execute(&format!(
            "create table {table} (k int primary key) using {}",
            access_method()
        ))?;
    }
    let future = cluster.relation_file("postgres", "future")?;
    let missing = cluster.relation_file("postgres", "missing")?;
    drop(client);
    cluster.stop(StopMode::Fast)?;
    let mut table = Table::read(&future)?;
    let at = table.magic();
    table.pages[0][at + 4] = 99;
    table.write(&future)?;
    std::fs::remove_file(missing)?;
    cluster.start_server()?;
    let mut client = cluster.connect("postgres")?;
    let error = client
        .batch_execute("select * from future")
        .expect_err("it was read");
    let text = error.as_db_error().context("no answer")?.to_string();
    ensure!(is_corrupt(&error), "{error:?}");
    ensure!(text.contains("version") && text.contains("99"), "{text}");
    let error = client
        .batch_execute("select * from missing")
        .expect_err("it was read");
    ensure!(
        error.code() == Some(&SqlState::UNDEFINED_FILE) || is_corrupt(&error),
        "{error:?}"
    );
    // A table whose file is gone can be dropped.
    client.batch_execute("drop table missing; drop table future")?;
    drop(client);
    cluster.finish()
}
