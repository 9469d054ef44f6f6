-- An index-only scan gives out what no index tuple can hold: more than 8,191
-- bytes, of keys that are much shorter as they are stored.
set enable_seqscan = off;
set enable_bitmapscan = off;
create table t (id int primary key, n name, t text, u text) using iot;
alter table t alter t set storage external;
alter table t alter u set storage plain;
create index t_n on t (n) include (t);
create index t_tn on t (t, n);
create index t_u on t (u, t);
-- Long rows and short ones, with nulls and without, one after the other.
insert into t
  select i, nullif('n' || i, 'n2'), case when i < 6 then repeat('abc', 3500 - i % 2 * 3490) end || i, repeat('u', i * 900)
  from generate_series(1, 8) i;
explain (costs off) select n, t, id from t where n > 'a' order by n;
select n, n::text || '|' as whole, length(t), right(t, 3), id from t where n > 'a' order by n;
explain (costs off) select t, n, id from t order by t desc, n;
select length(t), right(t, 3), n, id from t order by t desc, n;
select length(u), length(t), right(t, 3), id from t where u > 'uu' and u < 'v' order by u;
-- by the key itself, and back and forth
create table k (k text primary key, v int) using iot;
alter table k alter k set storage external;
insert into k select repeat('abc', case when i % 3 = 0 then 1 else 4000 end) || i, i from generate_series(1, 7) i;
explain (costs off) select k from k;
select length(k), right(k, 2) from k order by k;
begin;
declare c scroll cursor for select length(t), right(t, 3), n from t order by t, n;
fetch 3 from c;
fetch backward 2 from c;
fetch last from c;
fetch first from c;
commit;
-- A merge goes back to a mark, and both sides have such rows.
set enable_hashjoin = off;
set enable_nestloop = off;
set enable_sort = off;
select count(*), sum(length(a.t)) from t a join t b on a.t = b.t and a.n = b.n;
-- the same, as rows tell it
reset all;
set enable_indexonlyscan = off;
select count(*), sum(length(a.t)) from t a join t b on a.t = b.t and a.n = b.n;
drop table t, k;
