-- Every type that can be a primary key: the order, ranges in both directions,
-- lookups and the values that come back are a heap table's, on edge values and
-- random ones. Each line says how many values took part; what differs is told.
create extension if not exists citext;
select setseed(0.42);

create function differences(am text, type text, expression text) returns text
language plpgsql as $$
declare
  n int; k int; op text; pivot text; plan text; expected text[]; found text[]; bad text = '';
begin
  execute format('create temp table ref (v %s) using heap', type);
  execute format('insert into ref select distinct on (v) v from (select (%s)::%s) x (v) where v is not null order by v', expression, type);
  get diagnostics n = row_count;
  execute format('create table o (v %s primary key, n int) using %I', type, am);
  insert into o select v, row_number() over () from ref order by random();
  set local enable_seqscan = off; set local enable_bitmapscan = off; set local enable_sort = off;
  execute 'explain select v from o order by v' into plan;
  if plan !~ 'Index' then bad = bad || ' not read in order of its key: ' || plan; end if;

  found = array(select v::text from o order by v);
  set local enable_sort = on; set local enable_seqscan = on;
  expected = array(select v::text from ref order by v);
  if found is distinct from expected then bad = bad || format(' ascending: %s, not %s', found, expected); end if;
  set local enable_sort = off; set local enable_seqscan = off;
  found = array(select v::text from o order by v desc);
  set local enable_sort = on; set local enable_seqscan = on;
  if found is distinct from array(select v::text from ref order by v desc) then
    bad = bad || format(' descending: %s', found);
  end if;
  -- Bytes, not only text: minus zero, and the scale of a number.
  select count(*) into k from ref join o on ref.v::text = o.v::text and record_send(row(ref.v)) = record_send(row(o.v));
  if k <> n then bad = bad || format(' %s of %s values came back exactly', k, n); end if;

  -- Every value finds itself.
  set local enable_hashjoin = off; set local enable_mergejoin = off; set local enable_seqscan = off;
  select count(*) into k from ref join o on o.v = ref.v;
  if k <> n then bad = bad || format(' %s of %s lookups find one', k, n); end if;
  for pivot in select v::text from ref order by random() limit 8 loop
    foreach op in array array['<', '<=', '=', '>=', '>'] loop
      execute format('select array(select v::text from o where v %s %L::%s order by v)', op, pivot, type) into found;
      set local enable_seqscan = on; set local enable_sort = on;
      execute format('select array(select v::text from ref where v %s %L::%s order by v)', op, pivot, type) into expected;
      set local enable_seqscan = off; set local enable_sort = off;
      if found is distinct from expected then
        bad = bad || format(' %s %s: %s, not %s', op, pivot, found, expected);
      end if;
      execute format('select array(select v::text from o where v %s %L::%s order by v desc limit 3)', op, pivot, type) into found;
      set local enable_seqscan = on; set local enable_sort = on;
      execute format('select array(select v::text from ref where v %s %L::%s order by v desc limit 3)', op, pivot, type) into expected;
      set local enable_seqscan = off; set local enable_sort = off;
      if found is distinct from expected then
        bad = bad || format(' backwards %s %s: %s, not %s', op, pivot, found, expected);
      end if;
    end loop;
  end loop;
  reset enable_seqscan; reset enable_sort; reset enable_hashjoin; reset enable_mergejoin; reset enable_bitmapscan;
  drop table ref, o;
  return format('%s: %s values', type, n) || case when bad = '' then '' else ' DIFFERENT:' || bad end;
end $$;

create type mood as enum ('sad', 'ok', 'happy');
alter type mood add value 'meh' before 'ok';
create type pair as (a int, b text collate "C");
create domain even as int check (value % 2 = 0);
create domain short as varchar(5) collate "C";
create type span as range (subtype = float8);
create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);

