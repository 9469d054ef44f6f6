//! Naming and describing records, for log readers and error contexts.

use std::ffi::{CStr, CString, c_char};
use std::fmt::Write;

use engine::record::RecordKind;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::ReuseNotice;
use super::change::RowChange;
use super::compress::is_image;
use crate::ffi;

/// The kind in a record's info byte, of which the high half is ours.
pub(super) fn kind_of(info: u8) -> Option<RecordKind> {
    RecordKind::from_number(info >> 4)
}

/// A record's main data.
///
/// # Safety
/// `record` is a decoded record, and outlives the slice.
pub(super) unsafe fn data_of<'r>(record: *mut pg_sys::XLogReaderState) -> &'r [u8] {
    let mut bytes = 0;
    // SAFETY: the caller's promise.
    unsafe {
        let data = ffi::rowref_record_data(record, &mut bytes);
        if data.is_null() {
            return &[];
        }
        std::slice::from_raw_parts(data, bytes as usize)
    }
}

/// The data of a record's block; empty if it has none.
///
/// # Safety
/// `record` is a decoded record with this block, and outlives the slice.
pub(super) unsafe fn block_data_of<'r>(record: *mut pg_sys::XLogReaderState, id: u8) -> &'r [u8] {
    let mut bytes = 0;
    // SAFETY: the caller's promise.
    unsafe {
        let data = pg_sys::XLogRecGetBlockData(record, id, &mut bytes);
        if data.is_null() {
            return &[];
        }
        std::slice::from_raw_parts(data.cast::<u8>(), bytes)
    }
}

/// The C name of a kind, static as the server wants it.
fn name(kind: RecordKind) -> &'static CStr {
    match kind {
        RecordKind::Create => c"CREATE",
        RecordKind::Insert => c"INSERT",
        RecordKind::Split => c"SPLIT",
        RecordKind::Downlink => c"DOWNLINK",
        RecordKind::NewRoot => c"NEW_ROOT",
        RecordKind::Prune => c"PRUNE",
        RecordKind::Merge => c"MERGE",
        RecordKind::Lock => c"LOCK",
        RecordKind::Reuse => c"REUSE",
        RecordKind::Meta => c"META",
        RecordKind::Confirm => c"CONFIRM",
        RecordKind::RowChange => c"ROW_CHANGE",
        RecordKind::LowerRoot => c"LOWER_ROOT",
        RecordKind::Relocate => c"RELOCATE",
    }
}

/// The name of a record.
///
/// # Safety
/// Called by the server.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn identify(info: u8) -> *const c_char {
    kind_of(info & 0xf0).map_or(std::ptr::null(), |kind| name(kind).as_ptr())
}

/// What a record says beyond its name and blocks.
///
/// # Safety
/// Called by the server, with a decoded record and a buffer for text.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn describe(
    into: pg_sys::StringInfo,
    record: *mut pg_sys::XLogReaderState,
) {
    // SAFETY: the server's record.
    let (info, data, blocks) = unsafe {
        (
            ffi::rowref_record_info(record),
            data_of(record),
            ffi::rowref_record_blocks(record),
        )
    };
    let mut text = String::new();
    match kind_of(info) {
        Some(RecordKind::Reuse) if blocks == 0 => {
            if let Some(notice) = ReuseNotice::decode(data) {
                let [tablespace, database, relation] = notice.file;
                let _ = write!(
                    text,
                    "rel {tablespace}/{database}/{relation}, blk {}, stamp {}",
                    notice.block, notice.stamp
                );
            }
        }
        Some(RecordKind::RowChange) => {
            if let Some(change) = RowChange::decode(data) {
                let [tablespace, database, relation] = change.file;
                let _ = write!(
                    text,
                    "rel {tablespace}/{database}/{relation}, {:?}, old {} bytes, new {} bytes",
                    change.action,
                    change.old.map_or(0, <[u8]>::len),
                    change.new.map_or(0, <[u8]>::len),
                );
            }
        }
        Some(_) => {
            if let Some(horizon) = data.first_chunk::<4>() {
                let _ = write!(text, "conflict horizon {}", u32::from_le_bytes(*horizon));
            }
            for id in 0..u8::try_from(blocks).unwrap_or(0) {
                let mut init = false;
                // SAFETY: the server's record.
                let data = unsafe {
                    if !ffi::rowref_record_has_block(record, id, &mut init) {
                        continue;
                    }
                    block_data_of(record, id)
                };
                if is_image(data) {
                    let comma = if text.is_empty() { "" } else { ", " };
                    let _ = write!(text, "{comma}image of blkref #{id} in {} bytes", data.len());
                }
            }
        }
        None => text.push_str("unknown kind"),
    }
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: the server's buffer; it copies the text. The binding has its own
    // guard, whose error could not pass another one.
    unsafe { pg_sys::appendStringInfoString(into, text.as_ptr()) };
}
