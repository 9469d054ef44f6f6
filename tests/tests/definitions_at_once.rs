//! Definitions that need indexes to look like something else for a moment,
//! while others insert ON CONFLICT into the same tables, and while whatever a
//! session has cached of them is thrown away.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use postgres::Client;
use postgres::error::SqlState;
use rowref_tests::{Cluster, Options, access_method, verify};

const SECONDS: u64 = 12;
const KEYS: i32 = 300;

/// What may become of a statement when others redefine what it works on.
fn is_expected(error: &postgres::Error) -> bool {
    let Some(failure) = error.as_db_error() else {
        return false;
    };
    let message = failure.message();
    match failure.code() {
        &SqlState::T_R_SERIALIZATION_FAILURE
        | &SqlState::T_R_DEADLOCK_DETECTED
        | &SqlState::UNDEFINED_TABLE
        | &SqlState::UNIQUE_VIOLATION
        | &SqlState::DUPLICATE_TABLE
        | &SqlState::DUPLICATE_OBJECT
        | &SqlState::LOCK_NOT_AVAILABLE => true,
        // The key or its partition is gone for now.
        &SqlState::INVALID_COLUMN_REFERENCE => message.contains("ON CONFLICT"),
        // A detachment that was given up for want of a lock.
        &SqlState::WRONG_OBJECT_TYPE => message.contains("is already a partition"),
        &SqlState::CHECK_VIOLATION => message.contains("no partition of relation"),
        // The second is a reset of the caches in the midst of a change of type
        // (`pg/src/ddl/README.md`, "The disguise").
        &SqlState::UNDEFINED_OBJECT => ["constraint \"", "index \"", "access method \"rowref\""]
            .iter()
            .any(|name| message.contains(name)),
        // The same, when core finds it out only at the partition's first row; it
        // says so of heap's partitions too.
        &SqlState::INTERNAL_ERROR => message == "invalid arbiter index list",
        _ => false,
    }
}

/// Runs statements one by one; whether all of them were done.
fn attempt(client: &mut Client, statements: &[String], surprises: &Surprises) -> Result<bool> {
    for statement in statements {
        if let Err(error) = client.batch_execute(statement) {
            if !is_expected(&error) {
                surprises.note(statement, &error);
            }
            if statements[0].starts_with("begin") {
                client.batch_execute("rollback")?;
            }
            return Ok(false);
        }
    }
    Ok(true)
}

/// Errors that nobody can account for.
#[derive(Default)]
struct Surprises(std::sync::Mutex<Vec<String>>);

impl Surprises {
    fn note(&self, statement: &str, error: &postgres::Error) {
        let mut all = self.0.lock().expect("nobody panics with it");
        all.push(format!("{statement}: {:?}", error.as_db_error()));
    }
}

type Work = fn(&mut Client, &mut fastrand::Rng, &Surprises) -> Result<bool>;

/// INSERT … ON CONFLICT into the partitioned table, one of its leaves, or the
/// table whose keys come and go.
fn insert(client: &mut Client, random: &mut fastrand::Rng, surprises: &Surprises) -> Result<bool> {
    let isolation = ["read committed", "repeatable read"][random.usize(..2)];
    let mut statements = vec![format!("begin isolation level {isolation}")];
    for _ in 0..random.i32(1..4) {
        let first = random.i32(0..KEYS);
        let target = ["p", "p", "p1", "t", "t"][random.usize(..5)];
        let last = match target {
            "p1" => (first % 100).min(95) + 4,
            _ => first + random.i32(0..40),
        };
        let first = if target == "p1" { last - 4 } else { first };
        let action = [
            "do nothing",
            "(k) do nothing",
            "(k) do update set v = excluded.v + 1",
            "(k) do update set v = -excluded.v where excluded.k % 3 > 0",
        ][random.usize(..4)];
        statements.push(format!(
            "insert into {target} select i, i from generate_series({first}, {last}) i \
             where i < {KEYS} order by random() on conflict {action}"
        ));
        if random.i32(..4) == 0 {
            let k = random.i32(0..KEYS);
            statements.push(format!(
                "delete from {} where k = {k}",
                ["p", "t"][random.usize(..2)]
            ));
        }
    }
    statements.push(["commit", "commit", "rollback"][random.usize(..3)].into());
    attempt(client, &statements, surprises)
}

