//! Settings, all under `rowref.`.

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;

static FILLFACTOR: GucSetting<i32> = GucSetting::<i32>::new(90);

/// Registers the settings.
///
/// # Safety
/// Called once, from `_PG_init`.
pub unsafe fn register() {
    GucRegistry::define_int_guc(
        c"rowref.fillfactor",
        c"Percentage to which a bulk load or a rightmost split fills a page.",
        c"The rest is room for later versions of the rows.",
        &FILLFACTOR,
        50,
        100,
        GucContext::Userset,
        GucFlags::default(),
    );
    // SAFETY: a static string. From here on the server refuses settings of
    // this prefix that it does not know.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"rowref".as_ptr()) };
}

/// `rowref.fillfactor`, in percent.
pub fn fillfactor() -> u8 {
    FILLFACTOR.get() as u8
}
