-- Many rows, in order, in reverse and in no order: splits on every side.
create table ascending (k int primary key, pad text) using :am;
insert into ascending select i, repeat('x', i % 50) from generate_series(1, 50000) i;
create table descending (k int primary key, pad text) using :am;
insert into descending select i, repeat('x', i % 50) from generate_series(50000, 1, -1) i;
create table shuffled (k int primary key, pad text) using :am;
insert into shuffled select (i * 7919::bigint) % 50021, repeat('x', i % 50) from generate_series(1, 50000) i;
select count(*), min(k), max(k), sum(k::bigint), sum(length(pad)) from ascending;
select count(*), min(k), max(k), sum(k::bigint), sum(length(pad)) from descending;
select count(*), min(k), max(k), sum(k::bigint), sum(length(pad)) from shuffled;
select count(*) from (select k, lag(k) over (order by k) as before from shuffled) s where before >= k;
copy ascending to '/dev/null';
create table copied (like ascending including indexes) using :am;
insert into copied select * from ascending;
select count(*) from ascending a join copied c using (k, pad);
-- every second row goes, some come back, the rest changes
delete from ascending where k % 2 = 0;
select count(*) from ascending;
insert into ascending select k, 'back' from generate_series(2, 50000, 4) k;
update ascending set pad = 'y' where k % 2 = 1;
select pad, count(*) from ascending group by pad order by pad;
vacuum ascending;
select count(*), sum(k::bigint) from ascending;
delete from descending;
vacuum descending;
select count(*) from descending;
insert into descending select i, 'new' from generate_series(1, 1000) i;
select count(*), sum(k) from descending;
analyze shuffled;
select reltuples between 45000 and 55000 as estimated from pg_class where oid = 'shuffled'::regclass;
-- wide rows
create table wide (k int primary key, body text) using :am;
insert into wide select i, repeat(md5(i::text), 50) from generate_series(1, 500) i;
select count(*), sum(length(body)) from wide;
update wide set body = body || 'z' where k = 107;
select length(body) from wide where k = 107;
