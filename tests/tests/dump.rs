//! `pg_dump` and `pg_restore`: what comes back is what went out, without an
//! error, whichever way it is taken apart on the way.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rowref_tests::{Cluster, Options, access_method, needs_extension, verify};

/// Tables with keys and without, in partitions of both kinds on two levels,
/// with references among them. `:am` is the access method under test.
const SCHEMA: &str = r#"
create schema shop;
create type shop.colour as enum ('red', 'green');
create table shop.customer (
    id int primary key, email text not null, home shop.colour, balance numeric(10, 2)
) using :am;
create table shop.bought (
    customer int references shop.customer on delete cascade, at timestamptz, what text,
    primary key (customer, at)
) using :am;
create table shop.visit (id bigint generated always as identity, who int references shop.customer)
    using :am;
create table shop.label (code text collate "C" primary key, doubled int generated always as (length(code) * 2) stored)
    using :am with (fillfactor = 80);
create table shop.plain (code text references shop.label, n int primary key) using heap;
create unlogged table shop.fleeting (k int primary key) using :am;
create table shop.event (k int, j int, note text, primary key (k, j)) partition by range (k);
create table shop.event_1 partition of shop.event for values from (0) to (100) using :am;
create table shop.event_2 partition of shop.event for values from (100) to (200) using heap;
create table shop.event_3 (note text, j int not null, k int not null, primary key (k, j)) using :am;
alter table shop.event attach partition shop.event_3 for values from (200) to (300);
create table shop.event_4 partition of shop.event for values from (300) to (400) partition by list (j);
create table shop.event_41 partition of shop.event_4 for values in (1) using :am;
create table shop.event_42 partition of shop.event_4 default using heap;
create table shop.about (event int, j int, foreign key (event, j) references shop.event) using :am;
create table shop.base (k int primary key, v text) using :am;
create table shop.derived (w int, primary key (k)) inherits (shop.base) using :am;

create index on shop.customer (home, balance desc) include (email);
create unique index customer_email on shop.customer (lower(email)) where id > 10;
alter table shop.label add constraint doubled_once unique (doubled, code);
create index on shop.event (note); create unique index event_j on shop.event (j, k);
create index event_3_note on shop.event_3 (note, j);

insert into shop.customer select i, 'c' || i || '@example.org', (array['red', 'green'])[1 + i % 2]::shop.colour, i * 1.10 from generate_series(1, 2000) i;
insert into shop.bought select i, timestamptz '2024-01-01' + i * j * interval '1 minute', 'thing ' || j from generate_series(1, 300) i, generate_series(1, 3) j;
insert into shop.visit (who) select i % 2000 + 1 from generate_series(1, 1000) i;
insert into shop.label select 'l' || i from generate_series(1, 50) i;
insert into shop.plain select 'l' || i, i from generate_series(1, 50) i;
insert into shop.fleeting select generate_series(1, 20);
insert into shop.event select i, i % 3, 'note ' || i from generate_series(0, 399) i;
insert into shop.about select i, i % 3 from generate_series(0, 399, 7) i;
insert into shop.base values (1, 'one'); insert into shop.derived values (2, 'two', 22);
create materialized view shop.summary using :am as select home, count(*) n, sum(balance) total from shop.customer group by home;
create unique index summary_home on shop.summary (home);
create table shop.by_name (a int, b int) using :am; create index on shop.by_name using MARK (a);
comment on constraint customer_pkey on shop.customer is 'the customer''s number';
alter table shop.customer cluster on customer_pkey;
alter table shop.bought replica identity using index bought_pkey;
"#;

fn start() -> Result<Cluster> {
    let cluster = Cluster::start(Options::test())?;
    cluster.create_extension("postgres")?;
    // What may be said of an index.
    let method = if needs_extension(&access_method()) {
        "rowref"
    } else {
        "btree"
    };
    let script = SCHEMA
        .replace(":am", &access_method())
        .replace("MARK", method);
    cluster.psql("postgres", &script)?;
    Ok(cluster)
}

