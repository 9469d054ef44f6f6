-- Scans of indexes stored beside an iot table, each query compared with the
-- same one on a heap copy: the rows, their order, and that the index was used.
set enable_seqscan = off;
set enable_bitmapscan = off;
set enable_sort = off;
set enable_incremental_sort = off;
set max_parallel_workers_per_gather = 0;

-- '@' in a query stands for the tables of either kind. The rows have to be the
-- same, and what it orders by has to come in the same order.
create function compare(query text) returns text language plpgsql as $$
declare
  kind text;
  keys text := coalesce(regexp_replace(substring(query from 'order by (.*?)( limit.*)?$'), ' (desc|nulls first|nulls last)', '', 'g'), '1');
  one text;
  rows text[] := '{}';
  orders text[] := '{}';
  line text;
  scans text := '';
  count text;
begin
  foreach kind in array array['iot_', 'heap_'] loop
    execute 'select array_agg(r::text order by r::text)::text, count(*) from (' || replace(query, '@', kind) || ') r' into one, count;
    rows := rows || one;
    execute 'select array_agg(row(' || keys || ')::text)::text from (' || replace(query, '@', kind) || ') r' into one;
    orders := orders || one;
  end loop;
  for line in execute 'explain (costs off) ' || replace(query, '@', 'iot_') loop
    if line ~ 'Scan|Join|Nested|Sort|Gather' then
      scans := scans || ', ' || regexp_replace(line, '^ *(-> *)?| on .*', '', 'g');
    end if;
  end loop;
  return count || ' rows'
    || case when rows[1] is distinct from rows[2] then ' DIFFER from ' || coalesce(rows[2], 'none') || ', being ' || coalesce(rows[1], 'none') else '' end
    || case when orders[1] is distinct from orders[2] then ' IN ANOTHER ORDER than ' || coalesce(orders[2], 'none') || ', being ' || coalesce(orders[1], 'none') else '' end
    || scans;
end $$;

-- Steps of a scrollable cursor: n(ext), p(rior), f(irst), l(ast), a(bsolute 7), r(elative -3).
create function stroll(query text, steps text) returns text language plpgsql as $$
declare
  kind text;
  way text;
  step text;
  place refcursor;
  one record;
  ways text[] := '{}';
begin
  foreach kind in array array['iot_', 'heap_'] loop
    way := '';
    open place scroll for execute replace(query, '@', kind);
    foreach step in array string_to_array(steps, null) loop
      case step
        when 'n' then fetch next from place into one;
        when 'p' then fetch prior from place into one;
        when 'f' then fetch first from place into one;
        when 'l' then fetch last from place into one;
        when 'a' then fetch absolute 7 from place into one;
        when 'r' then fetch relative -3 from place into one;
      end case;
      way := way || case when found then one::text else '-' end;
    end loop;
    close place;
    ways := ways || way;
  end loop;
  return case when ways[1] = ways[2] then 'same way' else 'DIFFERENT: ' || ways[1] || ' instead of ' || ways[2] end;
end $$;

