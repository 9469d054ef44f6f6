-- Which UPDATEs get a node of ours, and what EXPLAIN says of it.
create table t (a int, b text, n int, v text, primary key (a, b)) using :am;
insert into t select i, 'b' || i, i, 'v' || i from generate_series(1, 500) i;
create index on t (v);
analyze t;
set enable_seqscan = off;
set enable_bitmapscan = off;

explain (costs off) update t set n = n + 1 where a = 5 and b = 'b5';
explain (costs off, verbose) update t x set n = x.n + 1, b = b where a = 5 and b = 'b5';
explain (costs off) update t set n = length(v) where 'b' || 5 = b and a = 2 + 3 and n > 0 and v > '';
explain (analyze, costs off, timing off, summary off) update t set n = 0 where a = 5 and b = 'b5' and n <> 5;
explain (analyze, costs off, timing off, summary off, format yaml) update t set n = 0 where a = 5 and b = 'b5';
prepare up(int, text) as update t set n = n + 1 where a = $1 and b = $2;
set plan_cache_mode = force_generic_plan;
explain (costs off) execute up(5, 'b5');
reset plan_cache_mode;

create view seen as select a, b, n from t;
explain (costs off) update seen set n = 0 where a = 5 and b = 'b5';

-- More than a row's change, or less than its key.
create function is_ours(statement text) returns boolean language plpgsql as $$
declare line text;
begin
    for line in execute 'explain (costs off) ' || statement loop
        return line ~ 'RowRef Update';
    end loop;
end $$;
create function volatile_one() returns int volatile language plpgsql as 'begin return 1; end';
create table part (k int primary key, n int) partition by range (k);
create table part1 partition of part for values from (0) to (100) using :am;
create table late (k int primary key deferrable, n int) using :am;
create table made (k int primary key, n int, g int generated always as (n + 1) stored) using :am;
create table wide (k bigint primary key, n int) using :am;
create table inc (k int, n int, primary key (k) include (n)) using :am;
create table heap_table (k int primary key, n int) using heap;
create table others (a int primary key) using :am;
create table refers (k int primary key, n int, a int references others on delete cascade on update cascade,
                     x int, y text, u int unique) using :am;
create table refers_further (k int primary key, n int, u int references refers (u)) using :am;
create table refers_by_two (k int primary key, n int, x int, y text, foreign key (x, y) references t (a, b)) using :am;
create function quiet() returns trigger language plpgsql as 'begin return new; end';
create table flags (k bool primary key, n int) using :am;
create domain small as int check (value < 10);
create table domained (k int primary key, n int, s small) using :am;
create table checked (k int primary key, n int check (n <> volatile_one())) using :am;
create table told_of_others (k int primary key, n int) using :am;
create trigger quiet before insert or delete on told_of_others for each row execute function quiet();
create table told (k int primary key, n int) using :am;
create trigger quiet after update on told for each row execute function quiet();
create table told_once (k int primary key, n int) using :am;
create trigger quiet before update on told_once for each statement execute function quiet();
select is_ours(statement), statement from (values
    ('update t set n = 1 where a = 5 and b = ''b5'''),
    ('update t set n = 1 where a = 5 and b = ''b5'' and v > '''''),
    ('update t set n = 1 where a = 5 and b = ''b5'' returning n'),
    ('update t set v = '''' where a = 5 and b = ''b5'''),
    ('update t set b = '''' where a = 5 and b = ''b5'''),
    ('update t set n = 1 where a = 5'),
    ('update t set n = 1 where a = 5 and b >= ''b5'''),
    ('update t set n = 1 where a in (5, 6) and b = ''b5'''),
    ('update t set n = 1 where a = 5::bigint and b = ''b5'''),
    ('update t set n = volatile_one() where a = 5 and b = ''b5'''),
    ('update t set n = 1 where a = 5 and b = ''b5'' and n > volatile_one()'),
    ('update t set n = (select max(a) from others) where a = 5 and b = ''b5'''),
    ('update t set n = 1 from others where t.a = 5 and b = ''b5'''),
    ('update t set n = 1 where a = 5 and b = ''b5'' and ctid is not null'),
    ('update t set n = 1 where a = 5 and b = ''b5'' and xmin <> ''0'''),
    ('update t set n = 1 where a = 5 and b = ''b5'' and t is not null'),
    ('with w as (update others set a = a returning a) update t set n = 1 where a = 5 and b = ''b5'''),
    ('update part set n = 1 where k = 5'),
    ('update part1 set n = 1 where k = 5'),
    ('update late set n = 1 where k = 5'),
    ('update made set n = 1 where k = 5'),
    ('update flags set n = 1 where k'),
    ('update flags set n = 1 where not k'),
    ('update domained set n = 1 where k = 5'),
    ('update domained set s = 1 where k = 5'),
    ('update checked set n = 1 where k = 5'),
    ('update others set a = 1 where a = 5'),
    ('update refers set n = 1 where k = 5'),
    ('update refers set a = 1 where k = 5'),
    ('update refers set u = 1 where k = 5'),
    ('update refers_further set n = 1 where k = 5'),
    ('update refers_further set u = 1 where k = 5'),
    ('update refers_by_two set n = 1 where k = 5'),
    ('update told_of_others set n = 1 where k = 5'),
    ('update told set n = 1 where k = 5'),
    ('update told_once set n = 1 where k = 5'),
    ('update wide set n = 1 where k = 5::bigint'),
    ('update inc set n = 1 where k = 5'),
    ('update heap_table set n = 1 where k = 5'),
    ('delete from t where a = 5 and b = ''b5''')) s (statement);

