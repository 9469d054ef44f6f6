//! Several processes that make the entries of one table: what they share, what
//! the leader does before and after, and the whole of what a worker does.

use std::ffi::{CStr, CString, c_void};

use engine::mvcc::divide::Share;
use engine::mvcc::scan::Place;
use pgrx::pg_sys;

use super::part::Part;
use super::{
    Counts, EntrySorter, Rows, Task, is_divisible, memory_bytes, spill_failed, take_share,
};
use crate::error::{self, OrRaise};
use crate::handles::TemporaryFile;
use crate::open::OpenStore;
use crate::parallel::{self, Team};
use crate::row::{IndexLayout, Organization};
use crate::shared_place::SharedPlace;
use crate::shmem;
use crate::sort::{Directory, Sorter};

/// What a worker runs; the library exports it by this name.
const ENTRY: &CStr = c"rowref_entries_worker";

/// What the participants share.
#[repr(C)]
struct Shared {
    table: pg_sys::Oid,
    index: pg_sys::Oid,
    task: Task,
    /// Among how many memory is divided.
    participants: usize,
    /// Guards the two members behind it.
    lock: pg_sys::LWLock,
    place: SharedPlace,
    /// Leaves of the shares that were taken.
    leaves: i64,
    files: pg_sys::SharedFileSet,
}

/// What a worker leaves behind. One for each follows [`Shared`].
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Left {
    counts: Counts,
    /// Its sorted runs, in its file.
    runs: Directory,
}

/// The leader's view of the workers.
pub struct Builders {
    team: Team,
    shared: *mut Shared,
    /// Whether the leader reads shares too, as it does unless
    /// `parallel_leader_participation` is off.
    pub leader_reads: bool,
}

impl Builders {
    /// Starts as many workers as the server finds right for a table of this
    /// size; `None` if that is none.
    ///
    /// # Safety
    /// As [`super::gather`].
    pub unsafe fn call(
        table: pg_sys::Relation,
        index: pg_sys::Relation,
        blocks: u32,
        task: Task,
    ) -> Option<Builders> {
        // SAFETY: the caller's promise.
        unsafe {
            if !is_divisible(blocks) || pg_sys::IsInParallelMode() || !pg_sys::ActiveSnapshotSet() {
                return None;
            }
            // Core asks this for its own B-trees alone. Temporary tables, and
            // expressions that are not parallel safe, get none.
            let wanted = pg_sys::plan_create_index_workers((*table).rd_id, (*index).rd_id);
            let workers = usize::try_from(wanted).unwrap_or(0);
            if workers == 0 {
                return None;
            }
            let leader_reads = pg_sys::parallel_leader_participation;
            let bytes = size_of::<Shared>() + workers * size_of::<Left>();
            let prepare = |shared: *mut c_void, segment: *mut pg_sys::dsm_segment| {
                let shared = shared.cast::<Shared>();
                shared.write_bytes(0, 1);
                (*shared).table = (*table).rd_id;
                (*shared).index = (*index).rd_id;
                (*shared).task = task;
                (*shared).participants = workers + usize::from(leader_reads);
                pg_sys::LWLockInitialize(&raw mut (*shared).lock, shmem::tranche());
                (*shared).place.reset();
                pg_sys::SharedFileSetInit(&raw mut (*shared).files, segment);
                for nth in 0..workers {
                    left(shared, nth).write(Left::default());
                }
            };
            let team = Team::call(ENTRY, wanted, bytes, prepare)?;
            Some(Builders {
                shared: team.shared().cast(),
                team,
                leader_reads,
            })
        }
    }

    /// Among how many the memory is divided.
    pub fn participants(&self) -> usize {
        self.team.workers() + usize::from(self.leader_reads)
    }

    /// The next share that nobody has taken.
    pub fn next_share(&self, rows: &OpenStore) -> Option<Share> {
        // SAFETY: the memory is there until `dismiss`.
        unsafe { next_share(self.shared, rows) }
    }

    /// Leaves of the shares that were taken so far.
    pub fn leaves(&self) -> i64 {
        // SAFETY: as above. It is only shown, so it need not be of this moment.
        unsafe { (&raw const (*self.shared).leaves).read_volatile() }
    }

