-- What a session's handles take, and that a query which looks at ctids is run
-- by one process.
create table t (k int primary key, v int) using :am;
insert into t select i, i from generate_series(1, 1000) i;
create function outcome(n int) returns text language plpgsql as $$
declare
  caught int := 0;
begin
  for i in 1..n loop
    begin
      update t set v = v / (k - k) where k = i;
    exception when division_by_zero then
      caught := caught + 1;
    end;
  end loop;
  return caught || ' caught';
end $$;
begin;
select outcome(300);
-- The statements that failed have left nothing; this one is a run of its own.
select open_runs, open_scopes from rowref.handle_stats();
-- A cursor that is opened in a released savepoint stays open with it.
savepoint a;
savepoint b;
declare c cursor for select * from t order by k;
release b;
fetch 2 from c;
update t set v = 0 where current of c;
savepoint d;
declare e cursor for select * from t order by k desc;
fetch 1 from e;
select open_runs, open_scopes from rowref.handle_stats();
rollback to d;
select open_runs, open_scopes from rowref.handle_stats();
update t set v = -1 where current of c;
fetch 1 from c;
rollback to a;
select open_runs, open_scopes from rowref.handle_stats();
commit;
select open_runs, open_scopes from rowref.handle_stats();
-- Two failures beside one another, the inner one released into the outer.
do $$
begin
  for i in 1..50 loop
    begin
      begin
        update t set v = i where k = i;
        perform outcome(2);
      exception when others then
        raise;
      end;
      update t set v = v / 0;
    exception when division_by_zero then
      null;
    end;
  end loop;
  if (select open_scopes from rowref.handle_stats()) > 0 then
    raise 'scopes are left';
  end if;
end $$;
select count(*) filter (where k <> v) from t;

-- A plan for several processes names no ctid of ours, however deep.
set parallel_setup_cost = 0;
set parallel_tuple_cost = 0;
set min_parallel_table_scan_size = 0;
set max_parallel_workers_per_gather = 2;
create table h (k int, v int) using heap;
insert into h select i, i from generate_series(1, 1000) i;
analyze h;
analyze t;
create function is_parallel(query text) returns boolean language plpgsql as $$
declare
  line text;
begin
  for line in execute 'explain (costs off) ' || query loop
    if line ~ 'Gather' then
      return true;
    end if;
  end loop;
  return false;
end $$;
select is_parallel('select count(*) from t');
select is_parallel('select count(*) from h where exists (select from t where t.k = h.k)');
select is_parallel('select count(ctid) from h');
select is_parallel('select count(ctid) from t');
select is_parallel('select count(*) from h where exists (select from t where t.k = h.k and t.ctid is not null)');
select is_parallel('select count(*) from h where v in (select t.v from t where t.ctid = (select max(ctid) from t))');
select is_parallel('select count(c) from (select ctid c from t union all select ctid from h) x');
select is_parallel('with x as materialized (select ctid c from t) select count(*) from h, x');
-- What the planner puts in after that, it takes from the body of a function.
create function names() returns setof tid language sql stable parallel safe as 'select ctid from t';
select is_parallel('select count(*) from names() n');
select count(*), count(distinct n) from names() n;
prepare q as select count(*) from t join (select n from names() n) x on x.n = t.ctid;
set plan_cache_mode = force_generic_plan;
execute q;
execute q;
drop table h;
drop function names(), is_parallel(text), outcome(int);
drop table t;

-- What is known of a table is forgotten when it gets a trigger: more rows than
-- a ring of handles holds are found again for it.
create table t (k int primary key, v int) using :am;
insert into t select i, 0 from generate_series(1, 5000) i;
create table seen (k int, was int, became int) using :am;
create function see() returns trigger language plpgsql as $$
begin
  insert into seen values (old.k, old.v, new.v);
  return null;
end $$;
prepare change as update t set v = v + 1 where k <> 7;
execute change;
create trigger see after update on t for each row execute function see();
execute change;
select count(*), count(distinct k), min(was), max(became) from seen;
drop trigger see on t;
execute change;
select count(*) from seen;
select v, count(*) from t group by v order by v;
-- An old row is what its handle names, not what was read last.
update t set v = (select max(o.v) from t o where o.k < t.k) where k between 6 and 9;
update t set v = a.v * 10 from (select * from t order by k desc) a where a.k = t.k + 1 and t.k <= 3;
select * from t where k < 10 order by k;
merge into t using (values (1, 11), (2, 12), (-1, 13)) n(k, v) on t.k = n.k
  when matched then update set v = n.v when not matched then insert values (n.k, n.v);
select * from t where k < 4 order by k;
drop table seen;
drop function see() cascade;
drop table t;

-- One row of a small table is not looked for among all others.
create table t (k int primary key, v int) using :am;
insert into t select i, i from generate_series(1, 100) i;
vacuum analyze t;
explain (costs off) select * from t where k = 7;
drop table t;
