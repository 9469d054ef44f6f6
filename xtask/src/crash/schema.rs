//! The tables clients work on.

use anyhow::Result;
use postgres::Client;

/// Rows of `bulk`, which is larger than the server's buffers.
pub const BULK: i32 = 100_000;
/// Accounts with a number as key; each lives under its number or, after a key
/// change, under its number plus [`FAR`].
pub const ACCOUNTS: i32 = 100;
/// How far a key change moves an account.
pub const FAR: i32 = 10_000;
/// Accounts with a text as key.
pub const NAMED: i32 = 40;
/// The sum over all accounts.
pub const TOTAL: i64 = (ACCOUNTS as i64 + NAMED as i64) * 1000;

/// Creates and fills everything.
pub fn create(client: &mut Client, am: &str) -> Result<()> {
    client.batch_execute(&format!(
        "create table ledger (client int, k text, v bigint, pad text, primary key (client, k)) using {am};
         create table log (client int, seq bigint, v bigint, pad text) using {am};
         create table bulk (k int primary key, client int, n bigint, pad text) using {am};
         create table account (k int primary key, v bigint, pad text) using {am};
         create table named (k text primary key, v bigint) using {am};
         -- long paddings are stored out of line, which compression would spare them
         alter table ledger alter pad set storage external;
         alter table log alter pad set storage external;
         insert into bulk select i, 0, 0, repeat('b', 150) from generate_series(1, {BULK}) i;
         insert into account select i, 1000, '' from generate_series(1, {ACCOUNTS}) i;
         insert into named select 'account ' || i, 1000 from generate_series(1, {NAMED}) i"
    ))?;
    Ok(())
}
