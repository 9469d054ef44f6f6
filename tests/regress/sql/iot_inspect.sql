-- What the inspection functions show of a table. Hints (committed, aborted)
-- are left out: they come and go.
create function lasting(flags text[]) returns text[] language sql immutable as
  $$ select array_remove(array_remove($1, 'committed'), 'aborted') $$;
create table t (a int, b text collate "C", v text, primary key (a, b)) using iot;
insert into t select i, 'key ' || i, 'one' from generate_series(1, 3) i;
-- a key's history: rows, what superseded them, locks
select sequence, kind, cid, lasting(flags), strength, bytes, stored_values, moved_to, block from rowref.versions('t', 1, 'key 1');
begin;
update t set v = 'two' where a = 1;
savepoint s;
update t set v = 'three' where a = 1;
rollback to s;
select from t where a = 1 for share;
update t set a = 100 where a = 2;
delete from t where a = 3;
select sequence, kind, cid, lasting(flags), strength, bytes, xmin = pg_current_xact_id()::xid as own from rowref.versions('t', 1, 'key 1');
select sequence, kind, lasting(flags), moved_to from rowref.versions('t', 2, 'key 2');
select sequence, kind, lasting(flags), moved_to from rowref.versions('t', '3', 'key 3');
select sequence, kind from rowref.versions('t', 100, 'key 2');
select organization, entries, rows, versions, dead_versions, tombstones, locks, frozen from rowref.relation_stats('t');
commit;
vacuum freeze t;
select sequence, kind, cid, lasting(flags) from rowref.versions('t', 1, 'key 1');
select sequence, kind, cid, lasting(flags) from rowref.versions('t', 3, 'key 3');
select organization, levels, entries, rows, versions, dead_versions, tombstones, locks, frozen,
  version_bytes, tombstone_bytes, lock_bytes, fill_percent from rowref.relation_stats('t');
-- long values are told of, and not followed
insert into t select 4, 'key 4', string_agg(md5(i::text), '') from generate_series(1, 300) i;
select sequence, kind, bytes, stored_values from rowref.versions('t', 4, 'key 4');
-- pages
select * from rowref.page('t', 0);
select kind, level, flags, left_block, right_block, low_key, high_key, prefix_bytes, slots, garbage_bytes
  from rowref.page('t', 1);
select slot, kind, key, key_columns, sequence, cid, lasting(flags), bytes, shares_key, child_block from rowref.page_entries('t', 1);
insert into t select i, 'key ' || i, repeat('v', 100) from generate_series(1000, 1999) i;
select p.kind, p.level, p.flags, p.left_block is null as leftmost, p.right_block is null as rightmost,
    p.low_key is null as from_start, p.high_key is null as to_end, count(*), sum(p.slots) > 0 as filled
  from generate_series(0, pg_relation_size('t') / 8192 - 1) b, rowref.page('t', b) p
  group by 1, 2, 3, 4, 5, 6, 7 order by 2, 4 desc, 5, 3;
-- fences of neighbours meet, and downlinks lead to pages that begin there
select count(*) > 10 as pages, bool_and(l.high_key = r.low_key) as meet
  from generate_series(1, pg_relation_size('t') / 8192 - 1) b, rowref.page('t', b) l, rowref.page('t', l.right_block) r
  where l.kind = 'leaf';
select count(*) > 10 as downlinks, bool_and(coalesce(p.low_key, '') = e.key and p.kind = 'leaf') as right
  from generate_series(1, pg_relation_size('t') / 8192 - 1) b, rowref.page_entries('t', b) e,
    rowref.page('t', e.child_block) p
  where e.kind = 'downlink';
select count(*), count(distinct key) from generate_series(1, pg_relation_size('t') / 8192 - 1) b,
  rowref.page_entries('t', b) where kind = 'put';
-- keys of other kinds in words
create table k (n numeric, d date, u uuid, s text[], f float8, primary key (n, d, u, s, f)) using iot;
insert into k values (1.50, '2022-10-13', '00000000-0000-0000-0000-000000000001', '{a,b}', -1.5);
select key_columns from rowref.page_entries('k', 1);
select kind from rowref.versions('k', 1.5, '2022-10-13'::date, '00000000-0000-0000-0000-000000000001', '{a,b}', -1.5);
create table r (v text) using iot;
insert into r values ('a'), ('b');
select slot, kind, key_columns::bigint - min(key_columns::bigint) over () as id from rowref.page_entries('r', 1) order by 1;
select min(key_columns) as id from rowref.page_entries('r', 1) \gset
select kind from rowref.versions('r', :id);
-- what they do not take
select * from rowref.versions('t', 1);
\echo :SQLSTATE
select * from rowref.versions('t', 1, 'key 1', 2);
\echo :SQLSTATE
select * from rowref.versions('r', 'x');
\echo :SQLSTATE
select * from rowref.versions('t', 'x', 'key 1');
\echo :SQLSTATE
select * from rowref.versions('t', variadic array['1', 'key 1']);
\echo :SQLSTATE
select * from rowref.versions('pg_class', 1);
\echo :SQLSTATE
select * from rowref.page('t', -1);
\echo :SQLSTATE
select kind from rowref.page('r', 2);
\echo :SQLSTATE
select * from rowref.versions('t', null, 'x');
create role nobody_special;
grant usage on schema rowref to nobody_special;
set role nobody_special;
select * from rowref.page('t', 1);
\echo :SQLSTATE
reset role;
drop owned by nobody_special;
drop role nobody_special;
drop table t, k, r;

-- indexes are looked into in the same way; an entry's key is the index's
-- columns and then the row's key
create table t (k int, c text collate "C", a text, n numeric, primary key (k, c)) using iot;
create index ia on t (a, n desc) include (c);
create table r (v text, w int) using iot;
create index iv on r (v);
insert into t select i, 'c' || i, 'a' || i % 3, i * 1.50 from generate_series(1, 5) i;
insert into r values ('x', 1), ('y', 2);
update t set a = 'changed' where k = 2;
delete from t where k = 3;
select kind, level, flags, slots from rowref.page('ia', 1);
select slot, kind, key_columns, sequence, shares_key from rowref.page_entries('ia', 1);
select slot, kind, regexp_replace(key_columns, '\d+', 'id') as key_columns from rowref.page_entries('iv', 1);
select organization, entries, rows, versions, dead_versions, tombstones from rowref.relation_stats('ia');
select sequence, kind from rowref.versions('ia', 'a0', 4.50, 3, 'c3');
select substring(key_columns from '\d+') as id from rowref.page_entries('iv', 1) limit 1 \gset
select sequence, kind from rowref.versions('iv', 'x', :id);
select sequence, kind from rowref.versions('iv', 'x');
\echo :SQLSTATE
select kind from rowref.page('t_pkey', 0);
\echo :SQLSTATE
drop table t, r;
