-- UPDATE and DELETE that find their rows by a scan of the whole table: what
-- is evaluated and told of a row, and when, is as with rows found one by one.
set enable_indexscan = off; set enable_bitmapscan = off; set enable_tidscan = off;
create table t (k int primary key, n int not null, v text) using :am;
insert into t select i, i % 7, 'v' || i from generate_series(1, 3000) i;
analyze t;

-- How many rows, in the tag, for FOUND and ROW_COUNT.
\set QUIET off
delete from t where k % 10 = 0;
delete from t where k % 10 = 0;
update t set n = n + 1 where k % 10 = 1;
\set QUIET on
do $$
declare rows int;
begin
    delete from t where k % 10 = 2;
    get diagnostics rows = row_count;
    raise notice 'found: %, rows: %', found, rows;
    delete from t where k % 10 = 2;
    raise notice 'found: %', found;
end $$;
select count(*), sum(n), min(k), max(k) from t;

-- EXPLAIN counts them.
create function explained(statement text) returns setof text language plpgsql as $$
declare line text;
begin
    for line in execute 'explain (analyze, costs off, timing off, summary off) ' || statement loop
        return next line;
    end loop;
end $$;
begin;
select explained('delete from t where k % 10 = 3 and n > 2');
select explained('update t set n = 0 where k % 10 = 4');
select explained('delete from t');
select explained('delete from t');
rollback;

-- Rolled back, in whole and in part.
begin;
delete from t where k > 1500;
savepoint a;
delete from t where k > 500;
select count(*) from t;
rollback to a;
select count(*) from t;
rollback;
select count(*) from t;
-- Deleted, inserted again, deleted again, by commands of one transaction.
begin;
delete from t where k <= 20;
insert into t select i, 0, 'again' from generate_series(1, 20) i;
delete from t where k <= 10;
insert into t values (5, 5, 'once more');
select * from t where k <= 12 order by k;
rollback;

-- A condition that fails on some row.
delete from t where 10 / (k - 2001) > 100;
select count(*) from t where k <= 2001;
-- One without end of it, on every row; and none at all.
begin; delete from t where v is not null; select count(*) from t; rollback;
begin; delete from t; select count(*) from t; rollback;
begin; delete from t where false; delete from t where k < 0; select count(*) from t; rollback;
-- Parameters, other than in the first execution too.
prepare p(int) as delete from t where k % 100 = $1;
begin; execute p(6); execute p(7); execute p(7); select count(*) from t; rollback;
-- Subqueries, row comparisons, whole rows, system columns.
begin;
delete from t where n = (select max(n) from t);
delete from t where k in (select k + 1 from t where n = 3);
delete from t where t = row(17, 3, 'v17')::t;
delete from t where xmin::text = '0' or tableoid <> 't'::regclass;
delete from t where (k, n) > (2995, 0);
select count(*), sum(k) from t;
rollback;

-- A volatile function sees what was done before, row by row.
create function others(int) returns bigint language plpgsql volatile as
$$ begin return (select count(*) from t where k < $1); end $$;
create function stable_others(int) returns bigint language plpgsql stable as
$$ begin return (select count(*) from t where k < $1); end $$;
begin; delete from t where k < 40 and others(k) < 10; select min(k), count(*) from t where k < 40; rollback;
begin; delete from t where k < 40 and stable_others(k) < 10; select min(k), count(*) from t where k < 40; rollback;
-- One that changes the table while it is being changed.
create function also_deletes(int) returns bool language plpgsql volatile as
$$ begin delete from t where k = $1 + 1; return $1 % 2 = 1; end $$;
begin; delete from t where k < 20 and also_deletes(k); select count(*) from t where k < 20; rollback;

-- RETURNING, of some and of all.
begin; delete from t where k in (33, 35, 2999) returning *; rollback;
with d as (delete from t where k < 8 returning k) select count(*), (select count(*) from t where k < 8) from d;
select count(*) from t where k < 8;
do $$
declare r t;
begin
    delete from t where k in (13, 14) returning * into r;
    raise notice '%', r;
end $$;
do $$
declare r t;
begin
    delete from t where k = 13 returning * into strict r;
    raise notice '%', r;
end $$;

-- Triggers are told of each row, or of the statement.
create table told (what text, k int) using :am;
create function tell() returns trigger language plpgsql as $$
begin
    if tg_level = 'ROW' then
        insert into told values (tg_when || ' ' || tg_op, old.k);
        if tg_when = 'BEFORE' and old.k % 4 = 0 then return null; end if;
        if tg_op = 'DELETE' then return old; end if;
        return new;
    end if;
    insert into told values (tg_when || ' ' || tg_op, null);
    return null;
