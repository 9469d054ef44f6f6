-- What a statement deletes is gone from every index for whoever looks next:
-- the statement's own triggers and functions, the transaction's later
-- statements, other processes of a query; and is there again for everybody
-- after a rollback, in part or as a whole.
SET enable_seqscan = off;
SET enable_bitmapscan = off;
CREATE TABLE t (id int PRIMARY KEY, a int, b text, c numeric) USING :am;
CREATE INDEX t_a ON t (a);
CREATE INDEX t_b ON t (b) INCLUDE (c);
CREATE INDEX t_c ON t ((c + 1), id) WHERE a < 80;
CREATE UNIQUE INDEX t_u ON t (lower(b), id);
INSERT INTO t SELECT i, i % 100, 'b' || i % 7, i FROM generate_series(1, 3000) i;
VACUUM ANALYZE t;

-- How many rows there are, by each index.
CREATE FUNCTION seen(OUT by_a bigint, OUT by_b bigint, OUT by_c bigint, OUT by_u bigint)
    LANGUAGE plpgsql AS $$
BEGIN
    SELECT count(*) INTO by_a FROM t WHERE a >= 0;
    SELECT count(c) INTO by_b FROM t WHERE b >= '';
    SELECT count(*) INTO by_c FROM t WHERE c + 1 > 0 AND a < 80;
    SELECT count(*) INTO by_u FROM t WHERE lower(b) >= '';
END $$;
EXPLAIN (COSTS off) SELECT count(*) FROM t WHERE a >= 0;
EXPLAIN (COSTS off) SELECT count(c) FROM t WHERE b >= '';
SELECT * FROM seen();

-- Statements of one transaction.
BEGIN;
DELETE FROM t WHERE id % 10 = 1;
SELECT * FROM seen();
SAVEPOINT one;
DELETE FROM t WHERE id % 10 = 2;
SELECT * FROM seen();
ROLLBACK TO one;
SELECT * FROM seen();
SAVEPOINT two;
DELETE FROM t WHERE id % 10 = 3;
RELEASE two;
SELECT * FROM seen();
ROLLBACK;
SELECT * FROM seen();

-- Commands within one statement: each sees what those before it have done.
CREATE FUNCTION deletes(OUT before bigint, OUT half bigint, OUT after bigint)
    LANGUAGE plpgsql AS $$
BEGIN
    SELECT count(*) INTO before FROM t WHERE a = 5;
    DELETE FROM t WHERE a = 5 AND id > 1500;
    SELECT count(*) INTO half FROM t WHERE a = 5;
    DELETE FROM t WHERE a = 5;
    SELECT count(*) INTO after FROM t WHERE a = 5;
END $$;
BEGIN;
SELECT *, (SELECT by_b FROM seen()) FROM deletes();
ROLLBACK;

-- A block that fails gives back what it deleted, and nothing else.
CREATE FUNCTION fails(OUT failed bigint, OUT rest bigint) LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM t WHERE a = 6;
    BEGIN
        DELETE FROM t WHERE a = 7;
        BEGIN
            DELETE FROM t WHERE a = 8;
        EXCEPTION WHEN division_by_zero THEN
            RAISE 'not this one';
        END;
        DELETE FROM t WHERE a = 9 AND 1 / (a - 9) > 0;
    EXCEPTION WHEN division_by_zero THEN
        SELECT count(*) INTO failed FROM t WHERE a BETWEEN 7 AND 9;
    END;
    DELETE FROM t WHERE a = 7;
    SELECT count(*) INTO rest FROM t WHERE a BETWEEN 6 AND 9;
END $$;
BEGIN;
SELECT * FROM fails();
SELECT * FROM seen();
ROLLBACK;

-- A row that is deleted and comes back under its key, in its index entries'
-- place: in one statement, in one function, in a transaction, by MERGE.
BEGIN;
WITH gone AS (DELETE FROM t WHERE a = 10 RETURNING *)
    INSERT INTO t SELECT * FROM gone;
SELECT * FROM seen();
WITH gone AS (DELETE FROM t WHERE a = 10 AND id < 1000 RETURNING *)
    INSERT INTO t SELECT id, a, b || 'x', c FROM gone;
