//! The regress files once more, while a standby replays and compares every
//! page with its image (`wal_consistency_checking`).

use anyhow::{Result, ensure};
use rowref_tests::installation::EXTENSION;
use rowref_tests::{Cluster, Options, needs_extension, verify};

use super::{Choice, Tally, regress};

/// Runs the files on a primary, waits for the standby, and compares both row
/// by row.
pub fn run(tally: &mut Tally, am: &str, choice: &Choice) -> Result<()> {
    let checked = if needs_extension(am) {
        EXTENSION
    } else {
        "heap, btree"
    };
    let mut options = Options::test().set("wal_consistency_checking", checked);
    options.access_method = am.into();
    let mut primary = Cluster::start(options)?;
    let mut standby = primary.standby(&[("hot_standby_feedback", "on")])?;
    for script in regress::scripts(am, choice)? {
        for text in script.announcements()? {
            primary.announce(&text);
            standby.announce(&text);
        }
        // The answers were judged on the plain server; here the WAL counts.
        let logged = primary.log_length();
        let ran = regress::answer(&primary, &script).and_then(|_| {
            primary.recover_from_crash(logged)?;
            primary.wait_for_replay(&standby)
        });
        let lost = ran.is_err();
        let died = standby.postmaster().is_none();
        tally.judge(
            &format!("standby replays {}", script.name),
            ran.err().map(|error| format!("{error:#}")),
        );
        // A standby that lags or died once will not recover for the next file.
        ensure!(
            !died && !lost,
            "the standby was lost in {}:\n{}",
            script.name,
            standby.log_tail(20)
        );
    }
    for database in regress::databases(&primary)? {
        tally.judge(
            &format!("standby equals primary: {database}"),
            difference(&primary, &standby, &database)
                .unwrap_or_else(|error| Some(format!("{error:#}"))),
        );
    }
    tally.judge(
        "standby: its server logged nothing unannounced",
        standby.finish().err().map(|error| format!("{error:#}")),
    );
    tally.judge(
        "standby: the primary logged nothing unannounced",
        primary.finish().err().map(|error| format!("{error:#}")),
    );
    Ok(())
}

/// Compares every table of the access method by its rows.
fn difference(primary: &Cluster, standby: &Cluster, database: &str) -> Result<Option<String>> {
    let mut ours = primary.connect(database)?;
    let mut theirs = standby.connect(database)?;
    let mut problems = Vec::new();
    for table in verify::tables(&mut ours, primary.access_method())? {
        let unlogged: bool = ours
            .query_one(
                &format!(
                    "select relpersistence <> 'p' from pg_class where oid = '{table}'::regclass"
                ),
                &[],
            )?
            .get(0);
        if unlogged {
            continue;
        }
        let query = format!(
            "select count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text from {table} t"
        );
        let fingerprint = |client: &mut postgres::Client| -> Result<(i64, String)> {
            let row = client.query_one(&query, &[])?;
            Ok((row.get(0), row.get(1)))
        };
        let (left, right) = (fingerprint(&mut ours)?, fingerprint(&mut theirs)?);
        if left != right {
            problems.push(format!(
                "{table}: primary has {} rows (hash {}), standby {} (hash {})",
                left.0, left.1, right.0, right.1
            ));
        }
    }
    Ok((!problems.is_empty()).then(|| problems.join("\n")))
}
