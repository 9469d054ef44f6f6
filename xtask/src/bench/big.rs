//! Very large statements: does a backend's memory stay bounded?

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use postgres::Client;
use rowref_tests::process;

use super::{meter, table};

/// Runs `work` while watching the backend's own memory; returns the peak in bytes.
fn watch<T>(backend: i32, work: impl FnOnce() -> Result<T>) -> Result<(u64, T)> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(process::private_bytes(backend).unwrap_or(0));
                std::thread::sleep(Duration::from_millis(20));
            }
            peak
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        Ok((watcher.join().expect("the watcher panicked"), result?))
    })
}

fn copy_in(client: &mut Client, rows: i64) -> Result<u64> {
    let mut writer = client.copy_in("copy bench_big from stdin")?;
    let mut chunk = Vec::with_capacity(1 << 17);
    for k in 0..rows {
        writeln!(chunk, "{k}\t{}\tpayload of row {k}", k % 1000)?;
        if chunk.len() > 1 << 16 {
            writer.write_all(&chunk)?;
            chunk.clear();
        }
    }
    writer.write_all(&chunk)?;
    Ok(writer.finish()?)
}

/// COPY, UPDATE and DELETE of `rows` rows, each in one statement.
pub fn run(client: &mut Client, am: &str, rows: i64) -> Result<()> {
    let backend = super::backend(client)?;
    client.batch_execute(&format!(
        "create table bench_big (k bigint primary key, n bigint, pad text) using {am}"
    ))?;
    let idle = process::private_bytes(backend)?;
    println!(
        "{} rows of {am}; the idle backend has {}",
        table::thousands(rows as f64),
        table::megabytes(idle as i64)
    );
    type Work = fn(&mut Client, i64) -> Result<u64>;
    let steps: [(&str, Work); 3] = [
        ("COPY", copy_in),
        ("UPDATE", |client, _| {
            Ok(client.execute("update bench_big set n = n + 1", &[])?)
        }),
        ("DELETE", |client, _| {
            Ok(client.execute("delete from bench_big", &[])?)
        }),
    ];
    let mut lines = Vec::new();
    for (name, work) in steps {
        println!("running {name}");
        let (peak, (cost, changed)) = watch(backend, || {
            meter::measure(client, |client| work(client, rows))
        })?;
        ensure!(changed as i64 == rows, "{name}: {changed} rows");
        lines.push(vec![
            name.to_owned(),
            format!("{:.0} s", cost.seconds),
            format!("{} rows/s", table::thousands(rows as f64 / cost.seconds)),
            table::megabytes(cost.wal as i64),
            table::megabytes(peak as i64),
        ]);
    }
    table::print(&["", "time", "rate", "WAL", "peak own memory"], &lines);
    client.batch_execute("drop table bench_big")?;
    Ok(())
}