/// Runs one of the server's programs on a database, which must succeed without
/// a word of complaint; returns what it printed.
fn run(cluster: &Cluster, program: &str, database: &str, arguments: &[&str]) -> Result<String> {
    let output = cluster
        .client_program(program)
        .args(["-d", &cluster.conninfo(database)])
        .args(arguments)
        .output()
        .with_context(|| format!("running {program}"))?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || !complaints.is_empty() {
        bail!("{program} {arguments:?}: {}\n{complaints}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A database in words. Rows of tables without a key come in the order of
/// their scan, so they are sorted.
fn described(cluster: &Cluster, database: &str) -> Result<String> {
    // psql's password for the script's own safety differs every time.
    let is_told =
        |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    let schema = run(cluster, "pg_dump", database, &["--schema-only"])?;
    let schema: Vec<_> = schema.lines().filter(is_told).collect();
    let rows = run(cluster, "pg_dump", database, &["--data-only", "--inserts"])?;
    let mut rows: Vec<_> = rows.lines().filter(is_told).collect();
    rows.sort_unstable();
    let valid = cluster.psql(
        database,
        "select indexrelid::regclass, indisvalid, indisready, indisprimary, indisclustered, indisreplident,
                (select amname from pg_am where oid = relam), coalesce(inhparent::regclass::text, '-')
         from pg_index join pg_class c on c.oid = indexrelid left join pg_inherits on inhrelid = indexrelid
         where relnamespace::regnamespace::text in ('shop', 'public') order by indexrelid::regclass::text",
    )?;
    Ok(format!(
        "{}\n{valid}\n{}",
        schema.join("\n"),
        rows.join("\n")
    ))
}

/// Restores into a new database by `restore` and compares.
fn comes_back(
    cluster: &Cluster,
    name: &str,
    restore: impl FnOnce(&str) -> Result<()>,
) -> Result<()> {
    cluster.psql(
        "postgres",
        &format!("create database {name} template template0"),
    )?;
    restore(name)?;
    let (before, after) = (described(cluster, "postgres")?, described(cluster, name)?);
    assert!(
        before == after,
        "{name}: {}",
        first_difference(&before, &after)
    );
    let mut client = cluster.connect(name)?;
    let problems = verify::verify_all(&mut client, &access_method())?;
    assert!(problems.is_empty(), "{problems:#?}");
    Ok(())
}

fn first_difference(before: &str, after: &str) -> String {
    before
        .lines()
        .zip(after.lines())
        .find(|(before, after)| before != after)
        .map_or_else(
            || "one is longer".to_owned(),
            |(before, after)| format!("\n  before: {before}\n  after:  {after}"),
        )
}

fn path(directory: &Path, name: &str) -> String {
    let path: PathBuf = directory.join(name);
    path.to_str().expect("a plain path").to_owned()
}

#[test]
fn a_dump_comes_back_whole_in_plain_text() -> Result<()> {
    let cluster = start()?;
    let directory = tempfile::tempdir()?;
    let plain = path(directory.path(), "plain.sql");
    run(&cluster, "pg_dump", "postgres", &["-f", &plain])?;
    comes_back(&cluster, "plain", |database| {
        cluster.psql(database, &std::fs::read_to_string(&plain)?)?;
        Ok(())
    })?;
    // Each section dumped by itself.
    comes_back(&cluster, "sections", |database| {
        for section in ["pre-data", "data", "post-data"] {
            let part = run(
                &cluster,
                "pg_dump",
                "postgres",
                &[&format!("--section={section}")],
            )?;
            cluster.psql(database, &part)?;
        }
        Ok(())
    })?;
    cluster.finish()
}

#[test]
fn an_archive_comes_back_whole_in_every_order_of_sections() -> Result<()> {
    let cluster = start()?;
    let directory = tempfile::tempdir()?;
    let archive = path(directory.path(), "archive");
    run(&cluster, "pg_dump", "postgres", &["-Fc", "-f", &archive])?;
    let restore = |database: &str, arguments: &[&str]| -> Result<()> {
        let mut all = arguments.to_vec();
        all.extend(["--exit-on-error", &archive]);
        run(&cluster, "pg_restore", database, &all).map(drop)
    };
    comes_back(&cluster, "parallel", |database| restore(database, &["-j2"]))?;
    comes_back(&cluster, "single", |database| {
        restore(database, &["--single-transaction"])
    })?;
    comes_back(&cluster, "sections", |database| {
        restore(database, &["--section=pre-data"])?;
        restore(database, &["--section=data", "-j2"])?;
        restore(database, &["--section=post-data", "-j2"])
    })?;
    // Keys and references first, rows into what is organized by them already.
    comes_back(&cluster, "keys_first", |database| {
        restore(database, &["--section=pre-data", "--section=post-data"])?;
        restore(database, &["--section=data", "--disable-triggers"])?;
        cluster.psql(
            database,
            "refresh materialized view shop.summary;
             refresh materialized view concurrently shop.summary",
        )?;
        Ok(())
    })?;
    cluster.finish()
}
