-- Foreign keys in both directions between this access method and heap, with
-- every action; partitions of both kinds in one table.
create table parent (k int primary key, v text) using :am;
create table hparent (k int primary key, v text) using heap;
insert into parent select i, 'p' || i from generate_series(1, 9) i;
insert into hparent select i, 'p' || i from generate_series(1, 9) i;
create table na (k int primary key, p int references parent) using :am;
create table ca (k int primary key, p int references parent on delete cascade on update cascade) using :am;
create table sn (k int primary key, p int references parent on delete set null on update set null) using :am;
create table sd (k int primary key, p int default 9 references parent on delete set default on update set default) using :am;
create table re (k int primary key, p int references parent on delete restrict on update restrict) using heap;
create table hc (k int primary key, p int references hparent on delete cascade on update cascade) using :am;
create table df (k int primary key, p int references parent deferrable initially deferred) using :am;
insert into na values (1, 1); insert into ca values (1, 2), (2, 2), (3, 3); insert into sn values (1, 3), (2, 4); insert into sd values (1, 4), (2, 5); insert into re values (1, 6); insert into hc values (1, 1), (2, 2);
insert into na values (2, 77); insert into re values (2, 77); insert into hc values (7, 77);
delete from parent where k = 1; update parent set k = 50 where k = 1; update parent set v = 'x' where k = 1;
delete from parent where k = 6; update parent set k = 60 where k = 6;
delete from parent where k = 2; update parent set k = 30 where k = 3;
delete from parent where k = 4; update parent set k = 51 where k = 5;
delete from hparent where k = 1; update hparent set k = 20 where k = 2;
select * from ca order by k; select * from sn order by k; select * from sd order by k; select * from hc order by k;
begin; insert into df values (1, 100); insert into parent values (100, 'late'); commit;
begin; insert into df values (2, 101); savepoint a; insert into parent values (101, 'undone'); rollback to a; commit;
select * from df;
begin; delete from parent where k = 100; insert into parent values (100, 'reborn'); commit;
select * from df;
-- A tree of its own rows.
create table tree (k int primary key, up int references tree on delete cascade on update cascade) using :am;
insert into tree values (1, null), (2, 1), (3, 2), (4, 3), (5, 1);
update tree set k = 20 where k = 2; select * from tree order by k;
delete from tree where k = 20; select * from tree order by k;
insert into tree values (7, 8), (8, 7); select * from tree order by k;
-- Several columns, MATCH FULL.
create table pair (a int, b text collate "C", primary key (a, b)) using :am;
create table kid (k int primary key, a int, b text collate "C", foreign key (a, b) references pair match full on update cascade) using :am;
insert into pair values (1, 'x'), (1, 'y');
insert into kid values (1, 1, 'x'), (2, null, null); insert into kid values (3, 1, null); insert into kid values (4, 1, 'z');
update pair set b = 'xx' where b = 'x'; select * from kid order by k;
alter table na drop constraint na_p_fkey; delete from parent where k = 1; insert into na values (5, 999);
alter table na add foreign key (p) references parent;
alter table na add foreign key (p) references parent not valid; insert into na values (6, 998);
truncate parent; truncate parent cascade; select count(*) from ca;

-- Partitions.
create table m (k int, region text collate "C", v int, primary key (k)) partition by range (k);
create table m1 partition of m for values from (0) to (100) using :am;
create table m2 partition of m for values from (100) to (200) using heap;
create table m3 partition of m default using :am;
insert into m select i, 'r' || i % 3, i from generate_series(0, 299, 10) i;
select tableoid::regclass, count(*), sum(v) from m group by 1 order by tableoid::regclass::text;
update m set k = k + 95 where k in (0, 100, 200) returning tableoid::regclass, k;
update m set v = v + 1 where k between 90 and 110;
delete from m where k = 195;
select tableoid::regclass, * from m where k between 80 and 210 order by k;
insert into m values (10, 'dup', 0); insert into m values (110, 'dup', 0);
select k from m order by k desc limit 5;
select count(*) from m a join m b using (k);
begin; alter table m detach partition m1; select count(*) from m; rollback; select count(*) from m;
create table m4 (k int primary key, region text collate "C", v int) using :am;
insert into m4 values (1000, 'z', 1);
create table l (k text collate "C", v int, primary key (k)) partition by list (k);
create table l1 partition of l for values in ('a', 'b') using :am; create table l2 partition of l for values in ('c') using :am;
insert into l values ('a', 1), ('b', 2), ('c', 3); update l set k = 'c' where k = 'a'; delete from l where k = 'c'; update l set k = 'c' where k = 'a'; select tableoid::regclass, * from l order by k;
create table h (k int primary key, v int) partition by hash (k);
create table h0 partition of h for values with (modulus 2, remainder 0) using :am; create table h1 partition of h for values with (modulus 2, remainder 1) using heap;
insert into h select i, i from generate_series(1, 1000) i; update h set k = k + 1000; select count(*), sum(k), min(v), max(v) from h; select v from h where k = 1500;
truncate m; select count(*) from m; drop table m, l, h;

-- Cursors, WHERE CURRENT OF, holdable ones, and prepared transactions.
create table cu (k int primary key, v int) using :am;
insert into cu select i, i from generate_series(1, 10) i;
begin; declare c scroll cursor for select * from cu order by k; fetch 2 from c; fetch last from c; fetch prior from c; fetch absolute 3 from c; fetch relative -2 from c; fetch prior from c; fetch prior from c; fetch next from c; commit;
begin; declare c cursor for select * from cu where k < 4 order by k for update; fetch 1 from c; update cu set v = 100 where current of c; fetch 1 from c; delete from cu where current of c; fetch 1 from c; update cu set k = 33 where current of c; update cu set v = 0 where current of c; commit;
select * from cu where k < 5 or k > 30 order by k;
begin; declare hc cursor with hold for select * from cu order by k; delete from cu where k > 5; commit; fetch 3 from hc; fetch all from hc; close hc;
begin; declare c cursor for select * from cu where k = 1; fetch 1 from c; update cu set v = v + 1 where current of c; update cu set v = v + 1 where current of c; rollback;
