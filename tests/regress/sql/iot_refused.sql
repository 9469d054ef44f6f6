-- What is not there yet, and what cannot be: refused with a clear error and
-- the right SQLSTATE, and the table goes on as before.
create table t (k int primary key, v text, n int) using iot;
insert into t values (1, 'one', 1), (2, 'two', 2);
-- indexes that store ctids
create index on t using hash (v);
\echo :SQLSTATE
create index on t using gin (to_tsvector('simple', v));
\echo :SQLSTATE
create index on t using brin (n);
\echo :SQLSTATE
create index on t using gist (int4range(n, n + 1));
\echo :SQLSTATE
alter table t add exclude using gist (int4range(n, n + 1) with &&);
\echo :SQLSTATE
-- a key too long for a page
create table long_key (k text primary key) using iot;
insert into long_key select string_agg(md5(i::text), '') from generate_series(1, 200) i;
\echo :SQLSTATE
insert into long_key values ('short');
select * from long_key;
-- a ctid names no row twice
select count(*) from t where ctid = '(0,1)';
\echo :SQLSTATE
-- other commands
cluster t using t_pkey;
\echo :SQLSTATE
vacuum full t;
\echo :SQLSTATE
alter table t alter k type bigint;
\echo :SQLSTATE
alter table t drop constraint t_pkey;
\echo :SQLSTATE
alter table t add column added int default 7;
\echo :SQLSTATE
select t.k from t tablesample bernoulli (100) order by 1;
\echo :SQLSTATE
-- still there
insert into t (k, v, n) values (5, 'five', 5);
update t set v = 'deux' where k = 2;
select k, v, n from t order by k;
select * from rowref.verify('t', true);
