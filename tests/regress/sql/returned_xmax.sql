-- What xmax tells of a row that was just written: whether its writer had locked
-- the row before.
create table t (k int primary key, v text) using :am;
insert into t values (1, 'old') returning xmax = 0 as inserted;
insert into t values (1, 'x'), (2, 'new') on conflict (k) do update set v = excluded.v
    returning k, v, xmax = 0 as inserted, xmin = pg_current_xact_id()::xid as is_ours;
update t set v = 'plain' where k = 1 returning xmax = 0 as unlocked;
begin;
select k from t where k = 1 for update;
update t set v = 'locked' where k = 1
    returning xmax = pg_current_xact_id()::xid as is_ours, xmin = pg_current_xact_id()::xid as by_us;
update t set v = 'not locked' where k = 2 returning xmax = 0 as unlocked;
commit;
-- a lock of an earlier transaction does not count
begin;
select k from t where k = 2 for update;
commit;
update t set v = 'later' where k = 2 returning xmax = 0 as unlocked;
-- nor does one that was given up
begin;
savepoint s;
select k from t where k = 2 for update;
rollback to s;
update t set v = 'again' where k = 2 returning xmax = 0 as unlocked;
commit;
select * from t order by k;
