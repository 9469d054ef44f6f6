-- INSERT … ON CONFLICT with unique secondary indexes as arbiters: alone, beside
-- the primary key, on expressions, partial, with nulls, without a key at all.
create table t (k int primary key, a int unique, b text, c int, v text) using :am;
create unique index t_b on t (lower(b));
create unique index t_c on t (c) where c > 10;
insert into t values (1, 1, 'One', 1, 'v'), (2, 2, 'Two', 20, 'v'), (3, 3, 'Three', 30, 'v');
insert into t values (4, 1, 'Four', 4, 'x') on conflict (a) do update set v = 'by a' returning *;
insert into t values (4, 4, 'ONE', 4, 'x') on conflict (lower(b)) do update set v = 'by b' returning *;
insert into t values (4, 4, 'Four', 20, 'x') on conflict (c) where c > 10 do update set v = 'by c' returning *;
insert into t values (4, 4, 'Four', 1, 'x') on conflict (c) where c > 10 do update set v = 'by c' returning *;
insert into t values (5, 4, 'Five', 1, 'x') on conflict on constraint t_a_key do update set v = 'by name' returning *;
-- what is no arbiter is an error, whatever the arbiter says
insert into t values (1, 99, 'x', 1, 'x') on conflict (a) do nothing;
insert into t values (99, 1, 'y', 1, 'x') on conflict (k) do nothing;
insert into t values (99, 99, 'one', 1, 'x') on conflict (k) do nothing;
insert into t values (99, 99, 'y', 30, 'x') on conflict (k) do nothing;
insert into t values (1, 2, 'y', 1, 'x') on conflict (a) do update set v = 'not the other';
insert into t values (1, 2, 'y', 1, 'x') on conflict (k) do update set v = 'the first';
-- without arbiters all count
insert into t values (1, 90, 'a', 1, 'x'), (91, 1, 'b', 1, 'x'), (92, 92, 'three', 1, 'x'), (93, 93, 'd', 30, 'x'), (94, 94, 'e', 3, 'x')
  on conflict do nothing returning *;
select * from t order by k;
-- the specification has to fit an index
insert into t values (1) on conflict (b) do nothing;
insert into t values (1) on conflict (c) do nothing;
insert into t values (1) on conflict (c) where c > 5 do nothing;
insert into t (k, c) values (101, 40), (102, 40) on conflict (c) where c > 20 do nothing returning *;
-- several indexes are inferred
create unique index t_a2 on t (a);
insert into t values (103, 1, 'z', 1, 'x') on conflict (a) do update set v = 'both' returning *;
explain (costs off) insert into t values (103, 1, 'z', 1, 'x') on conflict (a) do update set v = 'both';
drop index t_a2;
-- twice in one command, by different keys
insert into t values (110, 200, 'p', 1, 'x'), (111, 200, 'q', 1, 'x') on conflict (a) do update set v = excluded.v;
insert into t values (110, 200, 'p', 1, 'x'), (111, 200, 'q', 1, 'x') on conflict (a) do nothing returning k;
-- the update changes keys and arbiters
insert into t values (112, 1, 'r', 1, 'x') on conflict (a) do update set a = 300, k = 300, b = 'moved' returning *;
insert into t values (112, 1, 'r', 1, 'x') on conflict (a) do update set v = 'not there any more' returning *;
insert into t values (113, 1, 's', 1, 'x') on conflict (a) do update set a = 2;
insert into t values (113, 300, 's', 1, 'x') on conflict (a) do update set a = 301, k = 301 returning *;
-- a savepoint takes all of it back
begin;
savepoint s;
insert into t values (120, 301, 'S', 50, 'x'), (121, 121, 't', 51, 'x') on conflict (a) do update set a = 302;
rollback to s;
insert into t values (120, 301, 'S', 50, 'x'), (121, 302, 't', 51, 'x') on conflict (a) do update set v = 'after' returning *;
commit;
-- nulls are distinct, or not
create table n (k int primary key, a int, b int, unique nulls not distinct (a), unique (b)) using :am;
insert into n values (1, null, null), (2, 2, null), (3, null, 3) on conflict (a) do update set b = 100 returning *;
insert into n values (4, 4, null), (5, 5, null) on conflict (b) do update set b = 0 returning *;
select * from n order by k;
-- no primary key
create table w (a int unique, b int) using :am;
insert into w values (1, 1), (1, 2), (2, 1) on conflict do nothing returning *;
insert into w values (1, 3) on conflict (a) do update set b = w.b + excluded.b returning *;
insert into w select i % 700, i from generate_series(1, 2000) i on conflict do nothing;
insert into w select i, i from generate_series(0, 899) i on conflict (a) do update set b = -1;
select count(*), count(*) filter (where b = -1), sum(a) from w;
-- values that are equal without being the same; several columns; descending; INCLUDE
create table m (k int primary key, x numeric, y text, z int) using :am;
create unique index on m (x desc, y) include (z);
insert into m values (1, 1.0, 'a', 1), (2, 1.00, 'b', 2);
insert into m values (3, 1.000, 'a', 3) on conflict (x, y) do update set z = excluded.z, x = excluded.x returning *;
insert into m values (3, 1.000, 'a', 3) on conflict (y, x) do nothing returning *;
select * from m order by k;
-- long values in rows that are not inserted after all
create table l (k int primary key, a int unique, long text) using :am;
insert into l select 1, 1, string_agg(md5(i::text), '') from generate_series(1, 1000) i;
insert into l select 2, 1, string_agg(md5(i::text), '!') from generate_series(1, 1000) i on conflict do nothing;
insert into l select 1, 2, string_agg(md5(i::text), '!') from generate_series(1, 1000) i on conflict (k) do update set long = excluded.long || '.';
insert into l select 3, 1, string_agg(md5(i::text), '?') from generate_series(1, 1000) i on conflict (a) do update set long = l.long || excluded.long;
select k, a, length(long), md5(long) from l order by k;
-- partitions
create table p (k int, a int, v text, primary key (k, a), unique (a, v, k)) partition by list (k);
create table p1 partition of p for values in (1) using :am;
create table p2 partition of p for values in (2) using heap;
create table p3 partition of p default using :am;
create unique index on p1 (v);
insert into p values (1, 1, 'x'), (2, 1, 'x'), (3, 1, 'x');
insert into p values (1, 1, 'y'), (2, 1, 'y'), (3, 1, 'y'), (4, 1, 'y') on conflict (k, a) do update set v = p.v || excluded.v returning *;
insert into p values (1, 2, 'xy'), (2, 2, 'xy'), (3, 2, 'xy') on conflict do nothing returning *;
insert into p values (1, 2, 'xy') on conflict (k, a) do nothing;
insert into p values (1, 1, 'xy'), (3, 1, 'xy') on conflict (a, v, k) do update set v = 'arbiter' returning *;
select tableoid::regclass, * from p order by k, a;
