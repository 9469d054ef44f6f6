//! Unique indexes: of two who put the same columns one sees the other (rule 15).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::btree::Tree;
use engine::btree::check::check;
use engine::compare::Bytewise;
use engine::mem::{MemStore, TestSession, TestTransactions};
use engine::mvcc::index::{Admission, Uniqueness};
use engine::mvcc::{Versioned, Writer};
use shuttle::thread::{JoinHandle, spawn};

use crate::schedule::{exhaust, explore};

const PAGE: usize = 256;
/// The columns that everybody wants.
const COLUMNS: [u8; 2] = [1, 7];

fn key(row: u8) -> Vec<u8> {
    [&COLUMNS[..], &[0, row]].concat()
}

#[derive(Clone)]
struct Bench {
    store: Arc<MemStore>,
    world: TestTransactions,
}

impl Bench {
    /// An index where the columns' entries, all ended, span several leaves.
    fn new() -> Bench {
        let store = Arc::new(MemStore::new(PAGE));
        Tree::<MemStore, Bytewise>::create(&store, b"", true).unwrap();
        let world = TestTransactions::new();
        let bench = Bench { store, world };
        let mut loader = bench.world.session();
        for row in 0..16 {
            loader.begin();
            let done = bench.put(&loader, row * 4);
            assert_eq!(done, Admission::Unique);
            loader.next_command();
            let ended = bench.end(&loader, row * 4);
            assert!(ended);
            loader.commit();
        }
        bench
    }

    fn put(&self, session: &TestSession, row: u8) -> Admission {
        let tree = Tree::new(&*self.store, &Bytewise);
        let versioned = Versioned {
            tree: &tree,
            transactions: session,
        };
        let writer = Writer {
            xid: session.xid(),
            cid: session.cid(),
        };
        versioned
            .put_unique_entry(
                writer,
                &key(row),
                COLUMNS.len(),
                &[0; 40],
                0,
                Uniqueness::Demanded,
            )
            .unwrap()
    }

    fn end(&self, session: &TestSession, row: u8) -> bool {
        let tree = Tree::new(&*self.store, &Bytewise);
        let versioned = Versioned {
            tree: &tree,
            transactions: session,
        };
        let writer = Writer {
            xid: session.xid(),
            cid: session.cid(),
        };
        versioned.end_index_entry(writer, &key(row), None).unwrap()
    }

    fn spawn<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Bench, TestSession) -> R + Send + 'static,
    ) -> JoinHandle<R> {
        let bench = self.clone();
        spawn(move || {
            let session = bench.world.session();
            work(&bench, session)
        })
    }
}

#[test]
fn columns_that_two_rows_want_go_to_one_of_them() {
    let refused = Arc::new([const { AtomicUsize::new(0) }; 2]);
    let noted = Arc::clone(&refused);
    let story = Arc::new(move || {
        let bench = Bench::new();
        // One goes to the first leaf, one to the last: they meet at the first.
        let both = [1, 61].map(|row| {
            bench.spawn(move |bench, mut session| {
                session.begin();
                let done = bench.put(&session, row);
                session.commit();
                done
            })
        });
        let done = both.map(|session| session.join().unwrap());
        let unique = done
            .iter()
            .filter(|done| **done == Admission::Unique)
            .count();
        assert_eq!(unique, 1, "{done:?}");
        for done in done {
            match done {
                Admission::Busy { .. } => noted[0].fetch_add(1, Ordering::Relaxed),
                Admission::Exists(_) => noted[1].fetch_add(1, Ordering::Relaxed),
                _ => 0,
            };
        }
        assert_eq!(check(&*bench.store, &Bytewise).unwrap().problems, []);
    });
    let told = Arc::clone(&story);
    explore(move || told());
    let count = exhaust(2, move || story());
    assert!(count > 100, "{count} schedules");
    for refused in &*refused {
        assert!(refused.load(Ordering::Relaxed) > 0, "both ways to lose");
    }
}