end $$;
begin;
create trigger a after delete on t for each statement execute function tell();
create trigger b before delete on t for each statement execute function tell();
delete from t where k between 100 and 110;
delete from t where k < 0;
select what, count(*), count(k) from told group by what order by what;
select count(*) from t where k between 100 and 110;
rollback;
begin;
create trigger a before delete or update on t for each row execute function tell();
delete from t where k between 100 and 110;
update t set n = n where k between 120 and 125;
select * from told order by k;
select k from t where k between 100 and 110 order by k;
rollback;
begin;
create trigger a after delete on t for each row execute function tell();
delete from t where k between 100 and 110;
select * from told order by k;
rollback;
create function tell_all() returns trigger language plpgsql as $$
begin insert into told select tg_op, k from gone; return null; end $$;
begin;
create trigger a after delete on t referencing old table as gone for each statement execute function tell_all();
delete from t where k between 100 and 110;
select * from told order by k;
rollback;

-- Rows that others refer to.
create table child (k int primary key, t int references t on delete cascade) using :am;
insert into child select i, i from generate_series(2001, 2009) i where i % 10 not in (2, 0);
begin; delete from t where k between 2003 and 2006; select * from child order by k; rollback;
alter table child drop constraint child_t_fkey;
alter table child add foreign key (t) references t;
delete from t where k > 2008;
begin; delete from child; delete from t where k > 2008; select count(*) from t where k > 2000; rollback;
drop table child;

-- Long values go with their rows, and no others do.
create table l (k int primary key, v text) using :am;
alter table l alter v set storage external;
insert into l select i, case when i % 3 = 0 then repeat(i || ' ', 2000) else i::text end from generate_series(1, 60) i;
delete from l where length(v) > 5000 and k % 2 = 0;
select count(*), sum(length(v)), sum(k) from l;
delete from l;
select count(*) from l;

-- Other indexes lose their entries.
create table x (k int primary key, n int, m int) using :am;
insert into x select i, i % 50, i from generate_series(1, 1000) i;
create index x_n on x (n);
create unique index x_m on x (m) where m % 2 = 0;
delete from x where k % 10 = 0;
insert into x values (10, 0, 10), (20, 0, 20);
reset enable_indexscan; set enable_seqscan = off;
select count(*), sum(k) from x where n = 0;
select count(*) from x where n = 7;
set enable_indexscan = off; reset enable_seqscan;

-- Partitions, inheritance, temporary and unlogged tables, row security.
create table parts (k int primary key, n int) partition by range (k);
create table p1 partition of parts for values from (0) to (500) using :am;
create table p2 partition of parts for values from (500) to (1000) using :am;
insert into parts select i, i from generate_series(0, 999) i;
\set QUIET off
delete from parts where n % 2 = 0;
delete from p1 where n % 3 = 0;
\set QUIET on
select count(*), sum(k) from parts;
create temp table tt (k int primary key) using :am;
create unlogged table tu (k int primary key) using :am;
create table t0 (n int) using :am;
insert into tt select generate_series(1, 1000);
insert into tu select generate_series(1, 1000);
insert into t0 select generate_series(1, 1000);
\set QUIET off
delete from tt where k % 3 = 0;
delete from tu where k % 3 = 0;
delete from t0 where n % 3 = 0;
\set QUIET on
select (select count(*) from tt), (select count(*) from tu), (select sum(n) from t0);
create role sweeps_reader;
grant select, delete on t0 to sweeps_reader;
alter table t0 enable row level security;
create policy odd on t0 using (n % 2 = 1);
set role sweeps_reader;
\set QUIET off
delete from t0 where n % 5 = 0;
delete from t0;
\set QUIET on
reset role;
select count(*), min(n) from t0;
drop owned by sweeps_reader; drop role sweeps_reader;

-- A cursor's row; a table that was emptied, or changed its shape, before.
begin;
declare c cursor for select * from t where k % 10 = 5 order by k;
fetch 2 from c;
delete from t where current of c;
select count(*) from t where k % 10 = 5;
rollback;
begin; truncate t; insert into t values (1, 1, 'one'), (2, 2, 'two'); delete from t where n = 1; select * from t; rollback;
alter table t drop column v, add column w int default 9;
delete from t where w = 9 and n > 3;
select count(*), min(w) from t;
vacuum t;
delete from t where n <= 3;
select count(*) from t;
