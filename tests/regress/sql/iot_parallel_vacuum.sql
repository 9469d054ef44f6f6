-- VACUUM with workers leaves what VACUUM without leaves, and takes them by
-- heap's rules.
-- announces: disabling parallel option of vacuum on "tmp"
\set VERBOSITY terse
-- Which entries of two relations differ, page by page: writers apart, since they are two commands.
create function differing(one regclass, other regclass) returns bigint language sql as $$
  with pages as (select generate_series(1, pg_relation_size(one) / 8192 - 1) b),
       x as (select b, to_jsonb(e) - 'xmin' v from pages, rowref.page_entries(one, b) e), y as (select b, to_jsonb(e) - 'xmin' v from pages, rowref.page_entries(other, b) e)
  select count(*) + abs(pg_relation_size(one) - pg_relation_size(other)) from (table x except table y union all table y except table x) d $$;
-- Rows deleted, updated and rolled back, in sparse leaves and full ones.
create function made(name text) returns void language plpgsql as $$ begin
  execute format('create table %I (k int primary key, a int, b text, c numeric, d date) using iot with (autovacuum_enabled = off)', name);
  execute format('create index %I on %I (a); create unique index %I on %I (b); create index %I on %I (c, d) include (a); create index %I on %I ((a + k)) where k %% 3 = 0', name || '_a', name, name || '_b', name, name || '_cd', name, name || '_e', name);
  execute format('insert into %I select i, i %% 97, ''b'' || i, i / 3.0, date ''2000-01-01'' + i %% 1000 from generate_series(1, 12000) i', name);
  begin
    execute format('update %I set a = a + 1, b = ''gone'' || b', name); raise exception 'back';
  exception when raise_exception then null; end;
  execute format('update %I set a = -a where k %% 11 = 0', name);
  execute format('delete from %I where k %% 7 = 0 or k between 2000 and 6000', name); end $$;
set min_parallel_index_scan_size = 0;

begin; select made('serial'); commit;
begin; select made('parallel'); commit;
vacuum (parallel 0, verbose, index_cleanup off, process_toast off) serial;
vacuum (parallel 2, verbose, index_cleanup off, process_toast off) parallel;
select differing('serial', 'parallel'), differing('serial_a', 'parallel_a'), differing('serial_b', 'parallel_b'), differing('serial_cd', 'parallel_cd'), differing('serial_e', 'parallel_e');
select * from rowref.verify('parallel', true); select * from rowref.verify('serial', true);
select count(*), sum(a), min(b), sum(c) from serial; select count(*), sum(a), min(b), sum(c) from parallel;
-- The catalogs know what workers found.
select replace(s.relname, 'serial', '') of, s.relpages = p.relpages, s.reltuples = p.reltuples, s.reltuples from pg_class s join pg_class p on p.relname = replace(s.relname, 'serial', 'parallel') where s.relname like 'serial%' and s.relname <> 'serial_pkey' and s.relkind in ('r', 'i') order by 1;
-- relfrozenxid goes on to what is frozen, in indexes too.
create table before as select relfrozenxid f from pg_class where relname = 'parallel';
vacuum (parallel 2, freeze) parallel; select age(relfrozenxid) < (select age(f) from before) from pg_class where relname = 'parallel';
-- The end of the files is cut off afterwards.
delete from parallel where k > 300; select pg_relation_size('parallel') + pg_relation_size('parallel_a') s into temp size; vacuum (parallel 2) parallel;
select pg_relation_size('parallel') + pg_relation_size('parallel_a') < s / 4 from size; select * from rowref.verify('parallel', true);
-- How many there are.
set client_min_messages = debug2;
vacuum (parallel 1, process_toast off) serial; vacuum (parallel 0, process_toast off) serial; vacuum (process_toast off) serial;
set max_parallel_maintenance_workers = 1; vacuum (parallel 4, process_toast off) serial; set max_parallel_maintenance_workers = 0; vacuum (parallel 4, process_toast off) serial; reset max_parallel_maintenance_workers;
reset min_parallel_index_scan_size; vacuum (parallel 4, process_toast off) serial; set min_parallel_index_scan_size = 0;
create temp table tmp (k int primary key, a int) using iot; create index on tmp (a); insert into tmp select i, i from generate_series(1, 100) i; vacuum (parallel 2) tmp; vacuum tmp;
create table single (k int primary key, a int) using iot; vacuum (parallel 2) single;
create index on single (a); vacuum (parallel 2) single; reset client_min_messages;
-- An index that is not valid is gone through as well.
insert into single values (1, 1), (2, 1); create unique index concurrently bad on single (a);
vacuum (parallel 2, verbose) single; select * from rowref.verify('single', true);
-- Whose cost is limited still gets to its end.
set vacuum_cost_delay = 0.01; set vacuum_cost_limit = 10; vacuum (parallel 2, freeze) serial; reset vacuum_cost_delay; reset vacuum_cost_limit; select * from rowref.verify('serial', true);
drop table serial, parallel, single, before, size, tmp; drop function made, differing;
