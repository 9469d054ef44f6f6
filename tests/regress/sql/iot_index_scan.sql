-- Scans of the primary key of an iot table, each compared with the same query
-- on a heap copy: the rows, their order, and that the key was really scanned.
set enable_seqscan = off;
set enable_bitmapscan = off;
set enable_sort = off;
set max_parallel_workers_per_gather = 0;

-- '@' in a query stands for the tables of either kind.
create function compare(query text) returns text language plpgsql as $$
declare
  ours text[];
  theirs text[];
  line text;
  scans text := '';
begin
  execute 'select array_agg(r::text) from (' || replace(query, '@', 'iot_') || ') r' into ours;
  execute 'select array_agg(r::text) from (' || replace(query, '@', 'heap_') || ') r' into theirs;
  for line in execute 'explain (costs off) ' || replace(query, '@', 'iot_') loop
    if line ~ 'Scan|Join|Nested|Sort' then
      scans := scans || ', ' || regexp_replace(line, '^ *(-> *)?| using.*| on .*', '', 'g');
    end if;
  end loop;
  return coalesce(cardinality(ours), 0) || ' rows'
    || case when ours is distinct from theirs then ' DIFFER from ' || coalesce(theirs::text, 'none') || ', being ' || coalesce(ours::text, 'none') else '' end
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
  seen text[] := '{}';
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

-- One column.
create table iot_one (k int primary key, v text) using :am;
insert into iot_one select i * 2, 'v' || i from generate_series(-2000, 2000) i;
create table heap_one using heap as select * from iot_one;
alter table heap_one add primary key (k);
analyze iot_one;
analyze heap_one;
select compare('select * from @one where k = 10');
select compare('select * from @one where k = 11');
select compare('select * from @one order by k');
select compare('select * from @one order by k desc');
select compare('select k from @one order by k desc');
select compare('select * from @one where k > 100 and k < 120 order by k');
select compare('select * from @one where k >= 100 and k <= 120 order by k desc');
select compare('select * from @one where k > 100 and k >= 102 and k < 140 and k <= 138 and k < 139 order by k');
select compare('select * from @one where k > 10 and k < 10');
select compare('select * from @one where k > 20 and k < 10');
select compare('select * from @one where k = 10 and k > 10');
select compare('select * from @one where k = 10 and k >= 10');
select compare('select * from @one where k = 10 and k = 12');
select compare('select * from @one where k < -3990 order by k desc');
select compare('select * from @one where k in (7, 6, 4, 4, null, 400, -4000, 4001) order by k');
select compare('select * from @one where k in (7, 6, 4, 4, null, 400, -4000, 4001) order by k desc');
select compare('select * from @one where k = any (array[]::int[])');
select compare('select * from @one where k = any (array[null]::int[])');
select compare('select * from @one where k in (1, 2, 3, 4, 5, 6) and k > 2 and k <= 4 order by k');
select compare('select * from @one where k in (2, 4, 6) and k in (4, 6, 8) order by k');
select compare('select * from @one where k > any (array[3990, 3980, null]) order by k');
select compare('select * from @one where k <= any (array[-3990, -3980]) order by k desc');
select compare('select * from @one where k is null');
select compare('select count(*) from @one where k is not null');
select compare('select * from @one where k = null::int');
select compare('select min(k), max(k) from @one');
select compare('select * from @one where k > 3000 order by k limit 3');
-- Another integer type, in range and out of it.
select compare('select * from @one where k = 10::bigint');
select compare('select * from @one where k = 10::smallint');
select compare('select * from @one where k = 99999999999');
select compare('select count(*) from @one where k < 99999999999');
select compare('select count(*) from @one where k > 99999999999');
select compare('select count(*) from @one where k >= -99999999999');
select compare('select * from @one where k in (4, 6, 99999999999) order by k');
select compare('select count(*) from @one where k < any (array[4, 99999999999])');
-- A type that the operator class does not know.
select compare('select * from @one where k between 9.5 and 14.2 order by k');

