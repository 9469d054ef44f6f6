//! What one piece of work costs: time, the backend's CPU, WAL.

use std::time::Instant;

use anyhow::Result;
use postgres::Client;
use rowref_tests::process;

/// The cost of one piece of work.
#[derive(Clone, Copy)]
pub struct Cost {
    /// By the clock.
    pub seconds: f64,
    /// Of the backend.
    pub cpu: f64,
    /// Bytes of WAL.
    pub wal: f64,
}

fn wal(client: &mut Client) -> Result<i64> {
    let query = "select (pg_current_wal_insert_lsn() - '0/0')::bigint";
    Ok(client.query_one(query, &[])?.get(0))
}

/// Measures what `work` makes the session's backend do.
pub fn measure<T>(
    client: &mut Client,
    work: impl FnOnce(&mut Client) -> Result<T>,
) -> Result<(Cost, T)> {
    let backend = super::backend(client)?;
    let wal_before = wal(client)?;
    let cpu = process::cpu_nanoseconds(backend)?;
    let start = Instant::now();
    let result = work(client)?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = process::cpu_nanoseconds(backend)? - cpu;
    Ok((
        Cost {
            seconds,
            cpu: cpu as f64 / 1e9,
            wal: (wal(client)? - wal_before) as f64,
        },
        result,
    ))
}