/// The same by a function, whose statements are planned once and again.
fn insert_prepared(
    client: &mut Client,
    random: &mut fastrand::Rng,
    surprises: &Surprises,
) -> Result<bool> {
    let first = random.i32(0..KEYS);
    attempt(client, &[format!("select fill({first})")], surprises)
}

/// Partitions and their keys come and go.
fn partitions(
    client: &mut Client,
    random: &mut fastrand::Rng,
    surprises: &Surprises,
) -> Result<bool> {
    let am = access_method();
    let key = ["primary key (k)", "unique (k), alter k set not null"][random.usize(..2)];
    let detach = ["", "concurrently"][random.usize(..2)];
    attempt(
        client,
        &[
            "alter table p detach partition p2".into(),
            "alter table p2 rename to p2_gone".into(),
            "drop table p2_gone".into(),
        ],
        surprises,
    )?;
    attempt(
        client,
        &[
            "drop table if exists p2".into(),
            format!("create table p2 (k int, v int) using {am}"),
            "insert into p2 select i, i from generate_series(100, 150) i".into(),
            format!("alter table p2 add {key}"),
            "alter table p attach partition p2 for values from (100) to (200)".into(),
        ],
        surprises,
    )?;
    attempt(
        client,
        &[format!("alter table p detach partition p2 {detach}")],
        surprises,
    )?;
    attempt(
        client,
        &["alter table p attach partition p2 for values from (100) to (200)".into()],
        surprises,
    )
}

/// Indexes of all partitions, made from above and from below.
fn indexes(client: &mut Client, random: &mut fastrand::Rng, surprises: &Surprises) -> Result<bool> {
    if random.bool() {
        attempt(
            client,
            &[
                "create index p_v on p (v)".into(),
                "alter table p add constraint p_u unique (v, k)".into(),
                "drop index p_v".into(),
                "alter table p drop constraint p_u".into(),
            ],
            surprises,
        )?;
    } else {
        attempt(
            client,
            &[
                "create index p_o on only p (v)".into(),
                "create index concurrently p1_o on p1 (v)".into(),
                "alter index p_o attach partition p1_o".into(),
                "create unique index p3_u on p3 (v, k)".into(),
                "alter table p add constraint p_u unique (v, k)".into(),
            ],
            surprises,
        )?;
    }
    attempt(
        client,
        &[
            "drop index if exists p_o, p1_o, p_v".into(),
            "alter table p drop constraint if exists p_u".into(),
            "drop index if exists p3_u, p1_o".into(),
        ],
        surprises,
    )
}

/// A table's keys come and go, and so do its types.
fn keys(client: &mut Client, random: &mut fastrand::Rng, surprises: &Surprises) -> Result<bool> {
    attempt(
        client,
        &[
            "delete from t a using t b where a.k = b.k and a.v < b.v".into(),
            "delete from t where k is null".into(),
        ],
        surprises,
    )?;
    let kind = ["bigint", "int"][random.usize(..2)];
    let make = match random.usize(..4) {
        0 => "alter table t add constraint t_key primary key (k)".to_owned(),
        1 => "create unique index t_key on t (k); alter table t add constraint t_key primary key using index t_key".to_owned(),
        2 => format!("create unique index t_key on t (k); alter table t add constraint t_key unique using index t_key, alter k type {kind}"),
        _ => format!("alter table t add constraint t_key primary key (k), alter v type {kind}"),
    };
    attempt(client, &[make], surprises)?;
    std::thread::sleep(Duration::from_millis(random.u64(0..60)));
    attempt(
        client,
        &[
            "alter table t drop constraint if exists t_key".into(),
            "drop index if exists t_key".into(),
        ],
        surprises,
    )
}

/// A materialized view is refreshed in place.
fn refresh(client: &mut Client, random: &mut fastrand::Rng, surprises: &Surprises) -> Result<bool> {
    let ways = [
        "refresh materialized view concurrently m",
        "refresh materialized view concurrently m",
        "refresh materialized view m",
        "reindex index concurrently m_k",
        "select count(*) from m where k = 7",
    ];
    attempt(
        client,
        &[ways[random.usize(..ways.len())].into()],
        surprises,
    )
}

