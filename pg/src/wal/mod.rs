//! The WAL resource manager: what PostgreSQL calls to replay, describe, compare
//! and decode this project's records. The format, the locks of redo and the
//! choice of the id are in `README.md` beside this file.

pub mod change;
mod compress;
mod decode;
mod describe;
mod mask;
mod redo;

use engine::BlockNumber;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;

use crate::version::server::{self, RelationFile};

pub(crate) use compress::{Images, with_images};

/// The resource manager's number in the log. A published constant: it must
/// never change, or existing logs and base backups cannot be replayed.
pub const MANAGER_ID: u8 = 166;

/// The resource manager's name, for `wal_consistency_checking` and messages.
pub const MANAGER_NAME: &std::ffi::CStr = c"pg_rowref";

unsafe extern "C-unwind" {
    fn RegisterCustomRmgr(id: pg_sys::RmgrId, manager: *mut pg_sys::RmgrData);
}

/// Registers the resource manager with the server, which refuses to start,
/// and names the other library, if the number is taken.
///
/// # Safety
/// Called from `_PG_init` while `shared_preload_libraries` are being loaded.
pub unsafe fn register() {
    let mut manager = pg_sys::RmgrData {
        rm_name: MANAGER_NAME.as_ptr(),
        rm_redo: Some(redo::redo),
        rm_desc: Some(describe::describe),
        rm_identify: Some(describe::identify),
        rm_startup: None,
        rm_cleanup: None,
        rm_mask: Some(mask::mask),
        rm_decode: Some(decode::decode),
    };
    // SAFETY: the server copies the structure; the name is static. Unguarded:
    // during start-up there is nowhere to jump to, so that the server makes an
    // ERROR FATAL and exits with its own message, which is what we want.
    unsafe { RegisterCustomRmgr(MANAGER_ID, &mut manager) };
}

static COMPRESS_IMAGES: GucSetting<bool> = GucSetting::<bool>::new(true);

/// Whether records bring compressed images of pages along, where the server
/// would log whole ones.
#[inline]
pub(crate) fn compresses_images() -> bool {
    COMPRESS_IMAGES.get()
}

/// Defines the settings, once in the life of a server.
pub fn define_settings() {
    GucRegistry::define_bool_guc(
        c"rowref.compress_images",
        c"Compresses full-page images of index-organized tables and rowref indexes in WAL.",
        c"What does not compress is left to the server, and so to wal_compression.",
        &COMPRESS_IMAGES,
        GucContext::Suset,
        GucFlags::default(),
    );
}

/// A record without blocks: a deleted page is about to be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReuseNotice {
    /// Tablespace, database and file number.
    pub file: [u32; 3],
    /// The page.
    pub block: BlockNumber,
    /// What was stamped on it when it was deleted.
    pub stamp: u64,
}

impl ReuseNotice {
    /// Bytes of the encoded form.
    pub const BYTES: usize = 3 * 4 + 4 + 8;

    /// `[tablespace][database][file][block] u32 each, [stamp] u64`.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let words = [self.file[0], self.file[1], self.file[2], self.block.0];
        for (nth, word) in words.into_iter().enumerate() {
            bytes[4 * nth..4 * nth + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes[16..].copy_from_slice(&self.stamp.to_le_bytes());
        bytes
    }

    /// Reads the encoded form.
    pub fn decode(bytes: &[u8]) -> Option<ReuseNotice> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let word = |nth: usize| {
            u32::from_le_bytes([
                bytes[4 * nth],
                bytes[4 * nth + 1],
                bytes[4 * nth + 2],
                bytes[4 * nth + 3],
            ])
        };
        let (_, stamp) = bytes.split_last_chunk::<8>()?;
        Some(ReuseNotice {
            file: [word(0), word(1), word(2)],
            block: BlockNumber(word(3)),
            stamp: u64::from_le_bytes(*stamp),
        })
    }

    /// The relation's files.
    pub fn relation_file(&self) -> RelationFile {
        server::file_from_numbers(self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reuse_notice_reads_back_as_written_and_at_no_other_length() {
        let notice = ReuseNotice {
            file: [1663, 5, 16_400],
            block: BlockNumber(7),
            stamp: 0x1_0000_0300,
        };
        let bytes = notice.encode();
        assert_eq!(ReuseNotice::decode(&bytes), Some(notice));
        assert_eq!(ReuseNotice::decode(&bytes[1..]), None);
        assert_eq!(ReuseNotice::decode(&[]), None);
    }
}
