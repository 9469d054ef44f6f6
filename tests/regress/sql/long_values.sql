-- Values too long for their rows: compressed, or kept in the TOAST table.
-- What a table's TOAST table holds: values and chunks.
create function stored(relation regclass, out stored_values bigint, out chunks bigint) as $$
declare
  toast regclass := (select nullif(reltoastrelid, 0) from pg_class where oid = relation);
begin
  execute format('select count(distinct chunk_id), count(*) from %s', toast) into stored_values, chunks;
end $$ language plpgsql;
-- a text of some length that no method compresses away, the same each time
create function noise(seed int, bytes int) returns text language sql immutable as $$
  select left(string_agg(encode(sha512((seed || ':' || i)::text::bytea), 'base64'), '' order by i), bytes)
  from generate_series(0, bytes / 80) i
$$;

create table t (k int primary key, a text, b text, n int) using :am;
select reltoastrelid <> 0 as has_toast from pg_class where oid = 't'::regclass;
insert into t values
  (1, 'short', null, 1),
  (2, noise(2, 10000), 'short', 2),
  (3, repeat('compressible ', 1000), noise(3, 50000), 3),
  (4, noise(4, 3000), noise(5, 3000), 4);
select k, length(a), md5(a), length(b), md5(b), n from t order by k;
select * from stored('t');
select k, pg_column_size(a) < length(a) as smaller from t where k = 3;
-- slices
select k, substr(a, 5000, 20), substr(b, 100, 20) from t where k in (2, 3) order by k;
-- an update of other columns goes on with the same values
create function pointers() returns table (chunk_id oid, chunks bigint) language plpgsql as $$
begin
  return query execute format('select chunk_id, count(*) from %s group by 1 order by 1',
    (select reltoastrelid::regclass from pg_class where oid = 't'::regclass));
end $$;
create table before as select * from pointers();
update t set n = n + 10;
update t set n = n + 10 where k = 2;
select (select array_agg(p::text order by p) from pointers() p) = (select array_agg(b::text order by b) from before b) as same;
select k, length(a), md5(a), length(b), md5(b), n from t order by k;
-- one that changes a value leaves the old one to VACUUM
update t set a = noise(20, 12000) where k = 2;
update t set b = 'now short' where k = 3;
update t set a = b, b = a where k = 4;
select k, length(a), md5(a), length(b), md5(b), n from t order by k;
vacuum t;
select * from stored('t');
-- the key changes, the values stay
truncate before;
insert into before select * from pointers();
update t set k = k + 100;
select (select array_agg(p::text order by p) from pointers() p) = (select array_agg(b::text order by b) from before b) as same;
select k, length(a), md5(a), length(b), md5(b), n from t order by k;
-- and with a change of both
update t set k = k - 100, a = noise(k, 7000);
select k, length(a), md5(a), length(b), md5(b), n from t order by k;
vacuum t;
select * from stored('t');
-- copies of values in other rows and columns are values of their own
insert into t select k + 10, a, a, n from t where k in (2, 4);
vacuum t;
select * from stored('t');
delete from t where k in (2, 4);
vacuum t;
select * from stored('t');
select k, length(a), md5(a), length(b), md5(b), n from t order by k;
-- RETURNING, triggers with both rows, transition tables
create function told() returns trigger language plpgsql as $$
begin
  raise notice '%: % -> %', tg_op, md5(old.a), md5(new.a);
  return null;
end $$;
create trigger told after update on t for each row execute function told();
create function counted() returns trigger language plpgsql as $$
begin
  raise notice 'lengths % -> %', (select sum(length(a)) from gone), (select sum(length(a)) from come);
  return null;
end $$;
create trigger counted after update on t referencing old table as gone new table as come
  for each statement execute function counted();
