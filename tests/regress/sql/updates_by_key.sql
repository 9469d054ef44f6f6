-- UPDATE of the one row that has a key: what is evaluated, checked, stored and
-- told of it is the same whichever node of the executor does it.
create table t (a int, b text, n int not null check (n < 100), v text, w int default 7,
                primary key (a, b)) using :am;
insert into t select i, 'b' || i, i % 50, 'v' || i from generate_series(1, 500) i;
analyze t;
set enable_seqscan = off;
set enable_bitmapscan = off;

-- How many rows, in the tag, for FOUND and ROW_COUNT.
\set QUIET off
update t set n = n + 1 where a = 5 and b = 'b5';
update t set n = n + 1, v = v || '!' where b = 'b5' and a = 5;
update t set n = n + 1 where a = 5 and b = 'b6';
update t set n = n + 1 where a = 5 and b = 'b5' and n > 90;
update t set n = n + 1 where a = null and b = 'b5';
update t set n = n + 1 where a = 5 and b = 'b5' and a = 6;
update t set v = 'long key' where a = 5 and b = repeat('x', 100000);
update t set n = w, w = n where a = 5 and b = 'b5';
update t set v = default, w = default where a = 5 and b = 'b5';
update t set v = null where a = 5 and b = 'b5';
update t set (n, v) = (select 9, 'sub') where a = 6 and b = 'b6';
update t set n = 1 where a = 7::bigint and b = 'b7';
update t set n = (select count(*) from t x where x.a < 8) where a = 8 and b = 'b8';
update t set v = t.*::text where a = 9 and b = 'b9';
update t set n = 2 where a = 10 and b = 'b10' returning a, n, v;
\set QUIET on
do $$
declare rows int;
begin
    update t set n = 3 where a = 11 and b = 'b11';
    get diagnostics rows = row_count;
    raise notice 'found: %, rows: %', found, rows;
    update t set n = 3 where a = 11 and b = 'none';
    raise notice 'found: %', found;
end $$;
select * from t where a between 5 and 11 order by a;

-- Commands of one transaction, subtransactions, a row of its own.
begin;
insert into t values (1000, 'new', 1, 'mine');
update t set n = n + 1 where a = 1000 and b = 'new';
update t set n = n + 1 where a = 1000 and b = 'new';
savepoint s;
update t set n = n + 10 where a = 1000 and b = 'new';
select n from t where a = 1000;
rollback to s;
select n from t where a = 1000;
delete from t where a = 1000;
update t set n = 0 where a = 1000 and b = 'new';
select count(*) from t where a = 1000;
commit;
select n from t where a = 1000;

-- A cursor goes on seeing what it saw.
begin;
declare c cursor for select n from t where a = 20;
update t set n = 33 where a = 20 and b = 'b20';
fetch c;
update t set n = 34 where current of c;
rollback;

-- Constraints, in their order, and errors of expressions.
update t set n = null where a = 5 and b = 'b5';
update t set n = 100 where a = 5 and b = 'b5';
update t set n = 100 where a = 5 and b = 'none';
update t set n = 1 / (n - n) where a = 5 and b = 'b5';
update t set n = 1 where a = 5 and b = 'b5' and 1 / (w - 7) > 0;
create domain small as int check (value < 10);
alter table t add s small;
update t set s = 9 where a = 5 and b = 'b5';
update t set s = 10 where a = 5 and b = 'b5';
select n, s from t where a = 5;

-- Conditions that are not written as comparisons.
create table flags (k bool primary key, n int) using :am;
insert into flags values (true, 1), (false, 0);
update flags set n = 5 where k;
update flags set n = 6 where not k;
update flags set n = n + 1 where k is true;
update flags set n = n + 1 where k = false;
select * from flags order by k;
drop table flags;
create table texts (k text collate "C" primary key, n int) using :am;
insert into texts values ('a', 1), ('b', 1);
update texts set n = 5 where k like 'a';
update texts set n = 6 where k ~ '^(b)$';
update texts set n = n + 1 where 'a' = k;
select * from texts order by k;
drop table texts;

