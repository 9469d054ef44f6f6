-- CLUSTER puts the rows of a table without a primary key into the order of an
-- index, where a sequential scan then finds them; their writers stay.
\pset null null
create table c (a int, b text collate "C", long text) using :am;
alter table c alter long set storage external;
insert into c select i * 7 % 50, chr(97 + i * 3 % 26), case when i % 5 = 0 then repeat(i::text, 3000) end from generate_series(1, 50) i;
create table writers as select a, xmin as writer from c;
update c set b = 'new' where a = 10; delete from c where a between 20 and 22; insert into c values (null, 'x'), (5, null);
create index c_a on c (a desc nulls last);
create unique index c_lb on c (lower(b), a) include (b);
alter table c drop column long; alter table c add column v int default 3;
cluster c using c_a;
select string_agg(coalesce(a::text, 'null'), ' ') from c;
select count(*) from c join writers using (a) where c.xmin = writer;
set enable_seqscan = off; select a, b from c where a = 10; select a from c where a between 3 and 6 order by a; reset enable_seqscan;
cluster c using c_lb;
select string_agg(coalesce(b, 'null'), ' ') from c;
-- The mark is remembered, and rows that come later go behind the others.
insert into c values (100, 'a');
select (array_agg(a))[51] from c;
update c set v = 4 where a = 100;
cluster c;
select string_agg(a::text, ' ') from (select a from c limit 3) x;
begin; insert into c values (200, 'a'); savepoint s; delete from c where a = 100; cluster c; rollback to s; cluster c using c_a; select (array_agg(a))[1:3] from c; rollback;
select count(*), min(v), max(v) from c;
alter table c set without cluster; vacuum full c; select string_agg(a::text, ' ') from (select a from c limit 3) x;
-- Long values, deferrable keys, columns of other orders.
create table l (k numeric, long text, primary key (k) deferrable) using :am;
alter table l alter long set storage external;
insert into l select i * 17 % 40 / 2.0, repeat(chr(65 + i), 4000) from generate_series(1, 39) i;
update l set long = long || 'more' where k > 10; delete from l where k = 3;
cluster l using l_pkey;
select count(*), sum(length(long)), md5(string_agg(left(long, 2), '' order by k)) from l;
select string_agg(k::text, ' ') from l;
begin; update l set k = k + 0.5; select count(*) from l; commit;
-- Not by these.
create index c_p on c (a) where a > 3;
cluster c using c_p;
drop table c, l, writers;
