//! PostgreSQL 15.

use std::ffi::c_char;

use pgrx::pg_sys::{self, ffi::pg_guard_ffi_boundary as guarded};

/// What names a relation's files.
pub type RelationFile = pg_sys::RelFileNode;

unsafe extern "C-unwind" {
    fn rowref_record_block(
        record: *mut pg_sys::XLogReaderState,
        id: u8,
        file: *mut RelationFile,
        block: *mut u32,
        init_fork: *mut bool,
    );
    fn rowref_resolve_conflict(newest: pg_sys::TransactionId, file: *const RelationFile);
    fn rowref_resolve_conflict_full(newest: u64, file: *const RelationFile);
    fn rowref_await_class_row(relation: pg_sys::Oid);
    fn log_smgrcreate(file: *const RelationFile, fork: pg_sys::ForkNumber::Type);
}

/// The database and file number of a relation's storage, as records carry it:
/// tablespace, database, relation.
pub(crate) fn file_numbers(file: &RelationFile) -> [u32; 3] {
    [
        file.spcNode.to_u32(),
        file.dbNode.to_u32(),
        file.relNode.to_u32(),
    ]
}

/// The reverse of [`file_numbers`].
pub(crate) fn file_from_numbers([tablespace, database, relation]: [u32; 3]) -> RelationFile {
    RelationFile {
        spcNode: tablespace.into(),
        dbNode: database.into(),
        relNode: relation.into(),
    }
}

/// The number of the file that an open relation is kept in.
///
/// # Safety
/// `relation` is open.
pub unsafe fn file_number(relation: pg_sys::Relation) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { (*relation).rd_node.relNode.to_u32() }
}

/// Whether the file that a relation has now holds a block.
///
/// # Safety
/// `relation` is open, and may be one whose storage is just being made.
pub unsafe fn has_storage(relation: pg_sys::Relation) -> bool {
    // SAFETY: the caller's promise; a file that is not there yet is asked for
    // by existence before its size.
    unsafe {
        if (*relation).rd_node.relNode == pg_sys::InvalidOid {
            return false;
        }
        let smgr = pg_sys::smgropen((*relation).rd_node, (*relation).rd_backend);
        pg_sys::smgrexists(smgr, pg_sys::ForkNumber::MAIN_FORKNUM)
            && pg_sys::smgrnblocks(smgr, pg_sys::ForkNumber::MAIN_FORKNUM) > 0
    }
}

/// The file that `relation` is kept in.
///
/// # Safety
/// `relation` is open.
pub unsafe fn file_of(relation: pg_sys::Relation) -> RelationFile {
    // SAFETY: the caller's promise.
    unsafe { (*relation).rd_node }
}

/// The file, block and "is it an init fork" of a record's block reference.
///
/// # Safety
/// `record` is being replayed and has the reference.
pub(crate) unsafe fn record_block(
    record: *mut pg_sys::XLogReaderState,
    id: u8,
) -> (RelationFile, u32, bool) {
    let mut file = RelationFile::default();
    let (mut block, mut init_fork) = (0, false);
    // SAFETY: reads the decoded record only; the caller vouches for it.
    unsafe { rowref_record_block(record, id, &mut file, &mut block, &mut init_fork) };
    (file, block, init_fork)
}

/// Fills in what a decoded row change is about.
///
/// # Safety
/// `change` is fresh; the tuples are in the reorder buffer's memory, or null.
pub(crate) unsafe fn set_row_change(
    change: *mut pg_sys::ReorderBufferChange,
    file: RelationFile,
    keeps_values: bool,
    old: *mut pg_sys::ReorderBufferTupleBuf,
    new: *mut pg_sys::ReorderBufferTupleBuf,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let row = &mut (*change).data.tp;
        row.relnode = file;
        // Else the values out of line that came before are done with.
        row.clear_toast_afterwards = !keeps_values;
        row.oldtuple = old;
        row.newtuple = new;
    }
}

/// On a standby: waits for, or cancels, queries to which `newest` may count
/// as running.
pub(crate) fn resolve_conflict(newest: pg_sys::TransactionId, file: &RelationFile) {
    // SAFETY: a plain call with values; called in the startup process.
    unsafe { guarded(|| rowref_resolve_conflict(newest, file)) }
}

/// As [`resolve_conflict`], for an id with its epoch.
pub(crate) fn resolve_conflict_full(newest: u64, file: &RelationFile) {
    // SAFETY: as above.
    unsafe { guarded(|| rowref_resolve_conflict_full(newest, file)) }
}

/// Writes one page, given whole, at a block.
pub(crate) type WritePage<'w> = dyn FnMut(u32, &mut [u8]) + 'w;

