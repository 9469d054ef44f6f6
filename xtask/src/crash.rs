//! `cargo xtask crash`: nothing acknowledged is lost, nothing half-done stays.
//!
//! Rounds of random work by several clients. Each round ends by a SIGKILL of
//! the whole server or of one backend, or by an immediate stop, at a random
//! moment. After the restart everything is compared with what the clients
//! were told: every acknowledged transaction as a whole, the one in flight as
//! a whole or not at all, sums over shared rows, a table that is redefined all
//! the time, and `rowref.verify` over every relation. The seed decides what each client does and when and how a
//! round ends.

mod audit;
mod client;
mod define;
mod model;
mod schema;

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use fastrand::Rng;
use rowref_tests::{Cluster, Options, StopMode};

use crate::prepare;
use crate::table::thousands;
use define::Defined;
use model::Model;

/// How long, which seed, how many clients.
#[derive(Args)]
pub struct Plan {
    /// How long to go on, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What an earlier run printed, to replay its schedule.
    #[arg(long)]
    seed: Option<u64>,
    /// Clients that work at the same time.
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// A server setting, `name=value`. With `synchronous_commit=off` the run
    /// has to fail: that shows that it can.
    #[arg(long)]
    set: Vec<String>,
}

/// How a round ends.
#[derive(Clone, Copy, Debug)]
enum End {
    KillServer,
    KillBackend(usize),
    Immediate,
    Fast,
}

impl End {
    fn choose(random: &mut Rng, clients: usize) -> End {
        match random.u32(0..100) {
            0..50 => End::KillServer,
            50..85 => End::KillBackend(random.usize(0..clients)),
            85..95 => End::Immediate,
            _ => End::Fast,
        }
    }
}

/// What clients of one round share.
struct Round {
    /// Set when no new transaction may start.
    stop: AtomicBool,
    /// Backend process of each client.
    backends: Vec<AtomicI32>,
}

/// Totals for the last line.
#[derive(Default)]
struct Totals {
    rounds: u64,
    servers: u64,
    backends: u64,
    stops: u64,
    commits: u64,
    definitions: u64,
    rows: u64,
}