-- Nulls on either side, in columns of either direction.
create table iot_t (id int primary key, a int2, b text collate "C", c int8, d numeric) using :am;
insert into iot_t select i, nullif(i % 7, 3), nullif('b' || i % 11, 'b5'), nullif(i % 13, 0), (i % 5) / 2.0 from generate_series(1, 2002) i;
create table heap_t using heap as select * from iot_t order by id;
alter table heap_t add primary key (id);
create index iot_t_ab on iot_t (a, b desc, c nulls first);
create index heap_t_ab on heap_t (a, b desc, c nulls first);
create index iot_t_c on iot_t (c desc nulls last) include (b, d);
create index heap_t_c on heap_t (c desc nulls last) include (b, d);
create index iot_t_d on iot_t (d);
create index heap_t_d on heap_t (d);
create index iot_t_half on iot_t ((c * 2), (b || 'x')) where a > 2;
create index heap_t_half on heap_t ((c * 2), (b || 'x')) where a > 2;
analyze iot_t;
analyze heap_t;
select compare('select * from @t where a = 4 and b = ''b3'' and c = 2');
select compare('select * from @t where a = 4 and b = ''b3'' order by c nulls first');
select compare('select * from @t where a = 4::bigint and b = ''b3'' order by c desc nulls last');
select compare('select * from @t where a = 4 and b is null order by c nulls first');
select compare('select * from @t where a = 4 and b is not null and b > ''b8'' order by b desc, c nulls first');
select compare('select * from @t where a = 4 and b is not null order by b desc, c nulls first');
select compare('select * from @t where a = 4 and b < ''b2'' order by b, c desc nulls last');
select compare('select * from @t where a is null order by b desc, c nulls first');
select compare('select * from @t where a is null and b is null');
select compare('select * from @t where a is null and b is null and c is null');
select compare('select * from @t where a is null and b is null and c is not null');
select compare('select * from @t where a is not null order by a, b desc, c nulls first');
select compare('select * from @t where a > 4 order by a desc, b, c desc nulls last');
select compare('select * from @t where a <= 2 and c = 4 order by a, b desc');
select compare('select * from @t where a <= 2 and c is null order by a, b desc');
select compare('select * from @t where a <= 2 and b in (''b1'', ''b9'') and c > 4 order by a, b desc, c nulls first');
select compare('select * from @t where a in (6, 1, 4, 99, null) and b in (''b1'', ''b9'', ''zz'') order by a, b desc, c nulls first');
select compare('select * from @t where a in (6, 1, 4, 99, null) and b in (''b1'', ''b9'', ''zz'') and c = any (array[3, 4, 12])');
select compare('select * from @t where a = any (array[]::int2[])');
select compare('select * from @t where a = 4 and a is null');
select compare('select * from @t where a > 4 and a is null');
select compare('select * from @t where a = null::int2');
select compare('select count(*) from @t where a < any (array[2, 1]::int2[])');
select compare('select * from @t order by a, b desc, c nulls first');
select compare('select * from @t order by a desc, b, c desc nulls last');
select compare('select a from @t order by a limit 5');
select compare('select a, b from @t where a = 6 order by b desc limit 3 offset 100');
select compare('select min(a), max(a) from @t');
select compare('select min(c), max(c) from @t');
select compare('select count(*) from @t where (a, b) > (4, ''b3'')');

-- From the entry alone: INCLUDE columns, values that compare as equal but are
-- not the same, and the primary key.
select compare('select c, b, d from @t where c = 4');
select compare('select c, b, d from @t where c is null');
select compare('select c, b, d from @t order by c desc nulls last');
select compare('select c, b, d from @t where c between 3 and 6 and b = ''b7'' order by c');
select compare('select d from @t where d = 1');
select compare('select d from @t where d > 0.50 order by d desc');
update iot_t set d = 1.000 where id % 10 = 2;
update heap_t set d = 1.000 where id % 10 = 2;
select compare('select d, count(*) from (select d::text as d from @t where d in (1, 2)) x group by d order by d collate "C"');
explain (costs off) select id from iot_t where c = 4;
select (select array_agg(id order by id) from iot_t where c = 4) = (select array_agg(id order by id) from heap_t where c = 4) as same;
explain (costs off) select id, c from iot_t where c = 4 and id < 50;
select id, c from iot_t where c = 4 and id < 50;
explain (costs off) select sum(id) from iot_t where a = 4 and b = 'b3';
select (select sum(id) from iot_t where a = 4 and b = 'b3') = (select sum(id) from heap_t where a = 4 and b = 'b3') as same;
explain (costs off) select x.id from iot_t x where exists (select from iot_t y where y.c = x.id and y.id < 20) and x.a is null;
select x.id from iot_t x where exists (select from iot_t y where y.c = x.id and y.id < 20) and x.a is null order by 1;
explain (costs off) select id, ctid from iot_t where c = 4;
explain (costs off) select t from iot_t t where c = 4;

-- Expressions and a predicate.
select compare('select * from @t where a > 2 and c * 2 = 8 order by b || ''x''');
select compare('select * from @t where a > 2 and c * 2 > 20 and b || ''x'' = ''b3x'' order by c * 2');
select compare('select id from @t where a > 2 and c * 2 is null and b || ''x'' is null');
select compare('select count(*) from @t where a > 2');

-- Joins: by lookup, and by merging with marks among many equal keys.
set enable_hashjoin = off;
set enable_mergejoin = off;
set enable_material = off;
set enable_memoize = off;
select compare('select count(*), sum(y.id) from @t x join @t y on y.c = x.id where x.id < 10');
select compare('select count(*), sum(y.id) from @t x join @t y on y.c in (x.id, x.id + 1, 7) where x.id < 10');
set enable_nestloop = off;
set enable_mergejoin = on;
select compare('select count(*), sum(x.id * y.id::numeric) from @t x join @t y on x.c = y.c where x.id < 100 and y.id < 100');
select compare('select count(*), sum(x.id * y.id::numeric) from @t x join @t y on x.a = y.a');
reset enable_nestloop;
reset enable_hashjoin;
reset enable_material;
reset enable_memoize;

