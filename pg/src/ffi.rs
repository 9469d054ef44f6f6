//! The functions of `shim.c`. Those marked *guarded* may raise an ERROR and
//! are called through pgrx's guard.

use std::ffi::{c_char, c_int};

use pgrx::pg_sys;

/// One block of a commit, as `shim.c` wants it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// Operations, or an image if the block is made anew.
    pub data: *const u8,
    pub data_bytes: u32,
    pub buffer: pg_sys::Buffer,
    pub init: u8,
}

unsafe extern "C-unwind" {
    // Guarded.
    pub(crate) fn rowref_read(
        relation: pg_sys::Relation,
        fork: pg_sys::ForkNumber::Type,
        block: u32,
        lock_mode: c_int,
        strategy: pg_sys::BufferAccessStrategy,
        buffer: *mut pg_sys::Buffer,
    ) -> *mut u8;
    // Guarded.
    pub(crate) fn rowref_try_lock(
        relation: pg_sys::Relation,
        fork: pg_sys::ForkNumber::Type,
        block: u32,
        strategy: pg_sys::BufferAccessStrategy,
        buffer: *mut pg_sys::Buffer,
    ) -> *mut u8;
    // Guarded.
    pub(crate) fn rowref_extend(
        relation: pg_sys::Relation,
        fork: pg_sys::ForkNumber::Type,
        strategy: pg_sys::BufferAccessStrategy,
        buffer: *mut pg_sys::Buffer,
        block: *mut u32,
    ) -> *mut u8;
    // Guarded.
    pub(crate) fn rowref_holds(relation: pg_sys::Relation, block: u32) -> bool;
    pub(crate) fn rowref_expect(
        relation: pg_sys::Relation,
        fork: pg_sys::ForkNumber::Type,
        block: u32,
    );
    pub(crate) fn rowref_expect_rows(
        relation: pg_sys::Relation,
        block: u32,
        first: u64,
        last: u64,
        width: i32,
    );
    // Guarded.
    pub(crate) fn rowref_expect_little(
        relation: pg_sys::Relation,
        fork: pg_sys::ForkNumber::Type,
        block: u32,
    );
    pub(crate) fn rowref_expect_more();
    pub(crate) fn rowref_release(buffer: pg_sys::Buffer);

    pub(crate) fn rowref_needs_wal(
        relation: pg_sys::Relation,
        fork: pg_sys::ForkNumber::Type,
    ) -> bool;
    pub(crate) fn rowref_standby_cares(relation: pg_sys::Relation) -> bool;
    pub(crate) fn rowref_wal_is_needed() -> bool;
    pub(crate) fn rowref_critical_begin();
    pub(crate) fn rowref_wants_image(buffer: pg_sys::Buffer) -> bool;
    pub(crate) fn rowref_critical_log(
        parts: *const Part,
        count: c_int,
        manager: u8,
        info: u8,
        header: *const u8,
        header_bytes: u32,
    );
    // Guarded.
    pub(crate) fn rowref_log_notice(manager: u8, info: u8, data: *const u8, bytes: u32);
    // Guarded.
    pub(crate) fn rowref_log_change(manager: u8, info: u8, data: *const u8, bytes: u32);
    pub(crate) fn rowref_decoded_record(
        buffer: *mut pg_sys::XLogRecordBuffer,
        lsn: *mut pg_sys::XLogRecPtr,
    ) -> *mut pg_sys::XLogReaderState;
    pub(crate) fn rowref_record_xid(record: *mut pg_sys::XLogReaderState) -> pg_sys::TransactionId;
    pub(crate) fn rowref_record_origin(record: *mut pg_sys::XLogReaderState)
    -> pg_sys::RepOriginId;
    pub(crate) fn rowref_decoding_has_snapshot(builder: *mut pg_sys::SnapBuild) -> bool;
    pub(crate) fn rowref_panic(what: *const c_char, detail: *const c_char) -> !;

    // Guarded.
    pub(crate) fn rowref_commit_is_durable(
        buffer: pg_sys::Buffer,
        xid: pg_sys::TransactionId,
    ) -> bool;

    // Guarded.
    pub(crate) fn rowref_xid_status(xid: pg_sys::TransactionId) -> c_int;
    // Guarded.
    pub(crate) fn rowref_xid_in_snapshot(
        xid: pg_sys::TransactionId,
        snapshot: pg_sys::Snapshot,
    ) -> c_int;

    pub(crate) fn rowref_library_path() -> *const c_char;

    pub(crate) fn rowref_record_info(record: *mut pg_sys::XLogReaderState) -> u8;
    pub(crate) fn rowref_record_data(
        record: *mut pg_sys::XLogReaderState,
        bytes: *mut u32,
    ) -> *const u8;
    pub(crate) fn rowref_record_blocks(record: *mut pg_sys::XLogReaderState) -> c_int;
    pub(crate) fn rowref_record_has_block(
        record: *mut pg_sys::XLogReaderState,
        id: u8,
        init: *mut bool,
    ) -> bool;
    // Guarded.
    pub(crate) fn rowref_redo_begin(
        record: *mut pg_sys::XLogReaderState,
        id: u8,
        init: bool,
        buffer: *mut pg_sys::Buffer,
    ) -> *mut u8;
    // Guarded.
    pub(crate) fn rowref_redo_end(
        record: *mut pg_sys::XLogReaderState,
        buffer: pg_sys::Buffer,
        init_fork: bool,
    );
    pub(crate) fn rowref_in_hot_standby() -> bool;
    pub(crate) fn rowref_mask_lsn_and_checksum(page: *mut u8);

    pub(crate) fn rowref_addin_shmem_init_lock() -> *mut pg_sys::LWLock;
}

/// Ends the server's life with a message: for what no rollback can mend.
pub(crate) fn panic(what: &str, detail: &str) -> ! {
    let text = |text: &str| std::ffi::CString::new(text.replace('\0', " ")).unwrap_or_default();
    let (what, detail) = (text(what), text(detail));
    // SAFETY: both strings end in a zero byte; a PANIC does not come back.
    unsafe { rowref_panic(what.as_ptr(), detail.as_ptr()) }
}
