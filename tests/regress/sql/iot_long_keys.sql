-- Keys of long values: what a heap table with B-tree indexes takes is taken,
-- and every way to a row gives the same answer.
create function noise(seed int, bytes int) returns text language sql immutable as $$
  select left(string_agg(encode(sha512((seed || ':' || i)::text::bytea), 'base64'), '' order by i), bytes)
  from generate_series(0, bytes / 80) i
$$;
create temp table given as
  -- alike for long, and not
  select i as id, left(repeat('1234567890', 4000), 8 * i * i) || i as t from generate_series(1, 60) i
  union all select i, noise(i, 8 * (i - 80)) from generate_series(101, 330, 4) i
  union all select i, repeat(noise(i % 7, 700), i % 11) || noise(i, 20) from generate_series(331, 500, 3) i;
create collation any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
\set columns 'id int, t text, b bytea, l text collate "en-x-icu", c text collate any_case, a int[], n numeric'
\set rows 'select id, t, convert_to(t, \'utf8\'), t, upper(t), array(select ascii(x) from regexp_split_to_table(left(t, 800), \'\') x), (\'1\' || repeat(id::text, length(t) / 9))::numeric from given'
create temp table h (:columns) using heap;
create table i (:columns) using iot;
insert into h :rows;
insert into i :rows;
-- this is what B-tree takes
create unique index on h (t);
create index on h (b desc, id);
create index on h (l);
create index on h (c);
create index on h (a);
create index on h (n) where id % 3 > 0;
create index on h (left(t, 3000), b) include (id) where id not between 101 and 330;
create unique index on i (t);
create index on i (b desc, id);
create index on i (l);
create index on i (c);
create index on i (a);
create index on i (n) where id % 3 > 0;
create index on i (left(t, 3000), b) include (id) where id not between 101 and 330;
vacuum analyze i;
analyze h;
select * from rowref.verify('i', true);

-- one by one, by each index
set enable_seqscan = off;
set enable_sort = off;
\set MATCHES 'select count(*) as rows, count(*) filter (where i.id is null) as missing from h left join lateral (select id from i where'
:MATCHES i.t = h.t) i on i.id = h.id;
:MATCHES i.b = h.b and i.id = h.id) i on true;
:MATCHES i.l = h.l) i on i.id = h.id;
:MATCHES i.c = lower(h.t)) i on i.id = h.id;
:MATCHES i.a = h.a) i on i.id = h.id;
:MATCHES i.n = h.n) i on i.id = h.id where h.id % 3 > 0;
-- in order, there and back
explain (costs off) select md5(t) from i order by t;
select md5(string_agg(id::text, ',' order by t)) = (select md5(string_agg(id::text, ',')) from (select id from i order by t) x) as t from h;
select md5(string_agg(id::text, ',' order by t desc)) = (select md5(string_agg(id::text, ',')) from (select id from i order by t desc) x) as t_back from h;
select md5(string_agg(md5(b), ',' order by b desc, id)) = (select md5(string_agg(md5(b), ',')) from (select b from i order by b desc, id) x) as b from h;
select md5(string_agg(md5(b), ',' order by b, id desc)) = (select md5(string_agg(md5(b), ',')) from (select b from i order by b, id desc) x) as b_back from h;
select md5(string_agg(md5(l), ',' order by l)) = (select md5(string_agg(md5(l), ',')) from (select l from i order by l) x) as l from h;
select md5(string_agg(a::text, ',' order by a)) = (select md5(string_agg(a::text, ',')) from (select a from i order by a) x) as a from h;
select md5(string_agg(n::text, ',' order by n)) = (select md5(string_agg(n::text, ',')) from (select n from i where id % 3 > 0 order by n) x) as n from h where id % 3 > 0;
-- ranges and sets
select count(*), (select count(*) from i where t > repeat('1234567890', 600)) from h where t > repeat('1234567890', 600);
select count(*), (select count(*) from i where t <= repeat('1234567890', 600)) from h where t <= repeat('1234567890', 600);
select count(*), (select count(*) from i where t between repeat('12', 400) and repeat('1234567890', 2000) || 'x') from h where t between repeat('12', 400) and repeat('1234567890', 2000) || 'x';
select count(*), (select count(*) from i where b < (select b from i where id = 60)) from h where b < (select b from h where id = 60);
select count(*), (select count(*) from i where l >= (select l from i where id = 241)) from h where l >= (select l from h where id = 241);
select count(*), (select count(*) from i where t like '1234567890%') from h where t like '1234567890%';
select array_agg(id order by id) from i where t in (select t from given where id in (3, 57, 201, 400)) or t = (select t from h where id = 321);
select array_agg(id order by id) from i where t = any (array(select t from h where id % 50 = 1));
-- what is not there, and could not be
select count(*) from i where t = noise(5, 20000) or t > repeat('z', 1000000) or t = repeat('1234567890', 3001);
select count(*) from i where l = noise(5, 100000) or n = ('1' || repeat('12', 30000))::numeric;
-- unique
\set VERBOSITY terse
\set SHOW_CONTEXT never
insert into i (id, t) select 1000, t from given where id = 50;
insert into i (id, t) select 1000, t from given where id = 321;
insert into i (id, t) select id + 1000, t from given on conflict (t) do nothing;
insert into i (id, t) select id, t from given where id in (50, 451) on conflict (t) do update set id = excluded.id + 2000 returning id;
-- too long
insert into i (id, t) values (1001, noise(1, 5000));
\echo :SQLSTATE
insert into i (id, l) values (1001, noise(1, 5000));
\echo :SQLSTATE

