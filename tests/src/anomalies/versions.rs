//! The versions that a key has had, in order.

use std::collections::BTreeMap;

use super::check::{Anomaly, Kind};
use super::history::{History, Key, Tick, Value, What};

/// The number of a transaction in its history.
pub type Number = usize;

/// One version of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// Its value, or no row.
    pub value: Option<Value>,
    /// Who wrote it; nobody wrote what was there at the start.
    pub writer: Option<Number>,
    /// When its statement was sent.
    asked: Tick,
    answered: Tick,
}

/// Which version a read saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Saw {
    /// The one with this number.
    Version(usize),
    /// Some version without a row, but which of several cannot be told.
    Unclear,
    /// None that there was.
    Nothing,
}

/// The versions of every key, oldest first.
pub struct Versions<'h> {
    history: &'h History,
    keys: BTreeMap<Key, Vec<Version>>,
    places: BTreeMap<(Key, Value), usize>,
}

impl<'h> Versions<'h> {
    /// Puts the committed writes of a history in order, and says where they do
    /// not follow one another.
    ///
    /// Of two transactions that write one key, the second gets through only
    /// when the first has ended, so its statement is answered later: answers
    /// are in the order of versions. What each write replaced has to agree.
    pub fn of(history: &'h History, anomalies: &mut Vec<Anomaly>) -> Versions<'h> {
        let mut keys: BTreeMap<Key, Vec<Version>> = BTreeMap::new();
        let initial: BTreeMap<Key, Value> = history.initial.iter().copied().collect();
        let mut replaced: BTreeMap<(Key, Tick), Option<Value>> = BTreeMap::new();
        for (number, transaction) in history.transactions.iter().enumerate() {
            for action in &transaction.actions {
                let What::Write { key, over, value } = action.what else {
                    continue;
                };
                if action.undone.is_some() || !transaction.committed {
                    continue;
                }
                keys.entry(key).or_default().push(Version {
                    value,
                    writer: Some(number),
                    asked: action.asked,
                    answered: action.answered,
                });
                replaced.insert((key, action.answered), over);
            }
        }
        let mut places = BTreeMap::new();
        for key in initial.keys() {
            keys.entry(*key).or_default();
        }
        for (key, versions) in &mut keys {
            versions.sort_by_key(|version| version.answered);
            let first = Version {
                value: initial.get(key).copied(),
                writer: None,
                asked: 0,
                answered: 0,
            };
            versions.insert(0, first);
            for pair in versions.windows(2) {
                let over = replaced[&(*key, pair[1].answered)];
                if over != pair[0].value {
                    anomalies.push(Anomaly {
                        kind: Kind::WriteOrder,
                        what: format!(
                            "key {key}: {:?} by {:?} replaced {over:?}, where {:?} by {:?} stood",
                            pair[1].value, pair[1].writer, pair[0].value, pair[0].writer
                        ),
                    });
                }
            }
            for (place, version) in versions.iter().enumerate() {
                if let Some(value) = version.value {
                    places.insert((*key, value), place);
                }
            }
        }
        Versions {
            history,
            keys,
            places,
        }
    }

    /// Every key and its versions.
    pub fn keys(&self) -> impl Iterator<Item = (Key, &[Version])> {
        self.keys.iter().map(|(key, of)| (*key, &of[..]))
    }

    /// One version of a key. A key that nobody ever wrote has one without a row.
    pub fn version(&self, key: Key, place: usize) -> Option<Version> {
        self.keys.get(&key)?.get(place).copied()
    }

    /// Whether a version was replaced by its own writer, so that nobody else
    /// may see it.
    pub fn is_intermediate(&self, key: Key, place: usize) -> bool {
        let writer = |place| self.version(key, place).and_then(|v| v.writer);
        writer(place).is_some() && writer(place) == writer(place + 1)
    }

    /// Whether a version had been replaced for good, and everybody been told,
    /// before a moment.
    pub fn is_over(&self, key: Key, place: usize, moment: Tick) -> bool {
        let next = self.version(key, place + 1).and_then(|v| v.writer);
        next.is_some_and(|next| self.history.transactions[next].ended < moment)
    }

    /// Which version of a key a read saw under a snapshot taken `since`, whose
    /// answer came at `answered`.
    pub fn seen(&self, key: Key, value: Option<Value>, since: Tick, answered: Tick) -> Saw {
        if let Some(value) = value {
            return self
                .places
                .get(&(key, value))
                .map_or(Saw::Nothing, |place| Saw::Version(*place));
        }
        let Some(versions) = self.keys.get(&key) else {
            return Saw::Unclear;
        };
        let mut possible = (0..versions.len()).filter(|place| {
            versions[*place].value.is_none()
                && versions[*place].asked < answered
                && !self.is_intermediate(key, *place)
                && !self.is_over(key, *place, since)
        });
        match (possible.next(), possible.next()) {
            (None, _) => Saw::Nothing,
            (Some(place), None) => Saw::Version(place),
            _ => Saw::Unclear,
        }
    }
}
