-- What a rollback, a savepoint and a snapshot keep and lose.
create table t (k int primary key, v text) using :am;
begin;
insert into t values (1, 'one');
savepoint a;
insert into t values (2, 'two');
update t set v = 'uno' where k = 1;
select * from t order by k;
rollback to a;
select * from t order by k;
savepoint b;
delete from t where k = 1;
select * from t order by k;
release b;
insert into t values (1, 'one again');
commit;
select * from t order by k;
-- an error inside a savepoint leaves the rest
begin;
savepoint a;
insert into t values (1, 'twice');
rollback to a;
insert into t values (2, 'two');
commit;
select * from t order by k;
-- a cursor keeps the snapshot it was opened with
begin;
declare c cursor for select * from t order by k;
update t set v = v || '!';
insert into t values (3, 'three');
fetch all from c;
select * from t order by k;
rollback;
-- a statement does not see its own rows
insert into t select k + 10, v from t;
insert into t select k + 100, v from t;
select * from t order by k;
-- create, fill and drop inside a transaction
begin;
create table gone (k int primary key) using :am;
insert into gone select generate_series(1, 1000);
select count(*) from gone;
rollback;
select count(*) from pg_class where relname = 'gone';
begin;
truncate t;
insert into t values (7, 'seven');
select * from t;
rollback;
select count(*) from t;
begin;
drop table t;
rollback;
select count(*) from t;
