-- COPY FREEZE: rows that everybody sees at once, with the writer they have.
begin;
create table f (k int primary key, v text, w int) using :am;
create index f_w on f (w);
copy f from stdin with (freeze);
3	three	30
1	one	10
2	two	20
\.
select k, v, xmin = pg_current_xact_id()::xid as own from f order by k;
savepoint s;
update f set w = 11 where k = 1;
delete from f where k = 2;
rollback to s;
update f set v = 'deux' where k = 2;
commit;
set enable_seqscan = off;
select k, w from f where w between 10 and 20 order by w;
update f set w = 21 where k = 2; delete from f where k = 3;
select k, w from f where w > 0 order by w;
reset enable_seqscan;
-- Only where it may.
copy f from stdin with (freeze);
4	four	40
\.
begin;
truncate f;
savepoint s;
copy f from stdin with (freeze);
4	four	40
\.
rollback;
begin;
truncate f;
copy f from stdin with (freeze);
4	four	40
5	five	50
\.
commit;
select * from f order by k;
vacuum f;
-- Rows one by one, with triggers.
create function loud() returns trigger language plpgsql as
  $$begin raise notice '% %', tg_op, new.k; return new; end$$;
begin;
create table g (k int primary key, w int unique) using :am;
create trigger loud before insert on g for each row execute function loud();
copy g from stdin with (freeze);
2	20
1	10
\.
select k from g where w = 10;
rollback;
-- A materialized view's rows.
create materialized view m using :am as select k, w from f;
create unique index on m (k);
refresh materialized view m;
insert into f values (6, 'six', 60);
refresh materialized view concurrently m;
select * from m order by k;
drop materialized view m;

-- The line that an error names.
copy f from stdin;
10	ten	100
11	eleven	110
5	five again	50
12	twelve	120
\.
copy f from stdin;
10	ten	100
9	nine	90
10	ten again	100
9	nine again	90
\.
create unique index f_u on f (w);
copy f from stdin;
20	x	200
21	x	200
20	x	201
\.
copy f from stdin;
20	x	200
20	x	201
21	x	200
\.
copy f from stdin (format csv, header);
k,v,w
20,"two
lines",200
4,x,201
\.
create table parts (k int primary key, w int) partition by range (k);
create table parts1 partition of parts for values from (0) to (10) using :am;
create table parts2 partition of parts for values from (10) to (20) using :am;
copy parts from stdin;
1	1
11	1
2	1
12	1
11	2
\.
-- Caught on the way: a function of another index catches errors of its own.
create function careful(i int) returns int language plpgsql immutable as
  $$begin perform 1 / (i - i); return 0; exception when division_by_zero then return i; end$$;
create index f_careful on f (careful(w));
copy f from stdin;
30	x	300
5	x	301
31	x	302
\.
insert into f values (30, 'x', 300);
select count(*) from f;
drop table f, parts;
drop function loud, careful;
