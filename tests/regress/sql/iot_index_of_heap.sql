-- USING rowref on a heap table is a B-tree by another name.
create table t (k int, v text, w int) using heap;
insert into t select i, 'v' || i % 1000, i % 10 from generate_series(1, 20000) i;
create index t_k on t using rowref (k);
create unique index t_u on t using rowref (k desc, v) include (w) with (fillfactor = 70);
create index t_e on t using rowref (lower(v) text_pattern_ops) where w < 5;
select c.relname, amname from pg_class c join pg_am a on a.oid = relam where c.relname ~ '^t_' order by 1;
select pg_get_indexdef('t_u'::regclass);
analyze t;
explain (costs off) select * from t where k = 77;
select * from t where k = 77;
explain (costs off) select k from t where k between 10 and 12 order by k;
vacuum t;
select k from t where k between 10 and 12 order by k desc;
set enable_seqscan = off; set enable_indexscan = off; set enable_indexonlyscan = off;
explain (costs off) select count(*) from t where k < 100 or (k > 19000 and lower(v) like 'v99%' and w < 5);
select count(*) from t where k < 100 or (k > 19000 and lower(v) like 'v99%' and w < 5);
set enable_indexscan = on; set enable_indexonlyscan = on; set enable_bitmapscan = off;
select count(*) from t where k < 100; select count(*) from t where lower(v) like 'v99%' and w < 5;
begin; declare c scroll cursor for select k from t order by k; fetch 2 from c; fetch last from c; fetch prior from c; fetch first from c; commit;
select count(*) from (select k from t order by k) a join (select k from t order by k) b using (k);
reset all;
insert into t values (5, 'v5', 0); insert into t (k, v, w) values (5, 'v5', 0);
update t set k = -k where k <= 100; delete from t where k > 15000; vacuum t; select count(*), min(k), max(k) from t where k < 20000;
set enable_seqscan = off; select count(*) from t where k < 0; reset enable_seqscan;
create index concurrently t_c on t using rowref (w, k); reindex index t_c; reindex index concurrently t_u; reindex table concurrently t; cluster t using t_k; vacuum full t; truncate t; insert into t values (1, 'one', 1), (2, 'two', 2);
select c.relname, amname, (select count(*) from pg_depend where objid = c.oid and refclassid = 'pg_am'::regclass) from pg_class c join pg_am a on a.oid = relam where c.relname ~ '^t_' order by 1;
set enable_seqscan = off; select * from t where k = 2; select * from t where w = 1; reset enable_seqscan;
-- a change of type rebuilds what it has to, as a B-tree
alter table t alter k type bigint; select c.relname, amname from pg_class c join pg_am a on a.oid = relam where c.relname ~ '^t_' order by 1;
-- copies, constraints, partitions, unlogged tables
create unique index t_v on t using rowref (v); alter table t add constraint t_v unique using index t_v; insert into t values (3, 'one', 3);
create table l (like t including all) using heap; create table i (like t including indexes) using iot;
select c.relname, amname from pg_class c join pg_am a on a.oid = relam where c.relname ~ '^[il]_' order by 1;
create table p (k int) partition by range (k); create table p1 partition of p for values from (0) to (10) using heap; create index p_k on p using rowref (k);
select c.relname, amname from pg_class c join pg_am a on a.oid = relam where c.relname ~ '^p.*k' order by 1;
create unlogged table u (k int) using heap; create index u_k on u using rowref (k); insert into u values (1); alter table u set logged; create temp table tmp (k int) using heap; create index tmp_k on tmp using rowref (k); insert into tmp values (1); set enable_seqscan = off; select * from u where k = 1; select * from tmp where k = 1; reset enable_seqscan;
-- the constraint's index cannot be asked by ON CONFLICT: core wants a btree
insert into t values (3, 'one', 3) on conflict do nothing;
insert into t values (3, 'one', 3) on conflict (v) do update set w = 33;
-- not of every table
create view vw as select 1 as k; create index on vw using rowref (k);
create index on t using rowref (nowhere);
drop access method rowref cascade;
