\echo Use "CREATE EXTENSION pg_rowref" to load this file. \quit

-- Without the library in shared_preload_libraries nothing could be replayed
-- after a crash, so nothing is made: this call says so and ends the script.
CREATE FUNCTION rowref.require_preloaded() RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'rowref_require_preloaded';
SELECT rowref.require_preloaded();

CREATE FUNCTION rowref.iot_handler(internal) RETURNS table_am_handler
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'rowref_iot_handler';
CREATE ACCESS METHOD iot TYPE TABLE HANDLER rowref.iot_handler;
COMMENT ON ACCESS METHOD iot IS 'tables kept in a B+tree by their primary key';

CREATE FUNCTION rowref.index_handler(internal) RETURNS index_am_handler
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'rowref_index_handler';
CREATE ACCESS METHOD rowref TYPE INDEX HANDLER rowref.index_handler;
COMMENT ON ACCESS METHOD rowref IS 'indexes of tables whose rows have no ctid';

CREATE FUNCTION rowref.verify(relation regclass, heavy boolean DEFAULT false)
    RETURNS TABLE (block bigint, problem text)
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'rowref_verify_wrapper';
COMMENT ON FUNCTION rowref.verify(regclass, boolean) IS
    'every broken promise found in a relation; heavy reads each stored row as well';

CREATE FUNCTION rowref.relation_stats(
    relation regclass,
    OUT organization text,
    OUT levels integer,
    OUT leaf_pages bigint,
    OUT inner_pages bigint,
    OUT deleted_pages bigint,
    OUT new_pages bigint,
    OUT entries bigint,
    OUT free_bytes bigint,
    OUT garbage_bytes bigint,
    OUT incomplete_splits bigint,
    OUT rows bigint,
    OUT versions bigint,
    OUT dead_versions bigint,
    OUT tombstones bigint,
    OUT locks bigint,
    OUT frozen bigint,
    OUT version_bytes bigint,
    OUT tombstone_bytes bigint,
    OUT lock_bytes bigint,
    OUT fill_percent double precision)
    RETURNS SETOF record
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'rowref_relation_stats_wrapper';
COMMENT ON FUNCTION rowref.relation_stats(regclass) IS 'what the pages of a relation hold';

CREATE FUNCTION rowref.versions(
    relation regclass,
    VARIADIC key "any",
    OUT sequence bigint,
    OUT kind text,
    OUT xmin xid,
    OUT cid bigint,
    OUT flags text[],
    OUT strength text,
    OUT bytes integer,
    OUT stored_values boolean,
    OUT moved_to text,
    OUT block bigint)
    RETURNS SETOF record
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'rowref_versions_wrapper';
COMMENT ON FUNCTION rowref.versions(regclass, "any") IS
    'row locks and versions that a table holds under one key, newest first';

CREATE FUNCTION rowref.page(
    relation regclass,
    block bigint,
    OUT kind text,
    OUT level integer,
    OUT flags text[],
    OUT left_block bigint,
    OUT right_block bigint,
    OUT low_key bytea,
    OUT low_sequence bigint,
    OUT high_key bytea,
    OUT high_sequence bigint,
    OUT prefix_bytes integer,
    OUT slots integer,
    OUT free_bytes integer,
    OUT garbage_bytes integer,
    OUT deleted_xid bigint)
    RETURNS SETOF record
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'rowref_page_wrapper';
COMMENT ON FUNCTION rowref.page(regclass, bigint) IS 'header and fences of a page';

CREATE FUNCTION rowref.page_entries(
    relation regclass,
    block bigint,
    OUT slot integer,
    OUT kind text,
    OUT key bytea,
    OUT key_columns text,
    OUT sequence bigint,
    OUT xmin xid,
    OUT cid bigint,
    OUT flags text[],
    OUT bytes integer,
    OUT shares_key boolean,
    OUT child_block bigint)
    RETURNS SETOF record
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'rowref_page_entries_wrapper';
COMMENT ON FUNCTION rowref.page_entries(regclass, bigint) IS 'the slots of a page';

CREATE FUNCTION rowref.handle_stats(
    OUT open_runs bigint,
    OUT open_scopes bigint,
    OUT memory_bytes bigint)
    RETURNS SETOF record
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'rowref_handle_stats_wrapper';
COMMENT ON FUNCTION rowref.handle_stats() IS
    'what this session''s row handles take: running queries, those with leases of their own, memory';

-- The others read a relation's pages, whatever its rows permit.
REVOKE ALL ON FUNCTION rowref.verify(regclass, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION rowref.relation_stats(regclass) FROM PUBLIC;
REVOKE ALL ON FUNCTION rowref.versions(regclass, "any") FROM PUBLIC;
REVOKE ALL ON FUNCTION rowref.page(regclass, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION rowref.page_entries(regclass, bigint) FROM PUBLIC;