-- Two and more columns.
create table iot_many (a int2, b text collate "C", c int8, v int, primary key (a, b, c)) using :am;
insert into iot_many select i % 7, 'b' || i % 11, i % 13, i from generate_series(1, 1001) i;
create table heap_many using heap as select * from iot_many;
alter table heap_many add primary key (a, b, c);
analyze iot_many;
analyze heap_many;
select compare('select * from @many where a = 3 and b = ''b4'' and c = 5');
select compare('select * from @many where a = 3::bigint and b = ''b4'' and c = 5::int2');
select compare('select * from @many where a = 3 and b = ''b4'' order by c desc');
select compare('select * from @many where a = 3 and b > ''b4'' and b < ''b7'' order by b, c');
select compare('select * from @many where a = 3 and c = 4 order by b, c');
select compare('select * from @many where b = ''b4'' and c = 4 order by a, b, c');
select compare('select * from @many where a > 4 and b = ''b4'' and c < 4 order by a, b, c');
select compare('select * from @many where a in (1, 5) and b = ''b4'' and c in (4, 6, 9)');
select compare('select * from @many where a in (5, 1, 70000) and b in (''b4'', ''b10'', ''zz'') and c > 9');
select compare('select a, b, c from @many where a = 2 and b in (''b4'', ''b10'', ''zz'') and c <= 9 and v > 0');
select compare('select a, b, c from @many where a = 2 and b is not null and c = 1 order by b');
select compare('select a, b, c from @many where a = 2 and b is null');
select compare('select a, b, c from @many where a = 2 and c > 3::int2 and c < 7::int4 order by a, b, c');
select compare('select a, b, c from @many order by a desc, b desc, c desc');
select compare('select count(*) from @many where (a, b) > (3, ''b4'')');
select compare('select * from @many where a = 2 and b = ''b4''::name order by c');

-- Of a row comparison the first column bounds the scan.
explain (costs off) select * from iot_many where (a, b, c) > (3, 'b4', 5) order by a, b, c limit 2;
select compare('select * from @many where (a, b, c) > (3, ''b4'', 5) order by a, b, c limit 2');
select compare('select * from @many where (a, b, c) <= (3, ''b4'', 5) order by a desc, b desc, c desc');
select compare('select * from @many where a = 3 and (''b4'', 5) < (b, c) order by b, c limit 4');
explain (costs off) select * from iot_many where a = 3 and ('b4', 5) < (b, c) order by b, c limit 4;
select compare('select * from @many where (a, b) >= (3, null) and (a, c) < (5, 1) order by a, b, c');
select compare('select * from @many where (a + 1, b) > (6, ''b4'') order by a, b, c');
prepare page as select a, b, c from iot_many where (a, b, c) > ($1, $2, $3) order by a, b, c limit 2;
set plan_cache_mode = force_generic_plan;
explain (costs off) execute page (5, 'b4', 1);
execute page (5, 'b4', 1);
execute page (null, 'b4', 1);
execute page (5, null, 1);
reset plan_cache_mode;

-- Joins: by lookup, by merging with marks, each with duplicates.
create table iot_outer (o int8 primary key, a int2, c int4) using :am;
insert into iot_outer select i, i % 9, i % 5 from generate_series(1, 40) i;
create table heap_outer using heap as select * from iot_outer;
alter table heap_outer add primary key (o);
analyze iot_outer;
analyze heap_outer;
set enable_hashjoin = off;
set enable_mergejoin = off;
set enable_material = off;
set enable_memoize = off;
select compare('select o, k, v from @outer join @one on k = o order by o');
select compare('select o, many.b, v from @outer outr join @many many on many.a = outr.a and many.c = outr.c order by o, many.b');
select compare('select count(*) from @outer outr join @many many on many.a = outr.a and many.c > outr.c');
select compare('select count(*) from @outer outr join @one one on one.k = any (array[outr.o, outr.o + 1, outr.o - 2])');
set enable_nestloop = off;
set enable_mergejoin = on;
select compare('select x.a, x.b, x.c, y.b, y.c from @many x join @many y on x.a = y.a where x.c = 3 and y.c = 5 order by x.a');
select compare('select count(*), sum(x.v * y.v::numeric) from @many x join @many y on x.a = y.a and x.b = y.b');
select compare('select count(*), sum(x.k::numeric * y.k) from @one x join @one y on x.k = y.k');
reset enable_nestloop;
reset enable_hashjoin;
reset enable_material;
reset enable_memoize;

-- Cursors turn round, within a leaf and across leaves.
select stroll('select * from @one where k > 100 order by k', 'nnnppppnnnn');
select stroll('select * from @one order by k', 'nnnnlppnnnnppffnnalrprnn');
select stroll('select * from @one order by k desc', 'lpppnnnnnfpnnnalrrr');
select stroll('select * from @one order by k', repeat('n', 900) || repeat('p', 905) || repeat('n', 20));
select stroll('select * from @one order by k desc', 'l' || repeat('p', 900) || repeat('n', 905) || repeat('p', 20));
select stroll('select * from @one where k = 10', 'nnppnpnpp');
select stroll('select * from @one where k in (10, 11, 12, 14, 1000)', 'nnnnnnpppppnpnpnpalrl');
select stroll('select k from @one where k in (10, 11, 12, 14, 1000) order by k desc', 'nnnnnnpppppnpnpnpalrl');
select stroll('select * from @many where a in (1, 2) and b in (''b1'', ''b3'') and c > 4', repeat('nnnp', 20) || repeat('ppn', 30));
select stroll('select * from @one where k > 5000', 'npnplf');

