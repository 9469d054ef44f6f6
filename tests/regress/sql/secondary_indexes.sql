-- Secondary indexes of every shape hold what the table holds, whatever is done
-- to the rows: verify(…, true) sets one against the other, expressions and
-- predicates included.
CREATE TABLE s (id int PRIMARY KEY, a int, b text, c numeric, d name, e float8) USING iot;
CREATE INDEX s_a ON s (a);
CREATE UNIQUE INDEX s_b ON s (b);
CREATE INDEX s_c ON s (c);
CREATE INDEX s_d ON s (d DESC NULLS FIRST, lower(b)) INCLUDE (c) WHERE a > 50;
CREATE INDEX s_many ON s (a, b DESC, c NULLS FIRST, d, e);
CREATE INDEX s_id ON s (id) INCLUDE (b, c);
CREATE TABLE r (a int, b text UNIQUE) USING iot;
CREATE INDEX r_a ON r (a) INCLUDE (b);
SELECT relname, amname FROM pg_class c JOIN pg_am ON pg_am.oid = relam
    WHERE relname IN ('s_a', 's_b', 's_d', 'r_b_key') ORDER BY 1;

INSERT INTO s SELECT i, i % 100, 'x' || i, i / 10.0, 'n' || i, -i FROM generate_series(1, 2000) i;
INSERT INTO r SELECT i % 10, 'x' || i FROM generate_series(1, 500) i;
SELECT * FROM rowref.verify('s', true) UNION ALL SELECT * FROM rowref.verify('r', true);

-- Updates: of what no index looks at, of a column, of what only a predicate or
-- only INCLUDE looks at, of bytes that compare equal, of the key.
UPDATE s SET e = e WHERE id < 100;
UPDATE s SET a = a + 1 WHERE id % 3 = 0;
UPDATE s SET a = 51 WHERE a = 50;
UPDATE s SET a = 50 WHERE a = 51;
UPDATE s SET c = c + 0.00 WHERE id % 5 = 0;
UPDATE s SET c = c * 1.000 WHERE id % 7 = 0;
UPDATE s SET e = 0 WHERE id < 10;
UPDATE s SET e = -e WHERE id < 10;
UPDATE s SET b = upper(b) WHERE id % 4 = 0;
UPDATE s SET b = NULL, d = NULL WHERE id % 11 = 0;
UPDATE s SET id = id + 10000 WHERE id % 13 = 0;
UPDATE r SET a = a + 1, b = b || '!' WHERE a < 5;
SELECT * FROM rowref.verify('s', true) UNION ALL SELECT * FROM rowref.verify('r', true);
DELETE FROM s WHERE id % 17 = 0;
DELETE FROM r WHERE a = 7;
SELECT * FROM rowref.verify('s', true) UNION ALL SELECT * FROM rowref.verify('r', true);

-- What is rolled back leaves no entry, in a subtransaction too.
BEGIN;
UPDATE s SET a = a + 7;
SAVEPOINT one;
DELETE FROM s WHERE id % 2 = 0;
INSERT INTO s VALUES (-1, 1, 'minus', 1, 'm', 1);
ROLLBACK TO one;
UPDATE s SET b = b || 'z' WHERE id % 19 = 0;
SELECT * FROM rowref.verify('s', true);
ROLLBACK;
SELECT * FROM rowref.verify('s', true);

-- The indexes answer.
SET enable_seqscan = off;
SELECT count(*), sum(id) FROM s WHERE a = 33;
SET enable_indexonlyscan = off;
SELECT count(*), sum(id) FROM s WHERE a = 33;
RESET enable_indexonlyscan;
SELECT id, b FROM s WHERE b = 'X1048';
SELECT id, c FROM s WHERE c = 35;
SELECT d, b FROM s WHERE a > 50 AND d = 'n77';
SET enable_seqscan = on;
SET enable_indexscan = off;
SET enable_indexonlyscan = off;
SET enable_bitmapscan = off;
SELECT count(*), sum(id) FROM s WHERE a = 33;
RESET enable_seqscan;
RESET enable_indexscan;
RESET enable_indexonlyscan;
RESET enable_bitmapscan;

-- UNIQUE, in PostgreSQL's words.
INSERT INTO s (id, b) VALUES (50000, 'x1');
UPDATE s SET b = 'x1' WHERE b = 'x2';
DO $$
DECLARE violated text;
BEGIN
    INSERT INTO s (id, b) VALUES (50000, 'x1');
EXCEPTION WHEN unique_violation THEN
    GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
    RAISE NOTICE 'violated: %', violated;
