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
/// on expressions, with INCLUDE columns, over a key and over row ids. Rows of
/// `holding` and `note` refer to others and follow them: when an account moves,
/// when a ledger's row gets another key or is deleted.
pub fn create(client: &mut Client, am: &str) -> Result<()> {
    client.batch_execute(&format!(
        "create table ledger (client int, k text, v bigint, pad text, primary key (client, k)) using {am};
         create table log (client int, seq bigint, v bigint, pad text) using {am};
         create table bulk (k int primary key, client int, n bigint, pad text) using {am};
         create table account (k int primary key, v bigint, pad text) using {am};
         create table named (k text primary key, v bigint) using {am};
         create table holding (id int primary key, account int not null references account on update cascade, part int not null) using {am};
         create table note (id bigint generated always as identity primary key, client int not null, k text not null, foreign key (client, k) references ledger on update cascade on delete cascade) using {am};
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
         create unique index holding_account on holding (account, part);
         create index note_ledger on note (client, k);
         create index note_k on note (k text_pattern_ops) include (client);
         create index note_late on note (id desc) where id > 1000;
         create unique index note_once on note (k, client);
         create function keep_note() returns trigger language plpgsql as $$
             begin insert into note (client, k) values (new.client, new.k); return null; end $$;
         create trigger noted after insert on ledger for each row execute function keep_note();
         insert into bulk select i, 0, 0, repeat('b', 150) from generate_series(1, {BULK}) i;
         insert into account select i, 1000, '' from generate_series(1, {ACCOUNTS}) i;
         insert into holding select 2 * i + part, i, part from generate_series(1, {ACCOUNTS}) i, generate_series(0, 1) part;
         insert into named select 'account ' || i, 1000 from generate_series(1, {NAMED}) i"
    ))?;
    Ok(())
}

/// Drops what a CREATE INDEX or REINDEX CONCURRENTLY that was cut short leaves
/// behind: an index that is not valid.
pub fn clear_unfinished(client: &mut Client) -> Result<()> {
    client.batch_execute(
        "do $$ declare i regclass; begin
             for i in select indexrelid from pg_index where not indisvalid loop
                 execute format('drop index %s', i);
             end loop; end $$",
    )?;
    Ok(())
}
