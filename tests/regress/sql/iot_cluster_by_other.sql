-- A table with a primary key is stored in its order, whatever it is clustered by;
-- whoever asks for another is told.
create table c (k int primary key, v int) using iot;
insert into c select i, -i from generate_series(1, 5) i;
create index c_v on c (v);
cluster c using c_v;
select string_agg(k::text, ' ') from c;
cluster c;
cluster c using c_pkey;
alter table c drop constraint c_pkey;
cluster c using c_v;
select string_agg(k::text, ' ') from c;
drop table c;
