-- Inserting, reading, changing and removing rows by key; the table's access
-- method is the variable "am", so that heap can stand in as the control.
create table account (id int primary key, owner text not null, balance numeric(12,2)) using :am;
insert into account values (3, 'carol', 30), (1, 'alice', 10), (2, 'bob', 20);
insert into account select i, 'owner ' || i, i * 10 from generate_series(4, 10) i;
select * from account order by id;
select owner from account where id = 2;
select * from account where id between 4 and 6 order by id;
select * from account where id in (9, 1, 5) order by id desc;
select count(*), sum(balance) from account;
-- an existing key
insert into account values (3, 'mallory', 0);
insert into account (id) values (11);
-- updates of the payload, with and without RETURNING
update account set balance = balance + 1 where id = 1;
with changed as (update account set balance = balance * 2, owner = upper(owner) where id <= 3 returning *)
  select * from changed order by id;
-- an update of nothing
update account set balance = 0 where id = 99;
-- updates of the key: a free one, a taken one, all at once and back
update account set id = 100 where id = 10 returning id, owner;
update account set id = 1 where id = 2;
update account set id = id + 1000;
update account set id = id - 1000;
select id, owner, balance from account order by id;
delete from account where id = 100 returning *;
delete from account where id > 5;
select id, owner, balance from account order by id;
-- a key comes back
delete from account where id = 1;
insert into account values (1, 'alice again', 5);
select * from account where id = 1;
-- many versions of one key in one transaction
begin;
update account set balance = 1 where id = 1;
update account set balance = 2 where id = 1;
delete from account where id = 1;
insert into account values (1, 'third alice', 3);
select * from account where id = 1;
rollback;
select * from account where id = 1;
truncate account;
select count(*) from account;
insert into account values (1, 'after truncate', 0);
select * from account;
drop table account;

-- Columns of each width behind texts of many lengths, some of them null.
create view made as
select i as k, repeat('x', i % 150) as t, case when i % 7 <> 0 then i::smallint end as s,
       chr(65 + i % 26)::"char" as c, case when i % 5 <> 0 then md5(i::text) end as u,
       i * 1000000007::bigint as b, i % 2 = 0 as o, i / 7::float8 as f,
       date '2000-01-01' + i as d, repeat('y', i % 131) as v
  from generate_series(1, 700) i;
create table mixed (k int primary key, t text, s smallint, c "char", u text, b bigint,
                    o bool, f float8, d date, v text);
insert into mixed select * from made;
select count(*) from (select * from mixed intersect select * from made) same;
select sum(length(v)), sum(s), count(u), max(d) from mixed where o and b > 100;
drop table mixed;
drop view made;
