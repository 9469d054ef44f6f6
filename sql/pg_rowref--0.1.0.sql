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
    OUT incomplete_splits bigint)
    RETURNS SETOF record
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'rowref_relation_stats_wrapper';
COMMENT ON FUNCTION rowref.relation_stats(regclass) IS 'what the pages of a relation hold';

-- Both read every page of a relation, whatever its rows permit.
REVOKE ALL ON FUNCTION rowref.verify(regclass, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION rowref.relation_stats(regclass) FROM PUBLIC;
