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

/// Creates and fills everything. Each table has secondary indexes: plain ones on
/// what every update changes and on what none does, unique ones, partial ones,
/// on expressions, with INCLUDE columns, over a key and over row ids.
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
         create index ledger_v on ledger (v);
         create unique index ledger_k on ledger (client, lower(k)) include (v);
         create index ledger_pad on ledger (left(pad, 8) desc nulls first, client);
         create index ledger_large on ledger (client) include (v) where v % 2 = 0;
         create unique index log_seq on log (client, seq);
         create index log_v on log (v desc) include (client);
         create index bulk_n on bulk (client, n) where n <> 0;
         create index account_v on account (v);
         create index account_rich on account (k, v) where v > 1000;
         create index named_v on named (v, k);
         insert into bulk select i, 0, 0, repeat('b', 150) from generate_series(1, {BULK}) i;
         insert into account select i, 1000, '' from generate_series(1, {ACCOUNTS}) i;
         insert into named select 'account ' || i, 1000 from generate_series(1, {NAMED}) i"
    ))?;
    Ok(())
}