    /// Waits for the workers and takes in what they made, beside the leader's
    /// `own`; what all of them have counted. The leader sorts what it made while
    /// they sort theirs.
    ///
    /// # Safety
    /// `index` is open.
    pub unsafe fn join(
        &self,
        index: pg_sys::Relation,
        own: Counts,
        sorter: &mut EntrySorter<'_>,
    ) -> Counts {
        sorter.seal().unwrap_or_else(|error| spill_failed(&error));
        self.team.wait();
        let mut counts = own;
        for nth in 0..self.team.workers() {
            // SAFETY: the worker has ended; its file stays until the shared
            // memory is given back.
            unsafe {
                let left = left(self.shared, nth).read();
                counts += left.counts;
                if left.runs.is_empty() {
                    continue;
                }
                let files = &raw mut (*self.shared).files;
                TemporaryFile::open_shared(files, &file_name(nth))
                    .and_then(|file| sorter.import(file, left.runs))
                    .unwrap_or_else(|error| spill_failed(&error));
            }
        }
        // SAFETY: the caller's promise.
        unsafe {
            error::tell_entries_made_by_workers(
                index,
                self.team.workers(),
                counts.entries - own.entries,
                counts.entries,
            );
        }
        counts
    }

    /// Ends it all. The workers' files go.
    pub fn dismiss(self) {
        self.team.dismiss();
    }
}

/// Where a worker leaves what it has to say.
unsafe fn left(shared: *mut Shared, worker: usize) -> *mut Left {
    // SAFETY: there is room for all of them behind the structure.
    unsafe { shared.add(1).cast::<Left>().add(worker) }
}

fn file_name(worker: usize) -> CString {
    CString::new(format!("rowref{worker}")).expect("a name without a zero byte")
}

unsafe fn next_share(shared: *mut Shared, rows: &OpenStore) -> Option<Share> {
    // SAFETY: the place is read and written under its lock alone. An ERROR in
    // between lets go of it with all other lightweight locks.
    unsafe {
        pg_sys::LWLockAcquire(&raw mut (*shared).lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let mut place: Place = (*shared).place.load();
        let share = take_share(rows, &mut place);
        (*shared).place.store(&place);
        (*shared).leaves += share.as_ref().map_or(0, |share| share.leaves as i64);
        pg_sys::LWLockRelease(&raw mut (*shared).lock);
        share
    }
}

/// What a worker does from its start to its end.
///
/// # Safety
/// The arguments are those that the server gives to a worker's entry function.
pub unsafe fn work(segment: *mut pg_sys::dsm_segment, toc: *mut pg_sys::shm_toc) {
    // SAFETY: the leader has prepared the memory in `Builders::call`, and holds
    // the locks that are taken here.
    unsafe {
        parallel::serve(segment, toc, |shared, segment, worker| {
            let shared = shared.cast::<Shared>();
            let task = (*shared).task;
            let (table_lock, index_lock) = match task.rows {
                Rows::Histories => (pg_sys::ShareLock, pg_sys::AccessExclusiveLock),
                Rows::Seen => (pg_sys::ShareUpdateExclusiveLock, pg_sys::RowExclusiveLock),
            };
            let (table_lock, index_lock) = (table_lock as i32, index_lock as i32);
            let table = pg_sys::table_open((*shared).table, table_lock);
            let index = pg_sys::index_open((*shared).index, index_lock);
            {
                let rows = OpenStore::table(table);
                let organization =
                    Organization::of_entries(table, index, rows.layout().organization());
                let layout = IndexLayout::new(index, organization).or_raise(index);
                let files = &raw mut (*shared).files;
                pg_sys::SharedFileSetAttach(files, segment);
                let file = TemporaryFile::create_shared(files, &file_name(worker));
                let memory = memory_bytes((*shared).participants);
                let mut sorter = Sorter::new(&**layout.layout(), file, memory);
                let info = pg_sys::BuildIndexInfo(index);
                let mut part = Part::new(&rows, index, info, &layout, task);
                let counts = part.read(|| next_share(shared, &rows), &mut sorter);
                part.end();
                let runs = sorter.export().unwrap_or_else(|error| spill_failed(&error));
                left(shared, worker).write(Left { counts, runs });
            }
            pg_sys::index_close(index, index_lock);
            pg_sys::table_close(table, table_lock);
        });
    }
}
