-- What definitions do to indexes beside the key.
\set SHOW_CONTEXT never
create view indexes as
    select c.relname, i.indisprimary p, i.indisunique u, i.indisvalid v, i.indisready r, i.indisclustered c, h.inhparent::regclass parent
    from pg_index i join pg_class c on c.oid = i.indexrelid left join pg_inherits h on h.inhrelid = c.oid
    where c.relnamespace = 'public'::regnamespace order by c.relname;
-- whether scans of the table and of each index agree
create function sound(t regclass) returns text language plpgsql as $$
declare a text; b text; x text; answer text := ''; begin
    set local enable_indexscan = off; set local enable_indexonlyscan = off; set local enable_bitmapscan = off; set local enable_seqscan = on;
    execute format('select md5(string_agg(x::text, '','' order by x::text)) from %s x', t) into a;
    set local enable_indexscan = on; set local enable_indexonlyscan = on; set local enable_seqscan = off;
    for x in select pg_get_indexdef(indexrelid, 1, true) from pg_index where indrelid = t and indpred is null order by indexrelid loop
        execute format('select md5(string_agg(x::text, '','' order by x::text)) from (select * from %s order by %s) x', t, x) into b;
        if a is distinct from b then answer := answer || ' ' || x; end if;
    end loop;
    return coalesce(nullif(answer, ''), 'sound'); end $$;