update t set a = noise(99, 9000) where k in (12, 14) returning k, length(a), length(b);
drop trigger told on t;
drop trigger counted on t;
-- rollback, savepoints
begin;
update t set a = noise(1, 20000);
delete from t where k = 12;
rollback;
select k, length(a), md5(a), length(b), md5(b) from t order by k;
begin;
savepoint one;
update t set a = noise(50, 20000) where k = 12;
rollback to one;
update t set a = noise(51, 20000) where k = 12;
savepoint two;
delete from t where k = 14;
rollback to two;
update t set b = noise(52, 20000) where k = 14;
release two;
commit;
select k, length(a), md5(a), length(b), md5(b) from t order by k;
vacuum t;
select * from stored('t');
-- a cursor reads on what was deleted after it was opened
begin;
declare c cursor for select k, md5(a), md5(b) from t order by k;
update t set a = 'gone', b = 'gone';
delete from t;
fetch all from c;
rollback;
-- held
begin;
declare h cursor with hold for select k, a, b from t order by k;
commit;
update t set a = noise(60, 5000) where k = 12;
vacuum t;
fetch 1 from h;
close h;
-- deleting all empties the TOAST table
delete from t;
vacuum t;
select * from stored('t');
select count(*) from t;

-- storage and compression of columns
create table s (k int primary key, p text, e text, m text, x text) using :am;
alter table s alter p set storage plain, alter e set storage external,
  alter m set storage main, alter x set storage extended;
insert into s select i, repeat('p', 100), repeat('e', 3000), repeat('m', 3000), repeat('x', 3000)
  from generate_series(1, 2) i;
select k, pg_column_size(p) > 100 as p_whole, pg_column_size(e) = 3000 as e_whole,
  pg_column_size(m) < 100 as m_small, pg_column_size(x) < 100 as x_small from s order by k;
select * from stored('s');
insert into s (k, m) values (3, noise(3, 20000));
insert into s (k, m) values (4, noise(4, 3000));
select * from stored('s');
select k, md5(m) = md5(noise(k, length(m))) as same from s where k > 2 order by k;
alter table s alter x set compression pglz;
insert into s (k, x) values (5, repeat('pglz ', 1000));
select k, pg_column_compression(x), pg_column_compression(m) from s order by k;
alter table s set (toast_tuple_target = 128);
insert into s (k, e) values (6, repeat('e', 1000));
insert into s (k, e) values (7, repeat('e', 2500));
select * from stored('s');
select k, length(e) from s where k > 5 order by k;
-- a row that does not fit whatever is done
\set VERBOSITY sqlstate
insert into s (k, p) values (8, noise(8, 9000));
\set VERBOSITY default
select count(*) from s;
drop table s;

-- other types
create table o (k int primary key, b bytea, j jsonb, r text[], c t, i int[]) using :am;
insert into o values (1, noise(1, 8000)::bytea, jsonb_build_object('a', noise(2, 9000), 'b', 'small'),
  array[noise(3, 6000), 'mid', noise(4, 6000)], row(7, noise(5, 9000), null, 8)::t,
  (select array_agg(i * 7919 % 10007) from generate_series(1, 5000) i));
insert into o select 2, b, j, r, c, i from o;
select k, md5(b), md5(j::text), md5(r::text), md5(c::text), md5(i::text) from o order by k;
select k, j ->> 'b' as j, r[2], (c).k as ck, length((c).a), i[4999] from o order by o.k;
update o set r[2] = 'changed', i[1] = -1, j = j || '{"c": 3}' where k = 2;
select k, j ->> 'c', r[2], i[1], length(r[1]), length(j ->> 'a') from o order by k;
-- composites of rows with long values, and whole rows
insert into t values (1, noise(1, 8000), noise(2, 8000), 1);
update o set c = (select t from t) where k = 1;
delete from t;
vacuum t;
select k, (c).n, md5((c).a), md5((c).b) from o order by k;
create function whole(int) returns o language sql as 'select * from o where k = $1';
select md5(whole(1)::text) = md5(o::text) from o where k = 1;
select length(string_agg(w::text, '')) > 40000 from (select o as w from o) s;
drop function whole(int);
-- to a heap table and back, in bulk, by UPDATE … FROM and by MERGE
create table h (like o) using heap;
insert into h select * from o;
create table o2 (like o, primary key (k)) using :am;
insert into o2 select * from h;
delete from h;
vacuum h;
select count(*) from o join o2 using (k) where o.b = o2.b and o.j = o2.j and o.r = o2.r and o.c = o2.c and o.i = o2.i;
update o2 set b = o.b || o.b from o where o.k = o2.k;
merge into o2 using o on o.k = o2.k when matched and o.k = 1 then update set j = o.j || '{"m": 1}'
  when matched then delete;
