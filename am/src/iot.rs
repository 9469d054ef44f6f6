//! `iot`: a table kept in one B+tree, keyed by its primary key.

use crate::table_am::TableAm;
use engine::btree::{Bulk, Cleared, Meta, Tree, check};
use engine::mvcc::batch::Batch;
use engine::mvcc::cursor::Cursor;
use engine::mvcc::fetch::Keys;
use engine::mvcc::histories::{History, Kept};
use engine::mvcc::rebuild::Rebuilt;
use engine::mvcc::scan::{Direction, Place, Range};
use engine::mvcc::vacuum::Vacuumed;
use engine::mvcc::write::{Insertion, Outcome, Successor, Written};
use engine::mvcc::{Sight, Snapshot, Strength, VersionId, VersionIdBuf, Writer};
use engine::page::cell::{Head, bit};
use engine::store::PageStore;
use engine::{BlockNumber, Result, Xid};
use pg::open::OpenStore;
use pg::row::TableLayout;
use pg::store::RelationStore;
use pg::xact::ServerSnapshot;
use std::rc::Rc;

/// An open index-organized table.
pub struct Iot(OpenStore);

impl TableAm for Iot {
    const NAME: &'static str = "iot";

    fn open(layout: Rc<TableLayout>, store: RelationStore) -> Iot {
        let table = store.relation();
        // SAFETY: the store's relation is open as long as the store lives.
        Iot(unsafe { OpenStore::new(layout, store, table) })
    }

    fn create<S: PageStore>(store: &S, layout: &[u8], ordered: bool) -> Result<()> {
        Tree::<'_, _, TableLayout>::create(store, layout, ordered)
    }

    fn stored_layout(store: &RelationStore) -> Result<Vec<u8>> {
        Ok(Meta::decode(&store.read(BlockNumber::META)?)?.layout)
    }

    fn is_empty(&self) -> Result<bool> {
        self.0.with(|v| v.is_empty())
    }

    #[inline]
    fn layout(&self) -> &Rc<TableLayout> {
        self.0.layout()
    }

    fn lease_row_ids(&self, count: u64) -> Result<std::ops::Range<u64>> {
        self.0.with(|v| v.tree.lease_row_ids(count))
    }

    #[inline]
    fn get_near(
        &self,
        key: &[u8],
        near: BlockNumber,
        snapshot: &ServerSnapshot<'_>,
        into: &mut Batch,
    ) -> Result<bool> {
        self.0.with(|v| {
            v.tree.look_near(near);
            match snapshot {
                ServerSnapshot::Mvcc(snapshot) => v.get(key, snapshot, into),
                snapshot => v.get(key, snapshot, into),
            }
        })
    }

    #[inline]
    fn get_run(
        &self,
        keys: &mut Keys,
        from: usize,
        ahead: usize,
        snapshot: &ServerSnapshot<'_>,
        into: &mut Batch,
    ) -> Result<usize> {
        self.0.with(|v| match snapshot {
            ServerSnapshot::Mvcc(snapshot) => v.get_run(keys, from, ahead, snapshot, into),
            snapshot => v.get_run(keys, from, ahead, snapshot, into),
        })
    }

    fn version(&self, id: VersionId<'_>, near: BlockNumber, into: &mut Batch) -> Result<bool> {
        self.0.with(|v| {
            v.tree.look_near(near);
            v.version(id, into)
        })
    }

    fn step(
        &self,
        cursor: &mut Cursor,
        snapshot: &ServerSnapshot<'_>,
        direction: Direction,
    ) -> Result<bool> {
        if cursor.step_in_batch(direction) {
            return Ok(true);
        }
        // The common kind of snapshot is judged by without asking for its kind
        // again for each version.
        self.0.with(|v| match snapshot {
            ServerSnapshot::Mvcc(snapshot) => cursor.step(v, snapshot, direction),
            snapshot => cursor.step(v, snapshot, direction),
        })
    }

    fn next_leaf(
        &self,
        range: &Range,
        direction: Direction,
        place: &mut Place,
        snapshot: &ServerSnapshot<'_>,
        batch: &mut Batch,
    ) -> Result<bool> {
        self.0.with(|v| match snapshot {
            ServerSnapshot::Mvcc(snapshot) => v.next_leaf(range, direction, place, snapshot, batch),
            snapshot => v.next_leaf(range, direction, place, snapshot, batch),
        })
    }

    fn rank(&self, key: &[u8]) -> Result<f64> {
        self.0.with(|v| v.tree.rank(key))
    }

    fn sample_block(
        &self,
        block: BlockNumber,
        snapshot: &ServerSnapshot<'_>,
        batch: &mut Batch,
    ) -> Result<Option<usize>> {
        self.0.with(|v| v.sample_block(block, snapshot, batch))
    }