-- Which of them are planned without the planner: their cost is a page's and a row's.
create function is_direct(statement text) returns boolean language plpgsql as $$
declare plan json;
begin
    execute 'explain (format json) ' || statement into plan;
    return (plan -> 0 -> 'Plan' ->> 'Total Cost')::float = 1234.01;
end $$;
create function same(x int) returns int immutable language sql as 'select x';
create table texts (k text collate "C" primary key, n int) using :am;
create table chars (k varchar(10) primary key, n int[]) using :am;
create table mother (k int primary key, n int) using :am;
create table child () inherits (mother) using :am;
create table guarded (k int primary key, n int) using :am;
alter table guarded enable row level security;
create policy p on guarded using (n > 0);
create role reader;
grant all on guarded to reader;
set random_page_cost = 1234;
select is_direct(statement), is_ours(statement), statement from (values
    ('update t set n = 1 where a = 5 and b = ''b5'''),
    ('update t x set n = x.n + 2 * 3, b = b where ''b5'' = b and a = 5'),
    ('update t set n = x.n + 2 * 3 from t x where t.a = 5 and t.b = ''b5'' and x.a = 1 and x.b = ''b1'''),
    ('update t set n = 1 where a = 2 + 3 and b = ''b'' || 5 and n <> 0'),
    ('update t set n = 1 where a = 5 and b = ''b5'' and n <> 0 and n < 9'),
    ('update t set n = 1 where a = 5 and b = ''b5'' and now() > ''2000-01-01'''),
    ('update t set n = 1 where a = 5 and b = ''b5'' and true'),
    ('update t set n = 1 where a = 5 and b = v'),
    ('update t set n = same(3) where a = 5 and b = ''b5'''),
    ('update seen set n = 0 where a = 5 and b = ''b5'''),
    ('update texts set n = 0 where k = ''x'''),
    ('update texts set n = 0 where k = ''x'' collate "POSIX"'),
    ('update chars set n = ''{1}'' where k = ''x'''),
    ('update chars set n[2] = 5 where k = ''x''::text'),
    ('update mother set n = 1 where k = 1'),
    ('update only mother set n = 1 where k = 1'),
    ('update wide set n = 1 where k = 5::bigint'),
    ('update heap_table set n = 1 where k = 5')) s (statement);
set enable_indexscan = off;
select is_direct('update t set n = 1 where a = 5 and b = ''b5''');
reset enable_indexscan;
set role reader;
explain (costs off) update guarded set n = 1 where k = 5;
reset role;
reset random_page_cost;
drop table texts, chars, mother, child, guarded;
drop role reader;
drop function is_direct, same;

-- What the node cannot do it leaves to what it stands for, shown below it.
alter table t alter v set storage external;
create table long (k int primary key, n int, v text) using :am;
alter table long alter v set storage external;
insert into long values (1, 1, repeat('x', 10000));
explain (analyze, costs off, timing off, summary off) update long set n = 2 where k = 1;
select k, n, length(v) from long;
begin isolation level serializable;
explain (analyze, costs off, timing off, summary off) update wide set n = 1 where k = 5::bigint;
rollback;

drop view seen;
drop table part, flags, domained, checked, late, made, wide, inc, heap_table, refers_by_two, refers_further, refers,
    others, t, long, told, told_once, told_of_others;
drop domain small;
drop function is_ours, volatile_one, quiet;
