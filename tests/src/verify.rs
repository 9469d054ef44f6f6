//! Asking the extension whether its relations are sound.

use anyhow::Result;
use postgres::Client;

/// Every problem `rowref.verify` reports about one relation, its rows included.
pub fn verify(client: &mut Client, relation: &str) -> Result<Vec<String>> {
    let query = format!(
        "select coalesce(v::text, 'null') from rowref.verify('{}'::regclass, true) v",
        relation.replace('\'', "''")
    );
    Ok(client
        .query(&query, &[])?
        .iter()
        .map(|row| format!("{relation}: {}", row.get::<_, String>(0)))
        .collect())
}

/// Names of the tables of `access_method` in this database.
pub fn tables(client: &mut Client, access_method: &str) -> Result<Vec<String>> {
    let query = "select c.oid::regclass::text from pg_class c join pg_am a on a.oid = c.relam
                 where a.amname = $1 and c.relkind in ('r', 'm') and c.relnamespace in
                 (select oid from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema')
                 order by 1";
    Ok(client
        .query(query, &[&access_method])?
        .iter()
        .map(|row| row.get(0))
        .collect())
}

/// Every problem of every table of `access_method` in this database. Heap
/// tables have no `rowref.verify`; for them it finds nothing.
pub fn verify_all(client: &mut Client, access_method: &str) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    if crate::needs_extension(access_method) {
        for table in tables(client, access_method)? {
            problems.extend(verify(client, &table)?);
        }
    }
    Ok(problems)
}
