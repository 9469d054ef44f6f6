-- USING rowref on a heap table makes a B-tree: it names rows by tid.
create table t (k int, v text, w int) using heap;
insert into t select i, 'v' || i % 1000, i % 10 from generate_series(1, 20000) i;
create index t_k on t using rowref (k);
create unique index t_u on t using rowref (k desc, v) include (w) with (fillfactor = 70);
create index concurrently t_e on t using rowref (lower(v) text_pattern_ops) where w < 5;
alter table t add constraint t_x exclude using rowref (k with =, w with =);
select c.relname, amname from pg_class c join pg_am a on a.oid = relam where c.relname ~ '^t_' order by 1;
select pg_get_indexdef('t_u'::regclass);
analyze t;
explain (costs off) select * from t where k = 77;
select * from t where k = 77;
set max_parallel_workers_per_gather = 2; set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_index_scan_size = 0; set enable_seqscan = off; set enable_bitmapscan = off;
explain (costs off) select count(*) from t where k > 100;
reset all;
alter table t alter k type bigint; create index t_k2 on t using rowref (k);
-- conflicts
insert into t values (5, 'v5', 5) on conflict do nothing;
create unique index t_v on t using rowref (k); insert into t values (5, 'v5', 3) on conflict (k) do update set w = 33 returning *;
-- copies, partitions
create table l (like t including all) using heap; create table i (like t including indexes) using iot; create table h (like i including all) using heap;
select c.relname, amname from pg_class c join pg_am a on a.oid = relam where c.relname ~ '^[ilh]_' order by 1;
create table p (k int) partition by range (k); create table p1 partition of p for values from (0) to (10) using heap; create table p2 partition of p for values from (10) to (20) using iot; create index p_k on p using rowref (k);
select c.relname, amname from pg_class c join pg_am a on a.oid = relam where c.relname ~ '^p.*k' order by 1;
-- not of every table
create view vw as select 1 as k; create index on vw using rowref (k);
create index on t using rowref (nowhere);
drop access method rowref cascade;
drop table t, l, i, h, p; drop view vw;
