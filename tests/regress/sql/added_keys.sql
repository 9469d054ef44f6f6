-- ADD PRIMARY KEY and DROP CONSTRAINT leave rows, their writers and their long
-- values what they were.
\pset null null
create table t (k text, gone text, v text, n int) using :am;
alter table t alter k set storage external, alter gone set storage external, alter v set storage main;
create function noise(seed int, length int) returns text language sql immutable as
  $$select string_agg(md5(seed::text || i), '') from generate_series(1, length / 32) i$$;
insert into t select noise(i, 640), noise(i + 100, 2400), noise(i + 200, 1600), i from generate_series(1, 20) i;
create index on t (n);
create temp table writers as select n, xmin as writer from t;
alter table t drop gone;
update t set n = n + 100 where n > 15;
alter table t add primary key (k);
select count(*), sum(length(k)), sum(length(v)), count(*) filter (where t.xmin = writer)
  from t left join writers using (n);
select n, v = noise(n + 200, 1600) from t where k = noise(7, 640);
select count(*) from t where n > 100;
-- Undone.
begin;
alter table t drop constraint t_pkey;
insert into t select k, v, -n from t where n < 3;
rollback;
begin;
savepoint s;
alter table t drop constraint t_pkey;
update t set k = 'x' where n = 1;
rollback to s;
select k = noise(1, 640) from t where n = 1;
commit;
alter table t drop constraint t_pkey;
select count(*), sum(length(k)), sum(length(v)), count(*) filter (where t.xmin = writer)
  from t left join writers using (n);
insert into t values ('more', 'row', 21), ('more', 'row', 22);
select count(*) from t where n between 20 and 30;

-- Two rows of one key; none; a key of another kind.
alter table t add primary key (k);
delete from t where n = 22;
alter table t add primary key (k);
alter table t drop constraint t_pkey, add primary key (n);
select count(*), count(*) filter (where t.xmin = writer) from t left join writers using (n);
alter table t alter k drop not null;
update t set k = null where n = 1;
alter table t drop constraint t_pkey, add primary key (k);
delete from t where n = 1;
alter table t drop constraint t_pkey, add primary key (k);

-- All of it in one transaction.
begin;
create table u (k int, v int) using :am;
insert into u select i % 50, i from generate_series(1, 100) i;
savepoint s;
delete from u where v > 50;
alter table u add primary key (k);
select count(*) from u;
rollback to s;
select count(*) from u;
delete from u where v <= 50;
update u set k = k + 1;
alter table u add primary key (k);
select count(*), min(v), max(k) from u;
insert into u values (1, 0);
rollback;

-- Keys whose equal values differ.
create table e (k numeric, v int) using :am;
insert into e values (1.0, 1), (2, 2);
update e set k = 1.00 where v = 1;
alter table e add primary key (k);
select * from e order by k;
insert into e values (1, 1);
drop table t, e;
drop function noise;
