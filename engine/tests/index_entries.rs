//! Entries of an index against a model that knows only who wrote what: which
//! columns are taken, whom one has to wait for, which entries a snapshot sees.

mod history;

use engine::btree::check::check;
use engine::btree::{RunEntry, Tree};
use engine::compare::Compare;
use engine::mem::{MemStore, TestSession, TestTransactions};
use engine::mvcc::end_entries::Ending;
use engine::mvcc::index::{Admission, Before, Uniqueness};
use engine::mvcc::scan::Direction;
use engine::mvcc::settle::Entered;
use engine::mvcc::{Transactions, Versioned, Writer};
use engine::page::cell::{EntryKind, Head, bit};
use engine::{CommandId, Sequence, Xid};
use history::{Order, scan};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const SESSIONS: usize = 3;
/// Bytes of a key that are the index's columns.
const COLUMNS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    /// Session, columns, row, what is demanded.
    Put(usize, u8, u8, u8),
    /// The row's entry ends.
    End(usize, u8, u8),
    /// All live entries of some rows end at once; or all in which the session
    /// may write, live or not.
    EndMany(usize, u8, u8, bool),
    Finish(usize, bool),
    Vacuum,
}

fn step() -> impl Strategy<Value = Step> {
    let session = 0..SESSIONS;
    prop_oneof![
        10 => (session.clone(), 0u8..3, 0u8..40, 0u8..3).prop_map(|(s, c, r, d)| Step::Put(s, c, r, d)),
        8 => (session.clone(), 0u8..3, 0u8..40).prop_map(|(s, c, r)| Step::End(s, c, r)),
        2 => (session.clone(), 0u8..40, 1u8..40, prop::bool::weighted(0.8))
            .prop_map(|(s, r, n, l)| Step::EndMany(s, r, n, l)),
        3 => (session, any::<bool>()).prop_map(|(s, ok)| Step::Finish(s, ok)),
        1 => Just(Step::Vacuum),
    ]
}

fn columns(of: u8) -> [u8; COLUMNS] {
    [1, of]
}

fn key(of: u8, row: u8) -> Vec<u8> {
    [&columns(of)[..], &[0, row]].concat()
}

/// One version as the model knows it.
#[derive(Clone, Copy, Debug)]
struct Known {
    kind: EntryKind,
    /// The running session, or none if it has committed.
    running: Option<usize>,
}

struct Bench {
    store: Arc<MemStore>,
    world: TestTransactions,
    order: Order,
    sessions: Vec<TestSession>,
    model: BTreeMap<(u8, u8), Vec<Known>>,
}

impl Bench {
    fn new(as_bytes: bool) -> Bench {
        let order = Order { as_bytes };
        let store = Arc::new(MemStore::new(256));
        Tree::<MemStore, Order>::create(&store, b"", order.ordered()).unwrap();
        let world = TestTransactions::new();
        let mut sessions: Vec<_> = (0..SESSIONS).map(|_| world.session()).collect();
        for session in &mut sessions {
            session.begin();
        }
        Bench {
            store,
            world,
            order,
            sessions,
            model: BTreeMap::new(),
        }
    }

    fn with<T: Transactions, R>(
        &self,
        transactions: &T,
        work: impl FnOnce(&Versioned<'_, MemStore, Order, T>) -> R,
    ) -> R {
        let tree = Tree::new(&*self.store, &self.order);
        work(&Versioned {
            tree: &tree,
            transactions,
        })
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Put(by, of, row, demanded) => self.put(by, of, row, demanded),
            Step::End(by, of, row) => self.end(by, of, row),
            Step::EndMany(by, from, rows, live) => self.end_many(by, from, rows, live),
            Step::Finish(by, commits) => self.finish(by, commits),
            Step::Vacuum => self.vacuum(),
        }
    }

    fn newest(&self, of: u8, row: u8) -> Option<Known> {
        self.model
            .get(&(of, row))
            .and_then(|known| known.last().copied())
    }

