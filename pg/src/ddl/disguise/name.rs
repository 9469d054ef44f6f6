//! ALTER TABLE … ALTER COLUMN … TYPE rebuilds indexes from their definitions in
//! words, parsed inside of the command where nobody can reach them. So while it
//! runs, the name of our access method reads "btree".

use pgrx::pg_sys;

/// The disguised row of the system cache, which is pinned.
///
/// A reset of the caches while it is worn has the row read anew, with its true
/// name. The command then fails, for want of operator classes of that name.
#[derive(Clone, Copy)]
pub(super) struct NameDisguise {
    row: pg_sys::HeapTuple,
    /// Already "btree" for a command within another.
    name: pg_sys::NameData,
}

impl NameDisguise {
    /// Puts it on an access method.
    pub(super) fn put_on(access_method: pg_sys::Oid) -> Option<NameDisguise> {
        // SAFETY: the row is pinned, so it stays where it is, and is a whole
        // row of pg_am. Nothing looks it up by the name that is changed here.
        unsafe {
            let row = pg_sys::SearchSysCache1(
                pg_sys::SysCacheIdentifier::AMOID as std::ffi::c_int,
                access_method.into(),
            );
            if row.is_null() {
                return None;
            }
            let form = form(row);
            let disguise = NameDisguise {
                row,
                name: (*form).amname,
            };
            (*form).amname = btree();
            Some(disguise)
        }
    }

    /// Gives the name back.
    pub(super) fn take_off(self) {
        // SAFETY: the row is pinned until `unpin`, or until whoever catches
        // the ERROR that ends the command releases its resources.
        unsafe { (*form(self.row)).amname = self.name }
    }

    /// Releases the row, whose name was given back.
    ///
    /// # Safety
    /// Called once, by the command that put it on.
    pub(super) unsafe fn unpin(self) {
        // SAFETY: pinned by `put_on`.
        unsafe { pg_sys::ReleaseSysCache(self.row) }
    }
}

fn btree() -> pg_sys::NameData {
    let mut name = pg_sys::NameData::default();
    for (to, from) in name.data.iter_mut().zip(b"btree") {
        *to = *from as std::ffi::c_char;
    }
    name
}

/// # Safety
/// `row` is a whole row of `pg_am`.
unsafe fn form(row: pg_sys::HeapTuple) -> *mut pg_sys::FormData_pg_am {
    // SAFETY: by the caller.
    unsafe {
        let header = (*row).t_data;
        header
            .cast::<u8>()
            .add(usize::from((*header).t_hoff))
            .cast()
    }
}
