-- INCLUDE columns of a primary key.
create table t (a int, b text collate "C", c text, d int, primary key (a, b) include (c, d)) using :am;
insert into t select i % 10, 'b' || i, 'c' || i, i from generate_series(1, 1000) i;
insert into t values (1, 'b1', 'again', 0); insert into t values (1, null, 'x', 0);
analyze t; set enable_seqscan = off;
select * from t where a = 3 and b = 'b13'; select a, b from t where a = 3 and b < 'b11' order by b; select c, d from t where a = 4 and b > 'b98' order by a, b; select d from t where a = 7 order by b desc limit 3; select a from t where a > 8 order by a desc, b desc limit 2;
select count(*), count(c), sum(d) from (select a, b, c, d from t order by a, b) x;
update t set c = 'changed', d = -1 where a = 3 and b = 'b13'; select a, b, c, d from t where a = 3 and b = 'b13'; update t set a = 33 where a = 3 and b = 'b13'; select c from t where a = 33;
update t set c = repeat(md5('x'), 2000) where a = 4 and b = 'b4'; select a, length(c) from t where a = 4 and b = 'b4';
insert into t values (33, 'b13', 'conflict', 0) on conflict (a, b) do update set c = excluded.c returning a, b, c, d;
create table ref (a int, b text collate "C", foreign key (a, b) references t) using :am; insert into ref values (5, 'b5'); insert into ref values (5, 'no'); delete from t where a = 5 and b = 'b5';
create unique index on t (d) where d > 0; select c from t where d = 77;
reindex table t; reindex index concurrently t_pkey; select conname, pg_get_constraintdef(oid) from pg_constraint where conrelid = 't'::regclass; select c from t where a = 6 and b = 'b6'; insert into t values (6, 'b6', 'again', 0);
alter table t alter c type varchar, alter d type bigint; select d from t where a = 6 and b = 'b6'; insert into t values (6, 'b6', 'again', 0);
alter table t set access method heap; select c from t where a = 6 and b = 'b6'; alter table t drop c; select conname from pg_constraint where conrelid = 't'::regclass; select count(*) from t; alter table t set access method :am; insert into t values (6, 'b6', 0); select count(*) from t where a = 6 and b = 'b6';
create table p (a int, b int, primary key (a) include (b)) partition by range (a); create table p1 (a int primary key, b int) using :am; alter table p attach partition p1 for values from (0) to (10); create table p2 (a int, b int, primary key (a) include (b)) using :am; alter table p attach partition p2 for values from (10) to (20); create table p3 partition of p for values from (20) to (30) using :am; insert into p select i, i from generate_series(10, 29) i; select * from p where a = 15; insert into p values (15, 0); insert into p values (25, 0);
