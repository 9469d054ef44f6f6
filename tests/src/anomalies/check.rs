//! Whether a history is one that its isolation level allows.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{Graph, Why};
use super::history::{Action, History, Key, Level, Tick, Transaction, Value, What};
use super::versions::{Number, Saw, Versions};

/// What a level can promise not to let happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A write replaced something else than the key's newest version.
    WriteOrder,
    /// G0: writes of two transactions are interleaved.
    DirtyWrite,
    /// G1a: what was never committed was seen.
    AbortedRead,
    /// G1b: what its writer replaced itself was seen.
    IntermediateRead,
    /// G1c: two transactions saw, or replaced, each other's writes.
    CircularFlow,
    /// A transaction did not see its own write.
    OwnWrite,
    /// A scan returned a row twice, or one that is not in its range.
    WrongScan,
    /// What everybody knew to be replaced was seen.
    Stale,
    /// A transaction replaced a version that it had not seen, of a key that it
    /// had read.
    LostUpdate,
    /// G-single: a transaction saw a part of what another one did.
    SkewedRead,
    /// G2: each of several transactions missed what another one wrote.
    WriteSkew,
}

impl Kind {
    /// The weakest level that forbids it.
    pub fn forbidden_from(self) -> Level {
        match self {
            Kind::LostUpdate | Kind::SkewedRead => Level::RepeatableRead,
            Kind::WriteSkew => Level::Serializable,
            _ => Level::ReadCommitted,
        }
    }
}

/// One thing that must not have happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Anomaly {
    /// Which.
    pub kind: Kind,
    /// Where, in words; transactions by their number in the history.
    pub what: String,
}

/// In what order the writes came.
const WRITES: &[Why] = &[Why::WriteWrite, Why::Reborn];
/// What came of whose writes.
const FLOW: &[Why] = &[Why::WriteWrite, Why::Reborn, Why::WriteRead];
/// The same as far as a snapshot has to have it.
const SNAPSHOT_FLOW: &[Why] = &[Why::WriteWrite, Why::WriteRead];
/// All that an order of whole transactions has to respect.
const ALL: &[Why] = &[Why::WriteWrite, Why::Reborn, Why::WriteRead, Why::ReadWrite];

/// How many of a kind are told.
const TOLD_MAX: usize = 5;

/// What happened that the level, at which all transactions ran, forbids.
pub fn check(history: &History, level: Level) -> Vec<Anomaly> {
    let mut anomalies = Vec::new();
    let versions = Versions::of(history, &mut anomalies);
    let mut checker = Checker {
        history,
        level,
        versions,
        graph: Graph::default(),
        anomalies,
    };
    for number in 0..history.transactions.len() {
        checker.transaction(number);
    }
    checker.writes();
    checker.circles();
    let mut told: BTreeMap<Kind, usize> = BTreeMap::new();
    let mut anomalies = checker.anomalies;
    anomalies.retain(|anomaly| {
        let count = told.entry(anomaly.kind).or_default();
        *count += 1;
        anomaly.kind.forbidden_from() <= level && *count <= TOLD_MAX
    });
    anomalies
}

struct Checker<'h> {
    history: &'h History,
    level: Level,
    versions: Versions<'h>,
    graph: Graph,
    anomalies: Vec<Anomaly>,
}