    fn insert(&self, writer: Writer, key: &[u8], payload: &[u8], flags: u8) -> Result<Insertion> {
        self.0.with(|v| v.insert(writer, key, payload, flags))
    }

    fn insert_speculative(&self, writer: Writer, key: &[u8], payload: &[u8]) -> Result<Insertion> {
        self.0
            .with(|v| v.insert(writer, key, payload, bit::SPECULATIVE))
    }

    fn finish_speculative(&self, id: VersionId<'_>, near: BlockNumber, keep: bool) -> Result<bool> {
        self.0.with(|v| {
            v.tree.look_near(near);
            v.finish_speculative(id, keep)
        })
    }

    fn insert_run(
        &self,
        writer: Writer,
        flags: u8,
        rows: &[(&[u8], &[u8])],
        written: &mut Vec<Written>,
    ) -> Result<usize> {
        self.0.with(|v| v.insert_run(writer, flags, rows, written))
    }

    fn supersede(
        &self,
        writer: Writer,
        id: VersionId<'_>,
        near: BlockNumber,
        successor: Successor<'_>,
        crosscheck: Option<&ServerSnapshot<'_>>,
        note: &mut dyn FnMut(Option<&[u8]>),
    ) -> Result<Outcome> {
        self.0.with(|v| {
            v.tree.look_near(near);
            let acceptable =
                |head| crosscheck.is_none_or(|snapshot| snapshot.judge(head).sight == Sight::Seen);
            v.supersede_noting(writer, id, successor, acceptable, note)
        })
    }

    fn end_run<'k>(
        &self,
        writer: Writer,
        rows: impl Iterator<Item = (usize, VersionId<'k>)>,
        near: BlockNumber,
    ) -> Result<usize> {
        self.0.with(|v| {
            v.tree.look_near(near);
            v.end_run(writer, rows)
        })
    }

    fn lock(
        &self,
        writer: Writer,
        id: VersionId<'_>,
        near: BlockNumber,
        strength: Strength,
    ) -> Result<Outcome> {
        self.0.with(|v| {
            v.tree.look_near(near);
            v.lock(writer, id, strength)
        })
    }

    fn rebuild(
        &self,
        into: &RelationStore,
        convert: impl FnMut(&[u8], &[u8]) -> Option<Vec<u8>>,
        pause: impl FnMut(),
    ) -> Result<Rebuilt> {
        let layout = self.layout().organization().to_bytes();
        let mut bulk = Bulk::new(into, &**self.layout(), &layout)?;
        bulk.fill_to(self.layout().fill());
        bulk.set_next_row_id(Meta::decode(&self.0.store().read(BlockNumber::META)?)?.next_row_id);
        let rebuilt = self.0.with(|v| v.rebuild(&mut bulk, convert, pause))?;
        bulk.finish()?;
        Ok(rebuilt)
    }

    fn each_history(
        &self,
        pause: impl FnMut(),
        mut visit: impl FnMut(&History, &[Option<Head>]) -> Result<()>,
    ) -> Result<Xid> {
        let mut heads = Kept::default();
        self.0.with(|v| {
            v.each_history(pause, |history| {
                history.kept(v.transactions, &mut heads);
                visit(history, &heads)
            })
        })?;
        Ok(heads.horizon())
    }

    fn load<E: From<engine::Error>>(
        into: &RelationStore,
        layout: &TableLayout,
        next_row_id: u64,
        horizon: Xid,
        fill: impl FnOnce(&mut dyn FnMut(Head, &[u8], &[u8]) -> Result<()>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut bulk = Bulk::new(into, layout, &layout.organization().to_bytes())?;
        bulk.fill_to(layout.fill());
        bulk.set_next_row_id(next_row_id);
        bulk.state_horizon(horizon);
        fill(&mut |head, key, body| bulk.add(head, key, body).map(drop))?;
        Ok(bulk.finish()?)
    }

    fn latest(&self, id: VersionId<'_>, snapshot: &ServerSnapshot<'_>) -> Result<VersionIdBuf> {
        self.0.with(|v| v.latest(id, snapshot))
    }

    fn vacuum(&self, pause: impl FnMut(&Vacuumed)) -> Result<Vacuumed> {
        self.0.with(|v| v.vacuum(pause))
    }

    fn clear_end(&self, moves_max: u32, go_on: impl FnMut() -> bool) -> Result<Cleared> {
        self.0.with(|v| v.tree.clear_end(moves_max, go_on))
    }

    fn check(&self) -> Result<Vec<(BlockNumber, String)>> {
        let report = check::check(self.0.store(), &**self.layout())?;
        Ok(report
            .problems
            .into_iter()
            .map(|problem| (problem.block, problem.what))
            .collect())
    }
}
