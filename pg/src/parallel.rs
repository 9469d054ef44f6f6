//! Worker processes that help a command, by the server's own machinery
//! (`access/parallel.h`): they run in the command's transaction, under its
//! snapshot, its user and its settings; what they raise, the command raises;
//! they are gone when it ends, however it ends.

use std::ffi::{CStr, c_int, c_void};

use pgrx::pg_sys;

use crate::ffi;

/// What lies where in the memory that they share.
const SHARED: u64 = 1;
const QUERY: u64 = 2;
const WAL: u64 = 3;
const BUFFERS: u64 = 4;

/// Asks for a chunk of shared memory.
///
/// # Safety
/// `context` was made and has no memory yet.
unsafe fn reserve(context: *mut pg_sys::ParallelContext, bytes: usize) {
    // The server aligns chunks as it does buffers.
    let padded = bytes.next_multiple_of(pg_sys::ALIGNOF_BUFFER as usize);
    // SAFETY: the caller's promise.
    unsafe {
        (*context).estimator.space_for_chunks += padded;
        (*context).estimator.number_of_keys += 1;
    }
}

/// Takes such a chunk.
///
/// # Safety
/// `context` has its memory, and the chunk was reserved.
unsafe fn allot(context: *mut pg_sys::ParallelContext, key: u64, bytes: usize) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe {
        let chunk = pg_sys::shm_toc_allocate((*context).toc, bytes);
        pg_sys::shm_toc_insert((*context).toc, key, chunk);
        chunk
    }
}

/// Running workers, as their leader has them. The leader is in parallel mode
/// from [`Team::call`] to [`Team::dismiss`]: neither it nor a worker may assign
/// a transaction id or change a table. After an error the transaction's end
/// stops the workers and gives everything back.
pub struct Team {
    context: *mut pg_sys::ParallelContext,
    shared: *mut c_void,
    wal: *mut pg_sys::WalUsage,
    buffers: *mut pg_sys::BufferUsage,
}

impl Team {
    /// Starts up to `wanted` workers, each of which runs the exported function
    /// `entry` of this library, on `bytes` of memory that `prepare` makes ready.
    /// `None` if there is none to be had.
    ///
    /// # Safety
    /// In a transaction with an active snapshot; `entry` calls [`serve`].
    pub unsafe fn call(
        entry: &CStr,
        wanted: c_int,
        bytes: usize,
        prepare: impl FnOnce(*mut c_void, *mut pg_sys::dsm_segment),
    ) -> Option<Team> {
        // SAFETY: the order of calls that the server's README.parallel asks for.
        unsafe {
            pg_sys::EnterParallelMode();
            let library = ffi::rowref_library_path();
            let context = pg_sys::CreateParallelContext(library, entry.as_ptr(), wanted);
            let workers = usize::try_from(wanted).expect("a number of workers");
            let query = pg_sys::debug_query_string;
            let query_bytes = if query.is_null() {
                0
            } else {
                CStr::from_ptr(query).count_bytes() + 1
            };
            reserve(context, bytes);
            reserve(context, query_bytes);
            reserve(context, workers * size_of::<pg_sys::WalUsage>());
            reserve(context, workers * size_of::<pg_sys::BufferUsage>());
            pg_sys::InitializeParallelDSM(context);
            if (*context).seg.is_null() {
                pg_sys::DestroyParallelContext(context);
                pg_sys::ExitParallelMode();
                return None;
            }
            let shared = allot(context, SHARED, bytes);
            prepare(shared, (*context).seg);
            if query_bytes > 0 {
                let text = allot(context, QUERY, query_bytes);
                text.cast::<u8>().copy_from(query.cast(), query_bytes);
            }
            let wal = allot(context, WAL, workers * size_of::<pg_sys::WalUsage>());
            let buffers = allot(context, BUFFERS, workers * size_of::<pg_sys::BufferUsage>());
            pg_sys::LaunchParallelWorkers(context);
            let team = Team {
                context,
                shared,
                wal: wal.cast(),
                buffers: buffers.cast(),
            };
            if team.workers() == 0 {
                team.wait();
                team.dismiss();
                return None;
            }
            Some(team)
        }
    }

    /// How many workers were started.
    pub fn workers(&self) -> usize {
        // SAFETY: the context lives until `dismiss`.
        unsafe { (*self.context).nworkers_launched.max(0) as usize }
    }

    /// The memory that all share.
    pub fn shared(&self) -> *mut c_void {
        self.shared
    }

    /// Waits until all workers have done their work, and takes what they used
    /// for used by this command. One that failed, or could not even start,
    /// raises its error here.
    pub fn wait(&self) {
        // SAFETY: the context lives until `dismiss`; each worker that has ended
        // has written its numbers.
        unsafe {
            pg_sys::WaitForParallelWorkersToFinish(self.context);
            for nth in 0..self.workers() {
                pg_sys::InstrAccumParallelQuery(self.buffers.add(nth), self.wal.add(nth));
            }
        }
    }

    /// Gives the shared memory back. All have been waited for.
    pub fn dismiss(self) {
        // SAFETY: made by `call`; nothing of it is used any more.
        unsafe {
            pg_sys::DestroyParallelContext(self.context);
            pg_sys::ExitParallelMode();
        }
    }
}

/// What a worker's entry function does: `work` on the shared memory. It is told
/// the worker's number, from 0.
///
/// # Safety
/// The arguments are those of the entry function.
pub unsafe fn serve(
    segment: *mut pg_sys::dsm_segment,
    toc: *mut pg_sys::shm_toc,
    work: impl FnOnce(*mut c_void, *mut pg_sys::dsm_segment, usize),
) {
    // SAFETY: the leader has put all of it there before it started anybody.
    unsafe {
        let number = usize::try_from(pg_sys::ParallelWorkerNumber).expect("a worker has a number");
        pg_sys::debug_query_string = pg_sys::shm_toc_lookup(toc, QUERY, true).cast();
        pg_sys::pgstat_report_activity(
            pg_sys::BackendState::STATE_RUNNING,
            pg_sys::debug_query_string,
        );
        pg_sys::InstrStartParallelQuery();
        work(pg_sys::shm_toc_lookup(toc, SHARED, false), segment, number);
        let wal = pg_sys::shm_toc_lookup(toc, WAL, false).cast::<pg_sys::WalUsage>();
        let buffers = pg_sys::shm_toc_lookup(toc, BUFFERS, false).cast::<pg_sys::BufferUsage>();
        pg_sys::InstrEndParallelQuery(buffers.add(number), wal.add(number));
    }
}