-- primary keys
reset enable_sort;
create table p (t text, b bytea, v int, primary key (t, b)) using iot;
create index on p (v);
insert into p select t, convert_to(left(t, 200), 'utf8'), id from given;
explain (costs off) select v from p where t = repeat('1234567890', 4);
select count(*) from given g join lateral (select v from p where p.t = g.t and v = id) p on true;
-- the reference behind an index's columns is such a key
explain (costs off) select md5(t) from p where v between 50 and 450;
select md5(string_agg(md5(t), ',' order by v)) = (select md5(string_agg(md5(t), ',' order by id)) from given where id between 50 and 450) as same from p where v between 50 and 450;
-- rows that move from long key to long key
update p set t = t || repeat('moved', 300) where v % 2 = 0;
select count(*) from given g join lateral (select v from p where p.t = g.t || repeat('moved', 300) and v = id) p on true where id % 2 = 0;
begin;
declare c cursor for select v from p where t > repeat('1234567890', 100) for update;
fetch 3 from c;
update p set v = -1 where current of c;
delete from p where v = -1;
rollback;
update p set t = 'short' where v = 321;
update p set t = noise(9, 2800) where v = 321;
update p set t = noise(10, 2800) where v = 321;
\echo :SQLSTATE
update p set t = noise(10, 3600) where v = 321;
\echo :SQLSTATE
delete from p where v % 5 = 0;
vacuum p;
select count(*), count(distinct t) from p;
select * from rowref.verify('p', true);
insert into p select t, convert_to(left(t, 200), 'utf8'), id from given on conflict (t, b) do update set v = p.v;
select count(*), count(distinct t) from p;
cluster p using p_pkey;
alter table p drop constraint p_pkey;
select count(*), count(distinct t) from p;
alter table p add primary key (b, t);
reindex table p;
select * from rowref.verify('p', true);
-- a key of each length
create table lengths (t text primary key, n int) using iot;
insert into lengths select repeat('x', n), n from generate_series(490, 530) n;
insert into lengths select noise(n, n), n from generate_series(490, 530) n;
insert into lengths select noise(n, n), n from generate_series(2700, 3300, 20) n;
select count(*) from lengths;
select bool_and(t = (case when n < 600 then repeat('x', n) end) or t = noise(n, n)) from lengths;
select * from rowref.verify('lengths', true);
-- in parallel
set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0; set min_parallel_index_scan_size = 0;
set max_parallel_workers_per_gather = 2;
set enable_indexonlyscan = off; set enable_seqscan = on; set enable_indexscan = off;
explain (costs off) select count(*), sum(length(t)) from lengths;
select count(*), sum(length(t)) from lengths;
reset all;

drop table h, i, p, lengths;
drop function noise;
drop collation any_case;