END $$;
INSERT INTO s (id, b) VALUES (50001, NULL), (50002, NULL);
UPDATE s SET b = 'x2' WHERE b = 'x2';
BEGIN;
DELETE FROM s WHERE b = 'x1';
INSERT INTO s (id, b) VALUES (50003, 'x1');
UPDATE s SET id = 50004 WHERE b = 'x1';
COMMIT;
INSERT INTO r VALUES (1, 'same'), (2, 'same');
CREATE TABLE n (id int PRIMARY KEY, a int, UNIQUE NULLS NOT DISTINCT (a)) USING iot;
INSERT INTO n VALUES (1, NULL);
INSERT INTO n VALUES (2, NULL);
CREATE UNIQUE INDEX s_not ON s (a);
SELECT * FROM rowref.verify('s', true) UNION ALL SELECT * FROM rowref.verify('r', true)
    UNION ALL SELECT * FROM rowref.verify('n', true);

-- A reference changes with the table's key: every index is built anew.
ALTER TABLE s DROP CONSTRAINT s_pkey;
SELECT * FROM rowref.verify('s', true);
ALTER TABLE s ADD PRIMARY KEY (id);
SELECT * FROM rowref.verify('s', true);
ALTER TABLE r ADD COLUMN id int GENERATED ALWAYS AS IDENTITY;
ALTER TABLE r ADD PRIMARY KEY (id);
SELECT * FROM rowref.verify('r', true);
ALTER TABLE r ALTER COLUMN id TYPE bigint;
ALTER TABLE r ALTER COLUMN a TYPE bigint;
SELECT * FROM rowref.verify('r', true);
CLUSTER s USING s_pkey;
VACUUM FULL r;
SELECT * FROM rowref.verify('s', true) UNION ALL SELECT * FROM rowref.verify('r', true);
VACUUM s, r;
REINDEX TABLE s;
REINDEX INDEX r_a;
SELECT * FROM rowref.verify('s', true) UNION ALL SELECT * FROM rowref.verify('r', true);
SELECT * FROM rowref.verify('s_many') UNION ALL SELECT * FROM rowref.verify('r_a', true);
BEGIN;
TRUNCATE s;
INSERT INTO s VALUES (1, 1, 'x1', 1, 'n', 1);
SELECT * FROM rowref.verify('s', true);
ROLLBACK;
SELECT * FROM rowref.verify('s', true);
TRUNCATE r;
SELECT * FROM rowref.verify('r', true);
DROP INDEX s_many, s_c;
DELETE FROM s WHERE id < 100;

-- A function that was not immutable: the entry is missed, and said so.
CREATE FUNCTION fickle(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
CREATE TABLE f (id int PRIMARY KEY, a int) USING iot;
CREATE INDEX f_fickle ON f (fickle(a));
INSERT INTO f VALUES (1, 1), (2, 2);
CREATE OR REPLACE FUNCTION fickle(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 + 1; END';
DELETE FROM f WHERE id = 1;
SELECT block < 0 AS of_the_table, problem FROM rowref.verify('f', true);
REINDEX INDEX f_fickle;
DELETE FROM f WHERE id = 1;
SELECT * FROM rowref.verify('f', true);

-- Temporary and unlogged tables; wide values, in keys and INCLUDE columns.
CREATE TEMP TABLE t (id int PRIMARY KEY, a int UNIQUE) USING iot;
INSERT INTO t SELECT i, -i FROM generate_series(1, 1000) i;
UPDATE t SET a = a - 1000 WHERE id % 2 = 0;
SELECT * FROM rowref.verify('t', true);
CREATE UNLOGGED TABLE u (id int PRIMARY KEY, a text) USING iot;
CREATE INDEX u_a ON u (left(a, 20)) INCLUDE (a);
INSERT INTO u SELECT i, repeat(i::text, 500) FROM generate_series(1, 100) i;
UPDATE u SET a = a || 'y' WHERE id % 2 = 0;
SELECT * FROM rowref.verify('u', true);
-- COPY goes in batches, ahead of its index entries.
COPY r (a, b) FROM STDIN;
1	one
2	two
3	three
\.
COPY r (a, b) FROM PROGRAM 'for i in $(seq 3000); do printf "$i\\tcopied $i\\n"; done';
COPY r (a, b) FROM PROGRAM 'for i in 3001 2; do printf "$i\\tcopied $i\\n"; done';
SELECT * FROM rowref.verify('r', true);
-- Rows that go to another partition.
CREATE TABLE p (id int, a int, b int, PRIMARY KEY (id, a)) PARTITION BY LIST (a);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1) USING iot;
CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2) USING iot;
CREATE INDEX p_b ON p (b);
CREATE UNIQUE INDEX p_u ON p (b, a);
INSERT INTO p SELECT i, 1 + i % 2, i FROM generate_series(1, 100) i;
UPDATE p SET a = 3 - a WHERE id % 3 = 0;
SELECT * FROM rowref.verify('p1', true) UNION ALL SELECT * FROM rowref.verify('p2', true);
DROP TABLE s, r, n, f, u, p;
