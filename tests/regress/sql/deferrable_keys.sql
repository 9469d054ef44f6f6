-- Deferrable primary keys: broken within a transaction, never beyond.
create table t (k int, v text, primary key (k) deferrable) using :am;
insert into t select i, 'v' || i from generate_series(1, 100) i;
insert into t values (5, 'again');
update t set k = k + 1; select min(k), max(k), count(*) from t;
begin; set constraints all deferred; insert into t values (5, 'again'); select count(*) from t where k = 5; delete from t where v = 'again'; commit; select count(*) from t where k = 5;
begin; set constraints all deferred; insert into t values (5, 'again'); commit; select count(*) from t where k = 5;
begin; set constraints t_pkey deferred; update t set k = 7 where k = 8; set constraints t_pkey immediate; rollback; select v from t where k in (7, 8) order by k;
begin; set constraints all deferred; update t set k = 7 where k = 8; update t set k = 8 where k = 7 and v = 'v6'; commit; select v from t where k in (7, 8) order by k;
begin; set constraints all deferred; savepoint a; insert into t values (9, 'again'); rollback to a; insert into t values (900, 'new'); commit; select v from t where k in (9, 900) order by k;
insert into t values (9, 'x') on conflict do nothing; insert into t values (9, 'x') on conflict (k) do nothing; insert into t values (null, 'x');
create table ref (r int references t) using :am;
create table d (a int, b int, primary key (a, b) include (c) deferrable initially deferred, c int, unique (c) deferrable) using :am;
begin; insert into d values (1, 1, 1), (1, 1, 2); delete from d where c = 1; commit; select * from d; insert into d values (1, 1, 3); insert into d values (1, 2, 2); update d set a = a + 1, c = c + 1; select * from d;
insert into d select 10, i, i + 10 from generate_series(1, 50) i; update d set b = 51 - b where a = 10; update d set b = 7 where a = 10 and b = 8; select count(*), sum(b) from d where a = 10; select c from d where a = 10 and b = 8;
select conname, condeferrable, condeferred from pg_constraint where conrelid in ('t'::regclass, 'd'::regclass) order by 1;
-- it comes and goes
alter table t drop constraint t_pkey; insert into t values (9, 'again'); alter table t add primary key (k) deferrable; delete from t where v = 'again'; alter table t add primary key (k) deferrable; insert into t values (9, 'again'); alter table t drop constraint t_pkey, add primary key (k); insert into t values (9, 'again'); update t set k = k + 1 where k < 0; alter table t drop constraint t_pkey, add constraint tk primary key (k) deferrable initially deferred; begin; insert into t values (9, 'again'); delete from t where k = 9 and v = 'again'; commit; select count(*) from t where k = 9;
alter table t alter k type bigint; select v from t where k = 9; alter table t set access method heap; insert into t values (9, 'x'); alter table t set access method :am; insert into t values (9, 'x'); reindex table t; truncate t; begin; insert into t values (1, 'a'), (1, 'b'); commit; select * from t; insert into t values (1, 'a'); select * from t; vacuum full t; cluster t using tk; create table l (like t including all) using :am; begin; insert into l values (1, 'a'), (1, 'b'); rollback; select condeferrable from pg_constraint where conrelid = 'l'::regclass and contype = 'p';
drop table t, d, l;
