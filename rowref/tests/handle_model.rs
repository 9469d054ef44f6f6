//! Handles against a model that keeps every lease there ever was.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::rc::Rc;

use proptest::prelude::*;
use rowref::RowRefBuf;
use rowref::handle::{
    EpochSource, Handle, HandleError, HandleTable, INVALID_BLOCK, Lease, LeaseMode, OFFSET_MAX,
    RING_CAPACITY, RING_CAPACITY_MIN, ScopeId, SpillFile,
};

/// The server's counter, which other backends use as well.
#[derive(Clone, Default)]
struct Counter(Rc<Cell<u32>>);

impl EpochSource for Counter {
    fn lease(&mut self) -> u32 {
        self.0.replace(self.0.get() + 1)
    }
}

/// A spill file in memory whose writes can be made to fail.
#[derive(Clone, Default)]
struct File {
    bytes: Rc<RefCell<Vec<u8>>>,
    is_full: Rc<Cell<bool>>,
    written: Rc<Cell<u64>>,
    read: Rc<Cell<u64>>,
}

impl SpillFile for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<u64> {
        if self.is_full.get() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.written.set(self.written.get() + bytes.len() as u64);
        let at = self.bytes.borrow().len();
        self.bytes.borrow_mut().extend_from_slice(bytes);
        Ok(at as u64)
    }

    fn read(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.read.set(self.read.get() + 1);
        let at = offset as usize;
        match self.bytes.borrow().get(at..at + len) {
            Some(bytes) => Ok(bytes.to_vec()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.bytes.borrow_mut().truncate(len as usize);
        Ok(())
    }
}

/// Forgets what is written, for tests of size.
#[derive(Default)]
struct Nowhere(u64);

impl SpillFile for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.0;
        self.0 += bytes.len() as u64;
        Ok(at)
    }

    fn read(&mut self, _offset: u64, _len: usize) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0 = len;
        Ok(())
    }
}

/// The version that a small number means. Numbers apart by 2^n differ in one
/// part of the identity only.
fn version(number: u32) -> Lease {
    Lease {
        relation: 16384 + (number & 1),
        reference: RowRefBuf(vec![b'k'; 3 + (number >> 3 & 31) as usize]),
        sequence: u64::from(number >> 1 & 1) << 40,
        xmin: 700 + (number >> 2 & 1),
        block_hint: number,
        cid: number,
    }
}