-- A scan sees the rows of its snapshot, whatever is done to them meanwhile.
begin;
declare still scroll cursor for select k from iot_one where k between 1 and 1000 order by k;
fetch 2 from still;
delete from iot_one where k between 5 and 900;
update iot_one set v = 'new' where k > 900;
update iot_one set k = k + 1 where k between 950 and 960;
move forward 440 in still;
fetch 2 from still;
fetch backward 2 from still;
move first in still;
fetch 2 from still;
rollback;
select compare('select * from @one where k between 1 and 1000 order by k');

-- The row of an index-only scan can be come back for.
begin;
declare here cursor for select k from iot_one where k between 20 and 30;
move 2 in here;
fetch here;
update iot_one set v = 'here' where current of here;
fetch here;
delete from iot_one where current of here;
select * from iot_one where k between 20 and 30 order by k;
rollback;

-- Keys of other types.
create table iot_num (k numeric primary key, v int) using :am;
insert into iot_num select i * 0.5, i from generate_series(-50, 50) i;
insert into iot_num values ('NaN', 1000), ('Infinity', 1001), ('-Infinity', 1002), (1e30, 1003);
create table heap_num using heap as select * from iot_num;
alter table heap_num add primary key (k);
analyze iot_num;
analyze heap_num;
select compare('select * from @num order by k');
select compare('select k from @num order by k desc');
select compare('select * from @num where k = 7');
select compare('select * from @num where k = 7.000');
select compare('select * from @num where k > 7.25 order by k desc');
select compare('select * from @num where k >= 7.0 and k < 9.50 order by k');
select compare('select * from @num where k in (7.0, 7.00, 8, 3.5, ''NaN'') order by k');
select compare('select k from @num where k in (7.0, 7.00, 8, 3.5, ''NaN'') and k < 8.00 order by k desc');

create table iot_word (k text collate "en-x-icu", n int, primary key (k, n)) using :am;
insert into iot_word select w, n from unnest(array['a', 'A', 'ä', 'Ä', 'b', 'Z', 'z', '', 'aa', 'co-op', 'coop', 'CO-OP', repeat('long', 60)]) w, generate_series(1, 9) n;
create table heap_word using heap as select * from iot_word;
alter table heap_word add primary key (k, n);
select compare('select * from @word order by k, n');
select compare('select * from @word where k = ''coop'' order by n desc');
select compare('select * from @word where k > ''coop'' and k <= ''Z'' order by k desc, n desc');
select compare('select * from @word where k in (''Z'', ''a'', ''A'') and n in (3, 1, 4)');
select compare('select * from @word where k >= ''aa'' and n = 2 order by k');

create table iot_text (k text collate "C" primary key) using :am;
insert into iot_text select w || n from unnest(array['a', 'A', 'ä', '', 'a b']) w, generate_series(1, 50) n;
create table heap_text using heap as select * from iot_text;
alter table heap_text add primary key (k);
select compare('select * from @text order by k');
select compare('select * from @text where k >= ''a'' and k < ''a2'' order by k desc');
select compare('select * from @text where k like ''a b1%'' order by k');
select compare('select * from @text where k = ''a1''::varchar');
select compare('select * from @text where k = ''a1''::name');
select compare('select * from @text where k > ''a b45''::name and k < ''a1''::name order by k');

create table iot_name (k name primary key) using :am;
insert into iot_name select 'n' || n from generate_series(1, 50) n;
insert into iot_name values (repeat('x', 63)), (repeat('x', 62)), ('');
create table heap_name using heap as select * from iot_name;
alter table heap_name add primary key (k);
select compare('select * from @name order by k');
select compare('select * from @name where k = ''n5''');
select compare('select * from @name where k = ''n5''::text collate "C"');
select compare('select * from @name where k = repeat(''x'', 64)::text collate "C"');
select compare('select * from @name where k < repeat(''x'', 64)::text collate "C" order by k desc limit 2');
select compare('select * from @name where k >= repeat(''x'', 64)::text collate "C"');

