//! What the handles of the asking session take.

use pgrx::prelude::*;

/// The session's runs, scopes and memory; the query that asks is a run, too.
#[pg_extern(sql = false, name = "rowref_handle_stats")]
fn rowref_handle_stats() -> TableIterator<
    'static,
    (
        name!(open_runs, i64),
        name!(open_scopes, i64),
        name!(memory_bytes, i64),
    ),
> {
    let footprint = pg::handles::footprint();
    TableIterator::once((
        footprint.open_runs as i64,
        footprint.open_scopes as i64,
        footprint.memory_bytes as i64,
    ))
}
