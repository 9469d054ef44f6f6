-- A table without a primary key keeps equal rows apart.
create table log (at int, line text) using :am;
insert into log select i % 5, 'line ' || (i % 3) from generate_series(1, 30) i;
select at, line, count(*) from log group by at, line order by at, line;
delete from log where at = 3;
update log set line = 'changed' where at = 4;
select at, line, count(*) from log group by at, line order by at, line;
begin;
delete from log;
select count(*) from log;
rollback;
select count(*) from log;
insert into log select * from log;
select count(*) from log;
