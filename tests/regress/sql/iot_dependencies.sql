-- What hangs on the access methods, and a key that goes while others look on.
create table t (k int primary key, v text) using iot;
insert into t values (1, 'one'), (2, 'two');
drop access method rowref;
drop access method iot;
drop extension pg_rowref;
-- an index that changes its access method changes what it hangs on
create table h (k int primary key) using heap;
select count(*) from pg_depend where objid = 'h_pkey'::regclass and refclassid = 'pg_am'::regclass;
alter table h set access method iot;
select count(*) from pg_depend where objid = 'h_pkey'::regclass and refclassid = 'pg_am'::regclass;
reindex index concurrently h_pkey;
select count(*) from pg_depend where objid = 'h_pkey'::regclass and refclassid = 'pg_am'::regclass;
alter table h set access method heap;
select count(*) from pg_depend where objid = 'h_pkey'::regclass and refclassid = 'pg_am'::regclass;
-- an index of another kind keeps its table in heap
create index on h using hash (k);
alter table h set access method iot;
\echo :SQLSTATE
insert into h values (1), (1);
-- a duplicate put in by an event trigger of the command that drops the key
create function again() returns event_trigger language plpgsql as $$ begin
    insert into t values (1, 'again');
end $$;
create event trigger again on sql_drop execute function again();
alter table t drop constraint t_pkey;
\echo :SQLSTATE
drop event trigger again;
select * from t order by k;
insert into t values (1, 'again');
-- everything goes with the extension
begin;
drop extension pg_rowref cascade;
select to_regclass('t'), to_regclass('h'), to_regclass('h_pkey');
rollback;
select * from t order by k;