SELECT * FROM seen();
CREATE FUNCTION comes_back() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    r t;
BEGIN
    FOR r IN SELECT * FROM t WHERE a = 11 LOOP
        DELETE FROM t WHERE id = r.id;
        INSERT INTO t VALUES (r.*);
        DELETE FROM t WHERE id = r.id;
        INSERT INTO t VALUES (r.*);
    END LOOP;
    RETURN (SELECT count(*) FROM t WHERE a = 11);
END $$;
SELECT comes_back();
DELETE FROM t WHERE id = 12;
INSERT INTO t VALUES (12, 12, 'b5', 12);
SELECT * FROM seen();
MERGE INTO t USING generate_series(101, 140) n ON id = n
    WHEN MATCHED AND n % 2 = 0 THEN DELETE
    WHEN MATCHED THEN UPDATE SET a = a + 1, b = b || 'y';
SELECT * FROM seen();
SELECT id, a, b FROM t WHERE a BETWEEN 2 AND 8 AND id BETWEEN 100 AND 110 ORDER BY id;
COMMIT;

-- Deletions that are carried out after the statement's own rows were returned,
-- and by parts of a statement that do not see each other's work.
BEGIN;
WITH gone AS (DELETE FROM t WHERE a = 20)
    SELECT count(*) FROM t WHERE a = 20;
SELECT count(*) FROM t WHERE a = 20;
WITH gone AS (DELETE FROM t WHERE a = 21 RETURNING id)
    SELECT count(*), (SELECT count(*) FROM t WHERE a = 21) FROM gone;
WITH one AS (DELETE FROM t WHERE a = 22 AND id % 200 < 100 RETURNING id),
    two AS (DELETE FROM t WHERE a = 22 AND id % 200 >= 100 RETURNING id)
    SELECT (SELECT count(*) FROM one) + (SELECT count(*) FROM two);
SELECT * FROM seen();
ROLLBACK;

-- Triggers look at the index while the statement goes on, and behind it.
CREATE FUNCTION tells() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE '% %: % rows', TG_WHEN, TG_LEVEL, (SELECT count(*) FROM t WHERE a = 30 AND id < 500);
    RETURN old;
END $$;
CREATE TRIGGER before_row BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION tells();
CREATE TRIGGER after_row AFTER DELETE ON t FOR EACH ROW EXECUTE FUNCTION tells();
CREATE TRIGGER after_all AFTER DELETE ON t FOR EACH STATEMENT EXECUTE FUNCTION tells();
DELETE FROM t WHERE a = 30 AND id < 500;
DROP TRIGGER before_row ON t;
DROP TRIGGER after_row ON t;
DROP TRIGGER after_all ON t;

-- Cursors: of the rows that are being deleted, and one that was opened before.
BEGIN;
DECLARE old CURSOR FOR SELECT id FROM t WHERE a = 40 AND id < 800 ORDER BY id;
FETCH 2 FROM old;
CREATE FUNCTION by_cursor(OUT gone int, OUT rest bigint) LANGUAGE plpgsql AS $$
DECLARE
    c CURSOR FOR SELECT * FROM t WHERE a = 40 FOR UPDATE;
    r record;
BEGIN
    gone := 0;
    FOR r IN c LOOP
        DELETE FROM t WHERE CURRENT OF c;
        gone := gone + 1;
    END LOOP;
    SELECT count(*) INTO rest FROM t WHERE a = 40;
END $$;
SELECT * FROM by_cursor();
FETCH 20 FROM old;
CLOSE old;
DECLARE c CURSOR FOR SELECT * FROM t WHERE a = 41 AND id < 300 ORDER BY id FOR UPDATE;
FETCH 1 FROM c;
DELETE FROM t WHERE CURRENT OF c;
SELECT count(*) FROM t WHERE a = 41 AND id < 300;
ROLLBACK;

-- Other processes of the same query.
CREATE FUNCTION with_workers(OUT before bigint, OUT after bigint) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'SELECT count(*) FROM t WHERE a >= 0' INTO before;
    DELETE FROM t WHERE a BETWEEN 50 AND 54;
    EXECUTE 'SELECT count(*) FROM t WHERE a >= 0' INTO after;