drop table o;
select k, length(b), length(j::text), j ->> 'm' from o2;
drop table h, o2;

-- a table without a primary key gets one, and loses it
create table w (k text, a text, b text) using :am;
alter table w alter k set storage external;
alter table w set (toast_tuple_target = 128);
insert into w select lpad(i::text, 500, 'k'), noise(i, 4000), case when i % 2 = 0 then noise(-i, 3000) end
  from generate_series(1, 20) i;
update w set a = noise(100, 4000) where right(k, 2) = '20';
create table w_before as select * from w;
begin;
alter table w add primary key (k);
select count(*) from w join w_before using (k, a) where w.b is not distinct from w_before.b;
rollback;
select count(*) from w join w_before using (k, a) where w.b is not distinct from w_before.b;
alter table w add primary key (k);
select count(*) from w join w_before using (k, a) where w.b is not distinct from w_before.b;
alter table w add column added text;
update w set added = noise(200, 3000) where right(k, 2) = '10';
alter table w drop column b;
update w set a = a || 'x' where right(k, 2) = '20';
alter table w drop constraint w_pkey;
alter table w add column n int default 5;
select count(*), sum(length(a)), sum(length(added)), sum(n) from w;
alter table w alter n type bigint;
select count(*), sum(length(a)), sum(length(added)), sum(n) from w;
delete from w;
vacuum w;
select * from stored('w');
drop table w, w_before;

-- rewrites: values survive, garbage does not
create table c (k int primary key, a text, b text) using :am;
insert into c select i, noise(i, 5000), noise(-i, 3000) from generate_series(1, 20) i;
update c set b = noise(k, 2500) where k <= 10;
delete from c where k % 5 = 0;
create table sums as select k, md5(a) as a, md5(b) as b from c;
vacuum full c;
select count(*) from c join sums on sums.k = c.k and md5(c.a) = sums.a and md5(c.b) = sums.b;
select * from stored('c');
cluster c using c_pkey;
select count(*) from c join sums on sums.k = c.k and md5(c.a) = sums.a and md5(c.b) = sums.b;
alter table c alter k type bigint;
select count(*) from c join sums on sums.k = c.k and md5(c.a) = sums.a and md5(c.b) = sums.b;
select * from stored('c');
alter table c set unlogged;
vacuum full c;
select count(*) from c join sums on sums.k = c.k and md5(c.a) = sums.a and md5(c.b) = sums.b;
alter table c set logged;
select * from stored('c');
alter table c drop column b;
vacuum full c;
select * from stored('c');
select count(*) from c join sums on sums.k = c.k and md5(c.a) = sums.a;
-- to lose the TOAST table
alter table c alter a type varchar(10) using left(a, 10);
select reltoastrelid <> 0 as has_toast from pg_class where oid = 'c'::regclass;
select count(*) from c where a = left(noise(k::int, 10), 10);
truncate c;
insert into c values (1, 'one');
drop table c, sums;
-- in one transaction with rollback to a savepoint
create table c (k int primary key, a text) using :am;
begin;
insert into c values (1, noise(1, 5000));
savepoint s;
truncate c;
insert into c values (2, noise(2, 5000));
rollback to s;
select k, md5(a) = md5(noise(k, 5000)) from c;
commit;
select k, md5(a) = md5(noise(k, 5000)) from c;
drop table c;
-- a table that needs no TOAST table, until it does
create table v (k int primary key, a varchar(20)) using :am;
select reltoastrelid <> 0 as has_toast from pg_class where oid = 'v'::regclass;
alter table v alter a type text;
select reltoastrelid <> 0 as has_toast from pg_class where oid = 'v'::regclass;
insert into v values (1, noise(1, 30000));
select k, length(a) from v;
drop table v;

