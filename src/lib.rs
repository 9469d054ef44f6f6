//! The extension: what the server calls by name. It stands at the head of the
//! arrows `src → am, index → pg → engine → rowref` and does nothing but join
//! the crates behind it: start-up, the handlers of the access methods, and the
//! functions that look into a relation (`inspect`). `sql/` declares them all.

mod handlers;
mod handles;
mod inspect;
mod workers;

use pgrx::pg_sys;
use pgrx::prelude::*;

::pgrx::pg_module_magic!();

/// Our table access method.
static IOT: pg_sys::TableAmRoutine = am::routine::<am::Iot>();

/// Registers everything if the library is loaded at server start. Loaded later
/// it registers nothing, and every handler refuses to work.
#[pg_guard]
pub unsafe extern "C-unwind" fn _PG_init() {
    if !pg::shmem::is_preloading() {
        return;
    }
    pg::ddl::register_table_am(&IOT);
    pg::organize::set(pg::organize::Organizer {
        owns: pg::ddl::is_ours,
        organize: am::by_primary_key::<am::Iot>,
        disorganize: am::by_row_id::<am::Iot>,
    });
    pg::sweep::set(pg::sweep::Sweeper {
        pass: am::pass::<am::Iot>,
        end: am::end::<am::Iot>,
    });
    pg::row::init();
    pg::wal::define_settings();
    // SAFETY: the server calls this once, at its start, in its only thread.
    unsafe {
        pg::wal::register();
        pg::shmem::install();
        pg::handles::install();
        am::install();
        pg::ddl::install();
        index::install();
    }
}