/// `version`, told apart without looking at hint and command.
fn identity(lease: &Lease) -> Lease {
    Lease {
        block_hint: 0,
        cid: 0,
        ..lease.clone()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Lease { mode: u8, version: u32, times: u16 },
    OpenScope,
    CloseScope(prop::sample::Index),
    Clear,
    OtherBackend,
    MemoryLimit(usize),
    FileFull(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0u8..6, 0u32..256, prop_oneof![9 => 1u16..40, 1 => 900u16..1500])
            .prop_map(|(mode, version, times)| Step::Lease { mode, version, times }),
        3 => Just(Step::OpenScope),
        3 => any::<prop::sample::Index>().prop_map(Step::CloseScope),
        1 => Just(Step::Clear),
        1 => Just(Step::OtherBackend),
        1 => prop::sample::select(vec![0, 4096, 20_000, 1 << 20]).prop_map(Step::MemoryLimit),
        1 => any::<bool>().prop_map(Step::FileFull),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Alive {
    InRing(usize),
    ToTheEnd,
    InScope(ScopeId),
    Ended,
}

#[derive(Default)]
struct Model {
    leases: HashMap<Handle, (Lease, Alive)>,
    canonical: HashMap<(u32, Vec<u8>, u64, u32), Handle>,
    ring_leased: usize,
    scopes: Vec<ScopeId>,
}

impl Model {
    fn end(&mut self, which: impl Fn(Alive) -> bool) {
        for (_, alive) in self.leases.values_mut() {
            if which(*alive) {
                *alive = Alive::Ended;
            }
        }
    }

    fn expected(&self, handle: Handle) -> Option<&Lease> {
        let (lease, alive) = self.leases.get(&handle)?;
        match *alive {
            Alive::Ended => None,
            Alive::InRing(nth) if nth + RING_CAPACITY_MIN < self.ring_leased => None,
            _ => Some(lease),
        }
    }
}

type Table = HandleTable<Counter, File>;

/// Leases as the model expects. Returns false if the file refused to grow.
fn lease(table: &mut Table, model: &mut Model, mode: LeaseMode, wanted: &Lease) -> bool {
    let handle = match table.lease(mode, wanted.as_ref()) {
        Ok(handle) => handle,
        Err(HandleError::Spill(_)) => return false,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(
        Handle::from_tid(handle.block(), handle.offset()),
        Some(handle)
    );
    let alive = match mode {
        LeaseMode::Ring => {
            model.ring_leased += 1;
            Alive::InRing(model.ring_leased - 1)
        }
        LeaseMode::Retained => Alive::ToTheEnd,
        LeaseMode::Scoped(scope) => Alive::InScope(scope),
        LeaseMode::Canonical => {
            let id = identity(wanted);
            let key = (id.relation, id.reference.0, id.sequence, id.xmin);
            if let Some(known) = model.canonical.insert(key, handle) {
                assert_eq!(known, handle, "one version, one handle");
                return true;
            }
            Alive::ToTheEnd
        }
    };
    let before = model.leases.insert(handle, (wanted.clone(), alive));
    assert_eq!(before, None, "no handle is leased twice");
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_handle_finds_its_version_while_leased_and_nothing_afterwards(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let counter = Counter::default();
        let file = File::default();
        let mut table = HandleTable::new(counter.clone(), file.clone(), 4096);
        table.set_ring_capacity(RING_CAPACITY_MIN);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Lease { mode, version: first, times } => {
                    let mode = match (mode, model.scopes.last()) {
                        (0, _) => LeaseMode::Ring,
                        (1, _) => LeaseMode::Canonical,
                        (2, _) | (_, None) => LeaseMode::Retained,
                        (3, _) => LeaseMode::Scoped(model.scopes[0]),
                        (_, Some(last)) => LeaseMode::Scoped(*last),
                    };
                    for number in first..first + u32::from(times) {
                        lease(&mut table, &mut model, mode, &version(number % 256));
                    }
                }
                Step::OpenScope => model.scopes.push(table.open_scope()),
                Step::CloseScope(which) if !model.scopes.is_empty() => {
                    let scope = model.scopes.remove(which.index(model.scopes.len()));
                    table.close_scope(scope).unwrap();
                    model.end(|alive| alive == Alive::InScope(scope));
                }
                Step::CloseScope(_) => {}
                Step::Clear => {
                    table.clear().unwrap();
                    prop_assert!(file.bytes.borrow().is_empty());
                    model.end(|_| true);
                    model.canonical.clear();
                    model.ring_leased = 0;
                    for scope in model.scopes.drain(..) {
                        table.close_scope(scope).unwrap();
                    }
                }
                Step::OtherBackend => {
                    counter.clone().lease();
                }
                Step::MemoryLimit(bytes) => table.set_memory_limit(bytes),
                Step::FileFull(is_full) => file.is_full.set(is_full),
            }
        }
        for handle in model.leases.keys() {
            let found = table.resolve(*handle).unwrap().map(|found| found.to_owned());
            prop_assert_eq!(found.as_ref(), model.expected(*handle), "{:?}", handle);
        }
        for epoch in 0..=counter.0.get() {
            for offset in [1, 2, 1000, OFFSET_MAX] {
                let handle = Handle::from_tid(epoch, offset).unwrap();
                let found = table.resolve(handle).unwrap().map(|found| found.to_owned());
                prop_assert_eq!(found.as_ref(), model.expected(handle));
            }
        }
    }
}

fn numbered(number: u64) -> Lease {
    Lease {
        relation: 16384,
        reference: RowRefBuf(number.to_be_bytes().to_vec()),
        sequence: 1,
        xmin: 700,
        block_hint: 0,
        cid: 0,
    }
}

#[test]
fn twenty_million_retained_leases_keep_to_the_memory_limit() {
    let limit = 4 << 20;
    let mut table = HandleTable::new(Counter::default(), Nowhere::default(), limit);
    let mut lease = numbered(0);
    let mut peak = 0;
    for number in 0u64..20_000_000 {
        lease.reference.0.copy_from_slice(&number.to_be_bytes());
        table.lease(LeaseMode::Retained, lease.as_ref()).unwrap();
        if number % 65536 == 0 {
            peak = peak.max(table.footprint_bytes());
        }
    }
    // The directory of ten thousand epochs and the open one come on top.
    assert!(peak < limit + (2 << 20), "{peak} bytes");
    assert!(
        peak > limit / 2,
        "the limit is there to be used: {peak} bytes"
    );
}

#[test]
fn a_copy_of_many_rows_needs_no_more_than_a_ring() {
    let mut table = HandleTable::new(Counter::default(), Nowhere::default(), 4 << 20);
    for number in 0..1_000_000 {
        table
            .lease(LeaseMode::Ring, numbered(number).as_ref())
            .unwrap();
    }
    assert!(table.footprint_bytes() < 512 * 1024);
}

#[test]
fn the_ring_keeps_exactly_its_capacity() {
    let mut table = HandleTable::new(Counter::default(), File::default(), 1 << 20);
    let handles: Vec<_> = (0..10_000)
        .map(|number| {
            table
                .lease(LeaseMode::Ring, numbered(number).as_ref())
                .unwrap()
        })
        .collect();
    for (number, handle) in handles.iter().enumerate() {
        let found = table
            .resolve(*handle)
            .unwrap()
            .map(|found| found.to_owned());
        let kept = number >= handles.len() - RING_CAPACITY;
        assert_eq!(found, kept.then(|| numbered(number as u64)));
    }
}

#[test]
fn spilled_leases_are_read_an_epoch_at_a_time() {
    let file = File::default();
    let mut table = HandleTable::new(Counter::default(), file.clone(), 1 << 20);
    let handles: Vec<_> = (0..200_000)
        .map(|number| {
            table
                .lease(LeaseMode::Retained, numbered(number).as_ref())
                .unwrap()
        })
        .collect();
    assert!(file.written.get() > 4 << 20);
    for (number, handle) in handles.iter().enumerate() {
        let found = table.resolve(*handle).unwrap().unwrap();
        assert_eq!(found, numbered(number as u64).as_ref());
    }
    assert!(file.read.get() <= 200_000 / u64::from(OFFSET_MAX) + 1);
}

#[test]
fn small_transactions_share_epochs_and_still_never_meet_each_others_rows() {
    let counter = Counter::default();
    let mut table = HandleTable::new(counter.clone(), File::default(), 1 << 20);
    let mut seen = HashSet::new();
    for number in 0..2000 {
        let scope = table.open_scope();
        let modes = [
            LeaseMode::Ring,
            LeaseMode::Retained,
            LeaseMode::Canonical,
            LeaseMode::Scoped(scope),
        ];
        for mode in modes {
            let handle = table.lease(mode, numbered(number).as_ref()).unwrap();
            assert!(seen.insert(handle));
        }
        table.clear().unwrap();
    }
    assert!(counter.0.get() <= 8, "{} epochs", counter.0.get());
    assert!(
        seen.iter()
            .all(|old| table.resolve(*old).unwrap().is_none())
    );
}

#[test]
fn scopes_may_close_in_any_order_and_give_their_space_back() {
    for close_older in [true, false] {
        let file = File::default();
        let mut table = HandleTable::new(Counter::default(), file.clone(), 0);
        let scopes = [table.open_scope(), table.open_scope()];
        let mut handles = [Vec::new(), Vec::new()];
        for number in 0..3000 {
            for (scope, handles) in scopes.iter().zip(&mut handles) {
                let mode = LeaseMode::Scoped(*scope);
                handles.push(table.lease(mode, numbered(number).as_ref()).unwrap());
            }
        }
        let (closed, open) = if close_older { (0, 1) } else { (1, 0) };
        table.close_scope(scopes[closed]).unwrap();
        for (number, handle) in handles[open].iter().enumerate() {
            let found = table.resolve(*handle).unwrap();
            assert_eq!(found, Some(numbered(number as u64).as_ref()));
            assert_eq!(table.resolve(handles[closed][number]).unwrap(), None);
        }
        assert!(!file.bytes.borrow().is_empty());
        table.close_scope(scopes[open]).unwrap();
        assert!(file.bytes.borrow().is_empty());
        table.close_scope(scopes[open]).unwrap();
    }
}

#[test]
fn a_closed_scope_leaves_its_place_to_the_next() {
    let mut table = HandleTable::new(Counter::default(), File::default(), 1 << 20);
    let kept = table.open_scope();
    let footprint = |table: &mut HandleTable<_, _>| {
        let scope = table.open_scope();
        assert_eq!(table.open_scopes(), 2);
        let mode = LeaseMode::Scoped(scope);
        table.lease(mode, numbered(1).as_ref()).unwrap();
        let bytes = table.footprint_bytes();
        table.close_scope(scope).unwrap();
        // To close it again neither fails nor offers its place twice.
        table.close_scope(scope).unwrap();
        assert_eq!(table.open_scopes(), 1);
        bytes
    };
    let first = footprint(&mut table);
    let peak = (0..10_000).map(|_| footprint(&mut table)).max();
    assert!(peak.is_some_and(|peak| peak <= first), "{first} {peak:?}");
    let [a, b] = [table.open_scope(), table.open_scope()];
    assert_ne!(a, b);
    table.clear().unwrap();
    assert_eq!(table.open_scopes(), 0);
    table.close_scope(kept).unwrap();
    assert_eq!(table.open_scopes(), 0);
}

#[test]
fn a_place_in_the_file_that_is_used_again_is_read_again() {
    let mut table = HandleTable::new(Counter::default(), File::default(), 0);
    let mut fill = |from: u64| {
        let scope = table.open_scope();
        let mode = LeaseMode::Scoped(scope);
        let first = table.lease(mode, numbered(from).as_ref()).unwrap();
        for number in from + 1..from + 3000 {
            table.lease(mode, numbered(number).as_ref()).unwrap();
        }
        assert_eq!(table.resolve(first).unwrap(), Some(numbered(from).as_ref()));
        table.close_scope(scope).unwrap();
    };
    fill(0);
    fill(10_000);
}

#[test]
fn a_damaged_or_unreadable_spill_file_is_an_error_and_no_row() {
    let file = File::default();
    let mut table = HandleTable::new(Counter::default(), file.clone(), 0);
    let first = table
        .lease(LeaseMode::Retained, numbered(0).as_ref())
        .unwrap();
    for number in 1..5000 {
        table
            .lease(LeaseMode::Retained, numbered(number).as_ref())
            .unwrap();
    }
    file.bytes.borrow_mut()[..4].fill(0xFF);
    assert!(matches!(
        table.resolve(first),
        Err(HandleError::SpillDamaged { at: 0 })
    ));
    file.bytes.borrow_mut().clear();
    table.set_memory_limit(1 << 20);
    let other = Handle::from_tid(first.block(), first.offset() + 1000).unwrap();
    assert!(matches!(table.resolve(other), Err(HandleError::Spill(_))));
}

#[test]
fn a_source_that_repeats_itself_or_ends_is_refused() {
    let long = Lease {
        reference: RowRefBuf(vec![0; 65536]),
        ..numbered(0)
    };
    let mut table = HandleTable::new(|| 7, File::default(), 1 << 20);
    assert!(matches!(
        table.lease(LeaseMode::Ring, long.as_ref()),
        Err(HandleError::ReferenceTooLong { .. })
    ));
    for number in 0..u64::from(OFFSET_MAX) {
        table
            .lease(LeaseMode::Ring, numbered(number).as_ref())
            .unwrap();
    }
    assert!(matches!(
        table.lease(LeaseMode::Ring, numbered(0).as_ref()),
        Err(HandleError::EpochReused { epoch: 7 })
    ));
    let mut table = HandleTable::new(|| INVALID_BLOCK, File::default(), 1 << 20);
    assert!(matches!(
        table.lease(LeaseMode::Canonical, numbered(0).as_ref()),
        Err(HandleError::EpochsExhausted)
    ));
}