-- Cursors turn round.
select stroll('select a, b, c from @t where a = 4 order by b desc, c nulls first', repeat('nnp', 60) || 'lppnnfnnarr' || repeat('ppn', 70));
select stroll('select a, b, c from @t order by a, b desc, c nulls first', repeat('n', 900) || repeat('p', 905) || repeat('n', 20));
select stroll('select a, b, c from @t order by a desc, b, c desc nulls last', 'l' || repeat('p', 900) || repeat('n', 905) || repeat('p', 20));
select stroll('select c from @t where c is null', 'nnpnnplppnfnnarr');
select stroll('select a, b from @t where a in (1, 2) and b in (''b1'', ''b3'')', repeat('nnnp', 20) || repeat('ppn', 30));

-- The row of an index-only scan can be come back for.
begin;
declare here cursor for select id, c from iot_t where c = 4 and id < 100;
move 2 in here;
fetch here;
update iot_t set d = 77 where current of here;
fetch here;
delete from iot_t where current of here;
select * from iot_t where c = 4 and id < 100 order by id;
rollback;

-- What a scan of an index sees is its snapshot's, whatever is done meanwhile.
begin;
declare still scroll cursor for select id, c from iot_t where c >= 11 order by c desc nulls last;
declare still_only scroll cursor for select c from iot_t where c >= 11 order by c desc nulls last;
fetch 2 from still;
fetch 2 from still_only;
update iot_t set c = c + 100 where c between 11 and 12 and id % 2 = 0;
delete from iot_t where c between 11 and 12 and id % 3 = 0;
update iot_t set id = -id where c = 12;
insert into iot_t select 5000 + i, 1, 'new', 11 from generate_series(1, 50) i;
move forward 150 in still;
fetch 2 from still;
fetch backward 2 from still;
move forward all in still;
fetch backward 1 from still;
move forward all in still_only;
fetch backward 1 from still_only;
select count(*), sum(id), min(c), max(c) from iot_t where c >= 11;
rollback;

-- Both copies change alike; an entry that ended answers no more, and one that
-- was made answers, without VACUUM and after it.
create function change(what text) returns void language plpgsql as $$
begin
  execute replace(what, '@', 'iot_');
  execute replace(what, '@', 'heap_');
end $$;
create function check_all() returns setof text language sql as $$
  select compare('select id, a, b, c, d from @t where a = 4 order by b desc, c nulls first, id')
  union all select compare('select a, b, c from @t order by a, b desc, c nulls first')
  union all select compare('select c, b from @t where c > 5 order by c, b')
  union all select compare('select id from (select id from @t where c is null) x order by id')
  union all select compare('select id from (select id from @t where a > 2 and c * 2 < 9) x order by id')
$$;
set enable_sort = on;
select change('update @t set a = 4 where id % 10 = 1');
select * from check_all();
select change('update @t set c = null, b = ''b'' || id where id % 10 = 2');
select * from check_all();
select change('update @t set id = id + 10000 where id % 10 = 3');
select * from check_all();
select change('delete from @t where id % 4 = 0');
select * from check_all();
select change('insert into @t select i, i % 5, ''b'' || i % 3, i % 9, 1 from generate_series(20000, 20200) i');
select change('update @t set a = a + 1, c = c - 1 where id % 3 = 0');
select * from check_all();
begin;
select change('update @t set a = 1, b = ''gone'', c = 1');
select change('delete from @t where id % 2 = 0');
select * from check_all();
rollback;
select * from check_all();
vacuum iot_t;
vacuum heap_t;
select * from check_all();
set enable_sort = off;

-- Rows with hidden ids.
create table iot_free (n int, w text) using :am;
insert into iot_free select i % 50, 'w' || i from generate_series(1, 1000) i;
create table heap_free using heap as select * from iot_free;
create index on iot_free (n);
create index on heap_free (n);
create index on iot_free (w collate "C" desc);
create index on heap_free (w collate "C" desc);
select compare('select * from @free where n = 7');
select compare('select n from @free where n between 7 and 9 order by n desc');
select compare('select * from @free where w collate "C" < ''w2'' order by w collate "C" desc');
select compare('select count(*) from @free where n in (1, 5, 7)');

