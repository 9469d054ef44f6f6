//! The trait that a storage engine implements to stand under SQL.

use engine::Result;
use engine::btree::Cleared;
use engine::mvcc::batch::Batch;
use engine::mvcc::cursor::Cursor;
use engine::mvcc::fetch::Keys;
use engine::mvcc::histories::History;
use engine::mvcc::rebuild::Rebuilt;
use engine::mvcc::scan::{Direction, Place, Range};
use engine::mvcc::vacuum::Vacuumed;
use engine::mvcc::write::{Insertion, Outcome, Successor, Written};
use engine::mvcc::{Strength, VersionId, VersionIdBuf, Writer};
use engine::page::cell::Head;
use engine::store::PageStore;
use engine::{BlockNumber, Xid};
use pg::row::TableLayout;
use pg::store::RelationStore;
use pg::xact::ServerSnapshot;
use std::rc::Rc;

/// One open table of some storage engine, whose rows are named by byte arrays:
/// a row's name is its encoded key (a hidden row id where the table has no
/// primary key), and a version of it is a [`VersionId`].
///
/// The callbacks of this crate do all that PostgreSQL asks of a table access
/// method on top of it: slots, handles, waiting for transactions, errors. An
/// implementation neither waits nor raises: where it would have to wait, it
/// says for whom ([`Outcome::Busy`]).
pub trait TableAm: Sized + 'static {
    /// The name in `CREATE TABLE … USING`.
    const NAME: &'static str;

    /// Opens a table whose layout and pages are these.
    fn open(layout: Rc<TableLayout>, store: RelationStore) -> Self;

    /// Makes an empty store, organized as `layout` says, in an empty fork.
    fn create<S: PageStore>(store: &S, layout: &[u8], ordered: bool) -> Result<()>;

    /// The layout's bytes that [`TableAm::create`] was given.
    fn stored_layout(store: &RelationStore) -> Result<Vec<u8>>;

    /// Whether the store holds no entry at all.
    fn is_empty(&self) -> Result<bool>;

    /// How rows are laid out.
    fn layout(&self) -> &Rc<TableLayout>;

    /// Takes hidden row ids, `count` of them, never given out before.
    fn lease_row_ids(&self, count: u64) -> Result<std::ops::Range<u64>>;

    /// Copies the row that a snapshot sees under a key.
    fn get(&self, key: &[u8], snapshot: &ServerSnapshot<'_>, into: &mut Batch) -> Result<bool> {
        self.get_near(key, BlockNumber::NONE, snapshot, into)
    }

    /// As [`TableAm::get`]; `near` is a page where the row may be, if any.
    fn get_near(
        &self,
        key: &[u8],
        near: BlockNumber,
        snapshot: &ServerSnapshot<'_>,
        into: &mut Batch,
    ) -> Result<bool>;

    /// Copies the rows that a snapshot sees under the keys from `from` on, as
    /// many at a time as is convenient, and returns how many keys are done
    /// with: if more than one, there is a row for each, and if one, there may be
    /// none. The next `ahead` pages will be wanted soon.
    fn get_run(
        &self,
        keys: &mut Keys,
        from: usize,
        ahead: usize,
        snapshot: &ServerSnapshot<'_>,
        into: &mut Batch,
    ) -> Result<usize>;

    /// The newest version of a row that a snapshot sees, from a named version
    /// on along its update chain.
    fn latest(&self, id: VersionId<'_>, snapshot: &ServerSnapshot<'_>) -> Result<VersionIdBuf>;

    /// Copies one named version, whatever became of it since. It was last seen
    /// `near`, which is a hint.
    fn version(&self, id: VersionId<'_>, near: BlockNumber, into: &mut Batch) -> Result<bool>;

    /// Steps a cursor.
    fn step(
        &self,
        cursor: &mut Cursor,
        snapshot: &ServerSnapshot<'_>,
        direction: Direction,
    ) -> Result<bool>;

    /// Copies the rows of the next leaf of a range.
    fn next_leaf(
        &self,
        range: &Range,
        direction: Direction,
        place: &mut Place,
        snapshot: &ServerSnapshot<'_>,
        batch: &mut Batch,
    ) -> Result<bool>;

    /// The fraction of the table that lies before a key, roughly.
    fn rank(&self, key: &[u8]) -> Result<f64>;

    /// Copies the rows of one block, for samples; `None` if it holds none.
    fn sample_block(
        &self,
        block: BlockNumber,
        snapshot: &ServerSnapshot<'_>,
        batch: &mut Batch,
    ) -> Result<Option<usize>>;

    /// Inserts a row under a key that must not have a live one; `flags` are bits
    /// of its version.
    fn insert(&self, writer: Writer, key: &[u8], payload: &[u8], flags: u8) -> Result<Insertion>;

    /// As [`TableAm::insert`], but whoever meets the row is told that it may be
    /// taken back; [`TableAm::finish_speculative`] has to follow.
    fn insert_speculative(&self, writer: Writer, key: &[u8], payload: &[u8]) -> Result<Insertion>;

    /// Confirms a row that was inserted speculatively and last seen `near`, or
    /// takes it back. False if there is no such row.
    fn finish_speculative(&self, id: VersionId<'_>, near: BlockNumber, keep: bool) -> Result<bool>;

    /// Inserts rows in ascending order of their keys, as many from the front
    /// as one step takes; 0 if the first one needs [`TableAm::insert`]'s closer
    /// look. Places are appended to `written`.
    fn insert_run(
        &self,
        writer: Writer,
        flags: u8,
        rows: &[(&[u8], &[u8])],
        written: &mut Vec<Written>,
    ) -> Result<usize>;

    /// Puts a newer version on top of the one read, which was last seen `near`.
    /// With a `crosscheck` snapshot, that one has to see the version read.
    /// `note` is shown the payload that is superseded, or `None` where it is
    /// not at hand; pages are locked meanwhile.
    fn supersede(
        &self,
        writer: Writer,
        id: VersionId<'_>,
        near: BlockNumber,
        successor: Successor<'_>,
        crosscheck: Option<&ServerSnapshot<'_>>,
        note: &mut dyn FnMut(Option<&[u8]>),
    ) -> Result<Outcome>;

    /// Ends rows that were read from the block `near`, in ascending order of
    /// their keys: as many from the front as one step takes, and none that
    /// needs [`TableAm::supersede`]'s closer look. Each comes with its number
    /// among the block's rows.
    fn end_run<'k>(
        &self,
        writer: Writer,
        rows: impl Iterator<Item = (usize, VersionId<'k>)>,
        near: BlockNumber,
    ) -> Result<usize>;

    /// Takes a row lock on a version last seen `near`.
    fn lock(
        &self,
        writer: Writer,
        id: VersionId<'_>,
        near: BlockNumber,
        strength: Strength,
    ) -> Result<Outcome>;

    /// Prunes, freezes and merges; `pause` is called with no lock held.
    fn vacuum(&self, pause: impl FnMut(&Vacuumed)) -> Result<Vacuumed>;

    /// Finds out where the file can be cut off, with pages moved for it; nobody
    /// else may be in the table ([`engine::btree::Tree::clear_end`]).
    fn clear_end(&self, moves_max: u32, go_on: impl FnMut() -> bool) -> Result<Cleared>;

    /// The problems of the store, with the block of each.
    fn check(&self) -> Result<Vec<(BlockNumber, String)>>;

    /// Writes the store anew, compact, into an empty fork of another relation
    /// with the same layout, with the histories that somebody still needs.
    /// `convert` is given key and payload of each row, and may want another
    /// payload.
    fn rebuild(
        &self,
        into: &RelationStore,
        convert: impl FnMut(&[u8], &[u8]) -> Option<Vec<u8>>,
        pause: impl FnMut(),
    ) -> Result<Rebuilt>;

    /// Visits every key's history, with the head of each entry that somebody
    /// still needs as it is to be written anew. Nobody may write meanwhile;
    /// neither `visit` nor `pause` finds a page locked. Returns the conflict horizon
    /// of what is made of them.
    fn each_history(
        &self,
        pause: impl FnMut(),
        visit: impl FnMut(&History, &[Option<Head>]) -> Result<()>,
    ) -> Result<Xid>;

    /// Fills the empty fork of a relation with the entries that `fill` hands
    /// over, in the order of their keys and of one key the newest first. Hidden
    /// row ids are leased from `next_row_id` on. A standby's snapshots end that take
    /// the newest transaction, `horizon`, for a running one.
    fn load<E: From<engine::Error>>(
        into: &RelationStore,
        layout: &TableLayout,
        next_row_id: u64,
        horizon: Xid,
        fill: impl FnOnce(&mut dyn FnMut(Head, &[u8], &[u8]) -> Result<()>) -> Result<(), E>,
    ) -> Result<(), E>;

    /// The oldest transaction id that [`TableAm::vacuum`] left unfrozen, given
    /// what it returned and the horizon it worked with.
    fn frozen_limit(oldest: Option<Xid>, horizon: Xid) -> Xid {
        match oldest {
            Some(oldest) if oldest.precedes(horizon) => oldest,
            _ => horizon,
        }
    }
}
