-- CREATE, REINDEX and DROP INDEX CONCURRENTLY, alone. (Others writing meanwhile:
-- tests/build_concurrently.rs.)
\set VERBOSITY terse
create table t (k int primary key, a int, b text, c numeric) using :am;
insert into t select i, i % 100, 'b' || i, i / 3.0 from generate_series(1, 3000) i; delete from t where k % 7 = 0; update t set a = -a where k % 11 = 0;
create index concurrently t_a on t (a) include (c); create unique index concurrently t_b on t (b); create index concurrently t_e on t (lower(b), c desc nulls last) where a > 50; create index concurrently if not exists t_a on t (c);
create unique index concurrently t_d on t (c); create unique index concurrently t_dup on t (a);
create view indexes as select c.relname, i.indisprimary p, i.indisunique u, i.indisvalid v, i.indisready r from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = 't'::regclass order by 1;
select * from indexes;
set enable_seqscan = off; set enable_bitmapscan = off;
select count(*), sum(c) from t where a = 5; select k from t where b = 'b77'; select k from t where b = 'b78'; select count(*) from t where lower(b) >= 'b9' and a > 50; select k from t where c = 333; select count(*) from (select * from t order by a) x;
insert into t values (9000, 1, 'b1', 0); insert into t values (9000, 1, 'new', 0); update t set a = 2 where k = 9000; delete from t where k = 9000; -- t_dup is filled, and asks
drop index concurrently t_dup; reindex index concurrently t_b; reindex index concurrently t_pkey; reindex table concurrently t; select * from indexes;
insert into t values (9000, 1, 'b1', 0); insert into t values (1, 1, 'other', 0); select count(*) from t where a = 5; select k from t where b = 'b79';
alter table t add constraint t_ub unique using index t_b; alter table t add constraint t_ud unique (a, k) deferrable initially deferred; reindex table concurrently t; select * from indexes; begin; insert into t values (9001, 1, 'x', -1); update t set k = 9002 where k = 9001; commit; select conname, condeferrable from pg_constraint where conrelid = 't'::regclass order by 1; insert into t values (9003, 1, 'x', -2);
create table ref (b text references t (b)) using :am; reindex index concurrently t_ub; insert into ref values ('b1'), ('nope'); insert into ref values ('b1'); drop index concurrently t_ub; drop index concurrently t_pkey;
create index concurrently t_f on t ((1 / (k - 1))); select * from indexes where not v; delete from t where k = 2; reindex index concurrently t_f; delete from t where k = 1; delete from ref; delete from t where k = 1; reindex index concurrently t_f; select * from indexes where relname ~ 't_f'; drop index t_f;
begin; create index concurrently t_x on t (a); rollback; begin; reindex index concurrently t_a; rollback; truncate t, ref; reindex table concurrently t; insert into t values (1, 1, 'one', 1); select * from t where a = 1; create index concurrently t_x on t (c, b); select * from t where c = 1;
create table rowid (a int, b int) using :am; insert into rowid select i % 10, i from generate_series(1, 500) i; create index concurrently on rowid (a); create unique index concurrently on rowid (b); select count(*) from rowid where a = 3; insert into rowid values (1, 7); reindex table concurrently rowid; vacuum rowid; select count(*) from rowid where a = 3;
create temp table tmp (a int) using :am; insert into tmp values (1), (2); create index concurrently on tmp (a); select * from tmp where a = 2; create unlogged table ul (a int) using :am; insert into ul values (1); create index concurrently on ul (a); select * from ul where a = 1; create materialized view mv using :am as select a, count(*) n from rowid group by a; create unique index concurrently mv_a on mv (a); refresh materialized view concurrently mv; select * from mv where a = 4;
create table p (k int) partition by range (k); create table p1 partition of p for values from (0) to (10) using :am; create index concurrently on p (k); create index concurrently p1_k on p1 (k); create index p_k on p (k); reindex index concurrently p_k; reindex table concurrently p; insert into p values (3); select * from p where k = 3;