-- temporary tables, materialized views, COPY
create temp table tt (k int primary key, a text) using :am;
insert into tt select i, noise(i, 3000) from generate_series(1, 10) i;
select count(*) from tt where a = noise(k, 3000);
create materialized view mv using :am as select k, noise(k, 3000) as a from generate_series(1, 5) k;
refresh materialized view mv;
select count(*) from mv where a = noise(k, 3000);
drop materialized view mv;
create table copied (k int primary key, a text) using :am;
select current_setting('data_directory') || '/long_values.copy' as file \gset
copy tt to :'file';
copy copied from :'file';
select count(*) from copied join tt using (k, a);
drop table copied, tt;

-- partitions: rows with long values move
create table p (k int, a text, part int, primary key (k, part)) partition by list (part);
create table p1 partition of p for values in (1) using :am;
create table p2 partition of p for values in (2) using :am;
insert into p select i, noise(i, 4000), 1 from generate_series(1, 4) i;
update p set part = 2 where k > 2;
vacuum p1, p2;
select tableoid::regclass, k, a = noise(k, 4000) from p order by k;
select * from stored('p1');
select * from stored('p2');
drop table p;
-- foreign keys, cascades
create table f (k int primary key, a text) using :am;
create table g (k int primary key, f int references f on update cascade on delete cascade, a text) using :am;
insert into f select i, noise(i, 4000) from generate_series(1, 3) i;
insert into g select i, i, noise(-i, 4000) from generate_series(1, 3) i;
update f set k = k + 10 where k = 1;
delete from f where k = 2;
vacuum f, g;
select k, f, a = noise(-k, 4000) from g order by k;
select * from stored('f');
select * from stored('g');
drop table g, f;
drop table t, before;
-- indexes on what is computed from long values, and beside them
create table x (k int primary key, a text, b text) using :am;
create index on x (md5(a));
insert into x select i, noise(i, 3000 + i), noise(-i, 100) from generate_series(1, 40) i;
create index on x (left(a, 20)) where length(a) > 3020;
create unique index on x (b) include (k);
create index on x (length(a), k);
create function answers(out plan_is_free bool, out by_md5 text, out by_left text, out by_length text) language plpgsql as $$
begin
  plan_is_free := true;
  select string_agg(k || ':' || left(a, 4), ',' order by k) into by_md5 from x, generate_series(1, 50) i
    where md5(a) = md5(noise(i, 3000 + i));
  select string_agg(k::text, ',' order by k) into by_left from x, generate_series(1, 50) i
    where left(a, 20) = left(noise(i, 20), 20) and length(a) > 3020;
  select string_agg(length(a) || '/' || k, ',' order by length(a), k) into by_length from x where length(a) between 3005 and 3015;
end $$;
set enable_seqscan = off;
set plan_cache_mode = force_generic_plan;
select * from answers();
update x set b = b || '!' where k % 2 = 0;
update x set a = noise(k, 2500) where k % 3 = 0;
update x set a = a || 'more' where k % 5 = 0;
update x set a = noise(k, 3000 + k) where k % 15 = 0;
select * from answers();
update x set k = k + 100 where k > 30;
delete from x where k % 4 = 0;
select * from answers();
begin;
update x set a = 'gone';
delete from x where k < 20;
rollback;
select * from answers();
insert into x values (200, noise(1, 5000), (select b from x where k = 1));
insert into x values (200, noise(1, 5000), (select b from x where k = 1)) on conflict (b) do update set a = excluded.a || x.a;
select k, length(a) from x where k = 1;
insert into x select 201, a, 'new' from x where k = 1 on conflict do nothing;
vacuum x;
select * from answers();
vacuum full x;
select * from answers();
reindex table x;
select * from answers();
alter table x alter b type varchar(200);
select * from answers();
set enable_seqscan = on;
select count(*), count(distinct md5(a)), sum(length(a)) from x;
reset plan_cache_mode;
drop function answers;

-- left for the comparison with a standby
create table kept (k int primary key, a text, b jsonb) using :am;
insert into kept select i, noise(i, 3000), jsonb_build_object('k', noise(-i, 2500)) from generate_series(1, 50) i;
update kept set a = noise(k, 3500) where k % 3 = 0;
update kept set k = k + 100 where k % 5 = 0;
delete from kept where k % 7 = 0;
