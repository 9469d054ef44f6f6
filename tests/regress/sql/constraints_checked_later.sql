-- UNIQUE … DEFERRABLE and EXCLUDE: constraints that are checked when the row is
-- in its place already, at the end of the statement or of the transaction.
create table d (k int primary key, a int unique deferrable, v text) using :am;
insert into d select i, i, 'v' from generate_series(1, 10) i;
-- in passing values may be there twice
update d set a = a + 1;
update d set a = a - 1;
select min(a), max(a), count(distinct a) from d;
update d set a = 11 - a;
-- at the end of the statement they may not
insert into d values (11, 10, 'x');
update d set a = 5 where k = 1;
insert into d values (11, 11, 'x'), (12, 11, 'x');
-- at the end of the transaction
begin;
set constraints all deferred;
insert into d values (11, 10, 'x');
update d set a = 100 where a = 10 and v = 'v';
commit;
begin;
set constraints all deferred;
insert into d values (12, 10, 'y');
savepoint s;
update d set v = 'still twice' where k = 12;
commit;
-- the row that was queued for its check has later versions, another key, is gone, or there again
begin;
set constraints all deferred;
insert into d values (12, 10, 'y');
update d set v = 'changed' where k = 12;
update d set v = 'and again' where k = 12;
set constraints all immediate;
rollback;
begin;
set constraints all deferred;
insert into d values (12, 10, 'y');
update d set k = 13 where k = 12;
set constraints all immediate;
rollback;
begin;
set constraints all deferred;
insert into d values (12, 10, 'y');
update d set k = 13, a = 1000 where k = 12;
delete from d where k = 13;
insert into d values (12, 1000, 'z');
set constraints all immediate;
commit;
begin;
set constraints all deferred;
insert into d values (20, 10, 'y');
delete from d where k = 20;
insert into d values (20, 2000, 'reborn');
set constraints all immediate;
delete from d where k = 20;
set constraints all deferred;
insert into d values (20, 10, 'reborn'), (21, 2000, 'x');
set constraints all immediate;
rollback;
select * from d order by k;
-- nulls are as distinct as ever; by hand; swapping
update d set a = null where k in (3, 4);
begin;
set constraints all deferred;
update d set a = (select a from d where k = 2) where k = 1;
update d set a = 9999 where k = 2;
commit;
select * from d where k < 3 order by k;
-- no arbiter
insert into d values (1, 1, 'x') on conflict (a) do nothing;
insert into d values (1, 1, 'x') on conflict do nothing;
insert into d values (1, 1, 'x') on conflict (k) do update set v = 'by the key' returning *;
-- COPY and many rows
copy d from stdin;
100	77777	x
101	77777	x
\.
begin;
set constraints all deferred;
copy d from stdin;
100	77777	x
101	77777	x
\.
update d set a = k + 100000 where k >= 100;
commit;
insert into d select i, i, 'many' from generate_series(1000, 4000) i;
update d set a = 5000 - a where k between 1000 and 4000;
select count(*), count(distinct a) from d where v = 'many';
alter table d add unique (v, k) deferrable initially deferred;
begin;
update d set v = 'x';
insert into d values (200000, 200000, 'y');
commit;
-- without a key
create table nk (a int, b int, unique (a) deferrable initially deferred) using :am;
begin;
insert into nk values (1, 1), (1, 2), (2, 3);
update nk set a = 3 where b = 2;
commit;
insert into nk values (1, 4);
select * from nk order by b;
-- exclusion by equality is uniqueness, checked afterwards
create table e (k int primary key, a int, b text, exclude (a with =)) using :am;
insert into e values (1, 1, 'x'), (2, 2, 'x');
insert into e values (3, 1, 'x');
update e set a = 2 where k = 1;
update e set b = 'y', k = 10 where k = 1;
update e set a = 1 where k = 10;
update e set a = a;
insert into e values (4, null, 'x'), (5, null, 'y');
delete from e where k = 10;
insert into e values (10, 1, 'x');
insert into e values (11, 1, 'x') on conflict do nothing returning *;
insert into e values (11, 1, 'x'), (12, 12, 'x'), (13, 12, 'x') on conflict do nothing returning *;
insert into e values (11, 1, 'x') on conflict on constraint e_a_excl do nothing returning *;
insert into e values (11, 1, 'x') on conflict on constraint e_a_excl do update set b = 'x';
insert into e values (10, 100, 'x') on conflict (k) do update set a = 2;
insert into e values (10, 100, 'x') on conflict (k) do update set a = 3, b = 'updated' returning *;
insert into e values (11, 3, 'x') on conflict (k) do nothing;
select * from e order by k;
-- another operator, several columns, an expression, a predicate
create table o (k int primary key, a int, b text, exclude using btree (a with >=)) using :am;
create table o (k int primary key, a int, b text,
  exclude (lower(b) with =, (a % 10) with =) where (b is not null)) using :am;
insert into o values (10, 10, 'One');
insert into o values (20, 20, 'Two');
insert into o values (5, 5, null);
insert into o values (3, 0, 'ONE');
insert into o values (3, -10, 'ONE');
update o set b = 'tWO' where k = 5;

insert into o values (30, 30, 'one'), (40, 41, 'one');
update o set b = 'ONE' where k = 20;
select * from o order by k;
-- deferred
create table f (k int primary key, a int, exclude (a with =) deferrable initially deferred) using :am;
insert into f values (1, 1), (2, 2), (3, 3);
update f set a = a + 1;
insert into f values (4, 4);
begin;
insert into f values (5, 4);
update f set a = 50 where k = 5;
commit;
begin;
insert into f values (6, 4);
update f set k = 7 where k = 6;
commit;
begin;
insert into f values (6, 4);
delete from f where k = 6;
commit;
select * from f order by k;
-- made when the rows are there, and rebuilt
alter table f add constraint f_sum exclude ((a + k) with =);
alter table f add constraint f_mod exclude ((a % 2) with =);
reindex table f;
alter table f alter a type bigint;
insert into f values (6, 4);
vacuum full f;
insert into f values (6, 4);
create table g as select * from f;
alter table g add primary key (k), add exclude (a with =), add unique (a) deferrable;
insert into g values (10, 2);
-- partitions
create table p (k int, a int, primary key (k), unique (k, a) deferrable initially deferred) partition by range (k);
create table p1 partition of p for values from (0) to (10) using :am;
create table p2 partition of p for values from (10) to (20) using heap;
alter table p1 add exclude (a with =);
insert into p values (1, 1), (11, 1), (12, 1);
insert into p values (2, 1);
insert into p values (2, 1), (3, 3) on conflict do nothing;
update p set a = a + 1;
select * from p order by k;
-- what only ctids can do
create table h (r int4range, exclude using gist (r with &&)) using heap;
drop table h;