impl Checker<'_> {
    fn found(&mut self, kind: Kind, what: String) {
        self.anomalies.push(Anomaly { kind, what });
    }

    /// What a transaction read. An aborted one must not have seen what is
    /// forbidden either, but it comes before or after nobody.
    fn transaction(&mut self, number: Number) {
        let history = self.history;
        let transaction = &history.transactions[number];
        // What it has made of a key itself.
        let mut own: BTreeMap<Key, Option<Value>> = BTreeMap::new();
        // The same without what came behind a savepoint that is rolled back.
        let mut kept = own.clone();
        let mut savepoint = None;
        for action in &transaction.actions {
            if action.undone != savepoint {
                own.clone_from(&kept);
                savepoint = action.undone;
            }
            match &action.what {
                What::Read(key, value) => {
                    self.read(number, transaction, action, &own, *key, *value);
                }
                What::Missed(key) => {
                    if self.level != Level::ReadCommitted {
                        self.read(number, transaction, action, &own, *key, None);
                    }
                }
                What::Scan(from, to, rows) => {
                    let mut found = BTreeMap::new();
                    for (key, value) in rows {
                        if !(*from..*to).contains(key) || found.insert(*key, *value).is_some() {
                            self.found(
                                Kind::WrongScan,
                                format!("T{number}: key {key} in a scan of {from}..{to}"),
                            );
                        }
                    }
                    for key in *from..*to {
                        let value = found.get(&key).copied();
                        self.read(number, transaction, action, &own, key, value);
                    }
                }
                What::Write { key, over, value } => {
                    self.read(number, transaction, action, &own, *key, *over);
                    own.insert(*key, *value);
                }
            }
            if savepoint.is_none() {
                kept.clone_from(&own);
            }
        }
    }

    fn read(
        &mut self,
        number: Number,
        transaction: &Transaction,
        action: &Action,
        own: &BTreeMap<Key, Option<Value>>,
        key: Key,
        value: Option<Value>,
    ) {
        if let Some(own) = own.get(&key) {
            if *own != value {
                self.found(
                    Kind::OwnWrite,
                    format!("T{number} wrote {own:?} under {key} and saw {value:?}"),
                );
            }
            return;
        }
        let since = if self.level == Level::ReadCommitted {
            action.asked
        } else {
            transaction.begun
        };
        let place = match self.versions.seen(key, value, since, action.answered) {
            Saw::Version(place) => place,
            Saw::Unclear => return,
            Saw::Nothing => {
                let kind = match value {
                    Some(_) => Kind::AbortedRead,
                    None => Kind::Stale,
                };
                let what = format!("T{number} saw {value:?} under {key}, which was not there");
                return self.found(kind, what);
            }
        };
        let writer = self.versions.version(key, place).and_then(|v| v.writer);
        if self.versions.is_intermediate(key, place) {
            let what = format!("T{number} saw {value:?} under {key}, which T{writer:?} replaced");
            self.found(Kind::IntermediateRead, what);
        }
        if self.versions.is_over(key, place, since) {
            let what = format!("T{number} saw {value:?} under {key} long after it was replaced");
            self.found(Kind::Stale, what);
        }
        // A statement that writes sees the newest version, whichever the
        // snapshot: what it replaced says the order of writes, not of reads.
        if transaction.committed && !matches!(action.what, What::Write { .. }) {
            let next = self.versions.version(key, place + 1).and_then(|v| v.writer);
            self.graph.add(writer, Some(number), Why::WriteRead, key);
            self.graph.add(Some(number), next, Why::ReadWrite, key);
        }
    }

    /// Who replaced whose writes.
    fn writes(&mut self) {
        for (key, versions) in self.versions.keys() {
            for pair in versions.windows(2) {
                let why = match pair[0].value {
                    Some(_) => Why::WriteWrite,
                    None => Why::Reborn,
                };
                self.graph.add(pair[0].writer, pair[1].writer, why, key);
            }
        }
    }

    fn circles(&mut self) {
        let ended: Vec<Tick> = self.history.transactions.iter().map(|t| t.ended).collect();
        if let Err(stuck) = self.graph.order(&ended, WRITES) {
            return self.circle(&stuck, WRITES, Kind::DirtyWrite);
        }
        let position = match self.graph.order(&ended, FLOW) {
            Ok(position) => position,
            Err(stuck) => return self.circle(&stuck, FLOW, Kind::CircularFlow),
        };
        let missed: Vec<_> = self
            .graph
            .edges()
            .filter(|(_, _, why, _)| *why == Why::ReadWrite)
            .collect();
        for (reader, writer, _, key) in missed {
            // Ways that saw and replaced lead forward in this order.
            let last = position[reader];
            let way = self
                .graph
                .way(writer, reader, SNAPSHOT_FLOW, |at| position[at] < last);
            let Some(mut way) = way else { continue };
            let updates = self
                .graph
                .edges()
                .any(|edge| edge == (writer, reader, Why::WriteWrite, key));
            way.insert(0, reader);
            let kind = if updates {
                Kind::LostUpdate
            } else {
                Kind::SkewedRead
            };
            let what = self.graph.tell(&way);
            self.found(kind, what);
        }
        if let Err(stuck) = self.graph.order(&ended, ALL) {
            self.circle(&stuck, ALL, Kind::WriteSkew);
        }
    }

    fn circle(&mut self, stuck: &BTreeSet<Number>, reasons: &[Why], kind: Kind) {
        // One of them is enough, and a search from each would take long.
        let some: BTreeSet<Number> = stuck.iter().copied().take(2000).collect();
        let what = match self.graph.circle(&some, reasons) {
            Some(way) => self.graph.tell(&way),
            None => format!("{} transactions cannot be put in order", stuck.len()),
        };
        self.found(kind, what);
    }
}