/// Every session's caches overflow.
fn reset(client: &mut Client, _: &mut fastrand::Rng, surprises: &Surprises) -> Result<bool> {
    let script = "do $$ begin
        for i in 1..150 loop
            execute format('create temp table x%s (a int primary key, b text unique) on commit drop', i);
        end loop; end $$";
    attempt(client, &[script.into(), "analyze p".into()], surprises)
}

#[test]
fn definitions_and_conflicts_meet_without_harm() -> Result<()> {
    let mut cluster = Cluster::start(Options::test().set("deadlock_timeout", "30ms"))?;
    cluster.announce("deadlock detected");
    let mut client = cluster.connect("postgres")?;
    let am = access_method();
    client.batch_execute(&format!(
        "create table p (k int primary key, v int) partition by range (k);
         create table p1 partition of p for values from (0) to (100) using {am};
         create table p2 partition of p for values from (100) to (200) using {am};
         create table p3 partition of p for values from (200) to (300) using heap;
         create table t (k int, v int) using {am};
         create function fill(f int) returns void language plpgsql as $$
         begin
            insert into p select i, i from generate_series(f, f + 30) i where i < {KEYS} on conflict (k) do update set v = p.v + 1;
            insert into t select i, i from generate_series(f, f + 30) i on conflict do nothing;
         end $$;
         create function note() returns trigger language plpgsql as $$
         begin
            if (select count(*) from m where k = new.k) > 1 then raise 'two rows of one key'; end if;
            return new;
         end $$;
         create table source (k int primary key, v int) using {am};
         insert into source select i, i from generate_series(0, 300) i;
         create materialized view m using {am} as select k, (random() * 100)::int as v from source where random() < 0.9;
         create unique index m_k on m (k);
         create trigger note before insert on p1 for each row execute function note();",
    ))?;
    let work: [(&str, Work); 9] = [
        ("insert", insert),
        ("insert", insert),
        ("prepared", insert_prepared),
        ("prepared", insert_prepared),
        ("partitions", partitions),
        ("indexes", indexes),
        ("keys", keys),
        ("refresh", refresh),
        ("reset", reset),
    ];
    let first_seed = fastrand::u64(..1 << 32);
    println!("seeds from {first_seed} on");
    let stop = AtomicBool::new(false);
    let surprises = Surprises::default();
    let done: Vec<AtomicU64> = work.iter().map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (work.iter().zip(&done).zip(first_seed..))
            .map(|(((_, work), done), seed)| {
                let (cluster, stop, surprises) = (&cluster, &stop, &surprises);
                scope.spawn(move || -> Result<()> {
                    let mut client = cluster.connect("postgres")?;
                    client.batch_execute("set lock_timeout = '2s'")?;
                    let mut random = fastrand::Rng::with_seed(seed);
                    while !stop.load(Ordering::Relaxed) {
                        if work(&mut client, &mut random, surprises)? {
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        let end = Instant::now() + Duration::from_secs(SECONDS);
        while Instant::now() < end && !workers.iter().any(|worker| worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().expect("no panic")?;
        }
        Ok(())
    })?;
    let all = surprises.0.into_inner().expect("nobody panicked with it");
    assert!(
        all.is_empty(),
        "{} surprises: {:#?}",
        all.len(),
        &all[..all.len().min(8)]
    );
    for ((name, _), done) in work.iter().zip(&done) {
        let done = done.load(Ordering::Relaxed);
        println!("{name}: {done}");
        assert!(done > 0, "{name} was never done");
    }
    // Nothing was taken for something else for good.
    let false_names: i64 = client
        .query_one(
            "select count(*) from pg_class i join pg_index x on x.indexrelid = i.oid
             join pg_class c on c.oid = x.indrelid join pg_am a on a.oid = i.relam
             join pg_am of on of.oid = c.relam
             where c.relkind in ('r', 'm') and (a.amname = 'rowref') <> (of.amname = 'iot')
               and c.relnamespace = 'public'::regnamespace",
            &[],
        )?
        .get(0);
    assert_eq!(false_names, 0);
    let twice: i64 = client
        .query_one("select count(*) - count(distinct k) from p", &[])?
        .get(0);
    assert_eq!(twice, 0);
    let problems = verify::verify_all(&mut client, &access_method())?;
    assert!(problems.is_empty(), "{problems:#?}");
    drop(client);
    cluster.finish()
}
