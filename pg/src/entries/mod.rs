//! The entries that an index has to hold of its table's rows: made from the
//! rows and sorted, by this process and by workers (`index/README.md`,
//! "Workers").

mod part;
mod progress;
mod read;
mod team;

use engine::mvcc::divide::Share;
use engine::mvcc::scan::Place;
use engine::store::PageStore;
use engine::{BlockNumber, Xid};
use pgrx::pg_sys;

use crate::error::{self, OrRaise};
use crate::handles::TemporaryFile;
use crate::open::OpenStore;
use crate::row::{IndexLayout, TableLayout};
use crate::sort::{Item, Sorter};
use part::Part;
use team::Builders;

pub use team::work;

/// Sorts entries.
type EntrySorter<'l> = Sorter<'l, TableLayout, TemporaryFile>;

/// How many leaves a participant reads before it comes for more.
const SHARE_LEAVES: usize = 16;

/// Which rows' entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub enum Rows {
    /// Those of all versions that some snapshot may see, turned into the
    /// histories of the entries. Nobody writes meanwhile.
    Histories,
    /// Those that the active snapshot sees. A mark is on what nulls set apart
    /// from all others.
    Seen,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Task {
    /// Which rows.
    pub rows: Rows,
    /// Whether the entries are wanted, or only the errors of making them.
    pub keeps: bool,
}

/// The entries of a table's rows.
pub struct Gathered<'l> {
    /// How many rows there are, live ones of [`Rows::Histories`].
    pub rows: f64,
    /// The conflict horizon of what was read.
    pub horizon: Xid,
    sorter: EntrySorter<'l>,
    builders: Option<Builders>,
}

/// Makes the entries of a table's rows. With workers, this process is in
/// parallel mode until [`Gathered::drain`] is through.
///
/// # Safety
/// Both relations are open and locked as core locks them for an index build
/// ([`Rows::Histories`]) or a concurrent one ([`Rows::Seen`]); `info` describes
/// the index, and `layout` its entries.
pub unsafe fn gather<'l>(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
    layout: &'l IndexLayout,
    task: Task,
) -> Gathered<'l> {
    // SAFETY: the caller's promise.
    unsafe {
        let rows = OpenStore::table(table);
        let blocks = rows.store().block_count().or_raise(table);
        progress::blocks_total(blocks);
        let builders = Builders::call(table, index, blocks, task);
        let participants = builders.as_ref().map_or(1, Builders::participants);
        let mut sorter = Sorter::new(
            &**layout.layout(),
            TemporaryFile::of_transaction(),
            memory_bytes(participants),
        );
        let mut part = Part::new(&rows, index, info, layout, task);
        let mut counts = Counts::default();
        if builders.as_ref().is_none_or(|team| team.leader_reads) {
            let (mut place, mut leaves) = (Place::Start, 0);
            let next = || match &builders {
                Some(team) => {
                    let share = team.next_share(&rows);
                    progress::blocks_done(team.leaves());
                    share
                }
                None => {
                    let share = take_share(&rows, &mut place);
                    progress::blocks_done(leaves);
                    leaves += share.as_ref().map_or(0, |share| share.leaves as i64);
                    share
                }
            };
            counts = part.read(next, &mut sorter);
        }
        part.end();
        if let Some(builders) = &builders {
            counts = builders.join(index, counts, &mut sorter);
        }
        Gathered {
            rows: counts.rows,
            horizon: counts.horizon,
            sorter,
            builders,
        }
    }
}

impl Gathered<'_> {
    /// Sorts what is not sorted yet.
    pub fn sort(&mut self) {
        self.sorter
            .seal()
            .unwrap_or_else(|error| spill_failed(&error));
    }

    /// Gives every item to `visit`, in order. To be called after
    /// [`Gathered::sort`].
    pub fn drain<E: From<std::io::Error>>(
        self,
        visit: impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let drained = self.sorter.drain(visit);
        if let Some(builders) = self.builders {
            builders.dismiss();
        }
        drained
    }
}

/// What a participant has read and made.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
struct Counts {
    rows: f64,
    entries: f64,
    /// The conflict horizon of what was made.
    horizon: Xid,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.rows += other.rows;
        self.entries += other.entries;
        self.horizon = self.horizon.newer_of(other.horizon);
    }
}

/// What each of the participants may take of `maintenance_work_mem`.
fn memory_bytes(participants: usize) -> usize {
    // SAFETY: reads a setting.
    let kilobytes = usize::try_from(unsafe { pg_sys::maintenance_work_mem }).unwrap_or(1 << 10);
    (kilobytes << 10) / participants.max(1)
}

/// Takes the next share of a table off what lies behind `place`.
unsafe fn take_share(rows: &OpenStore, place: &mut Place) -> Option<Share> {
    let share = rows.with(|versions| versions.next_share(place, SHARE_LEAVES));
    // SAFETY: the table is open.
    unsafe { share.or_raise(rows.relation()) }
}

/// Whether a table of so many blocks has more than one leaf.
fn is_divisible(blocks: u32) -> bool {
    blocks > BlockNumber::META.0 + 2
}

/// What is sorted here.
pub const WHAT: &str = "the entries of an index";

/// Reports that entries could not be sorted.
pub fn spill_failed(error: &std::io::Error) -> ! {
    error::spill_failed(WHAT, error)
}
