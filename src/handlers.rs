//! The functions that `CREATE ACCESS METHOD` names. They are declared by hand:
//! what they return is no SQL type that pgrx knows.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::IOT;

/// Declares a function of the version-1 calling convention, which the server
/// recognises by a second one that returns this record.
macro_rules! callable {
    ($record:ident) => {
        /// The record of the calling convention.
        #[unsafe(no_mangle)]
        pub extern "C" fn $record() -> &'static pg_sys::Pg_finfo_record {
            const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &V1
        }
    };
}

callable!(pg_finfo_rowref_require_preloaded);
callable!(pg_finfo_rowref_iot_handler);
callable!(pg_finfo_rowref_index_handler);

/// `rowref.require_preloaded()`
///
/// # Safety
/// Called by the server.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn rowref_require_preloaded(
    _call: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    pg::shmem::require_preloaded();
    pg_sys::Datum::null()
}

/// `rowref.iot_handler(internal)`
///
/// # Safety
/// Called by the server.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn rowref_iot_handler(
    _call: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    pg::shmem::require_preloaded();
    // The server keeps the pointer and never writes through it.
    (&raw const IOT).into()
}

/// `rowref.index_handler(internal)`
///
/// # Safety
/// Called by the server.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn rowref_index_handler(
    _call: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    pg::shmem::require_preloaded();
    index::routine().into()
}