/// Makes the files of a new relation. `fill` is given a function that appends
/// a page image to the main fork, and for an unlogged relation is called once
/// more for the init fork.
///
/// # Safety
/// `file` names storage that does not exist yet; called within a transaction.
pub(crate) unsafe fn create_files(
    file: &RelationFile,
    persistence: c_char,
    log: bool,
    fill: &mut dyn FnMut(&mut WritePage<'_>),
) {
    // SAFETY: plain calls on storage that only this transaction knows.
    unsafe {
        let storage = pg_sys::RelationCreateStorage(*file, persistence, true);
        fill(&mut |block, page| {
            write_page(
                storage,
                file,
                pg_sys::ForkNumber::MAIN_FORKNUM,
                block,
                page,
                log,
            )
        });
        if persistence as u8 == pg_sys::RELPERSISTENCE_UNLOGGED {
            let fork = pg_sys::ForkNumber::INIT_FORKNUM;
            pg_sys::smgrcreate(storage, fork, false);
            guarded(|| log_smgrcreate(file, fork));
            fill(&mut |block, page| write_page(storage, file, fork, block, page, true));
            // Recovery may remove and re-create the file while replaying
            // something older, so it must not rest on a checkpoint alone.
            pg_sys::smgrimmedsync(storage, fork);
        }
        pg_sys::smgrclose(storage);
    }
}

/// Appends one page past the buffers. It is written, and its fsync asked for,
/// *before* it is logged: a checkpoint that starts behind the record then
/// covers the write, and one that starts before it replays the record.
///
/// # Safety
/// As [`create_files`]; `page` is a whole page, aligned.
unsafe fn write_page(
    storage: pg_sys::SMgrRelation,
    file: &RelationFile,
    fork: pg_sys::ForkNumber::Type,
    block: u32,
    page: &mut [u8],
    log: bool,
) {
    let mut file = *file;
    let page = page.as_mut_ptr().cast::<c_char>();
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::PageSetChecksumInplace(page, block);
        pg_sys::smgrextend(storage, fork, block, page, false);
        if log {
            pg_sys::log_newpage(&mut file, fork, block, page, true);
        }
    }
}

/// Copies all forks of a relation to new storage (ALTER TABLE … SET
/// TABLESPACE), as PostgreSQL's heap does.
///
/// # Safety
/// `relation` is open and locked exclusively; `file` does not exist yet.
pub unsafe fn copy_files(relation: pg_sys::Relation, file: &RelationFile) {
    // SAFETY: the caller's promise.
    unsafe {
        let persistence = (*(*relation).rd_rel).relpersistence;
        // What other backends have in shared buffers has to be in the files
        // that are about to be read; nobody can dirty it again.
        pg_sys::FlushRelationBuffers(relation);
        let to = pg_sys::RelationCreateStorage(*file, persistence, true);
        let from = pg_sys::smgropen((*relation).rd_node, (*relation).rd_backend);
        pg_sys::RelationCopyStorage(from, to, pg_sys::ForkNumber::MAIN_FORKNUM, persistence);
        for fork in [
            pg_sys::ForkNumber::FSM_FORKNUM,
            pg_sys::ForkNumber::VISIBILITYMAP_FORKNUM,
            pg_sys::ForkNumber::INIT_FORKNUM,
        ] {
            if !pg_sys::smgrexists(from, fork) {
                continue;
            }
            pg_sys::smgrcreate(to, fork, false);
            let permanent = persistence as u8 == pg_sys::RELPERSISTENCE_PERMANENT;
            let unlogged_init = persistence as u8 == pg_sys::RELPERSISTENCE_UNLOGGED
                && fork == pg_sys::ForkNumber::INIT_FORKNUM;
            if permanent || unlogged_init {
                guarded(|| log_smgrcreate(file, fork));
            }
            pg_sys::RelationCopyStorage(from, to, fork, persistence);
        }
        pg_sys::RelationDropStorage(relation);
        pg_sys::smgrclose(to);
    }
}

/// Hooks the request for shared memory into the server's start.
///
/// # Safety
/// Called while `shared_preload_libraries` are being loaded.
pub(crate) unsafe fn on_shmem_request(request: unsafe extern "C-unwind" fn()) {
    // SAFETY: single-threaded start-up, as the caller promises.
    unsafe {
        PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
        REQUEST = Some(request);
        pg_sys::shmem_request_hook = Some(requested);
    }
}

type Hook = Option<unsafe extern "C-unwind" fn()>;
static mut PREVIOUS_REQUEST: Hook = None;
static mut REQUEST: Hook = None;

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn requested() {
    // SAFETY: written once, before the server calls this.
    let hooks = unsafe { [PREVIOUS_REQUEST, REQUEST] };
    for hook in hooks.into_iter().flatten() {
        // SAFETY: hooks of the server's own type.
        unsafe { guarded(|| hook()) };
    }
}

/// Waits until no other transaction is about to change a relation's row in
/// pg_class: a GRANT, say, which takes no lock on the relation. Without it a
/// command that core would let wait fails with "tuple concurrently updated".
///
/// # Safety
/// The relation is locked by us.
pub unsafe fn await_class_row(relation: pg_sys::Oid) {
    // SAFETY: guarded; the caller's promise.
    unsafe { guarded(|| rowref_await_class_row(relation)) }
}