    /// Whether a session may write the row's entry: it would hold the row.
    fn may_write(&self, by: usize, row: u8) -> bool {
        (0..3).all(|of| {
            self.newest(of, row)
                .is_none_or(|known| known.running.is_none_or(|other| other == by))
        })
    }

    fn is_live(&self, of: u8, row: u8) -> bool {
        self.newest(of, row)
            .is_some_and(|known| known.kind == EntryKind::Put)
    }

    fn note(&mut self, by: usize, of: u8, row: u8, kind: EntryKind) {
        self.model.entry((of, row)).or_default().push(Known {
            kind,
            running: Some(by),
        });
    }

    /// What a check has to find: the first other row, in their order, whose
    /// entry with these columns is live or may be.
    fn expected(&self, by: usize, of: u8, row: u8) -> Option<(u8, bool)> {
        (0..=u8::MAX)
            .filter(|other| *other != row)
            .find_map(|other| {
                let known = self.newest(of, other)?;
                match known.running {
                    Some(running) if running != by => Some((other, true)),
                    _ => (known.kind == EntryKind::Put).then_some((other, false)),
                }
            })
    }

    fn put(&mut self, by: usize, of: u8, row: u8, demanded: u8) {
        if !self.may_write(by, row) {
            return;
        }
        let uniqueness = match demanded {
            0 => Uniqueness::Demanded,
            1 => Uniqueness::Noted,
            _ => Uniqueness::Asked,
        };
        let session = &self.sessions[by];
        let writer = Writer {
            xid: session.xid(),
            cid: session.cid(),
        };
        let key_bytes = key(of, row);
        let got = self
            .with(session, |v| {
                v.put_unique_entry(writer, &key_bytes, COLUMNS, &[row; 12], 0, uniqueness)
            })
            .unwrap();
        let expected = self.expected(by, of, row);
        match (&got, expected, uniqueness) {
            (Admission::Unique, None, _) => {}
            (Admission::Doubtful, Some(_), Uniqueness::Noted) => {}
            (Admission::Exists(version), Some((other, false)), _)
            | (Admission::Busy { version, .. }, Some((other, true)), _)
                if uniqueness != Uniqueness::Noted =>
            {
                assert_eq!(version.key, key(of, other));
            }
            wrong => panic!("{wrong:?}"),
        }
        let is_in = match got {
            Admission::Unique => uniqueness != Uniqueness::Asked,
            Admission::Doubtful => true,
            _ => false,
        };
        if is_in {
            self.note(by, of, row, EntryKind::Put);
        }
    }

    fn end(&mut self, by: usize, of: u8, row: u8) {
        if !self.may_write(by, row) {
            return;
        }
        let session = &self.sessions[by];
        let writer = Writer {
            xid: session.xid(),
            cid: session.cid(),
        };
        let key_bytes = key(of, row);
        let ended = self
            .with(session, |v| v.end_index_entry(writer, &key_bytes, None))
            .unwrap();
        assert_eq!(ended, self.is_live(of, row), "rule 14");
        if ended {
            self.note(by, of, row, EntryKind::Tombstone);
        }
    }

    fn end_many(&mut self, by: usize, from: u8, rows: u8, only_live: bool) {
        let entries: Vec<(u8, u8)> = (0..3)
            .flat_map(|of| (from..from.saturating_add(rows)).map(move |row| (of, row)))
            .filter(|(_, row)| self.may_write(by, *row))
            .filter(|(of, row)| !only_live || self.is_live(*of, *row))
            .collect();
        let keys: Vec<_> = entries.iter().map(|(of, row)| key(*of, *row)).collect();
        let session = &self.sessions[by];
        let writer = Writer {
            xid: session.xid(),
            cid: session.cid(),
        };
        let ending = |nth: usize| Ending {
            writer,
            key: &keys[nth],
        };
        let mut told = 0;
        let ended = self
            .with(session, |v| {
                v.end_index_entries(keys.len(), ending, |done| {
                    assert!(done > told, "it goes on");
                    told = done;
                })
            })
            .unwrap();
        assert_eq!(told, ended);
        let live = entries
            .iter()
            .take_while(|(of, row)| self.is_live(*of, *row));
        assert_eq!(ended, live.count(), "rule 14");
        for (of, row) in &entries[..ended] {
            self.note(by, *of, *row, EntryKind::Tombstone);
        }
    }

