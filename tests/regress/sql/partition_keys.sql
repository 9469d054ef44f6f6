-- Keys of partitions and of their parents: which is attached to which, when
-- tables come and go with keys of their own.
create view keys as
    select c.relname, i.indisprimary, i.indisvalid, h.inhparent::regclass
    from pg_index i join pg_class c on c.oid = i.indexrelid left join pg_inherits h on h.inhrelid = c.oid
    where c.relnamespace = 'public'::regnamespace order by c.relname;
create table p (k int, v text, primary key (k)) partition by range (k);
create table p1 (k int primary key, v text) using :am;
insert into p1 select i, 'v' || i from generate_series(1, 10) i;
-- a table with its key, once more after it has left, and left for good
alter table p attach partition p1 for values from (1) to (100);
select * from keys;
insert into p values (11, 'x'); insert into p values (5, 'again');
alter table p detach partition p1;
select * from keys;
alter table p attach partition p1 for values from (1) to (100);
alter table p detach partition p1 concurrently;
select * from keys;
insert into p1 values (5, 'again');
-- a key of another order or of other columns does not do
create table p2 (v text, k int not null, primary key (v, k)) using :am;
alter table p attach partition p2 for values from (100) to (200);
-- columns in another order do
alter table p2 drop constraint p2_pkey, add primary key (k);
insert into p2 values ('w', 101);
alter table p attach partition p2 for values from (100) to (200);
insert into p values (150, 'routed'); select * from p2 order by k;
alter table p alter v type varchar(20), alter k type bigint;
select * from keys; select * from p2 order by k;
drop table p, p1;
-- ALTER INDEX … ATTACH PARTITION, as a dump says it
create table q (k int, v text) partition by range (k);
create table q1 (k int not null primary key, v text) using :am;
create table q2 (k int not null, v text) using heap;
alter table q attach partition q1 for values from (1) to (100);
alter table q attach partition q2 for values from (100) to (200);
alter table only q add primary key (k);
alter index q_pkey attach partition q1_pkey;
select * from keys;
alter table q2 add primary key (k);
alter index q_pkey attach partition q1_pkey;
alter index q_pkey attach partition q2_pkey;
alter index q_pkey attach partition q2_pkey;
select * from keys;
alter index q_pkey attach partition nowhere;
alter index q_pkey attach partition q1;
alter table q drop constraint q_pkey;
select * from keys;
-- a key of the parent finds those of its partitions
insert into q select i, 'v' || i from generate_series(1, 199, 3) i;
alter table q1 add primary key (k);
alter table q add primary key (k);
select * from keys;
select count(*), sum(k) from q; insert into q values (4, 'again');
-- two levels
create table r (k int, j int, primary key (k, j)) partition by range (k);
create table s (k int not null, j int not null) partition by range (j);
create table s1 (j int, k int, primary key (k, j)) using :am;
create table s2 (j int, k int, primary key (k, j)) using heap;
alter table s attach partition s1 for values from (0) to (10);
alter table s attach partition s2 for values from (10) to (20);
insert into s select i % 10, i % 20 from generate_series(0, 19) i;
alter table r attach partition s for values from (0) to (10);
delete from s where k >= 10;
alter table r attach partition s for values from (0) to (10);
select * from keys;
select count(*) from r where k = 5 and j = 5;
drop table r;
-- what fails changes nothing, inside of a function that catches it either
alter table q attach partition p2 for values from (50) to (60);
create table z (k int primary key, v text) using :am; insert into z values (1000, 'z');
do $$ begin
    for i in 1..3 loop
        begin
            alter table q attach partition z for values from (200 + i) to (300);
        exception when others then raise notice '%', sqlerrm;
        end;
        perform * from z where k = 1000;
        assert found;
    end loop;
    alter table q attach partition z for values from (1000) to (1001);
    perform * from q where k = 1000;
    assert found;
end $$;
select * from keys where relname = 'z_pkey';
begin; savepoint a; alter table q detach partition z; insert into z values (5000, 'out'); rollback to a; select * from keys where relname = 'z_pkey'; select * from z; commit;
-- a command within the command
create function within() returns event_trigger language plpgsql as $$ begin
    if tg_tag = 'ALTER TABLE' and to_regclass('inner_z') is null then
        create table inner_z (k int primary key, v text);
        alter table q attach partition inner_z for values from (2000) to (2001);
    end if;
    -- planned while z's key is being attached
    perform * from z where k = 1000;
    assert found;
end $$;
create event trigger within on ddl_command_end execute function within();
alter table q detach partition z;
alter table q attach partition z for values from (1000) to (1001);
drop event trigger within;
select * from keys;
insert into q values (2000, 'routed');
-- somebody else's
create role rowref_nobody; grant create on schema public to rowref_nobody;
create table theirs (k int primary key, v text) using :am; alter table theirs owner to rowref_nobody;
set role rowref_nobody;
alter table q attach partition theirs for values from (3000) to (3001);
alter index q_pkey attach partition z_pkey;
alter table theirs add unique using index theirs_pkey;
create table their_parent (k int primary key, v text) partition by range (k);
alter table their_parent attach partition z for values from (1) to (2);
reset role;
drop table theirs, their_parent; revoke create on schema public from rowref_nobody; drop role rowref_nobody;
-- copies of a definition
create table like_z (like z including all) using :am;
create table heap_z (like z including all) using heap;
insert into like_z values (1, 'a'); insert into like_z values (1, 'b');
insert into heap_z values (1, 'a'); insert into heap_z values (1, 'b');
select * from keys where relname ~ '_z_pkey';