-- All of the key is evaluated, whatever is null in it.
set plan_cache_mode = force_generic_plan;
prepare divided(int, int) as update t set n = 1 where a = $1 and b = 'b' || (1 / $2);
execute divided(null, 0);
deallocate divided;
reset plan_cache_mode;

-- What a constraint is told of is stored as it was, whatever the constraint does
-- with what it was given; and what it does it does once.
create function keeps(a int[]) returns boolean language plpgsql immutable as $$
begin
    a[1] := 777;
    a := a || 5;
    return true;
end $$;
create function reuses(v text) returns boolean language plpgsql immutable as $$
declare
    s text[];
begin
    for i in 1..50 loop
        s := array_append(s, repeat('Z', i));
    end loop;
    perform array_agg(i) from generate_series(1, 1000) i;
    return true;
end $$;
create table checked (k int primary key, arr int[] check (keeps(arr)), v text check (reuses(v))) using :am;
insert into checked values (1, '{1,2}', 'a');
update checked set arr = array_append(arr, 4) where k = 1;
update checked set arr[2] = 3, v = v || 'b' where k = 1;
select * from checked;
create sequence counted_checks;
create domain counting as int check (nextval('counted_checks') > 0);
create table counts (k int primary key, c counting, v text check (nextval('counted_checks') > 0)) using :am;
alter table counts alter v set storage external;
insert into counts values (1, 1, 'a');
update counts set v = 'b' where k = 1;
update counts set v = repeat('long', 5000) where k = 1;
update counts set c = 5, v = v || '!' where k = 1;
select last_value from counted_checks;
drop table checked, counts;
drop function keeps, reuses;
drop domain counting;
drop sequence counted_checks;

-- The key itself, and what others hold it to.
update t set b = 'b5x' where a = 5 and b = 'b5';
update t set a = 6, b = 'b6' where a = 5 and b = 'b5x';
update t set b = b where a = 5 and b = 'b5x';
create table refers (a int, b text, foreign key (a, b) references t on update cascade) using :am;
insert into refers values (5, 'b5x');
update t set n = 4 where a = 5 and b = 'b5x';
update t set b = 'b5' where a = 5 and b = 'b5x';
select * from refers;
drop table refers;

-- Foreign keys that the update does not touch; but a row that was inserted in the
-- same transaction, with a check that is late, is checked.
create table mother (k int primary key, n int) using :am;
create table child (k int primary key, m int references mother deferrable initially deferred, n int) using :am;
insert into mother values (1, 1), (2, 2);
insert into child values (1, 1, 1), (2, null, 2);
begin;
update child set n = 10 where k = 1;
update mother set n = 10 where k = 1;
insert into child values (3, 3, 3);
update child set n = 30 where k = 3;
commit;
begin;
insert into child values (3, 3, 3);
update child set n = 30 where k = 3;
insert into mother values (3, 3);
update mother set n = 30 where k = 3;
commit;
begin;
insert into child values (4, 4, 4);
savepoint a;
update child set n = 40 where k = 4;
rollback to a;
update child set n = 41 where k = 4;
set constraints all immediate;
rollback;
delete from mother where k = 3;
update child set m = 4 where k = 1;
update mother set k = 5 where k = 2;
update mother set k = 5 where k = 1;
select * from mother order by k;
select * from child order by k;
drop table mother, child;

-- Long values come, stay and go.
alter table t alter v set storage external;
update t set v = repeat('long', 5000) where a = 30 and b = 'b30';
update t set n = 31 where a = 30 and b = 'b30';
select n, length(v) from t where a = 30;
update t set v = 'short' where a = 30 and b = 'b30';
select n, v from t where a = 30;
do $$
declare chunks int;
begin
    execute format('select count(*) from %s',
                   (select reltoastrelid::regclass from pg_class where oid = 't'::regclass)) into chunks;
    raise notice 'chunks left: %', chunks;