-- partitions bring theirs
create table p (k int, v text, w int) partition by range (k);
create table p1 (k int not null, v text, w int) using :am; create table p2 (w int, k int not null, v text) using heap;
insert into p1 select i, 'v' || i % 7, i % 5 from generate_series(0, 99) i; insert into p2 select i % 5, i, 'v' || i % 7 from generate_series(100, 199) i;
create index p1_v on p1 (v); create unique index p1_k on p1 (k); create index p1_e on p1 (lower(v), w desc) where k > 5;
create index p2_v on p2 (v);
alter table p attach partition p1 for values from (0) to (100); alter table p attach partition p2 for values from (100) to (200);
create index p_v on p (v); create unique index p_k on p (k); create index p_e on p (lower(v), w desc) where k > 5; create index p_w on p (w);
select * from indexes; select sound('p1'), sound('p2');
create table p3 (like p including all) using :am; insert into p3 select i, 'v' || i % 7, i % 5 from generate_series(200, 299) i;
alter table p attach partition p3 for values from (200) to (300); select * from indexes where relname like 'p3%';
insert into p values (5, 'again', 0); insert into p values (205, 'again', 0); update p set k = k + 100 where k = 50; delete from p where k = 150; update p set k = k + 100 where k = 50;
alter table p add constraint p_uk unique (k, v); alter table p1 add constraint p1_uk unique (k, w); alter table p add constraint p_uw unique (k, w); select * from indexes where relname ~ 'u[kw]' or relname ~ '_key';
alter table p drop constraint p_uw; alter table p alter v type varchar(30), alter w type bigint; select * from indexes where relname like 'p1%'; select sound('p1'), sound('p2'), sound('p3');
alter table p detach partition p1; drop index p_v; select * from indexes where relname ~ '_v'; drop table p;
-- constraints made of indexes
create table t (a int, b text, c int) using :am; insert into t select i, 'b' || i, i % 10 from generate_series(1, 300) i;
create unique index t_a on t (a); create unique index t_b on t (b); create index t_c on t (c);
alter table t alter a set not null; alter table t add constraint t_pk primary key using index t_a; alter table t add constraint t_ub unique using index t_b; alter table t add constraint t_uc unique using index t_c;
select * from indexes; insert into t values (1, 'x', 0); insert into t values (1000, 'b1', 0); select sound('t');
create table ref (r int references t, s text references t (b)) using :am; insert into ref values (1, 'b1'); insert into ref values (1, 'nope'); delete from t where a = 1;
alter table t drop constraint t_pk; alter table t drop constraint t_pk cascade; insert into t values (2, 'two', 2); select sound('t'); delete from t where b = 'two';
alter table t add primary key (a); select sound('t'); select * from indexes; insert into t values (2, 'two', 2);
-- changes of types
alter table t alter b type varchar(50); alter table t alter c type bigint; alter table t alter a type bigint, alter b type text collate "C", alter c type numeric; select sound('t'); select * from indexes; insert into t values (1000, 'b2', 0); select * from t where c = 3 and a < 40 order by a; select a from t where b = 'b77';
create index t_e on t ((a + c)); create index t_p on t (c) where c > 5; create index t_i on t (c) include (b); alter table t alter c type int; select sound('t'); select a from t where a + c = 12 order by a; alter table t drop c; select * from indexes; select sound('t');
alter table t add c int default 7, add d text generated always as (b || '!') stored; create index t_c on t (c); create unique index t_d on t (d); select count(*) from t where c = 7; select a from t where d = 'b9!'; alter table t alter c type text; select sound('t');
-- methods
create temp table before as select * from t;
alter table t set access method heap; select sound('t'); insert into t (a, b) values (5, 'x'); insert into t (a, b) values (1005, 'b5'); insert into ref values (null, 'nope');
alter table t set access method :am; select sound('t'); insert into t (a, b) values (5, 'x'); insert into t (a, b) values (1005, 'b5'); insert into ref values (null, 'nope'); update t set b = b || 'y' where a = 77; select a from t where b = 'b77y';
begin; alter table t set access method heap; insert into t (a, b) values (2000, 'in'); select sound('t'); rollback; select sound('t'); insert into t (a, b) values (1005, 'b5');
begin; truncate t cascade; savepoint a; alter table t set access method heap; insert into t (a, b) values (1, 'in'); rollback to a; insert into t (a, b) values (2, 'b5'); insert into t (a, b) values (3, 'b5'); rollback to a; select sound('t'); rollback;
update t set b = 'b77' where a = 77; select count(*) from (select * from t except select * from before) x; select count(*) from t;
create table h (a int primary key, b int, c point) using heap; create index on h using gist (c); insert into h values (1, 1, '(1,1)'); drop index h_c_idx; create index h_b on h (b); alter table h set access method :am; select sound('h');
-- reindex, cluster, vacuum full, truncate, storage
reindex table t; reindex index t_c; select sound('t'); set client_min_messages = warning; cluster t using t_c; reset client_min_messages; select * from indexes where c; set client_min_messages = warning; cluster t; reset client_min_messages; select sound('t'); vacuum full t; select sound('t'); alter table t cluster on t_pkey; set client_min_messages = warning; cluster t; reset client_min_messages; select sound('t');
create table rowid (a int, b int) using :am; insert into rowid select 100 - i, i from generate_series(1, 100) i; create index rowid_a on rowid (a); cluster rowid using rowid_a; select sound('rowid'); delete from rowid where a % 2 = 0; vacuum full rowid; select sound('rowid'), count(*) from rowid;
alter table t set unlogged; select sound('t'); alter table t set logged; select sound('t'); set allow_in_place_tablespaces = true; create tablespace rowref_place2 location ''; alter index t_c set tablespace rowref_place2; alter table t set tablespace rowref_place2; select sound('t'); insert into t (a, b) values (1005, 'b5'); alter index t_c set tablespace pg_default; alter table t set tablespace pg_default; drop tablespace rowref_place2;
alter index t_c set (fillfactor = 50); alter index t_c rename to t_c2; comment on index t_c2 is 'comment'; alter index t_c2 reset (fillfactor); drop index t_c2; select to_regclass('t_c2');
truncate t cascade; insert into t (a, b) values (1, 'one'), (2, 'two'), (1, 'three'); insert into t (a, b) values (1, 'one'), (2, 'two'); select sound('t'); insert into t (a, b) values (3, 'two');
begin; create index t_x on t (b, a); insert into t (a, b) values (9, 'nine'); select sound('t'); savepoint s; drop index t_x; rollback to s; select sound('t'); rollback; select sound('t'); select count(*) from indexes where relname = 't_x';
-- materialized views
create materialized view mv using :am as select a % 3 as g, count(*) n from generate_series(1, 100) a group by 1; create unique index mv_g on mv (g); create index mv_n on mv (n); select sound('mv');
refresh materialized view concurrently mv; select * from mv order by g; refresh materialized view mv; select sound('mv');
create table src (g int, n int) using :am; insert into src values (1, 1), (2, 2); create materialized view mv2 using :am as select * from src; create unique index mv2_g on mv2 (g); delete from src where g = 1; update src set n = 22 where g = 2; insert into src values (3, 3); refresh materialized view concurrently mv2; select * from mv2 order by g; select sound('mv2'); insert into src values (3, 33); refresh materialized view concurrently mv2; select * from mv2 order by g; alter materialized view mv2 set access method heap; delete from src where n = 33; refresh materialized view concurrently mv2; select * from mv2 order by g; drop materialized view mv, mv2;
-- copies, inheritance, schema
create table l (like t including all) using :am; insert into l (a, b) values (1, 'one'), (2, 'two'); insert into l (a, b) values (3, 'one'); select sound('l'); select count(*) from indexes where relname ~ '^l_';
create table child () inherits (t) using :am; create index child_b on child (b); insert into child (a, b) values (1, 'one'); select count(*) from t where b = 'one'; alter table t alter b type varchar(40); select sound('child'); select sound('l');
-- operator classes, collations, user types
create type mood as enum ('sad', 'ok'); create type pair as (x int, y text); create domain posint as int check (value > 0);
create table odd (k posint primary key, m mood, p pair, r int4range, a int[], t text, n name) using :am; insert into odd select i, (array['sad', 'ok'])[i % 2 + 1]::mood, row(i, 'y')::pair, int4range(i, i + 3), array[i, i + 1], 'T' || i, 'n' || i from generate_series(1, 50) i;
create index on odd (m); create index on odd (p); create index on odd (r); create index on odd (a); create index on odd (t text_pattern_ops); create index on odd (n); create index on odd (t collate "C" desc nulls last); create index on odd (upper(t), ((p).x)); select sound('odd');
alter table odd alter t type varchar(20), alter k type bigint; select sound('odd'); alter table odd alter m type text; select sound('odd'); select k from odd where t like 'T4%' order by k limit 2; select pg_get_indexdef(indexrelid, 1, true), pg_get_indexdef(indexrelid, 2, true) from pg_index where indrelid = 'odd'::regclass order by 1, 2;
