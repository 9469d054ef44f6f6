-- INSERT … ON CONFLICT with the primary key as arbiter.
create table t (k int primary key, v text, n int default 0) using :am;
insert into t values (1, 'one') on conflict do nothing;
insert into t values (1, 'again') on conflict do nothing returning *;
insert into t values (1, 'again') on conflict (k) do nothing;
insert into t values (1, 'again') on conflict on constraint t_pkey do nothing;
insert into t values (1, 'more'), (2, 'two') on conflict (k) do update
  set v = t.v || ' ' || excluded.v, n = t.n + 1 returning k, v, n;
-- the WHERE clause keeps its hands off
insert into t values (1, 'x'), (2, 'x') on conflict (k) do update
  set v = excluded.v where t.n > 0 returning *;
select * from t order by k;
-- excluded sees what a trigger or a default made of the row
insert into t (k) values (1) on conflict (k) do update
  set n = excluded.n + 100, v = coalesce(excluded.v, 'none') returning *;
-- a row list, a subselect, another name for the table
insert into t as old values (2, 'zwei', 5) on conflict (k) do update
  set (v, n) = (select old.v || '/' || excluded.v, old.n + excluded.n) returning *;
insert into t values (2, 'default', 5) on conflict (k) do update set n = default returning *;
-- no arbiter of that kind
insert into t values (1, 'x') on conflict (v) do nothing;
insert into t values (1, 'x') on conflict (k, v) do nothing;
insert into t values (1, 'x') on conflict on constraint nothing do nothing;
insert into t values (1, 'x') on conflict do update set v = 'x';
-- one command comes to a row twice
insert into t values (7, 'a'), (7, 'b') on conflict (k) do update set v = excluded.v;
insert into t values (1, 'a'), (1, 'b') on conflict (k) do update set v = excluded.v;
insert into t values (7, 'a'), (7, 'b') on conflict do nothing returning *;
-- but a later command may, in one transaction
begin;
insert into t values (8, 'a') on conflict (k) do update set v = excluded.v;
insert into t values (8, 'b') on conflict (k) do update set v = excluded.v;
insert into t values (8, 'c') on conflict do nothing;
savepoint a;
insert into t values (8, 'd'), (9, 'd') on conflict (k) do update set v = excluded.v;
rollback to a;
select * from t where k > 7 order by k;
delete from t where k = 8;
insert into t values (8, 'e') on conflict (k) do update set v = 'not this';
commit;
select * from t where k > 7 order by k;
-- the update may change the key, unless that one is taken
insert into t values (8, 'x') on conflict (k) do update set k = 80 returning *;
insert into t values (80, 'x') on conflict (k) do update set k = 1;
insert into t values (8, 'x') on conflict (k) do update set k = 81 returning *;
select * from t order by k;
-- many rows, most of them there
insert into t select i, 'mass' from generate_series(1, 3000) i on conflict (k) do update set n = t.n + 1;
insert into t select i, 'mass' from generate_series(1, 6000) i on conflict (k) do update set n = t.n + 1;
insert into t select i, 'mass' from generate_series(5000, 7000) i on conflict do nothing;
select count(*), sum(n), count(*) filter (where v = 'mass') from t;
-- in a WITH query, prepared, in functions
with w as (insert into t values (1, 'w'), (10000, 'w') on conflict (k) do update set v = 'with' returning k, v)
  select * from w order by k;
prepare p as insert into t values ($1, 'p') on conflict (k) do update set n = t.n + 1000 returning k, v, n;
execute p (10001);
execute p (10001);
deallocate p;
create function upsert(key int) returns int language sql as
  $$ insert into t values (key, 'sql') on conflict (k) do update set n = t.n + 1 returning n $$;
select upsert(20000), upsert(20000), upsert(20001);
create function upsert2(key int) returns int language plpgsql as $$
declare r int; begin
  insert into t values (key, 'plpgsql') on conflict (k) do update set n = t.n + 1 returning n into r;
  return r;
end $$;
select upsert2(20000), upsert2(20002);
explain (costs off) insert into t values (1, 'x') on conflict (k) do update set v = 'x' where t.n > 5;
-- triggers: BEFORE may change what is inserted, AFTER sees what was done
create table log (line serial, what text, old t, new t);
create function note() returns trigger language plpgsql as $$ begin
  insert into log (what, old, new) values (tg_when || ' ' || tg_op, old, new);
  return new;