end $$;

-- Indexes that look at the columns, and such that do not.
create index t_w on t (w);
create index t_expression on t ((n + 1)) where v <> '';
update t set s = 1 where a = 40 and b = 'b40';
update t set n = 77 where a = 40 and b = 'b40';
update t set v = '' where a = 41 and b = 'b41';
select a, n from t where n + 1 = 78 and v <> '' order by a;
select count(*) from t where n + 1 > 0 and v <> '';
select count(*) from t where w = 7;
drop index t_expression;

-- A plan that is kept learns of what comes later.
prepare up(int, text) as update t set n = n + 1 where a = $1 and b = $2;
set plan_cache_mode = force_generic_plan;
execute up(50, 'b50');
execute up(50, 'none');
execute up(null, 'b50');
create function note() returns trigger language plpgsql as
    $$ begin raise notice '% %: % -> %', tg_when, tg_level, old.n, new.n; return new; end $$;
create trigger note before update on t for each row execute function note();
execute up(50, 'b50');
drop trigger note on t;
create trigger note after update on t for each row execute function note();
execute up(50, 'b50');
drop trigger note on t;
create function told() returns trigger language plpgsql as
    $$ begin raise notice 'rows: %', (select count(*) from changed); return null; end $$;
create trigger told after update on t referencing new table as changed
    for each statement execute function told();
execute up(50, 'b50');
drop trigger told on t;
create index t_n on t (n);
execute up(50, 'b50');
select a from t where n = 5 order by a;
drop index t_n;
alter table t add g int generated always as (n * 2) stored;
execute up(50, 'b50');
select n, g from t where a = 50;
alter table t drop g;
execute up(50, 'b50');
create rule told as on update to t where new.n > 7 do also select 'a rule' as told;
execute up(50, 'b50');
drop rule told on t;
alter table t drop constraint t_pkey;
execute up(50, 'b50');
alter table t add primary key (b, a);
execute up(50, 'b50');
select n from t where a = 50;
reset plan_cache_mode;

-- Rights: to the columns, and to the rows.
create role by_key;
grant select (a, b, n), update (n) on t to by_key;
set role by_key;
update t set n = 0 where a = 60 and b = 'b60';
update t set v = 'x' where a = 60 and b = 'b60';
update t set n = 0 where a = 60 and b = 'b60' and v = 'v60';
reset role;
create function their_own() returns int language plpgsql stable as 'begin return 1; end';
revoke execute on function their_own from public;
revoke execute on function int4eq from public;
set role by_key;
update t set n = 0 where a = 60 and b = 'b60';
reset role;
grant execute on function int4eq to public;
set role by_key;
explain update t set n = their_own() where a = 60 and b = 'b60';
update t set n = 0 where a = 60 and b = 'b60' and n > their_own();
reset role;
drop function their_own;
create policy few on t using (a < 61) with check (n < 50);
alter table t enable row level security;
set role by_key;
\set QUIET off
update t set n = 1 where a = 60 and b = 'b60';
update t set n = 1 where a = 61 and b = 'b61';
\set QUIET on
update t set n = 60 where a = 60 and b = 'b60';
reset role;
alter table t disable row level security;
drop policy few on t;
revoke all on t from by_key;
drop role by_key;
begin read only;
update t set n = 0 where a = 60 and b = 'b60';
rollback;

