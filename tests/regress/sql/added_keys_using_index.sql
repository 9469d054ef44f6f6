-- A constraint is made of an index that the same command makes anew, and a
-- table rewritten that such an index belongs to.
create table t (a int, b varchar(10), c int) using :am;
insert into t select i, 'v' || i, i from generate_series(1, 100) i;
create unique index t_a on t (a); create unique index t_b on t (b); create unique index t_c on t (c); create index t_ab on t (a, b);
alter table t alter a set not null, alter b set not null;
-- rewritten
alter table t add constraint t_a primary key using index t_a, alter a type bigint;
-- not rewritten
alter table t add constraint t_b unique using index t_b, alter b type varchar(20);
insert into t values (1, 'x', 1000);
insert into t values (1001, 'v1', 1001);
-- another column's
alter table t add constraint t_u unique using index t_c, alter b type text using b || '!', add d int default 5;
insert into t values (1001, 'x', 1);
select conname, contype from pg_constraint where conrelid = 't'::regclass order by 1;
select a, b, c, d from t where a = 77; select a from t where c = 78; select a, b from t where b = 'v79!';
-- several at once, one of them deferrable, one fails
create unique index t_x on t (a, c); create unique index t_y on t (b, c);
alter table t add constraint t_x unique using index t_x deferrable, add unique using index t_y, alter c type bigint;
insert into t values (100, 'y', 100);
create unique index t_z on t (d, c); create index t_w on t (c);
alter table t add constraint t_z unique using index t_z, add constraint t_w unique using index t_w, alter c type int;
alter table t add constraint t_z unique using index t_z, alter c type int using 1;
alter table t add constraint t_z unique using index t_z, alter c type int;
select count(*), sum(c) from t where c > 0;
drop table t;