END $$;
BEGIN;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_index_scan_size = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SET LOCAL max_parallel_workers_per_gather = 2;
SET LOCAL parallel_leader_participation = off;
EXPLAIN (COSTS off) SELECT count(*) FROM t WHERE a >= 0;
SELECT * FROM with_workers();
ROLLBACK;

-- Commands that give an index other storage, or take it away, in the middle.
CREATE FUNCTION defines(command text, OUT before bigint, OUT after bigint) LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM t WHERE a = 60;
    SELECT count(*) INTO before FROM t WHERE a BETWEEN 60 AND 61;
    DELETE FROM t WHERE a = 61 AND id % 300 <> 61;
    EXECUTE command;
    SELECT count(*) INTO after FROM t WHERE a BETWEEN 60 AND 61;
END $$;
BEGIN;
SAVEPOINT s;
SELECT defines('REINDEX INDEX t_a');
SELECT * FROM seen();
ROLLBACK TO s;
SELECT defines('REINDEX TABLE t');
SELECT * FROM seen();
ROLLBACK TO s;
SELECT defines('ALTER TABLE t ALTER a TYPE bigint');
SELECT * FROM seen();
ROLLBACK TO s;
SELECT defines('DROP INDEX t_a, t_c');
ROLLBACK TO s;
SELECT defines('TRUNCATE t');
ROLLBACK TO s;
SELECT defines('CREATE INDEX t_more ON t (a, b)');
SELECT * FROM seen();
ROLLBACK TO s;
SELECT defines('ALTER TABLE t DROP CONSTRAINT t_pkey');
SELECT * FROM seen();
ROLLBACK TO s;
SELECT defines('ALTER TABLE t DROP COLUMN c');
ROLLBACK TO s;
SELECT * FROM seen();
-- The new storage goes, and what was deleted before stays deleted.
SELECT id FROM t WHERE a = 61 AND id < 300;
DELETE FROM t WHERE a = 61;
SAVEPOINT s;
REINDEX INDEX t_a;
ROLLBACK TO s;
SELECT * FROM seen();
ROLLBACK;

-- More than memory holds at once.
SET work_mem = '64kB';
BEGIN;
DELETE FROM t WHERE id % 3 > 0;
SELECT * FROM seen();
ROLLBACK;
SELECT * FROM seen();
DELETE FROM t WHERE id > 1000;
SELECT * FROM seen();
RESET work_mem;

-- Rows that are found by reading the whole table, where they lie together: all of
-- them, some, more than memory holds, with others' work on them in between.
SET enable_seqscan = on;
SET enable_indexscan = off;
SET enable_indexonlyscan = off;
ALTER FUNCTION seen SET enable_seqscan = off SET enable_indexscan = on SET enable_indexonlyscan = on;
CREATE TABLE found (id int PRIMARY KEY, a int, b text, c numeric) USING :am;
INSERT INTO found SELECT * FROM t;
DROP INDEX t_u;
DELETE FROM t WHERE c % 10 = 1;
SELECT by_a, by_b, by_c FROM seen();
BEGIN;
UPDATE t SET a = a + 1 WHERE c % 10 = 2;
DELETE FROM t WHERE c % 10 IN (2, 3);
SELECT by_a, by_b, by_c FROM seen();
SAVEPOINT s;
DELETE FROM t;
SELECT by_a, by_b, by_c FROM seen();
INSERT INTO t SELECT * FROM found;
SELECT by_a, by_b, by_c FROM seen();
ROLLBACK TO s;
SELECT by_a, by_b, by_c FROM seen();
ROLLBACK;
SELECT by_a, by_b, by_c FROM seen();
CREATE FUNCTION divides(c numeric) RETURNS numeric IMMUTABLE LANGUAGE sql AS 'SELECT 1 / (c - 500)';
DELETE FROM t WHERE divides(c) > 0 OR c % 10 = 4;
SELECT by_a, by_b, by_c FROM seen();
CREATE INDEX t_divides ON t (divides(c)) WHERE c <> 500;
SET work_mem = '64kB';
DELETE FROM t WHERE c % 10 IN (5, 6);
RESET work_mem;
SELECT by_a, by_b, by_c FROM seen();
CREATE FUNCTION sweeps(OUT before bigint, OUT after bigint) LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM t WHERE c % 10 = 7;
    SELECT by_a INTO before FROM seen();
    BEGIN
        DELETE FROM t WHERE c % 10 = 8;
        PERFORM divides(500);
    EXCEPTION WHEN division_by_zero THEN
        DELETE FROM t WHERE c % 10 = 9 AND c < 100;
    END;
    SELECT by_a INTO after FROM seen();
