-- A table's life: emptied, dropped, altered and copied, in transactions and
-- savepoints that end either way.
create table t (k int primary key, v text) using :am;
insert into t select i, 'v' || i from generate_series(1, 1000) i;
begin; truncate t; insert into t values (1, 'new'); select * from t order by k; rollback;
select count(*), min(k), max(k) from t;
begin; savepoint a; truncate t; insert into t values (1, 'a'); rollback to a; select count(*) from t; insert into t values (1001, 'b'); commit;
select count(*), max(k) from t;
begin; truncate t; savepoint a; insert into t values (1, 'a'); truncate t; insert into t values (2, 'b'); rollback to a; insert into t values (3, 'c'); commit;
select * from t order by k;
begin; drop table t; rollback;
begin; savepoint a; drop table t; rollback to a; insert into t values (4, 'd'); commit;
select * from t order by k;
begin; create table u (k int primary key) using :am; insert into u values (1), (2); truncate u; insert into u values (3); savepoint a; truncate u; rollback to a; select * from u; commit;
select * from u;
begin; create table w (k int primary key) using :am; insert into w values (1); rollback;
select * from w;
truncate t, u; select count(*) from t;
create table s (k serial primary key, v int) using :am;
insert into s (v) values (1), (2); truncate s restart identity; insert into s (v) values (3); select * from s;
drop table s, u;

-- Columns come and go; types change.
insert into t select i, 'v' || i from generate_series(1, 5) i;
alter table t add column n int default 7;
alter table t add column r text default 'r' || random()::text;
select count(distinct r), count(*), sum(n) from t;
alter table t drop column r;
alter table t add column z int not null default 1, alter column n set default 8;
insert into t (k) values (6);
select * from t order by k;
alter table t drop column v;
select * from t order by k;
update t set n = n + k where k > 3;
alter table t alter column n type bigint using n * 1000000000000;
select * from t order by k;
alter table t alter column k type bigint;
insert into t (k) values (5000000000);
insert into t (k) values (1);
select * from t where k > 4 order by k desc;
alter table t alter column k type text;
select k from t order by k collate "C";
alter table t rename column k to id; alter table t rename to tt;
select * from tt where id = '3';
alter table tt alter column z drop not null, alter column z set default null, add constraint positive check (n > 0);
insert into tt (id, n) values ('x', -1);
insert into tt (id, n) values (null, 1);
begin; alter table tt add column extra int default 1; alter table tt drop column z; rollback;
select * from tt where id = '1';
alter table tt set (fillfactor = 70);
drop table tt;

-- COPY both ways, with everything that text has to escape.
create table c (k text collate "C" primary key, n int, b bytea) using :am;
copy c from stdin;
tab\there	1	\\x00ff
back\\slash	2	\N
new\nline	\N	\\x
\.
copy (select * from c order by k) to stdout;
copy (select * from c order by k) to stdout (format csv, header);
-- The line in the context is the batch's last, not the duplicate's as with heap.
\set SHOW_CONTEXT never
copy c (k, n) from stdin;
dup	1
dup	2
\.
\set SHOW_CONTEXT errors
copy c (k, n) from stdin;
good	1
bad	x
\.
select count(*) from c;
begin; copy c (k) from stdin;
one
two
\.
rollback;
select count(*) from c;
create table f (k int primary key, v int) using :am;
begin; truncate f; copy f from stdin (freeze);
1	1
2	2
\.
commit;
select * from f order by k;

-- RETURNING, and what the columns of the system say.
insert into f values (3, 3) returning k, v, k + v as sum;
with x as (update f set v = v * 10, k = k + 10 where v > 1 returning k, v) select * from x order by k;
with x as (delete from f returning *) select * from x order by k;
insert into f select i, i from generate_series(1, 3) i returning tableoid::regclass, xmin = pg_current_xact_id()::xid as mine;
select tableoid::regclass, k, xmax, cmin from f where k = 1;
with moved as (delete from f where k > 1 returning *) insert into f select k + 100, v from moved returning k;
select * from f order by k;

-- Triggers: rows before, rows after, statements with transition tables, and
-- deferred ones.
create table tr (k int primary key, v int) using :am;
create function note() returns trigger language plpgsql as $$ begin
  if tg_level = 'STATEMENT' then raise notice '% % %', tg_name, tg_when, tg_op; return null; end if;
  raise notice '% % % old % new %', tg_name, tg_when, tg_op, case when tg_op <> 'INSERT' then old end, case when tg_op <> 'DELETE' then new end;
  if tg_when = 'BEFORE' then
    if tg_op = 'DELETE' then if old.v = 99 then return null; end if; return old; end if;
    if new.v = 13 then return null; end if; new.v := new.v + 1; return new;
  end if; return null; end $$;
create function sums() returns trigger language plpgsql as $$ begin
  raise notice '% old % new %', tg_op,
    case when tg_op <> 'INSERT' then (select array_agg(o order by k) from olds o) end,
    case when tg_op <> 'DELETE' then (select array_agg(n order by k) from news n) end; return null; end $$;