\pset tuples_only on
select differences(:'am', 'int2', 'unnest(array[-32768, -32767, -256, -255, -1, 0, 1, 127, 128, 255, 256, 32767] || array(select (random() * 65535 - 32768)::int from generate_series(1, 300)))');
select differences(:'am', 'int4', 'unnest(array[-2147483648, -65536, -1, 0, 1, 255, 256, 65535, 65536, 2147483647] || array(select (random() * 4294967295 - 2147483648)::int from generate_series(1, 300)))');
select differences(:'am', 'int8', 'unnest(array[-9223372036854775808, -4294967296, -1, 0, 1, 4294967295, 4294967296, 9223372036854775807] || array(select ((random() - 0.5) * 1.8e19)::int8 from generate_series(1, 300)))');
select differences(:'am', 'oid', 'unnest(array[0, 1, 2147483647, 2147483648, 4294967295]::oid[] || array(select (random() * 4294967295)::int8::oid from generate_series(1, 300)))');
select differences(:'am', 'bool', 'unnest(array[true, false])');
select differences(:'am', '"char"', 'unnest(array(select i::"char" from generate_series(-128, 127) i))');
select differences(:'am', 'float4', 'unnest(array[''-inf'', -3.4e38, -1.5, -1e-45, ''-0'', 1e-45, 1.5, 3.4e38, ''inf'', ''nan'']::float4[] || array(select ((random() - 0.5) * 10 ^ (random() * 70 - 35))::float4 from generate_series(1, 300)))');
select differences(:'am', 'float8', 'unnest(array[''-inf'', -1.7e308, -1.5, -5e-324, ''-0'', 5e-324, 1.5, 1.7e308, ''inf'', ''nan'']::float8[] || array(select (random() - 0.5) * 10 ^ (random() * 600 - 300) from generate_series(1, 300)))');
select differences(:'am', 'float8', 'unnest(array[0, ''nan'', 1]::float8[])');
select differences(:'am', 'date', 'unnest(array[''-infinity'', ''4713-11-24 BC'', ''0001-12-31 BC'', ''0001-01-01'', ''1999-12-31'', ''2000-01-01'', ''5874897-12-31'', ''infinity'']::date[] || array(select date ''2000-01-01'' + ((random() - 0.5) * 2e6)::int from generate_series(1, 300)))');
select differences(:'am', 'time', 'unnest(array[''00:00'', ''23:59:59.999999'', ''24:00'', ''12:00'', ''12:00:00.000001'']::time[] || array(select time ''00:00'' + random() * interval ''1 day'' from generate_series(1, 300)))');
select differences(:'am', 'timestamp', 'unnest(array[''-infinity'', ''4713-11-24 BC'', ''1999-12-31 23:59:59.999999'', ''2000-01-01'', ''294276-12-31 23:59:59.999999'', ''infinity'']::timestamp[] || array(select timestamp ''2000-01-01'' + (random() - 0.5) * interval ''1000 years'' from generate_series(1, 300)))');
select differences(:'am', 'timestamptz', 'unnest(array[''-infinity'', ''4713-11-24 BC'', ''1999-12-31 23:59:59.999999 UTC'', ''2000-01-01 UTC'', ''294276-12-31 UTC'', ''infinity'']::timestamptz[] || array(select timestamptz ''2000-01-01'' + (random() - 0.5) * interval ''1000 years'' from generate_series(1, 300)))');
select differences(:'am', 'uuid', 'unnest(array[''00000000-0000-0000-0000-000000000000'', ''ffffffff-ffff-ffff-ffff-ffffffffffff'']::uuid[] || array(select md5(random()::text)::uuid from generate_series(1, 300)))');
select differences(:'am', 'bytea', E'unnest(array['''', ''\\\\x00'', ''\\\\x0000'', ''\\\\x0001'', ''\\\\x00ff'', ''\\\\x00ff00'', ''\\\\x01'', ''\\\\x0100'', ''\\\\x01ff'', ''\\\\xff'', ''\\\\xff00'', ''\\\\xffff'']::bytea[] || array(select substr(decode(replace(md5(random()::text), ''1'', ''0''), ''hex''), 1, (random() * 8)::int) from generate_series(1, 300)))');
select differences(:'am', 'text collate "C"', E'unnest(array['''', '' '', ''a'', ''a '', ''A'', ''aa'', ''ab'', ''b'', E''\\u0001'', E''a\\u0001'', ''é'', ''e'', ''z'', ''ß'', ''😀'', repeat(''x'', 500)] || array(select substr(md5(random()::text), 1, (random() * 6)::int) from generate_series(1, 300)))');
select differences(:'am', 'varchar(7) collate "C"', 'unnest(array['''', '' '', ''a'', ''a '', ''A'', ''é'']::varchar[] || array(select substr(md5(random()::text), 1, (random() * 6)::int)::varchar from generate_series(1, 300)))');
select differences(:'am', 'name', 'unnest(array['''', ''a'', ''A'', ''pg_class'', repeat(''y'', 63)]::name[] || array(select substr(md5(random()::text), 1, (random() * 6)::int)::name from generate_series(1, 300)))');
-- Those whose order only their operator class knows.
select differences(:'am', 'numeric', 'unnest(array[''-inf'', -1e100, -1.00, -0.5, 0.00, 0.1, 1.0, 1.01, 10, 1e-50, 1e100, ''inf'', ''nan'']::numeric[] || array(select (random() * 10 ^ (random() * 20 - 10))::numeric from generate_series(1, 300)))');
select differences(:'am', 'numeric', 'unnest(array[1.000, 2.0, 3]::numeric[])');
select differences(:'am', 'text collate "en-x-icu"', 'unnest(array['''', ''a'', ''A'', ''b'', ''B'', ''é'', ''e'', ''f'', ''zebra'', ''Zebra'', ''co-op'', ''coop''] || array(select substr(md5(random()::text), 1, (random() * 6)::int) from generate_series(1, 200)))');
select differences(:'am', 'text collate blind', 'unnest(array['''', ''a'', ''A'', ''b'', ''B'', ''é'', ''E'', ''zebra'', ''Zebra''] || array(select substr(md5(random()::text), 1, (random() * 6)::int) from generate_series(1, 200)))');
select differences(:'am', 'citext', 'unnest(array['''', ''a'', ''A'', ''b'', ''B'', ''Zebra'']::citext[] || array(select upper(substr(md5(random()::text), 1, (random() * 6)::int))::citext from generate_series(1, 200)))');
select differences(:'am', 'char(4) collate "C"', 'unnest(array['''', ''a'', ''a b'', ''A'', ''abcd'', E''a\u0001'']::bpchar[] || array(select substr(md5(random()::text), 1, (random() * 4)::int)::bpchar from generate_series(1, 200)))');
select differences(:'am', 'int4[]', 'unnest(array(select array[i / 20, null, i % 7]::text from generate_series(-50, 50) i) || array(select array[i]::text from generate_series(-3, 3) i) || array[''{}'', ''{{1,2},{3,4}}'', ''[2:3]={1,2}'', ''{1,2}'', ''{NULL}''])::int4[]');
select differences(:'am', 'mood', 'unnest(enum_range(null::mood))');
select differences(:'am', 'interval', 'unnest(array[''1 mon'', ''29 days'', ''31 days'', ''-1 year'', ''0'', ''1 day -24:00:01'', ''178000000 years'']::interval[] || array(select (random() - 0.5) * interval ''10 years'' from generate_series(1, 200)))');
select differences(:'am', 'timetz', 'unnest(array[''00:00+00'', ''00:00+01'', ''23:59-12'', ''24:00+00'', ''12:00+05:30'']::timetz[] || array(select (time ''00:00'' + random() * interval ''1 day'')::text::timetz from generate_series(1, 200)))');
select differences(:'am', 'inet', 'unnest(array[''0.0.0.0'', ''0.0.0.0/0'', ''10.0.0.0/8'', ''10.0.0.1/8'', ''10.0.0.1'', ''255.255.255.255'', ''::'', ''::1'', ''fe80::1/64'', ''ffff::'']::inet[] || array(select inet ''0.0.0.0'' + (random() * 4294967295)::int8 from generate_series(1, 200)))');
select differences(:'am', 'cidr', 'unnest(array[''0.0.0.0/0'', ''10.0.0.0/8'', ''10.0.0.0/9'', ''::/0'', ''fe80::/64'']::cidr[])');
select differences(:'am', 'macaddr', 'unnest(array(select substr(md5(random()::text), 1, 12)::macaddr from generate_series(1, 100)))');
select differences(:'am', 'macaddr8', 'unnest(array(select substr(md5(random()::text), 1, 16)::macaddr8 from generate_series(1, 100)))');
select differences(:'am', 'varbit', 'unnest(array['''', ''0'', ''00'', ''1'', ''10'', ''01111111111'', ''011111111110'']::varbit[])');
select differences(:'am', 'bit(9)', 'unnest(array(select i::bit(9) from generate_series(0, 511, 3) i))');
select differences(:'am', 'money', 'unnest(array(select i::money from generate_series(-300, 300, 7) i))');
select differences(:'am', 'pg_lsn', 'unnest(array(select ''0/0''::pg_lsn + (random() * 1e12)::int8 from generate_series(1, 100)))');
select differences(:'am', 'xid8', 'unnest(array(select (random() * 1e18)::int8::text::xid8 from generate_series(1, 100)))');
select differences(:'am', 'tid', 'unnest(array(select format(''(%s,%s)'', i, i % 7)::tid from generate_series(0, 100000, 997) i))');
select differences(:'am', 'jsonb', 'unnest(array[''null'', ''1'', ''1.0e1'', ''"a"'', ''[]'', ''[1]'', ''{}'', ''{"a": 1}'', ''{"a": [1, 2]}'', ''true'']::jsonb[])');
select differences(:'am', 'int4range', 'unnest(array[''empty'', ''(,)'', ''[1,2]'', ''[1,3]'', ''(,5)'', ''[0,)'']::int4range[])');
select differences(:'am', 'int4multirange', 'unnest(array[''{}'', ''{(,)}'', ''{[1,2]}'', ''{[1,2],[5,7]}'']::int4multirange[])');
select differences(:'am', 'span', 'unnest(array[''empty'', ''(,)'', ''[1,2]'', ''(1,2]'', ''[1,2)'']::span[])');
select differences(:'am', 'tsvector', 'unnest(array['''', ''a'', ''a b'', ''a:1 b:2'', ''z'']::tsvector[])');
select differences(:'am', 'oidvector', 'unnest(array['''', ''1'', ''1 2'', ''2'', ''10 1'']::oidvector[])');
select differences(:'am', 'pair', 'unnest(array(select row(i % 5, chr(97 + i % 26))::pair from generate_series(-60, 60) i) || row(1, null)::pair || row(null, ''x'')::pair)');
select differences(:'am', 'even', 'unnest(array(select i * 2 from generate_series(-50, 50) i)::even[])');
select differences(:'am', 'short', 'unnest(array['''', ''a'', ''ab'', ''B'', ''é'']::short[])');
\pset tuples_only off

