-- WITH (fillfactor): how full leaves are left by loads in the order of the key,
-- by builds and by rewrites.
create function fill(relation regclass) returns numeric language sql as
  $$select round(fill_percent::numeric, -1) from rowref.relation_stats(relation)$$;
create table d (k int primary key, v text) using iot;
create table f (k int primary key, v text) using iot with (fillfactor = 40, autovacuum_enabled = off, toast_tuple_target = 1000);
create table h (k int primary key, v text) using iot with (fillfactor = 100);
create table o (k int primary key, v text) using iot with (autovacuum_enabled = off, toast_tuple_target = 1000);
insert into d select i, repeat('v', 50) from generate_series(1, 20000) i;
insert into f select * from d; insert into h select * from d; insert into o select * from d;
select fill('d'), fill('f'), fill('o');
-- A full leaf has room for a new version: it is not split by its first update.
select h.fill_percent - d.fill_percent > 5 as fuller from rowref.relation_stats('h') h, rowref.relation_stats('d') d;
vacuum full h; select fill('h'); select leaf_pages as pages from rowref.relation_stats('h') \gset
update h set v = repeat('w', 50) where k % 500 = 0; select leaf_pages = :pages as as_many from rowref.relation_stats('h');
vacuum f; select fill('f');
-- Later builds follow a change; what is stored stays as it is.
alter table f set (fillfactor = 70); alter table d set (fillfactor = 20);
select fill('d'), fill('f');
vacuum full f; cluster d using d_pkey;
select fill('d'), fill('f');
alter table f reset (fillfactor); alter table f drop constraint f_pkey; select fill('f');
alter table f set (fillfactor = 50); alter table f add primary key (k); select fill('f');
begin; truncate f; insert into f select * from d; select fill('f'); rollback;
-- Indexes.
create index f_v on f (v, k); create index f_30 on f (v, k) with (fillfactor = 30); create index f_100 on f (v, k) with (fillfactor = 100);
select fill('f_v'), fill('f_30'), fill('f_100');
alter index f_30 set (fillfactor = 60); reindex index f_30; alter index f_100 reset (fillfactor); reindex index f_100;
select fill('f_30'), fill('f_100');
-- A partition has its own; a key without storage takes the word and does nothing with it.
create table p (k int, v text, primary key (k) with (fillfactor = 50)) partition by range (k);
create table p1 partition of p for values from (0) to (100000) using iot with (fillfactor = 30);
insert into p select * from d; select fill('p1');
-- Refused as by heap and btree.
create table x (k int primary key) using iot with (fillfactor = 5);
create index on f (v) with (fillfactor = 101);
alter table f set (fillfactor = 9);
alter table f set (nofactor = 9);
drop table d, f, h, o, p;
drop function fill;