end $$;
create trigger before_row before insert or update on t for each row execute function note();
create trigger after_row after insert or update on t for each row execute function note();
insert into t values (1, 'triggers', 1), (30000, 'triggers', 2) on conflict (k) do update set v = excluded.v, n = -1;
select what, (old).k, (old).v, (old).n, (new).k, (new).v, (new).n from log order by line;
truncate log;
drop trigger before_row on t;
drop trigger after_row on t;
-- transition tables: inserted and updated rows apart
create function tell() returns trigger language plpgsql as $$
declare r record; begin
  if tg_op = 'UPDATE' then
    for r in select o.k, o.v, o.n, w.v as v2, w.n as n2 from o join w using (k) order by k
      loop raise notice 'updated %', r; end loop;
  else
    for r in select k, v, n from w order by k loop raise notice 'inserted %', r; end loop;
  end if;
  return null;
end $$;
create trigger told_i after insert on t referencing new table as w for each statement execute function tell();
create trigger told_u after update on t referencing old table as o new table as w for each statement execute function tell();
insert into t values (1, 'told', 1), (30000, 'told', 2), (30001, 'told', 3) on conflict (k) do update set n = 7;
insert into t values (1, 'told', 1) on conflict do nothing;
drop trigger told_i on t;
drop trigger told_u on t;
-- a BEFORE UPDATE trigger that writes the row itself
create function meddle() returns trigger language plpgsql as $$ begin
  update t set n = 12345 where k = new.k;
  return new;
end $$;
create trigger meddle before update of v on t for each row execute function meddle();
insert into t values (1, 'meddled') on conflict (k) do update set v = 'x';
drop trigger meddle on t;
-- foreign keys on both sides
create table child (id int primary key, k int references t on update cascade) using :am;
insert into child values (1, 1), (2, 30001) on conflict (id) do nothing;
insert into child values (1, 999999) on conflict (id) do update set k = excluded.k;
insert into child values (1, 30000) on conflict (id) do update set k = excluded.k;
insert into t values (30001, 'x') on conflict (k) do update set k = 40000;
select * from child order by id;
-- generated and identity columns, checks
create table g (k int generated always as identity primary key, a int, twice int generated always as (a * 2) stored,
  check (a < 100)) using :am;
insert into g (a) values (1), (2);
insert into g (k, a) overriding system value values (1, 10), (9, 90) on conflict (k) do update set a = excluded.a returning *;
insert into g (k, a) overriding system value values (1, 1000) on conflict (k) do update set a = 5;
insert into g (k, a) overriding system value values (1, 50) on conflict (k) do update set a = g.a + 1000;
select * from g order by k;
-- several columns, values that are equal without being the same, descending
create table c (a numeric, b text, v int, primary key (a, b)) using :am;
insert into c values (1.0, 'x', 1), (1.00, 'y', 2);
insert into c values (1.000, 'x', 3) on conflict (a, b) do update set v = excluded.v returning *;
insert into c values (1.000, 'x', 3) on conflict (b, a) do update set a = excluded.a returning *;
-- row security
create role upserter;
grant all on t to upserter;
alter table t enable row level security;
create policy small on t using (k < 100) with check (n < 50);
set role upserter;
insert into t values (2, 'policy', 1) on conflict (k) do update set v = excluded.v returning *;
insert into t values (2, 'policy', 60) on conflict (k) do update set v = excluded.v;
insert into t values (2, 'policy', 1) on conflict (k) do update set n = 60;
insert into t values (20000, 'policy', 1) on conflict (k) do update set v = excluded.v;
insert into t values (20000, 'policy', 1) on conflict (k) do nothing;
reset role;
alter table t disable row level security;
drop table child;
revoke all on t from upserter;
drop role upserter;
-- a view
create view seen as select k, v from t where k < 10 with check option;
insert into seen values (2, 'view') on conflict (k) do update set v = excluded.v returning *;
insert into seen values (20, 'view') on conflict (k) do nothing;
-- no key, no conflict
create table nokey (a int) using :am;
insert into nokey values (1), (1) on conflict do nothing;
insert into nokey values (1) on conflict (a) do nothing;
select count(*) from nokey;
-- heap's rows beside them
create table other (k int primary key, v int) using heap;
with a as (insert into other values (1, 1), (1, 2) on conflict do nothing returning k)
  insert into t select k, 'from heap' from a on conflict (k) do update set v = excluded.v returning t.k, t.v;
drop view seen;
drop table t, log, g, c, nokey, other cascade;
drop function upsert, upsert2, note, tell, meddle;