-- Several columns, ordered forms and comparators mixed.
create table m (a text collate "C", b numeric, c int2, d bytea, e timestamptz, w int, primary key (a, b, c, d, e)) using :am;
create table r (like m) using heap;
insert into r select distinct on (1, 2, 3, 4, 5) substr('aab', 1, (random() * 3)::int), (random() * 2)::numeric(3, 1), (random() * 3 - 1)::int2,
  substr('\x000100'::bytea, 1, (random() * 3)::int), timestamptz '2000-01-01 UTC' + round(random() * 2) * interval '1 day', 7
  from generate_series(1, 3000);
insert into m select * from r order by random();
set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off;
select count(*) = (select count(*) from r) as all_there, array_agg(m::text) = (select array_agg(x::text) from (select * from r order by 1, 2, 3, 4, 5) x) as same_order
  from (select * from m order by a, b, c, d, e) m;
select count(*) = (select count(*) from r) as each_finds_itself from r join m using (a, b, c, d, e);
select count(*) as different from (values ('', 0.5), ('a', 1), ('aa', 1.50), ('aab', 2), ('b', 0)) p (x, y),
  lateral (select (select array_agg(m::text) from (select * from m where a = x and b > y order by b, c, d, e) m) as o,
    (select array_agg(m::text) from (select * from r where a = x and b > y order by b, c, d, e) m) as h,
    (select array_agg(m::text) from (select * from m where a > x order by a desc, b desc, c desc, d desc, e desc limit 50) m) as ob,
    (select array_agg(m::text) from (select * from r where a > x order by a desc, b desc, c desc, d desc, e desc limit 50) m) as hb,
    (select count(*) from m where a = x and b in (0.5, 1.0, 2) and c >= 0) as oi,
    (select count(*) from r where a = x and b in (0.5, 1.0, 2) and c >= 0) as hi) z
  where o is distinct from h or ob is distinct from hb or oi <> hi;
reset all;

-- Equal, but not the same: a duplicate for the constraint, and what was stored
-- first stays as it was written until an update writes it otherwise.
create table n (k numeric primary key, f float8) using :am;
insert into n values (1.0, '-0'), (2.50, 0);
insert into n values (1.00, 1);
select * from n order by k;
update n set k = 1.000 where k = 1;
update n set k = 2.5 where k = 2.500;
select * from n where k in (1, 2.5) order by k;
create table z (k float8 primary key) using :am;
insert into z values ('-0');
insert into z values (0);
insert into z values ('nan'), (-'nan'::float8);
insert into z values ('nan');
select * from z order by k;
update z set k = 0 where k = 0;
select * from z order by k;
create table c (k text collate blind primary key) using :am;
insert into c values ('Straße'), ('abc');
insert into c values ('ABC');
update c set k = 'aBC' where k = 'ABC';
select * from c order by k;

-- No order, no key.
create table bad (k json primary key) using :am;
create table bad (k xml primary key) using :am;
create table bad (k point primary key) using :am;
create table bad (k xid primary key) using :am;
