-- SET ACCESS METHOD: heap to the method under test and back, with keys,
-- references, in transactions that are rolled back.
create view methods as
    select c.relname, c.relkind, a.amname in ('heap', 'btree') as plain
    from pg_class c join pg_am a on a.oid = c.relam
    where relnamespace = 'public'::regnamespace order by c.relname;
create table t (a text collate "C", k int, v numeric, primary key (k, a)) using heap;
create table other (k int primary key, tk int, ta text collate "C", foreign key (tk, ta) references t (k, a)) using heap;
insert into t select 'a' || i % 7, i, i * 1.5 from generate_series(1, 3000) i;
insert into other select i, i, 'a' || i % 7 from generate_series(1, 100) i;
create temp table before as select * from t;
alter table t set access method :am;
select count(*) from (select * from t except select * from before) x; select count(*) from t;
insert into t values ('a1', 1, 0); delete from t where k = 1; insert into other values (200, 9999, 'no');
select * from t where k = 17; select a, k from t where k between 20 and 22 order by k;
insert into t values ('z', 1, 0); delete from t where k = 1 and a = 'z';
alter table t set access method heap;
select * from methods;
insert into t values ('a1', 1, 0); delete from t where k = 1;
select count(*) from (select * from t except select * from before) x; select count(*) from t;
set enable_seqscan = off; select * from t where k = 17; reset enable_seqscan;
-- rolled back, whole and in part
begin; alter table t set access method :am; insert into t values ('new', 5000, 0); select count(*) from t where k >= 5000; rollback;
select * from methods;
select count(*), sum(k) from t; insert into t values ('a1', 1, 0);
alter table t set access method :am;
begin;
savepoint a; alter table t set access method heap; insert into t values ('new', 5000, 0); rollback to a;
insert into t values ('newer', 5001, 0);
savepoint b; alter table t set access method heap; delete from t where k = 5001; alter table t set access method :am; rollback to b;
alter table t set access method heap; alter table t set access method :am;
commit;
select count(*), sum(k) from t; select * from t where k > 3000; insert into t values ('a1', 1, 0);
-- rolled back where the indexes had new files already
begin; truncate t cascade; insert into t values ('one', 1, 1);
savepoint a; alter table t set access method heap; insert into t values ('two', 2, 2); rollback to a;
insert into t values ('one', 1, 0);
rollback to a; insert into t values ('three', 3, 3); select * from t where k = 3;
savepoint b; reindex table t; alter table t set access method heap; rollback to b;
set local enable_seqscan = off; select * from t where k = 3; update t set k = 4 where k = 3; delete from t where k = 1; select * from t order by k;
do $$ begin begin alter table t set access method heap; perform 1 / 0; exception when division_by_zero then null; end; insert into t values ('do', 5, 5); end $$; select * from t where k = 5;
rollback;
select count(*), sum(k) from t; insert into t values ('a1', 1, 0);
-- together with other changes
alter table t set access method heap, alter k type bigint, add column w int default 7;
select * from t where k = 17;
select * from methods where relname like 't%';
alter table t set access method :am, alter k type int, drop column w;
select * from t where k = 17; insert into t values ('a1', 1, 0);
create table u (k int, v text) using heap; insert into u select i, 'v' from generate_series(1, 100) i;
alter table u set access method :am, add primary key (k);
insert into u values (5, 'again'); select * from u where k = 5;
alter table u set access method heap, drop constraint u_pkey; insert into u values (5, 'again'); select count(*) from u where k = 5;
alter table u set access method :am; select count(*) from u where k = 5;
delete from u where k = 5; alter table u add primary key (k); insert into u values (6, 'again');
-- nothing to do
alter table u set access method :am; insert into u values (6, 'again');
-- a failing one changes nothing
create table bad (k int primary key, v int) using heap; insert into bad values (1, 0);
alter table bad set access method :am, alter v type int using 1 / v;
select * from methods where relname like 'bad%'; insert into bad values (1, 0);
alter table bad set access method nowhere;
begin; declare c cursor for select * from bad; fetch 1 from c; alter table bad set access method :am; rollback; select * from bad where k = 1;
-- a leaf of a partitioned table, a materialized view, an unlogged table
create table p (k int primary key, v int) partition by range (k);
create table p1 partition of p for values from (0) to (100) using heap; create table p2 partition of p for values from (100) to (200) using :am;
insert into p select i, i from generate_series(0, 199) i;
alter table p1 set access method :am; alter table p2 set access method heap;
insert into p values (5, 0); insert into p values (105, 0); update p set k = k + 100 where k = 7; update p set k = 1007 where k = 9; delete from p where k = 107; update p set k = k + 100 where k = 7; select count(*), sum(k) from p; select tableoid::regclass, * from p where k = 107;
create materialized view mv using heap as select * from p where k < 10; alter materialized view mv set access method :am; refresh materialized view mv; select count(*) from mv;
create unlogged table ul (k int primary key) using heap; insert into ul values (1); alter table ul set access method :am; insert into ul values (1); alter table ul set logged; insert into ul values (1), (2); select * from ul order by k;
alter table ul set unlogged, set access method heap; insert into ul values (1);
alter table p set access method :am;
-- long values
create table long (k int primary key, v text) using heap; alter table long alter v set storage external;
insert into long select i, repeat(md5(i::text), 1000) from generate_series(1, 20) i;
alter table long set access method :am; select count(*), sum(length(v)), count(distinct md5(v)) from long; update long set v = v || 'x' where k = 3;
alter table long set access method heap; select count(*), sum(length(v)), count(distinct md5(v)) from long; select k, left(v, 8), right(v, 2) from long where k = 3;
begin; alter table long set access method :am; delete from long where k = 4; rollback; select length(v) from long where k = 4;
-- REINDEX CONCURRENTLY of the key
reindex index concurrently t_pkey; reindex table concurrently t; reindex (concurrently) index t_pkey;
insert into t values ('a1', 1, 0); select * from t where k = 17; insert into other values (200, 9999, 'no'); delete from t where k = 17;
select c.relname, indisprimary, indisvalid, indisready from pg_index i join pg_class c on c.oid = indexrelid where indrelid = 't'::regclass;
truncate t cascade; insert into t values ('x', 1, 1), ('x', 1, 2);
alter table t drop constraint t_pkey cascade; insert into t values ('x', 1, 1), ('x', 1, 2); select count(*) from t;
