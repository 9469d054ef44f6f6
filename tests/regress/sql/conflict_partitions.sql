-- INSERT … ON CONFLICT into partitioned tables: rows are routed to leaves of
-- :am and of heap, and to leaves of leaves.
create table p (k int, v text, n int default 0, primary key (k)) partition by range (k);
create table p1 partition of p for values from (0) to (10) using :am;
create table p2 partition of p for values from (10) to (20) using heap;
create table p3 partition of p for values from (20) to (40) partition by list (k);
create table p31 partition of p3 for values in (20, 21, 22) using :am;
create table p32 partition of p3 default using :am;
-- a leaf with its columns in another order, and a dropped one
create table p4 (dropped int, n int default 7, v text, k int not null primary key) using :am;
alter table p4 drop column dropped;
alter table p attach partition p4 for values from (40) to (50);
insert into p values (1, 'a'), (11, 'a'), (20, 'a'), (30, 'a'), (40, 'a') on conflict do nothing;
insert into p values (1, 'b'), (2, 'b'), (11, 'b'), (12, 'b'), (20, 'b'), (30, 'b'), (31, 'b'), (40, 'b'), (41, 'b')
  on conflict do nothing returning tableoid::regclass, *;
insert into p values (1, 'c'), (3, 'c'), (11, 'c'), (20, 'c'), (21, 'c'), (30, 'c'), (40, 'c'), (42, 'c')
  on conflict (k) do update set v = p.v || excluded.v, n = p.n + 1 returning tableoid::regclass, *;
insert into p values (1, 'd'), (40, 'd'), (20, 'd') on conflict (k) do update set v = excluded.v where p.n > 100 returning *;
insert into p values (1, 'd'), (40, 'd'), (20, 'd') on conflict on constraint p_pkey do update set n = excluded.n + 50
  where p.v <> excluded.v returning *;
select tableoid::regclass, * from p order by k;
-- rows in turn for different leaves, more of them than a scan copies at once
insert into p select i % 50, 'e' || i from generate_series(0, 999) i on conflict do nothing;
insert into p select i % 50, 'f' || i from generate_series(0, 49) i on conflict (k) do update set n = p.n + 1000;
select count(*), sum(n), count(distinct v) from p;
-- twice in one command; nowhere to go; to another leaf
insert into p values (5, 'x'), (5, 'y') on conflict (k) do update set v = excluded.v;
insert into p values (99, 'x') on conflict do nothing;
insert into p values (1, 'x') on conflict (k) do update set k = 45;
insert into p values (1, 'x') on conflict (k) do update set k = 15;
insert into p values (1, 'x') on conflict (k) do update set k = 6 where false;
-- no arbiter that all leaves have
insert into p values (1, 'x') on conflict (v) do nothing;
-- into a subtree, into a leaf
insert into p3 values (20, 'sub'), (39, 'sub') on conflict (k) do update set v = excluded.v returning tableoid::regclass, *;
insert into p31 values (20, 'leaf') on conflict (k) do update set v = excluded.v returning *;
insert into p31 values (30, 'leaf') on conflict (k) do nothing;
-- columns that the plan has for sorting alone, subselects, WITH, prepared
insert into p (v, k) select 'sorted', i from (values (41, 2), (1, 1), (11, 3), (21, 4)) x (i, o) order by o
  on conflict (k) do update set v = excluded.v returning k, v;
with w as (insert into p values (2, 'w'), (41, 'w') on conflict (k) do update set v = 'with' returning k, v)
  select * from w order by k;
prepare q as insert into p values ($1, 'q') on conflict (k) do update set n = p.n + 1 returning k, n;
execute q (1); execute q (2); execute q (11); execute q (20); execute q (41); execute q (1);
deallocate q;
explain (costs off) insert into p values (1, 'x') on conflict (k) do update set v = 'x';
explain (analyze, costs off, timing off, summary off) insert into p values (1, 'x'), (44, 'y'), (44, 'z') on conflict do nothing;
-- triggers of the leaves; one may not send the row elsewhere
create function note() returns trigger language plpgsql as $$ begin
  raise notice '% % % old % new %', tg_table_name, tg_when, tg_op, to_jsonb(old), to_jsonb(new);
  return new;
end $$;
create trigger b before insert or update on p for each row execute function note();
create trigger a after insert or update on p for each row execute function note();
insert into p values (1, 't'), (4, 't'), (40, 't') on conflict (k) do update set n = 0;
drop trigger a on p;
drop trigger b on p;
create function tell() returns trigger language plpgsql as $$ begin
  raise notice '% %', tg_op, (select json_agg(w order by k) from w);
  return null;
end $$;
create trigger ti after insert on p referencing new table as w for each statement execute function tell();
create trigger tu after update on p referencing new table as w for each statement execute function tell();
delete from p where k in (4, 43);
insert into p values (1, 't'), (4, 't'), (40, 't'), (43, 't') on conflict (k) do update set n = 8;
drop trigger ti on p;
drop trigger tu on p;
-- foreign keys to and from
create table r (id int primary key, k int references p) using :am;
insert into r values (1, 1) on conflict do nothing;
insert into r values (1, 2) on conflict (id) do update set k = excluded.k;
insert into r values (1, 99) on conflict (id) do update set k = excluded.k;
insert into p values (2, 'x') on conflict (k) do update set k = 7;
insert into p values (3, 'x') on conflict (k) do update set k = 7;
-- functions: many plans, one session
create function up(key int) returns int language plpgsql as $$
declare r int; begin
  insert into p values (key, 'f') on conflict (k) do update set n = p.n + 1 returning n into r;
  return r;
end $$;
select up(k) - n as one from p where k < 45 order by k limit 20;
select up(1) + up(20) + up(1) is not null;
-- a partition key that is computed, and a hash
create table h (a int, b text, v int, primary key (a, b)) partition by hash (a);
create table h0 partition of h for values with (modulus 2, remainder 0) using :am;
create table h1 partition of h for values with (modulus 2, remainder 1) using :am;
insert into h select i, 'x', 0 from generate_series(1, 100) i on conflict do nothing;
insert into h select i, 'x', 0 from generate_series(51, 150) i on conflict (a, b) do update set v = h.v + 1;
select sum(v), count(*) from h;
create table e (k int, v text) partition by range ((k / 10));
create table e0 partition of e for values from (0) to (1) using :am;
create table e1 partition of e for values from (1) to (2) using :am;
insert into e values (1, 'x'), (1, 'y'), (11, 'z') on conflict do nothing;
select * from e order by 1, 2;
-- rolled back, and an error in the middle
begin;
insert into p values (1, 'gone'), (8, 'gone') on conflict (k) do update set v = excluded.v;
rollback;
begin;
savepoint s;
insert into p values (1, 'gone'), (99, 'gone') on conflict (k) do update set v = excluded.v;
rollback to s;
insert into p values (1, 'stays') on conflict (k) do update set v = excluded.v returning k, v;
commit;
-- leaves come and go between executions of one plan
prepare q as insert into p values ($1, 'q') on conflict (k) do update set v = excluded.v returning tableoid::regclass, k, v;
execute q (5);
create table p5 partition of p for values from (50) to (60) using :am;
execute q (55); execute q (55); execute q (5);
drop table r;
drop table p1;
create table p1 partition of p for values from (0) to (10) using :am;
execute q (5); execute q (5); execute q (55);
deallocate q;
drop table p, h, e;
drop function note, tell, up;