/// A seed for one purpose, derived from the run's.
fn derive(seed: u64, round: u64, purpose: u64) -> u64 {
    let mut rng = Rng::with_seed(seed ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    rng.u64(..) ^ purpose.wrapping_mul(0xd134_2543_de82_ef95)
}

/// Runs the plan; false (and the files kept) when anything was lost.
pub fn run(am: &str, plan: &Plan) -> Result<bool> {
    prepare::for_server()?;
    let seed = plan.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    println!(
        "crash: seed {seed} (replay: cargo xtask --am {am} crash --seconds {} --clients {} --seed {seed})",
        plan.seconds, plan.clients
    );
    let mut options = Options::test()
        .set("shared_buffers", "16MB")
        .set("max_wal_size", "128MB")
        .set("deadlock_timeout", "100ms")
        .set("autovacuum_naptime", "2s")
        .set("wal_keep_size", "0")
        .set("log_min_error_statement", "panic")
        .set("full_page_writes", "on");
    for setting in &plan.set {
        let (name, value) = setting.split_once('=').context("--set takes name=value")?;
        options = options.set(name, value);
    }
    options.access_method = am.into();
    let mut cluster = Cluster::start(options)?;
    cluster.announce_crash();
    let mut totals = Totals::default();
    let outcome = rounds(&mut cluster, am, plan, seed, &mut totals).and_then(|()| {
        let complaints = cluster.complaints();
        anyhow::ensure!(
            complaints.is_empty(),
            "the server logged:\n{}",
            complaints.join("\n")
        );
        Ok(())
    });
    match outcome {
        Ok(()) => {
            cluster.finish()?;
            println!(
                "crash: seed {seed}: {} rounds ({} servers and {} backends killed, {} stops), {} commits and {} definitions acknowledged, {} rows audited: nothing lost, everything sound",
                totals.rounds,
                totals.servers,
                totals.backends,
                totals.stops,
                thousands(totals.commits as f64),
                thousands(totals.definitions as f64),
                thousands(totals.rows as f64),
            );
            Ok(true)
        }
        Err(error) => {
            println!(
                "{error:#}\nlast lines of the log:\n{}",
                cluster.log_tail(20)
            );
            let kept = cluster.keep()?;
            println!(
                "crash: seed {seed}: FAILED in round {}; data and log kept in {}",
                totals.rounds,
                kept.display()
            );
            Ok(false)
        }
    }
}

fn rounds(
    cluster: &mut Cluster,
    am: &str,
    plan: &Plan,
    seed: u64,
    totals: &mut Totals,
) -> Result<()> {
    schema::create(&mut cluster.connect("postgres")?, am)?;
    define::create(&mut cluster.connect("postgres")?, am)?;
    let mut defined = Defined::default();
    let mut models: Vec<Model> = (0..plan.clients).map(Model::new).collect();
    let end = Instant::now() + Duration::from_secs(plan.seconds);
    while Instant::now() < end {
        let number = totals.rounds;
        let mut random = Rng::with_seed(derive(seed, number, 0));
        let pause = Duration::from_millis(random.u64(200..3000));
        let how = End::choose(&mut random, plan.clients);
        work(
            cluster,
            seed,
            number,
            (&mut models, &mut defined),
            pause,
            how,
        )
        .with_context(|| format!("round {number}, {how:?} after {pause:?}"))?;
        match how {
            End::KillServer => totals.servers += 1,
            End::KillBackend(_) => totals.backends += 1,
            End::Immediate | End::Fast => totals.stops += 1,
        }
        let rows = audit::run(cluster, &mut models, &mut defined)
            .with_context(|| format!("audit after round {number}, {how:?} after {pause:?}"))?;
        totals.rows += rows;
        totals.commits = models.iter().map(|model| model.commits).sum();
        totals.definitions = defined.commands;
        totals.rounds += 1;
        println!(
            "  round {number}: {how:?} after {:.1} s; {} commits so far, {} rows audited",
            pause.as_secs_f64(),
            thousands(totals.commits as f64),
            thousands(rows as f64)
        );
    }
    Ok(())
}

/// One round: clients work, something ends, the server comes back.
fn work(
    cluster: &mut Cluster,
    seed: u64,
    number: u64,
    (models, defined): (&mut [Model], &mut Defined),
    pause: Duration,
    how: End,
) -> Result<()> {
    let round = Round {
        stop: AtomicBool::new(false),
        backends: models.iter().map(|_| AtomicI32::new(0)).collect(),
    };
    let mut sessions = Vec::new();
    for _ in 0..models.len() + 2 {
        sessions.push(cluster.connect("postgres")?);
    }
    let mut keeper = sessions.pop().expect("two sessions more than clients");
    let mut definer = sessions.pop().expect("two sessions more than clients");
    std::thread::scope(|scope| -> Result<()> {
        let round = &round;
        let mut workers = Vec::new();
        for (client, (model, session)) in models.iter_mut().zip(sessions).enumerate() {
            let random = Rng::with_seed(derive(seed, number, 1 + client as u64));
            workers.push(scope.spawn(move || client::work(session, model, round, random)));
        }
        let random = Rng::with_seed(derive(seed, number, 1000));
        workers.push(scope.spawn(move || client::keep_house(&mut keeper, round, random)));
        let random = Rng::with_seed(derive(seed, number, 1001));
        workers.push(scope.spawn(move || define::work(&mut definer, defined, round, random)));
        std::thread::sleep(pause);
        let ended = match how {
            End::KillServer => cluster.kill9_server(),
            End::KillBackend(client) => {
                match round.backends[client].load(Ordering::SeqCst) {
                    // It has failed already; its error is told below.
                    0 => Ok(()),
                    pid => cluster.kill9_backend(pid),
                }
            }
            End::Immediate => cluster.stop(StopMode::Immediate),
            End::Fast => cluster.stop(StopMode::Fast),
        };
        round.stop.store(true, Ordering::SeqCst);
        let mut outcome = ended;
        for worker in workers {
            let worked = worker.join().expect("a client panicked");
            if outcome.is_ok() {
                outcome = worked;
            }
        }
        outcome
    })?;
    match how {
        End::KillBackend(_) => cluster.wait_accepting(),
        _ => cluster.start_server(),
    }
}