/// What a VACUUM works with.
pub struct VacuumCutoffs {
    /// The oldest transaction whose effects somebody may not see yet.
    pub oldest_xmin: pg_sys::TransactionId,
    /// Becomes `relminmxid`.
    pub oldest_multixact: pg_sys::MultiXactId,
}

/// The cut-offs for a VACUUM that begins now.
///
/// # Safety
/// `relation` is open and `params` are the command's.
pub unsafe fn vacuum_cutoffs(
    relation: pg_sys::Relation,
    params: *const pg_sys::VacuumParams,
) -> VacuumCutoffs {
    let zero = pg_sys::TransactionId::from_inner(0);
    let (mut oldest_xmin, mut freeze_limit) = (zero, zero);
    let (mut oldest_multixact, mut multixact_cutoff) = (zero, zero);
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::vacuum_set_xid_limits(
            relation,
            (*params).freeze_min_age,
            (*params).freeze_table_age,
            (*params).multixact_freeze_min_age,
            (*params).multixact_freeze_table_age,
            &mut oldest_xmin,
            &mut oldest_multixact,
            &mut freeze_limit,
            &mut multixact_cutoff,
        );
    }
    VacuumCutoffs {
        oldest_xmin,
        oldest_multixact,
    }
}

/// Writes what a VACUUM found to `pg_class`. All pages count as all-visible:
/// no index-only scan asks the table.
///
/// # Safety
/// `relation` is open, in a VACUUM.
pub unsafe fn update_relation_statistics(
    relation: pg_sys::Relation,
    pages: pg_sys::BlockNumber,
    rows: f64,
    frozen_xid: pg_sys::TransactionId,
    minimum_multixact: pg_sys::MultiXactId,
) {
    let (mut xid_updated, mut multixact_updated) = (false, false);
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::vac_update_relstats(
            relation,
            pages,
            rows,
            pages,
            (*(*relation).rd_rel).relhasindex,
            frozen_xid,
            minimum_multixact,
            &mut xid_updated,
            &mut multixact_updated,
            false,
        );
    }
}

/// Writes what a VACUUM found of an index to `pg_class`.
///
/// # Safety
/// `index` is open, in a VACUUM of its table.
pub unsafe fn update_index_statistics(index: pg_sys::Relation, entries: f64) {
    let (mut xid_updated, mut multixact_updated) = (false, false);
    let none = pg_sys::TransactionId::from_inner(0);
    // SAFETY: the caller's promise.
    unsafe {
        let pages =
            pg_sys::RelationGetNumberOfBlocksInFork(index, pg_sys::ForkNumber::MAIN_FORKNUM);
        pg_sys::vac_update_relstats(
            index,
            pages,
            entries,
            0,
            false,
            none,
            none,
            &mut xid_updated,
            &mut multixact_updated,
            false,
        );
    }
}

/// What this process may be said to have used since a VACUUM slept last. It goes
/// into the balance that it is about to share.
pub fn vacuum_balance() -> u32 {
    // SAFETY: a counter of this process.
    u32::try_from(unsafe { pg_sys::VacuumCostBalance }).unwrap_or(0)
}

/// From now on the cost of this process's VACUUM goes to a balance that several
/// share, so many of which are `active`.
///
/// # Safety
/// Both live until [`keep_vacuum_balance`], or the end of the transaction.
pub unsafe fn share_vacuum_balance(balance: *mut u32, active: *mut u32) {
    // SAFETY: variables of this process; the server's atomic number is the
    // number and nothing else, as Rust's is.
    unsafe {
        pg_sys::VacuumCostBalance = 0;
        pg_sys::VacuumCostBalanceLocal = 0;
        pg_sys::VacuumSharedCostBalance = balance.cast();
        pg_sys::VacuumActiveNWorkers = active.cast();
    }
}

/// From now on it goes to a balance of its own again, with what is left of the
/// shared one.
///
/// # Safety
/// After [`share_vacuum_balance`]; the others have ended.
pub unsafe fn keep_vacuum_balance() {
    // SAFETY: the caller's promise.
    unsafe {
        let left = (*pg_sys::VacuumSharedCostBalance).value;
        pg_sys::VacuumCostBalance = i32::try_from(left).unwrap_or(0);
        pg_sys::VacuumSharedCostBalance = std::ptr::null_mut();
        pg_sys::VacuumActiveNWorkers = std::ptr::null_mut();
    }
}

/// Lets a worker's VACUUM cost what the settings say.
///
/// # Safety
/// In a parallel worker that has taken over its leader's settings.
pub unsafe fn begin_vacuum_in_worker() {
    // SAFETY: variables of this process.
    unsafe {
        pg_sys::VacuumCostActive = pg_sys::VacuumCostDelay > 0.0;
        pg_sys::VacuumPageHit = 0;
        pg_sys::VacuumPageMiss = 0;
        pg_sys::VacuumPageDirty = 0;
    }
}
