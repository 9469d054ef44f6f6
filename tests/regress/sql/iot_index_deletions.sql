-- Entries of deleted rows end together with others, and no later than anybody
-- looks: what is stored, and that every index holds what the table holds.
CREATE TABLE d (id int PRIMARY KEY, a int, b text) USING iot;
CREATE INDEX d_a ON d (a);
CREATE INDEX d_b ON d (b, a DESC) INCLUDE (id) WHERE a <> 7;
INSERT INTO d SELECT i, i % 50, 'b' || i % 3 FROM generate_series(1, 2000) i;
CREATE FUNCTION history(a int, id int) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(kind, ', ') FROM rowref.versions('d_a', a, id)
$$;

-- Looked at in the middle of a statement.
CREATE FUNCTION deletes(OUT problems bigint, OUT stored text) LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM d WHERE id % 5 = 0;
    SELECT count(*) INTO problems FROM rowref.verify('d', true);
    DELETE FROM d WHERE id = 1;
    stored := history(1, 1);
END $$;
BEGIN;
SELECT * FROM deletes();
SELECT * FROM rowref.verify('d', true);
ROLLBACK;
SELECT * FROM rowref.verify('d', true);

-- What a block that failed would have ended was never written.
CREATE FUNCTION fails() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM d WHERE id = 2;
    BEGIN
        DELETE FROM d WHERE id = 3;
        PERFORM 1 / 0;
    EXCEPTION WHEN division_by_zero THEN
        NULL;
    END;
    RETURN history(2, 2) || '; ' || history(3, 3);
END $$;
SELECT fails();
SELECT * FROM rowref.verify('d', true);

-- Under SERIALIZABLE, and outside of the executor, nothing is late.
BEGIN ISOLATION LEVEL SERIALIZABLE;
DELETE FROM d WHERE id = 4;
SELECT history(4, 4);
COMMIT;
SELECT * FROM rowref.verify('d', true);

-- Another storage while entries are pending, and an index that lost some.
CREATE FUNCTION rebuilds() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM d WHERE a = 8;
    ALTER TABLE d ALTER b TYPE varchar COLLATE "C";
    DELETE FROM d WHERE a = 9;
    REINDEX INDEX d_b;
    DELETE FROM d WHERE a = 10;
    RETURN count(*) FROM rowref.verify('d', true);
END $$;
SELECT rebuilds();
SELECT * FROM rowref.verify('d', true);

-- Rows that have no entry any more, by an expression that was not immutable.
CREATE FUNCTION weighs(a int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT a';
CREATE INDEX d_weight ON d (weighs(a));
CREATE OR REPLACE FUNCTION weighs(a int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT a + 1';
DELETE FROM d WHERE id IN (11, 12, 13);
SELECT count(*) FROM d WHERE id IN (11, 12, 13);
DROP INDEX d_weight;
SELECT * FROM rowref.verify('d', true);
DROP TABLE d;
DROP FUNCTION history, deletes, fails, rebuilds, weighs;