END $$;
SELECT * FROM sweeps();
SELECT by_a, by_b, by_c FROM seen();
-- With an index among them whose entries end at once.
CREATE UNIQUE INDEX t_u ON t (lower(b), id);
DELETE FROM t WHERE c % 10 = 9;
SELECT * FROM seen();
WITH gone AS (DELETE FROM t WHERE c < 300 RETURNING *)
    INSERT INTO t SELECT id, a + 1, b, c FROM gone;
DELETE FROM t WHERE c < 200;
INSERT INTO t SELECT * FROM found WHERE c < 100;
INSERT INTO t SELECT * FROM found WHERE id = 11;
SELECT * FROM seen();
SET enable_indexscan = on;
SET enable_indexonlyscan = on;
SET enable_seqscan = off;
TRUNCATE t;
DROP INDEX t_divides;
INSERT INTO t SELECT * FROM found;
SELECT * FROM seen();

-- Prepared transactions.
BEGIN;
DELETE FROM t WHERE a = 70;
PREPARE TRANSACTION 'index_deletions';
SELECT count(*) FROM t WHERE a = 70;
COMMIT PREPARED 'index_deletions';
SELECT count(*) FROM t WHERE a = 70;
SELECT * FROM seen();

-- Referenced rows go with those that they refer to, through the index.
CREATE TABLE part_of (id int PRIMARY KEY, t int REFERENCES t ON DELETE CASCADE, n int) USING :am;
CREATE INDEX part_of_t ON part_of (t);
CREATE INDEX part_of_n ON part_of (n);
INSERT INTO part_of SELECT row_number() OVER (), id, n FROM t, generate_series(1, 3) n;
SELECT count(*) FROM part_of WHERE t > 0;
DELETE FROM t WHERE a < 50;
SELECT count(*) FROM part_of WHERE t > 0;
SELECT count(*) FROM part_of WHERE n > 0;
SELECT * FROM seen();

-- Temporary tables, and rows that leave their partition.
CREATE TEMP TABLE temporary (id int PRIMARY KEY, a int) USING :am;
CREATE INDEX temporary_a ON temporary (a);
INSERT INTO temporary SELECT i, i % 5 FROM generate_series(1, 100) i;
DELETE FROM temporary WHERE id % 2 = 0;
SELECT count(*) FROM temporary WHERE a >= 0;
CREATE TABLE parted (id int, p int, a int, PRIMARY KEY (id, p)) PARTITION BY LIST (p);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1) USING :am;
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2) USING :am;
CREATE INDEX parted_a ON parted (a);
INSERT INTO parted SELECT i, 1 + i % 2, i % 10 FROM generate_series(1, 200) i;
UPDATE parted SET p = 3 - p WHERE a < 4;
SELECT p, count(*) FROM parted WHERE a >= 0 GROUP BY p ORDER BY p;
CREATE FUNCTION moves(OUT one bigint, OUT two bigint) LANGUAGE plpgsql AS $$
BEGIN
    UPDATE parted SET p = 2 WHERE a = 4;
    DELETE FROM parted WHERE a = 5;
    UPDATE parted SET p = 1 WHERE a = 4;
    SELECT count(*) FILTER (WHERE p = 1), count(*) FILTER (WHERE p = 2) INTO one, two
        FROM parted WHERE a BETWEEN 4 AND 5;
END $$;
SELECT * FROM moves();
SELECT p, count(*) FROM parted WHERE a >= 0 GROUP BY p ORDER BY p;

DROP TABLE part_of, t, parted, found;
DROP FUNCTION seen, divides, sweeps, deletes, fails, tells, with_workers, defines, moves, comes_back;