create function sums_i() returns trigger language plpgsql as $$ begin raise notice 'inserted %', (select array_agg(n order by k) from news n); return null; end $$;
create function sums_u() returns trigger language plpgsql as $$ begin raise notice 'updated % to %', (select array_agg(o order by k) from olds o), (select array_agg(n order by k) from news n); return null; end $$;
create function sums_d() returns trigger language plpgsql as $$ begin raise notice 'deleted %', (select array_agg(o order by k) from olds o); return null; end $$;
create trigger b before insert or update or delete on tr for each row execute function note();
create trigger a after insert or update or delete on tr for each row execute function note();
create trigger st before insert or update or delete or truncate on tr for each statement execute function note();
create trigger ti after insert on tr referencing new table as news for each statement execute function sums_i();
create trigger tu after update on tr referencing old table as olds new table as news for each statement execute function sums_u();
create trigger td after delete on tr referencing old table as olds for each statement execute function sums_d();
insert into tr values (1, 10), (2, 20), (3, 13);
update tr set v = v + 1 where k = 1;
update tr set k = k + 10 where k = 2;
update tr set v = 12 where k = 1;
update tr set v = 98 where k = 12;
delete from tr where k in (1, 12);
truncate tr;
drop trigger st on tr; drop trigger ti on tr; drop trigger tu on tr; drop trigger td on tr; drop trigger b on tr; drop trigger a on tr;
create constraint trigger late after insert or update or delete on tr deferrable initially deferred for each row execute function note();
begin; insert into tr values (1, 1); update tr set v = 2, k = 2 where k = 1; savepoint x; delete from tr where k = 2; rollback to x; update tr set v = 3 where k = 2; delete from tr where k = 2; insert into tr values (2, 50); commit;
begin; insert into tr values (7, 7); set constraints all immediate; update tr set v = 8 where k = 7; rollback;

-- Triggers that write where the statement writes.
create table self (k int primary key, v int) using :am;
insert into self values (1, 1), (2, 2), (3, 3);
create function meddle() returns trigger language plpgsql as $$ begin delete from self where k = old.k; return new; end $$;
create trigger m before update on self for each row execute function meddle();
update self set v = 10 where k = 1;
drop trigger m on self;
create function cascade_down() returns trigger language plpgsql as $$ begin update self set v = v + 100 where k = old.k + 1; return null; end $$;
create trigger m after update on self for each row when (old.k < 3) execute function cascade_down();
update self set v = v + 1 where k = 1;
select * from self order by k;
update self set k = k where k = 1;
update self set v = v + 1 from (values (1), (1)) x (k) where self.k = x.k;
select * from self order by k;

-- Kinds of relation.
create table ctas using :am as select i as k, i * 2 as v from generate_series(1, 100) i;
select count(*), sum(v) from ctas;
create table ctas0 using :am as select * from ctas with no data;
select count(*) from ctas0;
create materialized view mv using :am as select k % 10 as d, sum(v) as s from ctas group by 1;
select * from mv where d < 3 order by d;
insert into ctas values (101, 1000000);
refresh materialized view mv;
select * from mv where d < 3 order by d;
create temp table tmp (k int primary key, v int) using :am on commit delete rows;
begin; insert into tmp select i, i from generate_series(1, 3000) i; update tmp set v = -v where k % 2 = 0; select count(*), sum(v) from tmp; commit;
select count(*) from tmp;
create temp table tmp2 (k int primary key, v int) using :am on commit drop;
begin; create temp table tmp3 (k int primary key) using :am on commit drop; insert into tmp3 values (1); select * from tmp3; commit;
create unlogged table ul (k int primary key, v int) using :am;
insert into ul select i, i from generate_series(1, 3000) i; delete from ul where k % 3 = 0; vacuum ul; select count(*), sum(v) from ul;
truncate ul; select count(*) from ul;
alter table ul set logged; insert into ul values (1, 1); alter table ul set unlogged; select * from ul;
create table inh (k int primary key, v int) using :am; create table kid (w int, primary key (k)) inherits (inh) using :am;
insert into inh values (1, 1); insert into kid values (2, 2, 2); update inh set v = v + 1; select tableoid::regclass, * from inh order by k;

-- Statistics, samples, sizes.
create table st (k int primary key, v int, w text) using :am;
insert into st select i, i % 10, 'w' || i % 3 from generate_series(1, 10000) i;
analyze st;
select attname, n_distinct, null_frac, round(correlation::numeric, 1) as correlation, array_length(histogram_bounds, 1) as bounds from pg_stats where tablename = 'st' and attname <> 'v' order by attname;
select reltuples from pg_class where relname = 'st';
select count(*) from st tablesample system (100); select count(*) from st tablesample bernoulli (100); select count(*) from st tablesample system (0);
select count(*) between 3000 and 7000 from st tablesample bernoulli (50) repeatable (1);
select count(*) = (select count(*) from st tablesample bernoulli (30) repeatable (5)) as same from st tablesample bernoulli (30) repeatable (5);
delete from st where k > 5000; vacuum analyze st; select reltuples from pg_class where relname = 'st';
select pg_relation_size('st') > 8192 as has_size, pg_table_size('st') < 10000000 as sane;
create table young (k int primary key) using :am; insert into young values (1);
select age(relfrozenxid) < 1000 as young from pg_class where relname = 'young';
begin; select pg_current_xact_id() is not null as x; commit; begin; select pg_current_xact_id() is not null as x; commit; begin; select pg_current_xact_id() is not null as x; commit;
select relfrozenxid as before from pg_class where relname = 'young' \gset
vacuum (freeze) young;
select age(relfrozenxid) <= 1 as frozen, relfrozenxid <> :'before'::xid as advanced from pg_class where relname = 'young';

-- Workers in parallel see each row once.
set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0; set max_parallel_workers_per_gather = 3;
create table pa (k int primary key, v int) using :am;
insert into pa select i, i from generate_series(1, 50000) i;
analyze pa;
select count(*), sum(v), count(distinct k) from pa;
set enable_indexonlyscan = off; set enable_indexscan = off;
select count(*), sum(v), count(distinct k) from pa where v % 7 = 0;
explain (costs off) select count(*) from pa where v > 5;
reset all;