-- Keys that compare by a function, and names, which indexes keep as C strings.
create table iot_word (k text collate "en-x-icu", n name, r int4range, i int, primary key (i, n)) using :am;
insert into iot_word select w, 'n' || n % 4, int4range(n, n + 5), n from unnest(array['a', 'A', 'ä', 'Ä', 'b', 'Z', null, '', 'aa', 'co-op', 'coop', 'CO-OP', repeat('long', 60)]) with ordinality u (w, o), generate_series(o::int * 10, o::int * 10 + 8) n;
create table heap_word using heap as select * from iot_word order by i, n;
alter table heap_word add primary key (i, n);
create index on iot_word (k, r desc);
create index on heap_word (k, r desc);
create index on iot_word (n);
create index on heap_word (n);
create index on iot_word (r) include (n, k);
create index on heap_word (r) include (n, k);
select compare('select * from @word order by k, r desc');
select compare('select k, r from @word where k = ''coop'' order by r desc');
select compare('select k, r from @word where k > ''coop'' and k <= ''Z'' order by k desc, r');
select compare('select k, r from @word where k is null order by r');
select compare('select k, r from @word where k in (''Z'', ''a'', ''A'') and r = int4range(11, 16)');
select compare('select n from @word where n = ''n2''');
select compare('select n, i from (select n, i from @word where n >= ''n2'') x order by n, i');
select compare('select r, n, k from @word where r > int4range(100, 105) order by r');

-- Several workers: each row once, in order where order is asked for.
create table iot_big (id int primary key, g int, h int) using :am;
insert into iot_big select i, i % 100, i / 7 from generate_series(1, 30000) i;
create table heap_big using heap as select * from iot_big;
alter table heap_big add primary key (id);
create index on iot_big (g, h);
create index on heap_big (g, h);
analyze iot_big;
analyze heap_big;
set max_parallel_workers_per_gather = 2;
set parallel_setup_cost = 0;
set parallel_tuple_cost = 0;
set min_parallel_table_scan_size = 0;
set min_parallel_index_scan_size = 0;
select compare('select count(*), sum(h), sum(id) from @big where g between 10 and 60');
select compare('select count(*), sum(h) from @big where g between 10 and 60');
select compare('select count(*), sum(g), sum(h) from @big where g in (3, 5, 7, 9, 99, 100)');
select compare('select count(*), sum(g), sum(h) from @big where g in (3, 5, 7, 9, 99, 100) and h in (1, 100, 2000, 4000)');
select compare('select count(*), sum(g) from @big where id between 100 and 25000');
select compare('select count(*) from @big where id > 100');
select compare('select sum(g), count(*) from @big where id in (1, 2, 3, 29999, 40000)');
select compare('select g, h from @big where g between 10 and 12 order by g, h');
select compare('select g, count(*), sum(id) from @big group by g order by g');
select compare('select count(*), sum(x.id) from @big x join @big y on y.id = x.h where x.g = 5');
-- Begun again for each row of a join.
set enable_hashjoin = off;
set enable_mergejoin = off;
set enable_material = off;
select compare('select n, c from (values (1), (2), (3)) v(n) left join lateral (select count(*) c from @big where g between 10 and 60) x on x.c > v.n');

-- Left to itself the planner takes an index for few rows and not for many, and
-- knows rows that lie together by the order of the key, however they came.
reset all;
set max_parallel_workers_per_gather = 0;
create table iot_plan (id int primary key, v int, near int, pad text) using :am;
insert into iot_plan select i, i * 7919 % 40000, i / 4, repeat('p', 100) from (select i * 7907 % 40000 as i from generate_series(0, 39999) i) x;
create index on iot_plan (v);
create index on iot_plan (near);
analyze iot_plan;
select attname, abs(correlation) > 0.99 as follows_the_key from pg_stats where tablename = 'iot_plan' and attname in ('id', 'v', 'near') order by 1;
explain (costs off) select * from iot_plan where v = 77;
explain (costs off) select id from iot_plan where v between 70 and 90;
explain (costs off) select * from iot_plan where v > 100;
explain (costs off) select * from iot_plan where near between 100 and 400;
explain (costs off) select * from iot_plan order by v limit 3;
explain (costs off) select max(v) from iot_plan;
explain (costs off) select * from iot_plan x join iot_plan y on y.v = x.near where x.id < 10;
explain (costs off) select count(*) from iot_plan;
explain (costs off) select * from iot_plan where (v, id) > (39000, 5) order by v, id limit 2;
