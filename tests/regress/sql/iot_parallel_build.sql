-- Indexes built with workers say what those built without say. The leader leaves
-- all reading to the workers, so that what is tested is theirs.
\set VERBOSITY terse
create function raise_at(v int, n int) returns int immutable parallel safe language plpgsql as $$ begin if v = n then raise 'value % in a worker: %', v, pg_backend_pid() <> current_setting('test.leader')::int; end if; return v; end $$;
create function owner_only(v int) returns int immutable parallel safe language plpgsql as $$ begin if current_user <> 'pb_owner' then raise 'it runs as %', current_user; end if; return v; end $$;
create function unsafe(v int) returns int immutable parallel unsafe language plpgsql as 'begin return v; end';
-- Which entries of two indexes differ, page by page.
create function differing(one regclass, other regclass) returns bigint language sql as $$
  with pages as (select generate_series(1, pg_relation_size(one) / 8192 - 1) b),
       x as (select b, (rowref.page_entries(one, b)).* from pages), y as (select b, (rowref.page_entries(other, b)).* from pages)
  select count(*) + abs(pg_relation_size(one) - pg_relation_size(other)) from (table x except table y union all table y except table x) d $$;
create function built(what text) returns void language plpgsql as $$ begin
  -- Without workers, and with them.
  set local max_parallel_maintenance_workers = 0;
  execute format(what, 'serial');
  set local max_parallel_maintenance_workers = 2;
  set local client_min_messages = debug1;
  execute format(what, 'parallel'); end $$;
set parallel_leader_participation = off;
select set_config('test.leader', pg_backend_pid()::text, false) is not null;

create table t (k int primary key, a int, b text, c numeric, d text collate "C", e int) using iot with (parallel_workers = 2, autovacuum_enabled = off);
insert into t select i, i % 97, 'b' || i, i / 3.0, repeat(md5(i::text), 3), nullif(i % 5, 0) from generate_series(1, 12000) i;
delete from t where k % 7 = 0; update t set a = -a where k % 11 = 0; update t set k = k + 100000 where k % 13 = 0; insert into t select i, 0, 'again' || i, 1, 'd', 1 from generate_series(7, 700, 7) i;
select built('create index %s on t (a)'); select differing('serial', 'parallel'); drop index serial, parallel;
select built('create unique index %s on t (b)'); select differing('serial', 'parallel'); drop index serial, parallel;
select built('create index %s on t (c desc nulls last, d) include (a)'); select differing('serial', 'parallel'); drop index serial, parallel;
select built('create index %s on t ((a + e), lower(b)) where e > 2'); select differing('serial', 'parallel'); drop index serial, parallel;
select built('create unique index %s on t (e, k)'); select differing('serial', 'parallel'); drop index serial, parallel;
set maintenance_work_mem = '1MB'; -- spills
select built('create index %s on t (d, c)'); select differing('serial', 'parallel'); drop index serial; reset maintenance_work_mem;
select * from rowref.verify('t', true); reindex index parallel; select * from rowref.verify('t', true);
set enable_seqscan = off; set enable_bitmapscan = off; explain (costs off) select count(*), sum(c) from t where d > 'c' and d < 'e'; select count(*), sum(c) from t where d > 'c' and d < 'e'; set enable_indexscan = off; set enable_indexonlyscan = off; set enable_seqscan = on; select count(*), sum(c) from t where d > 'c' and d < 'e';
reset enable_seqscan; reset enable_indexscan; reset enable_indexonlyscan; reset enable_bitmapscan; drop index parallel;

-- A transaction's own rows, those of a savepoint that was rolled back, and rows that end in it.
begin; delete from t where k % 17 = 0; savepoint s; insert into t select -i, i, 'gone', 0, 'd', 2 from generate_series(1, 3000) i; rollback to s; insert into t select -i, i, 'own' || i, 0, 'd', 2 from generate_series(1, 3000) i; update t set a = a + 1 where k < -1000; update t set a = a + 1 where k < -2000;
select built('create index %s on t (a)'); select differing('serial', 'parallel'); select * from rowref.verify('t', true); drop index serial; commit; select * from rowref.verify('t', true); drop index parallel;

-- What fails in a worker fails here, and leaves nothing.
create unique index on t (a); insert into t values (200000, 1, 'b1', 0, '', 1); create unique index on t (b); delete from t where k = 200000;
create index on t (raise_at(k, 11996)); create index on t ((1 / (k - 5)));
select count(*) from pg_ls_tmpdir(); select indexrelid::regclass from pg_index where indrelid = 't'::regclass;
-- Expressions run as the table's owner, and restricted.
create role pb_owner; alter table t owner to pb_owner; select built('create index %s on t (owner_only(a))'); drop index serial, parallel; alter table t owner to current_user; drop role pb_owner;
-- Nobody is asked where it would be wrong, or not worth it.
set client_min_messages = debug1; create index none on t (unsafe(a)); drop index none;
create temp table tmp (k int primary key, a int) using iot with (parallel_workers = 2); insert into tmp select i, i from generate_series(1, 5000) i; create index on tmp (a);
create table small (k int primary key, a int) using iot with (parallel_workers = 2); insert into small values (1, 1); create index on small (a); reset client_min_messages;

-- CONCURRENTLY: the check before, and the rows that the index lacks.
set client_min_messages = debug1; create index concurrently x on t (a, d); create unique index concurrently y on t (b); create index concurrently z on t (raise_at(k, 0)); reindex index concurrently y; reset client_min_messages; select * from rowref.verify('t', true);
create unique index concurrently w on t (a); create index concurrently v on t (raise_at(k, 11996)); select indexrelid::regclass, indisvalid from pg_index where indrelid = 't'::regclass order by 1::text;
-- Whatever builds indexes anew.
drop table t; create table t (k int primary key, a int, b int) using iot with (parallel_workers = 2); insert into t select i, i % 10, i from generate_series(1, 5000) i; create index t_a on t (a);
set client_min_messages = debug1; reindex table t; cluster t using t_pkey; alter table t alter b type bigint; alter table t drop constraint t_pkey; alter table t add primary key (b); truncate t; reset client_min_messages; select * from rowref.verify('t', true);
