-- Keys of several types and several columns: order, bounds, prefixes.
set enable_seqscan = off;
create table edge (source text, kind text, position int, target text, primary key (source, kind, position)) using :am;
insert into edge select 's' || (i % 7), case i % 3 when 0 then 'Depends' when 1 then 'Breaks' else 'Suggests' end, i, 't' || i from generate_series(1, 60) i;
select * from edge where source = 's3' order by kind, position;
select position from edge where source = 's3' and kind = 'Breaks' order by position desc;
select position from edge where source = 's3' and kind = 'Breaks' and position > 20 order by position;
select source, count(*) from edge where source >= 's2' and source < 's5' group by source order by source;
select source, kind, position from edge order by source desc, kind desc, position desc limit 4;
select target from edge where source = 's1' and kind = 'Breaks' and position = 1;
select target from edge where source = 's1' and kind = 'none' and position = 1;
-- a key with different directions is still found from both ends
create table texts (k text primary key) using :am;
insert into texts values (''), ('a'), ('aa'), ('ab'), ('b'), ('Z'), (E'a\tb'), ('ä'), ('a '), (repeat('x', 300));
select length(k), left(k, 5) from texts order by k;
select length(k), left(k, 5) from texts where k > 'a' and k <= 'b' order by k desc;
create table numbers (k bigint primary key) using :am;
insert into numbers values (0), (-1), (1), (9223372036854775807), (-9223372036854775808), (255), (256), (-256);
select * from numbers order by k;
select * from numbers where k >= -1 order by k limit 3;
create table stamps (k timestamptz, u uuid, primary key (k, u)) using :am;
insert into stamps select timestamptz '2024-01-01 00:00+00' + i * interval '1 hour', md5(i::text)::uuid from generate_series(1, 5) i;
insert into stamps values ('infinity', md5('x')::uuid), ('-infinity', md5('y')::uuid);
select * from stamps order by k, u;
create table floats (k float8 primary key) using :am;
insert into floats values ('nan'), ('infinity'), ('-infinity'), (0), (1e-300), (-1e300), (1.5);
insert into floats values ('-0');
select * from floats order by k;
-- null is no key
insert into texts values (null);
reset enable_seqscan;