    fn finish(&mut self, by: usize, commits: bool) {
        let session = &mut self.sessions[by];
        if commits {
            session.commit();
        } else {
            session.abort();
        }
        session.begin();
        for versions in self.model.values_mut() {
            if commits {
                for version in versions.iter_mut().filter(|v| v.running == Some(by)) {
                    version.running = None;
                }
            } else {
                versions.retain(|version| version.running != Some(by));
            }
        }
    }

    fn vacuum(&self) {
        self.store
            .set_recycle_stamp(u64::from(self.world.next_xid().0));
        self.store
            .set_recyclable_before(u64::from(self.world.horizon().0));
        self.with(&self.world, |v| v.vacuum(|_| {}).unwrap());
    }

    /// The committed entries are what a new snapshot sees.
    fn audit(&self) {
        let report = check(&*self.store, &self.order).unwrap();
        assert_eq!(report.problems, []);
        let snapshot = self.world.snapshot();
        let seen = scan(&*self.store, &self.world, &snapshot, Direction::Forward).unwrap();
        let wanted: Vec<_> = self
            .model
            .iter()
            .filter(|(_, versions)| {
                let committed = versions
                    .iter()
                    .rev()
                    .find(|version| version.running.is_none());
                committed.is_some_and(|version| version.kind == EntryKind::Put)
            })
            .map(|((of, row), _)| key(*of, *row))
            .collect();
        assert_eq!(seen.into_keys().collect::<Vec<_>>(), wanted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Few columns and many rows, so that one column's entries span leaves of
    /// 256 bytes; and a hundred steps, so that each has a history.
    #[test]
    fn a_column_is_taken_free_or_waited_for_as_its_newest_versions_say(
        steps in prop::collection::vec(step(), 1..250),
        as_bytes in any::<bool>(),
    ) {
        let mut bench = Bench::new(as_bytes);
        for step in &steps {
            bench.step(step);
        }
        bench.audit();
    }
}

/// Rule 15 where the columns' entries span leaves: the live one lies on the
/// last of them, behind pages of ended ones.
#[test]
fn a_live_entry_is_found_behind_leaves_of_ended_ones() {
    let mut bench = Bench::new(true);
    // A snapshot that still sees them all keeps them from being pruned.
    for row in 0..40 {
        bench.put(0, 1, row, 0);
        bench.end(0, 1, row);
        bench.finish(0, true);
    }
    bench.put(0, 1, 200, 0);
    bench.finish(0, true);
    let leaves = check(&*bench.store, &bench.order).unwrap().leaf_pages;
    assert!(leaves > 3, "{leaves} leaves");
    bench.put(1, 1, 100, 0);
    assert!(!bench.is_live(1, 100), "it was refused");
    bench.end(2, 1, 200);
    bench.put(1, 1, 100, 0);
    assert!(!bench.is_live(1, 100), "somebody is about to end it");
    bench.finish(2, true);
    bench.put(1, 1, 100, 0);
    assert!(bench.is_live(1, 100), "it is free now");
    bench.finish(1, true);
    bench.audit();
}

/// Rule 14.
#[test]
fn an_entry_that_is_not_there_is_ended_only_in_an_index_that_is_being_built() {
    let bench = Bench::new(true);
    let session = &bench.sessions[0];
    let writer = Writer {
        xid: session.xid(),
        cid: session.cid(),
    };
    let end = |before| {
        bench
            .with(session, |v| v.end_index_entry(writer, &key(0, 1), before))
            .unwrap()
    };
    let entries = || check(&*bench.store, &bench.order).unwrap().entries;
    assert!(!end(None));
    assert_eq!(entries(), 0, "nothing was written");
    let version = Head {
        flags: EntryKind::Put as u8,
        xmin: writer.xid,
        cid: writer.cid,
        sequence: Sequence::FIRST,
    };
    let body: &[u8] = b"";
    assert!(end(Some(Before { version, body })));
    assert_eq!(entries(), 2, "what was there, and its end");
    assert!(!end(None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Rule 17, many at once.
    #[test]
    fn entries_that_are_missing_are_put_many_at_once_as_they_are_one_by_one(
        steps in prop::collection::vec(step(), 0..120),
        as_bytes in any::<bool>(),
    ) {
        let mut early = Xid::NONE;
        let benches = [Bench::new(as_bytes), Bench::new(as_bytes)].map(|mut bench| {
            early = bench.sessions[0].xid();
            bench.finish(0, true);
            for step in &steps {
                bench.step(step);
            }
            bench
        });
        // Of the rows from 40 on nothing is known.
        let missing: Vec<_> = (0..3).flat_map(|of| (0..120).map(move |row| key(of, row))).collect();
        let head = |nth: usize| Head {
            flags: EntryKind::Put as u8 | if nth.is_multiple_of(3) { bit::FROZEN | bit::COMMITTED } else { 0 },
            xmin: early,
            cid: CommandId(nth as u32),
            sequence: Sequence(nth as u64 + 7),
        };
        let [single, many] = benches.each_ref().map(|bench| bench.world.snapshot());
        benches[0].with(&benches[0].world, |v| {
            for (nth, key) in missing.iter().enumerate() {
                v.enter_missing_entry(&single, head(nth), key, b"body").unwrap();
            }
        });
        let runs = benches[1].with(&benches[1].world, |v| {
            let (mut at, mut runs) = (0, 0);
            while at < missing.len() {
                let rest = (at..missing.len()).map(|nth| RunEntry {
                    head: head(nth),
                    key: &missing[nth],
                    body: b"body",
                });
                let put = v.enter_unknown_entries(rest).unwrap();
                if put == 0 {
                    v.enter_missing_entry(&many, head(at), &missing[at], b"body").unwrap();
                }
                runs += usize::from(put > 1);
                at += put.max(1);
            }
            runs
        });
        prop_assert!(runs > 5, "{runs} of them went together");
        let [single, many] = [(&benches[0], single), (&benches[1], many)].map(|(bench, then)| {
            check(&*bench.store, &bench.order).unwrap();
            let seen = [then, bench.world.snapshot()]
                .map(|by| scan(&*bench.store, &bench.world, &by, Direction::Forward).unwrap());
            // Full leaves are pruned at other moments. Of these there is nothing
            // to prune, but they may have been frozen.
            let mut fresh = Vec::new();
            bench.with(&bench.world, |v| {
                v.each_history(|| {}, |history| {
                    if history.key[3] >= 40 {
                        let head = history.heads()[0];
                        let (kind, xmin, sequence) = (head.kind(), head.xmin, head.sequence);
                        fresh.push((history.key.clone(), kind, xmin, sequence, history.heads().len()));
                    }
                    Ok(())
                })
            }).unwrap();
            assert_eq!(fresh.len(), 3 * 80);
            (seen, fresh)
        });
        prop_assert_eq!(single, many);
    }
}

/// Rule 17: whatever aware and unaware writers have left in an index that is
/// being made, it says under the builder's snapshot, and under every later one,
/// what the table says.
#[test]
fn rule_17_what_a_snapshot_sees_in_the_index_is_made_equal_to_the_table() {
    let mut bench = Bench::new(true);
    let writer = |bench: &Bench, by: usize| Writer {
        xid: bench.sessions[by].xid(),
        cid: bench.sessions[by].cid(),
    };
    let version = |writer: Writer| Head {
        flags: EntryKind::Put as u8,
        xmin: writer.xid,
        cid: writer.cid,
        sequence: Sequence::FIRST,
    };
    let put = |bench: &Bench, by: usize, row: u8| {
        let (writer, key) = (writer(bench, by), key(0, row));
        bench
            .with(&bench.sessions[by], |v| {
                v.put_index_entry(writer, &key, b"old", 0)
            })
            .unwrap();
    };
    let end = |bench: &Bench, by: usize, row: u8, of: Head| {
        let (writer, key) = (writer(bench, by), key(0, row));
        let body: &[u8] = b"old";
        let before = Some(Before { version: of, body });
        bench
            .with(&bench.sessions[by], |v| {
                v.end_index_entry(writer, &key, before)
            })
            .unwrap();
    };
    // Rows 1 to 6 were written before the index was filled.
    let early = version(writer(&bench, 0));
    bench.finish(0, true);
    // 2 is deleted by one who has committed before the builder's snapshot, 7 is
    // put by him and then deleted by one who knows nothing of the index.
    end(&bench, 0, 2, early);
    put(&bench, 0, 7);
    put(&bench, 0, 8);
    bench.finish(0, true);
    let snapshot = bench.world.snapshot();
    // After it 3 is deleted and 4 deleted and put again; 5 is deleted by one who
    // is about to abort, 6 by the second of two who updated it, so that the
    // version he supersedes is younger than the snapshot; 7 is put again.
    end(&bench, 1, 3, early);
    end(&bench, 1, 4, early);
    put(&bench, 1, 4);
    put(&bench, 1, 7);
    end(&bench, 2, 5, early);
    let late = version(writer(&bench, 0));
    bench.finish(0, true);
    end(&bench, 0, 6, late);
    let at_snapshot: Vec<u8> = vec![1, 3, 4, 5, 6, 8];
    bench.with(&bench.world, |v| {
        for row in 1..=8 {
            let key = key(0, row);
            if at_snapshot.contains(&row) {
                let entered = v
                    .enter_missing_entry(&snapshot, early, &key, b"old")
                    .unwrap();
                let wanted = if row == 1 {
                    Entered::Put
                } else {
                    Entered::Stands
                };
                assert_eq!(entered, wanted, "row {row}");
            } else {
                v.end_stale_entry(&snapshot, &key).unwrap();
            }
        }
    });
    let seen = |bench: &Bench| -> Vec<u8> {
        let now = bench.world.snapshot();
        let rows = scan(&*bench.store, &bench.world, &now, Direction::Forward).unwrap();
        rows.keys().map(|key| key[3]).collect()
    };
    let then = scan(&*bench.store, &bench.world, &snapshot, Direction::Forward).unwrap();
    assert_eq!(
        then.keys().map(|key| key[3]).collect::<Vec<_>>(),
        at_snapshot
    );
    assert_eq!(seen(&bench), at_snapshot, "nobody has committed since");
    bench.finish(0, true);
    assert_eq!(seen(&bench), [1, 3, 4, 5, 8], "6 has gone");
    bench.finish(2, false);
    bench.finish(1, true);
    assert_eq!(seen(&bench), [1, 4, 5, 7, 8]);
    let is_ended = |row| {
        bench
            .with(&bench.world, |v| v.is_entry_ended(&key(0, row)))
            .unwrap()
    };
    assert!(is_ended(3) && is_ended(9) && !is_ended(5) && !is_ended(7));
    let then = scan(&*bench.store, &bench.world, &snapshot, Direction::Forward).unwrap();
    assert_eq!(
        then.keys().map(|key| key[3]).collect::<Vec<_>>(),
        at_snapshot
    );
    bench.vacuum();
    assert_eq!(check(&*bench.store, &bench.order).unwrap().problems, []);
    assert_eq!(seen(&bench), [1, 4, 5, 7, 8]);
}

/// Rule 17, where somebody who does not fill the index changes what the entry
/// says beside its key, after somebody who does has put it.
#[test]
fn rule_17_an_entry_that_says_something_else_is_put_right_before_it_ends_or_by_the_builder() {
    let mut bench = Bench::new(true);
    let writer = |bench: &Bench, by: usize| Writer {
        xid: bench.sessions[by].xid(),
        cid: bench.sessions[by].cid(),
    };
    let head = |writer: Writer| Head {
        flags: EntryKind::Put as u8,
        xmin: writer.xid,
        cid: writer.cid,
        sequence: Sequence::FIRST,
    };
    for row in 1..=4 {
        let (writer, key) = (writer(&bench, 0), key(0, row));
        bench
            .with(&bench.sessions[0], |v| {
                v.put_index_entry(writer, &key, b"first", 0)
            })
            .unwrap();
    }
    bench.finish(0, true);
    // Who knows nothing of the index makes it "then", and has ended.
    let then = head(writer(&bench, 0));
    bench.finish(0, true);
    let end = |bench: &Bench, by: usize, row: u8| {
        let (writer, key) = (writer(bench, by), key(0, row));
        let before = Some(Before {
            version: then,
            body: b"then",
        });
        bench
            .with(&bench.sessions[by], |v| {
                v.end_index_entry(writer, &key, before)
            })
            .unwrap()
    };
    let snapshot = bench.world.snapshot();
    // 2 ends, 3 ends and is put again, 4 ends by one who aborts.
    assert!(end(&bench, 1, 2) && end(&bench, 1, 3) && end(&bench, 2, 4));
    let by = writer(&bench, 1);
    bench
        .with(&bench.sessions[1], |v| {
            v.put_index_entry(by, &key(0, 3), b"now", 0)
        })
        .unwrap();
    let enter = |bench: &Bench, row: u8| {
        bench
            .with(&bench.world, |v| {
                v.enter_missing_entry(&snapshot, then, &key(0, row), b"then")
            })
            .unwrap()
    };
    assert_eq!(enter(&bench, 1), Entered::Put);
    for row in 1..=4 {
        assert_eq!(enter(&bench, row), Entered::Stands, "row {row}");
    }
    let says = |bench: &Bench| -> Vec<(u8, String)> {
        [&snapshot, &bench.world.snapshot()]
            .into_iter()
            .flat_map(|by| scan(&*bench.store, &bench.world, by, Direction::Forward).unwrap())
            .map(|(key, body)| (key[3], String::from_utf8(body).unwrap()))
            .collect()
    };
    let of = |rows: &[(u8, &str)]| -> Vec<(u8, String)> {
        rows.iter()
            .map(|(row, body)| (*row, body.to_string()))
            .collect()
    };
    let then = [(1, "then"), (2, "then"), (3, "then"), (4, "then")];
    assert_eq!(says(&bench), of(&[&then[..], &then].concat()));
    bench.finish(1, true);
    bench.finish(2, false);
    let now = [(1, "then"), (3, "now"), (4, "then")];
    assert_eq!(says(&bench), of(&[&then[..], &now].concat()));
    bench.vacuum();
    let rows = says(&bench);
    assert_eq!(rows[rows.len() - 3..], of(&now));
}

/// One record and one lock serve as many entries as stand on one leaf.
#[test]
fn entries_that_end_together_share_their_leaves_records() {
    let mut bench = Bench::new(true);
    for row in 0..120 {
        bench.put(0, 1, row, 1);
    }
    bench.finish(0, true);
    let leaves = check(&*bench.store, &bench.order).unwrap().leaf_pages as usize;
    assert!(leaves > 5, "{leaves} leaves");
    let before = bench.store.log_end().0;
    // Every fourth: some of each leaf.
    let rows: Vec<Vec<u8>> = (0..120).step_by(4).map(|row| key(1, row)).collect();
    let session = &bench.sessions[1];
    let writer = Writer {
        xid: session.xid(),
        cid: session.cid(),
    };
    let ending = |nth: usize| Ending {
        writer,
        key: &rows[nth],
    };
    let ended = bench
        .with(session, |v| v.end_index_entries(rows.len(), ending, |_| {}))
        .unwrap();
    assert_eq!(ended, rows.len());
    let records = (bench.store.log_end().0 - before) as usize;
    assert!(
        records < rows.len(),
        "{records} records for {} entries",
        rows.len()
    );
    for row in (0..120).step_by(4) {
        bench.note(1, 1, row, EntryKind::Tombstone);
    }
    bench.finish(1, true);
    bench.audit();
}
