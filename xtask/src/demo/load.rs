//! Loading the same rows into both kinds of table.

use std::io::Write;
use std::time::Instant;

use anyhow::{Result, ensure};
use postgres::Client;

use super::packages::Index;
use crate::table::{self, megabytes, thousands};

/// What one load cost.
struct Cost {
    seconds: f64,
    rows: usize,
    wal: i64,
    size: i64,
}

fn wal_position(client: &mut Client) -> Result<i64> {
    let query = "select (pg_current_wal_insert_lsn() - '0/0')::bigint";
    Ok(client.query_one(query, &[])?.get(0))
}

/// Copies lines into a table.
pub fn copy(client: &mut Client, name: &str, lines: &[String]) -> Result<()> {
    let mut writer = client.copy_in(&format!("copy {name} from stdin"))?;
    let mut chunk = Vec::with_capacity(1 << 16);
    for line in lines {
        chunk.extend_from_slice(line.as_bytes());
        if chunk.len() > (1 << 16) - 4096 {
            writer.write_all(&chunk)?;
            chunk.clear();
        }
    }
    writer.write_all(&chunk)?;
    let copied = writer.finish()?;
    ensure!(
        copied as usize == lines.len(),
        "{name}: {copied} rows copied"
    );
    Ok(())
}

fn measure(client: &mut Client, name: &str, lines: &[String]) -> Result<Cost> {
    client.batch_execute("checkpoint")?;
    let before = wal_position(client)?;
    let start = Instant::now();
    copy(client, name, lines)?;
    let seconds = start.elapsed().as_secs_f64();
    let wal = wal_position(client)? - before;
    client.batch_execute(&format!("vacuum analyze {name}"))?;
    let size = client
        .query_one(
            &format!("select pg_total_relation_size('{name}'::regclass)"),
            &[],
        )?
        .get(0);
    println!(
        "  {name}: {} rows in {seconds:.1} s",
        thousands(lines.len() as f64)
    );
    Ok(Cost {
        seconds,
        rows: lines.len(),
        wal,
        size,
    })
}

/// Loads all four tables and prints what each load cost.
pub fn compare(client: &mut Client, index: &Index, am: &str) -> Result<()> {
    let mut rows = Vec::new();
    for (name, lines) in [
        ("packages", &index.packages),
        ("dependencies", &index.dependencies),
    ] {
        let heap = measure(client, &format!("{name}_heap"), lines)?;
        let ours = measure(client, name, lines)?;
        let row = |what: &str, show: &dyn Fn(&Cost) -> (f64, String)| {
            let ((a, left), (b, right)) = (show(&heap), show(&ours));
            vec![
                format!("{name}: {what}"),
                left,
                right,
                format!("{:.2}", b / a),
            ]
        };
        rows.push(row("table + key size", &|cost| {
            (cost.size as f64, megabytes(cost.size))
        }));
        rows.push(row("load, seconds", &|cost| {
            (cost.seconds, format!("{:.2}", cost.seconds))
        }));
        rows.push(row("load, rows/s", &|cost| {
            let rate = cost.rows as f64 / cost.seconds;
            (rate, thousands(rate))
        }));
        rows.push(row("load, WAL", &|cost| {
            (cost.wal as f64, megabytes(cost.wal))
        }));
    }
    println!();
    table::print(&["", "heap + btree", am, "ratio"], &rows);
    assert_equal_dependencies(client)
}

/// Rows of either query that the other one does not return.
fn differences(client: &mut Client, left: &str, right: &str) -> Result<i64> {
    let query = format!(
        "select (select count(*) from ({left} except {right}) a)
              + (select count(*) from ({right} except {left}) b)"
    );
    Ok(client.query_one(&query, &[])?.get(0))
}

fn assert_equal_dependencies(client: &mut Client) -> Result<()> {
    let rows = differences(client, "table dependencies", "table dependencies_heap")?;
    ensure!(rows == 0, "dependencies: {rows} rows differ from heap's");
    Ok(())
}

/// Fails unless every row equals heap's; the amounts that were moved are
/// compared by their sum elsewhere.
pub fn assert_equal(client: &mut Client) -> Result<()> {
    assert_equal_dependencies(client)?;
    let columns = "package, architecture, version, section, priority, maintainer, size, \
                   description, sha256";
    let rows = differences(
        client,
        &format!("select {columns} from packages"),
        &format!("select {columns} from packages_heap"),
    )?;
    ensure!(rows == 0, "packages: {rows} rows differ from heap's");
    Ok(())
}
