-- Where long values lie in an iot table, what of them is kept in the row, and
-- that their loss is found.
create function noise(seed int, bytes int) returns text language sql immutable as $$
  select left(string_agg(encode(sha512((seed || ':' || i)::text::bytea), 'base64'), '' order by i), bytes)
  from generate_series(0, bytes / 80) i
$$;
create table t (k int primary key, v text, p text) using iot;
alter table t alter p set storage plain;
insert into t select i, noise(i, 10000), 'p' from generate_series(1, 5) i;
-- the TOAST table is a heap table
select amname from pg_class c join pg_class t on t.oid = c.reltoastrelid join pg_am a on a.oid = t.relam
  where c.oid = 't'::regclass;
-- what is to stay in the row stays there, unless the row would just not fit a
-- page, and does in heap
insert into t values (6, 'v', noise(6, 8000)), (7, 'v', noise(7, 8100));
select k, length(p), p = noise(k, length(p)) as same, pg_column_size(p) > length(p) as in_row from t where k > 5;
delete from t where k > 5;
-- what does not fit and may not move
\set SHOW_CONTEXT never
insert into t values (6, 'v', noise(6, 9000));
\echo :SQLSTATE
create type fixed;
create function fixed_in(cstring) returns fixed language internal immutable strict as 'textin';
create function fixed_out(fixed) returns cstring language internal immutable strict as 'textout';
create type fixed (input = fixed_in, output = fixed_out, storage = plain);
create table plain (k int primary key, p fixed) using iot;
select reltoastrelid <> 0 as has_toast from pg_class where oid = 'plain'::regclass;
insert into plain values (1, fixed_in(textout(noise(7, 8000))));
insert into plain values (2, fixed_in(textout(noise(7, 9000))));
\echo :SQLSTATE
-- a key is never stored out of line, whichever way it got its length
create table long_key (k text, v text) using iot;
alter table long_key alter k set storage external;
insert into long_key values (noise(1, 4500), 'long'), ('short', 'short');
alter table long_key add primary key (k);
delete from long_key where v = 'long';
alter table long_key add primary key (k);
-- a number in the key is in the payload too: 1.0 and 1.00 are one key
create table number_key (k numeric primary key, v text) using iot;
insert into number_key select ('1.' || repeat('0', i))::numeric + i, noise(i, 4000) from generate_series(1, 3) i;
update number_key set k = (k::text || '0')::numeric;
select k, v = noise(floor(k)::int - 1, 4000) as same from number_key order by k;
-- an index has no TOAST table: its entries hold what they include whole
create index on number_key (k) include (v);
insert into number_key values (9, noise(9, 9000));
\echo :SQLSTATE
create table indexed (k int primary key, v text) using iot;
insert into indexed values (1, noise(1, 9000));
create index on indexed (k) include (v);
\echo :SQLSTATE
create index on indexed (v);
\echo :SQLSTATE
create index on indexed (md5(v));
select k from indexed where md5(v) = md5(noise(1, 9000));
drop table indexed;
-- heavy verification reads the live rows' values, and those only
update t set v = noise(k + 10, 9000) where k <= 2;
delete from t where k = 3;
vacuum t;
select * from rowref.verify('t', true);
select * from rowref.verify('long_key', true);
select * from rowref.verify('number_key', true);
-- a chunk that is lost, and a value that is
create extension pg_surgery;
select reltoastrelid::regclass as toast from pg_class where oid = 't'::regclass \gset
select heap_force_kill(:'toast', array(select ctid from :toast
  where chunk_seq = 2 and chunk_id = (select min(chunk_id) from :toast)
  or chunk_id = (select max(chunk_id) from :toast)));
drop extension pg_surgery;
select regexp_replace(problem, 'value \d+', 'value …') from rowref.verify('t', true) order by 1;
\set VERBOSITY sqlstate
select count(md5(v)) from t;
drop table t, plain, long_key, number_key;
drop type fixed cascade;
drop function noise;
