-- Sets of row references in the place of bitmaps: what a plan looks like, and
-- that each query finds the rows that its heap copy finds.
set max_parallel_workers_per_gather = 0;

-- '@' in a query stands for the tables of either kind. Rows are compared
-- without their order.
create function compare(query text) returns text language plpgsql as $$
declare
  ours text[];
  theirs text[];
  line text;
  sets text := '';
begin
  execute 'select array_agg(r::text order by r::text) from (' || replace(query, '@', 'iot_') || ') r' into ours;
  execute 'select array_agg(r::text order by r::text) from (' || replace(query, '@', 'heap_') || ') r' into theirs;
  for line in execute 'explain (costs off) ' || replace(query, '@', 'iot_') loop
    if line ~ 'Row Set' then
      sets := sets || ', ' || trim(line);
    elsif line ~ 'Bitmap' then
      sets := sets || ', BITMAP ' || trim(line);
    end if;
  end loop;
  return coalesce(cardinality(ours), 0) || ' rows'
    || case when ours is distinct from theirs then ' DIFFER from ' || coalesce(theirs::text, 'none') || ', being ' || coalesce(ours::text, 'none') else '' end
    || sets;
end $$;

create table iot_t (k int primary key, a int, v text) using :am;
create table heap_t (k int primary key, a int, v text) using heap;
insert into iot_t select i, i % 500, 'row ' || i from generate_series(1, 20000) i;
insert into heap_t select * from iot_t order by k;
create table iot_two (x int, y text, n numeric, primary key (x, y)) using :am;
create table heap_two (x int, y text, n numeric, primary key (x, y)) using heap;
insert into iot_two select i % 100, 'y' || i, i / 7.0 from generate_series(1, 10000) i;
insert into heap_two select * from iot_two;
vacuum analyze iot_t;
vacuum analyze heap_t;
vacuum analyze iot_two;
vacuum analyze heap_two;

explain (costs off) select * from iot_t where k = 5 or k = 77 or k between 100 and 110;
explain (analyze, costs off, timing off, summary off)
select v from iot_t where k < 3 or k between 2 and 4 and v <> 'row 3' or k = 20001;
select * from iot_t where k < 3 or k between 2 and 4 and v <> 'row 3' or k = 20001;

select q, compare(q) from (values
  ('select * from @t where k = 5 or k = 77 or k between 100 and 110'),
  ('select * from @t where k = 5 or k = 5 or k = 5'),
  ('select * from @t where (k < 50 or k > 19950) and (k between 40 and 60 or k in (10, 19990))'),
  ('select * from @t where k = 1 or k is null'),
  ('select k, xmin is not null as has_writer from @t where k = 5 or k = 77'),
  ('select count(*) from @t where k < 100 or k > 19900'),
  ('select * from @two where x = 5 and y < ''y3'' or x = 7 and y > ''y8'''),
  ('select * from @two where (x = 5 or x = 7) and n > 1000'),
  ('select t.k, two.y from @t t join @two two on two.x = t.k or two.x = t.k + 50 where t.k in (3, 4) and two.y < ''y3'''),
  ('select (select count(*) from @two two where two.x = t.k or two.x = t.k * 2) from @t t where k < 30')
) as queries (q);

-- Rows come in the order of their keys, and a LIMIT stops the fetching.
select k from iot_t where k = 500 or k = 3 or k between 90 and 92 limit 4;

-- The set of a rescan follows its arguments.
prepare pick(int, int) as select k, v from iot_t where k = $1 or k = $2;
set plan_cache_mode = force_generic_plan;
explain (costs off) execute pick(1, 2);
execute pick(10, 20);
execute pick(20, null);
execute pick(null, null);
reset plan_cache_mode;

-- Writers find their rows by it, and by its ctids.
explain (costs off) update iot_t set v = 'new' where k = 5 or k = 6;
update iot_t set v = 'new' where k = 5 or k = 6;
delete from iot_t where k = 7 or k = 8 returning k, v;
select compare('select * from @t where k = 5 or k = 6 or k = 7') like '%DIFFER%' as differs;
update heap_t set v = 'new' where k = 5 or k = 6;
delete from heap_t where k = 7 or k = 8;
select compare('select * from @t where k = 5 or k = 6 or k = 7 or k = 8');
begin;
declare c cursor for select k, v from iot_t where k = 15 or k = 16;
fetch 1 from c;
update iot_t set v = 'at the cursor' where current of c returning k;
select k, v from iot_t where k = 15 or k = 16 for update;
rollback;

-- Sets that do not fit into work_mem, but for one of rows that lie together.
create table iot_sparse (k bigint primary key, v int) using :am;
create table heap_sparse (k bigint primary key, v int) using heap;
insert into iot_sparse select i * 1000000007::bigint, i from generate_series(1, 20000) i;
insert into heap_sparse select * from iot_sparse;
analyze iot_sparse;
set work_mem = '64kB';
set enable_seqscan = off;
set enable_indexscan = off;
set enable_indexonlyscan = off;
explain (analyze, costs off, timing off, summary off)
select count(*) from iot_t where (k < 9000 or k > 5000) and k % 2 = 0;
select compare('select * from @t where k < 9000 or k > 5000');
explain (analyze, costs off, timing off, summary off)
select count(*) from iot_sparse where (k < 9000000000000 or k > 5000000000000) and v % 2 = 0;
select compare('select * from @sparse where k < 9000000000000 or k > 5000000000000');
select compare('select * from @two where x < 60 or x > 40');
reset work_mem;

-- Partitions of both kinds, and inheritance.
create table parted (k int primary key, v text) partition by range (k);
create table parted_ours partition of parted for values from (0) to (1000) using :am;
create table parted_heap partition of parted for values from (1000) to (2000) using heap;
insert into parted select i, 'p' || i from generate_series(0, 1999) i;
analyze parted;
explain (costs off) select * from parted where k = 5 or k = 995 or k = 1005;
select * from parted where k = 5 or k = 995 or k = 1005 order by k;

-- A row of this table may be named by different bytes, so that there are no sets.
create table iot_numeric (n numeric primary key) using :am;
insert into iot_numeric select i from generate_series(1, 10000) i;
analyze iot_numeric;
explain (costs off) select * from iot_numeric where n = 1 or n = 2;

-- Where sets are not wanted none is used.
set enable_bitmapscan = off;
reset enable_seqscan;
reset enable_indexscan;
explain (costs off) select * from iot_t where k = 5 or k = 77;