create table iot_day (k date primary key) using :am;
insert into iot_day select date '1999-12-20' + n from generate_series(1, 30) n;
insert into iot_day values ('infinity'), ('-infinity'), ('4713-01-01 BC'), ('5874897-12-31');
create table heap_day using heap as select * from iot_day;
alter table heap_day add primary key (k);
select compare('select * from @day order by k');
select compare('select * from @day where k = timestamp ''2000-01-01 00:00''');
select compare('select * from @day where k = timestamp ''2000-01-01 00:01''');
select compare('select * from @day where k > timestamp ''1999-12-31 12:00'' and k <= timestamp ''2000-01-05 00:00'' order by k');
select compare('select * from @day where k >= timestamp ''1999-12-31 12:00'' and k < timestamp ''2000-01-05 00:00:01'' order by k desc');
select compare('select * from @day where k > timestamp ''infinity'' or k = timestamp ''2000-01-03''');
select compare('select * from @day where k > timestamp ''290000-01-01'' order by k');
select compare('select * from @day where k > timestamptz ''1999-12-31 12:00+00'' and k <= timestamptz ''2000-01-05 08:00+00'' order by k');

create table iot_time (k timestamptz, l timestamp, primary key (k, l)) using :am;
insert into iot_time select timestamptz '2024-03-09 00:00+00' + n * interval '1 hour', timestamp '2024-03-09' + n * interval '1 hour' from generate_series(1, 72) n;
insert into iot_time values ('infinity', '-infinity'), ('-infinity', 'infinity'), ('2024-03-11', '294276-12-31 23:59:59.999999');
create table heap_time using heap as select * from iot_time;
alter table heap_time add primary key (k, l);
select compare('select * from @time order by k, l');
select compare('select * from @time where k > timestamp ''2024-03-10 01:30'' and k < timestamp ''2024-03-10 04:30'' order by k');
select compare('select * from @time where k >= date ''2024-03-10'' and k < date ''2024-03-11'' order by k desc');
select compare('select * from @time where k < date ''infinity'' and k > date ''5874897-12-30''');
select compare('select * from @time where k = timestamptz ''2024-03-11'' and l < date ''5874897-12-30'' order by l');
select compare('select * from @time where k = timestamptz ''2024-03-11'' and l >= date ''294277-01-01''');
select compare('select * from @time where k >= timestamptz ''2024-03-11'' and l >= timestamptz ''2024-03-11 12:00'' order by k, l');

create table iot_real (k float4 primary key) using :am;
insert into iot_real values (0.1), (0.2), ('-0'), (1e-40), (3.4e38), ('inf'), ('-inf'), ('nan'), (-0.1), (16777216), (16777218);
create table heap_real using heap as select * from iot_real;
alter table heap_real add primary key (k);
select compare('select * from @real order by k');
select compare('select * from @real where k = 0.1::float4');
select compare('select * from @real where k = 0.1::float8');
select compare('select * from @real where k > 0.1::float8 order by k');
select compare('select * from @real where k <= 16777217::float8 order by k desc');
select compare('select * from @real where k < 1e300 order by k');
select compare('select * from @real where k >= 1e300 order by k');
select compare('select * from @real where k = 0');
select compare('select * from @real where k = ''nan''::float8');
select compare('select * from @real where k in (0.1::float8, 0.1::float4, ''-inf'') order by k');

create type mood as enum ('sad', 'ok', 'happy');
alter type mood add value 'calm' before 'ok';
create table iot_mix (b bool, u uuid, y bytea, m mood, o oid, t time, i interval, v varchar(9), r int4range, primary key (b, u, y, m, o, t, i, v, r)) using :am;
insert into iot_mix select distinct n % 2 = 0, md5((n % 3)::text)::uuid, decode(md5((n % 2)::text), 'hex') || '\x00'::bytea, (enum_range(null::mood))[1 + n % 4], (n % 3)::oid, time '10:00' + n % 4 * interval '1 hour', n % 3 * interval '1 day', 'v' || n % 2, int4range(n % 5, 9) from generate_series(1, 600) n;
create table heap_mix using heap as select * from iot_mix;
alter table heap_mix add primary key (b, u, y, m, o, t, i, v, r);
select compare('select * from @mix order by b, u, y, m, o, t, i, v, r');
select compare('select * from @mix order by b desc, u desc, y desc, m desc, o desc, t desc, i desc, v desc, r desc');
select compare('select * from @mix where b order by b, u, y, m, o, t, i, v, r');
select compare('select * from @mix where not b and u = md5(''1'')::uuid order by b, u, y, m, o, t, i, v, r');
select compare('select * from @mix where not b and u = md5(''1'')::uuid and y = decode(md5(''1''), ''hex'') || ''\x00''::bytea and m in (''happy'', ''calm'')');
select compare('select * from @mix where b = true and u >= md5(''1'')::uuid and m > ''calm'' and lower(r) < 4 order by b, u, y, m, o, t, i, v, r');