-- Views, partitions, children.
create view seen as select a, b, n, v from t where n < 50 with check option;
\set QUIET off
update seen set n = 8 where a = 70 and b = 'b70';
\set QUIET on
update seen set n = 60 where a = 70 and b = 'b70';
drop view seen;
create table p (k int primary key, n int) partition by range (k);
create table p1 partition of p for values from (0) to (100) using :am;
create table p2 partition of p for values from (100) to (200) using :am;
insert into p select i, i from generate_series(0, 199) i;
\set QUIET off
update p set n = 0 where k = 5;
update p1 set n = 0 where k = 6;
update p set k = 150000 where k = 7;
update p1 set k = 150 where k = 8;
update p2 set n = 0 where k = 8;
\set QUIET on
select * from p where k between 4 and 8 order by k;
create table mother (k int primary key, n int) using :am;
create table child (primary key (k)) inherits (mother) using :am;
insert into mother values (1, 1);
insert into child values (1, 1), (2, 2);
\set QUIET off
update mother set n = 3 where k = 1;
update only mother set n = 4 where k = 1;
\set QUIET on
select tableoid::regclass, * from mother order by 1, 2;

-- Keys, conditions and values in the forms that they are written in.
create table forms (k varchar(10) collate "C" primary key, n int[], x numeric default 2.50, j jsonb) using :am;
insert into forms values ('a', '{1,2}', 1, '{"a": 1}'), ('A', '{3}', 1, null), ('', null, 1, null);
\set QUIET off
update forms set n[2] = 7, n[1] = n[2] where k = 'a';
update forms set x = default where k = 'A'::text;
update forms set x = x / 3, j['b'] = '2' where 'a' = k;
update forms set x = 0 where k = 'a' collate "POSIX";
update forms set x = x + 1 where k = '' and true;
update forms set x = x + 1 where k = '' and null;
update forms set x = x + 1 where k = '' and x > 0 and x < 100;
update forms set x = x + 1 where k = 'a' and k = 'a';
update forms set x = x + 1 where k = 'a' and k = 'b';
update forms set x = 1 / 0 where k = 'none';
update forms set x = 1 where k = 'none' and 1 / 0 = 1;
update forms set n = '{1}', n = '{2}' where k = 'a';
prepare by_form(text, numeric) as update forms set x = x * $2 where k = $1;
execute by_form('a', 2);
execute by_form(null, 2);
execute by_form('A', null);
execute by_form('none', 2);
\set QUIET on
select * from forms order by k;
create role owner_only;
create table private_rows (k int primary key, who name, n int) using :am;
insert into private_rows values (1, 'owner_only', 0), (2, 'somebody', 0);
alter table private_rows enable row level security;
create policy own on private_rows using (who = current_user);
grant select, update (n) on private_rows to owner_only;
set role owner_only;
\set QUIET off
update private_rows set n = 1 where k = 1;
update private_rows set n = 1 where k = 2;
update private_rows set who = 'owner_only' where k = 2;
update forms set x = 0 where k = 'a';
\set QUIET on
reset role;
select * from private_rows order by k;
drop table forms, private_rows;
drop role owner_only;

-- What the statistics count.
create table counted (k int primary key, n int) using :am;
insert into counted values (1, 1), (2, 2);
select pg_stat_force_next_flush();
select pg_stat_reset_single_table_counters('counted'::regclass),
       pg_stat_reset_single_table_counters('counted_pkey'::regclass);
update counted set n = 5 where k = 1;
update counted set n = 5 where k = 3;
select pg_stat_force_next_flush();
select n_tup_upd, n_tup_hot_upd, idx_scan, idx_tup_fetch from pg_stat_user_tables where relname = 'counted';

-- Temporary and unlogged tables, tables without a key, deferrable keys.
create temp table temporary (k int primary key, n int) using :am;
insert into temporary values (1, 1);
update temporary set n = 2 where k = 1;
create unlogged table unlogged (k int primary key, n int) using :am;
insert into unlogged values (1, 1);
update unlogged set n = 2 where k = 1;
create table late (k int primary key deferrable, n int) using :am;
insert into late values (1, 1);
update late set n = 2 where k = 1;
select * from temporary, unlogged, late;

drop table t, p, mother, child, counted, temporary, unlogged, late;
drop function note, told;
drop domain small;
