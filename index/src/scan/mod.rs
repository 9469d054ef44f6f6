//! One index scan: of the table, if that is organized by the index's columns,
//! else of the entries.
//!
//! `convert` says what an argument means in the column's type, `ranges` turns
//! scan keys into key ranges, `walk` serves their rows in either direction, and
//! `hand_over` gives a row to the executor. `source` is what is read, and
//! `parallel` what the participants of a parallel scan share.

mod convert;
mod hand_over;
pub mod parallel;
mod ranges;
mod source;
#[cfg(test)]
#[path = "../../../pg/src/row/stub.rs"]
mod stub;
#[cfg(test)]
mod tests;
mod walk;

use engine::mvcc::batch::Batch;
use engine::mvcc::fetch::Keys;
use pg::open::OpenStore;
use pg::unguarded::server;
use pgrx::{pg_guard, pg_sys};

use crate::covering;

use hand_over::TupleWriter;
use parallel::Participant;
use ranges::{KeyTypes, Ranges};
use source::Source;
use walk::{Rows, Walk};

/// What `scan->opaque` points to. It lives in a memory context of its own
/// whose deletion drops it, because after an ERROR nobody calls `amendscan`.
pub struct Scan {
    context: pg_sys::MemoryContext,
    /// For what detoasting and taking arrays apart leaves; reset with each
    /// rescan, and for each row that is given back.
    work: pg_sys::MemoryContext,
    /// Set by the first rescan: `ambeginscan` is not told the table.
    parts: Option<Parts>,
    /// By which the context drops the scan.
    dropping: pg_sys::MemoryContextCallback,
}

const _: () = assert!(align_of::<Scan>() <= 8);

/// Called by the scan's context, which then gives the memory back.
#[pg_guard]
unsafe extern "C-unwind" fn drop_scan(scan: *mut std::ffi::c_void) {
    // SAFETY: written by `Scan::begin`, and dropped nowhere else.
    unsafe { scan.cast::<Scan>().drop_in_place() }
}

struct Parts {
    source: Source,
    ranges: Ranges,
    walk: Walk,
    writer: TupleWriter,
    /// One of several that share the scan's ranges among them.
    participant: Option<Participant>,
    is_counted: bool,
}

impl Parts {
    /// Settles which columns the tuples of an index-only scan have, and returns
    /// their shape: the index's own, and what its references add.
    ///
    /// # Safety
    /// The descriptor is this scan's.
    unsafe fn choose_columns(&mut self, descriptor: pg_sys::IndexScanDesc) -> pg_sys::TupleDesc {
        // SAFETY: the caller's promise.
        unsafe {
            let (table, index) = ((*descriptor).heapRelation, (*descriptor).indexRelation);
            let Some(layout) = self.source.index() else {
                let columns = self.source.layout().order().columns();
                let attributes = columns.iter().map(|column| column.attribute as usize - 1);
                self.writer.set_columns(attributes);
                return (*index).rd_att;
            };
            let rows = OpenStore::table(table);
            let added = covering::reference_columns(index, layout, rows.layout());
            let own = 0..layout.attributes();
            let columns = own.chain(added.iter().map(|column| column.entry_attribute));
            self.writer.set_columns(columns);
            covering::tuple_shape(table, index, &added)
        }
    }
}

impl Scan {
    /// Puts a scan's state behind its descriptor.
    ///
    /// # Safety
    /// `descriptor` is a fresh descriptor in the current memory context.
    pub unsafe fn begin(descriptor: pg_sys::IndexScanDesc) {
        // SAFETY: contexts hang below the current one, so that they go with it
        // at the latest; the state is dropped by the deletion of its own.
        unsafe {
            let context = new_context(pg_sys::CurrentMemoryContext);
            let work = new_context(context);
            let scan = server::MemoryContextAlloc(context, size_of::<Scan>()).cast::<Scan>();
            scan.write(Scan {
                context,
                work,
                parts: None,
                dropping: pg_sys::MemoryContextCallback {
                    func: Some(drop_scan),
                    arg: scan.cast(),
                    next: std::ptr::null_mut(),
                },
            });
            server::MemoryContextRegisterResetCallback(context, &raw mut (*scan).dropping);
            (*descriptor).xs_itupdesc = (*(*descriptor).indexRelation).rd_att;
            (*descriptor).opaque = scan.cast();
        }
    }

    /// The state behind a descriptor.
    ///
    /// # Safety
    /// The scan was begun here and has not ended; nobody else holds the result.
    #[inline]
    pub unsafe fn of<'s>(descriptor: pg_sys::IndexScanDesc) -> &'s mut Scan {
        // SAFETY: the caller's promise.
        unsafe { &mut *(*descriptor).opaque.cast::<Scan>() }
    }

    /// Drops the state.
    ///
    /// # Safety
    /// As [`Scan::of`].
    pub unsafe fn end(descriptor: pg_sys::IndexScanDesc) {
        // SAFETY: the deletion drops the state, which is not used again.
        unsafe {
            let context = Scan::of(descriptor).context;
            (*descriptor).opaque = std::ptr::null_mut();
            server::MemoryContextDelete(context);
        }
    }

    /// Begins anew, with the keys in the descriptor.
    ///
    /// # Safety
    /// The descriptor is this scan's and is set up: its keys, table and
    /// snapshot are there.
    pub unsafe fn restart(&mut self, descriptor: pg_sys::IndexScanDesc) {
        // SAFETY: the caller's promise.
        unsafe {
            let parts = match &mut self.parts {
                Some(parts) => parts,
                parts => parts.insert(Parts {
                    source: Source::open(descriptor),
                    ranges: Ranges::default(),
                    walk: Walk::default(),
                    writer: TupleWriter::default(),
                    participant: Participant::of(descriptor),
                    is_counted: false,
                }),
            };
            if parts.writer.is_unset() && (*descriptor).xs_want_itup {
                let shape = within(self.context, || parts.choose_columns(descriptor));
                (*descriptor).xs_itupdesc = shape;
            }
            let count = (*descriptor).numberOfKeys as usize;
            let keys = if count == 0 {
                &[]
            } else {
                std::slice::from_raw_parts((*descriptor).keyData, count)
            };
            let types = types(descriptor, &parts.source);
            let ranges = &mut parts.ranges;
            in_context(self.work, || ranges.set(keys, types));
            parts.walk.restart();
            parts.is_counted = false;
            (*descriptor).xs_recheck = parts.ranges.recheck();
            (*descriptor).xs_recheckorderby = false;
        }
    }

    /// Goes to the next row and hands it over; whether there is one.
    ///
    /// # Safety
    /// As [`Scan::restart`], which was called before.
    pub unsafe fn next(
        &mut self,
        descriptor: pg_sys::IndexScanDesc,
        direction: pg_sys::ScanDirection::Type,
    ) -> bool {
        let parts = self.parts.as_mut().expect("a scan is started by amrescan");
        if !parts.is_counted {
            parts.is_counted = true;
            // SAFETY: the descriptor's index is open.
            unsafe { count_scan((*descriptor).indexRelation) };
        }
        let backward = direction == pg_sys::ScanDirection::BackwardScanDirection;
        // SAFETY: the descriptor's index is open.
        let types = unsafe { types(descriptor, &parts.source) };
        if !parts.walk.next(
            &mut parts.ranges,
            types,
            &parts.source,
            parts.participant.as_ref(),
            backward,
        ) {
            return false;
        }
        // SAFETY: the row stays as it is until the next call.
        unsafe {
            let writer = &mut parts.writer;
            let row = parts.walk.row();
            hand_over::hand_over(descriptor, &parts.source, writer, row, self.work);
        }
        true
    }

    /// Gives the reference of each row to `take`, in one go and in order, as a
    /// bitmap scan would; how many there were.
    ///
    /// # Safety
    /// As [`Scan::next`].
    pub unsafe fn each_reference(
        &mut self,
        descriptor: pg_sys::IndexScanDesc,
        mut take: impl FnMut(&[u8]),
    ) -> u64 {
        let parts = self.parts.as_mut().expect("a scan is started by amrescan");
        let Parts {
            source,
            ranges,
            walk,
            ..
        } = parts;
        // SAFETY: the descriptor's index is open.
        let types = unsafe {
            count_scan((*descriptor).indexRelation);
            types(descriptor, source)
        };
        let mut count = 0;
        while walk.next(ranges, types, source, None::<&Participant>, false) {
            if source.is_stable() && !ranges.is_filtered() {
                count += walk.take_batch(|key| take(source.reference(key)));
                continue;
            }
            let (row, _) = walk.row();
            take(source.reference(row.key));
            count += 1;
        }
        // SAFETY: the descriptor's index is open.
        unsafe { count_entries((*descriptor).indexRelation, count) };
        count
    }

    /// Remembers where the scan stands.
    pub fn mark(&mut self) {
        if let Some(parts) = &mut self.parts {
            parts.walk.mark(&parts.ranges);
        }
    }

    /// Goes back to where it stood.
    pub fn restore(&mut self) {
        if let Some(parts) = &mut self.parts {
            parts.walk.restore(&mut parts.ranges);
        }
    }
}

/// What the keys of a scan are compared as.
///
/// # Safety
/// The descriptor's index is open as long as the result is used, and the
/// source is the scan's.
unsafe fn types(descriptor: pg_sys::IndexScanDesc, source: &Source) -> KeyTypes<'_> {
    // SAFETY: the relation cache has an input type for each key column.
    let inputs = unsafe {
        let index = (*descriptor).indexRelation;
        let columns = usize::try_from((*(*index).rd_index).indnkeyatts).unwrap_or(0);
        std::slice::from_raw_parts((*index).rd_opcintype, columns)
    };
    KeyTypes {
        order: source.layout().order(),
        inputs,
    }
}

/// # Safety
/// `parent` is a live memory context; nothing with a destructor is alive.
unsafe fn new_context(parent: pg_sys::MemoryContext) -> pg_sys::MemoryContext {
    // SAFETY: the name is a constant, as the function demands.
    unsafe {
        server::AllocSetContextCreateInternal(
            parent,
            c"rowref index scan".as_ptr(),
            pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
            pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
            pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
        )
    }
}

/// Asks, on behalf of the table AM, whether the entry that a scan stands at is
/// seen by its snapshot once more.
///
/// # Safety
/// As [`Scan::restart`]; the scan stands at an entry.
unsafe fn is_still_there(descriptor: pg_sys::IndexScanDesc) -> bool {
    // SAFETY: the caller's promise.
    let scan = unsafe { Scan::of(descriptor) };
    let parts = scan.parts.as_ref().expect("a scan is started by amrescan");
    let (row, _) = parts.walk.row();
    parts.source.get(row.key, &mut Batch::default())
}

/// Tells the table AM which references come next, as far as the entries at hand
/// go.
///
/// # Safety
/// As [`Scan::restart`]; the scan stands at an entry.
unsafe fn list_ahead(descriptor: pg_sys::IndexScanDesc, count: usize, keys: &mut Keys) {
    // SAFETY: the caller's promise.
    let scan = unsafe { Scan::of(descriptor) };
    let parts = scan.parts.as_ref().expect("a scan is started by amrescan");
    // SAFETY: the descriptor's index is open.
    let types = unsafe { types(descriptor, &parts.source) };
    parts
        .walk
        .ahead()
        .filter(|key| parts.ranges.passes(key, types))
        .take(count)
        .for_each(|key| keys.push(parts.source.reference(key)));
}

/// Works in a context.
///
/// # Safety
/// `context` is live.
unsafe fn within<R>(context: pg_sys::MemoryContext, work: impl FnOnce() -> R) -> R {
    // SAFETY: the current context is a plain variable of a single thread.
    unsafe {
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = context;
        let result = work();
        pg_sys::CurrentMemoryContext = before;
        result
    }
}

/// Empties a context, if there is anything in it, and works in it. After an
/// ERROR the server sets a context of its own.
///
/// # Safety
/// Nothing in `context` is in use.
#[inline]
unsafe fn in_context<R>(context: pg_sys::MemoryContext, work: impl FnOnce() -> R) -> R {
    // SAFETY: the current context is a plain variable of a single thread.
    unsafe {
        if !(*context).isReset {
            pg_sys::MemoryContextReset(context);
        }
        within(context, work)
    }
}

/// What the macro `pgstat_count_index_scan` does.
///
/// # Safety
/// `index` is an open relation.
unsafe fn count_scan(index: pg_sys::Relation) {
    // SAFETY: the caller's promise.
    if let Some(counts) = unsafe { counts(index) } {
        counts.t_numscans += 1;
    }
}

/// What the macro `pgstat_count_index_tuples` does.
///
/// # Safety
/// As [`count_scan`].
unsafe fn count_entries(index: pg_sys::Relation, count: u64) {
    // SAFETY: the caller's promise.
    if let Some(counts) = unsafe { counts(index) } {
        counts.t_tuples_returned += count as i64;
    }
}

/// The session's counters of an index, if they are kept.
///
/// # Safety
/// As [`count_scan`]; nobody else holds the result.
unsafe fn counts<'c>(index: pg_sys::Relation) -> Option<&'c mut pg_sys::PgStat_TableCounts> {
    // SAFETY: the caller's promise.
    unsafe {
        if (*index).pgstat_info.is_null() {
            if !(*index).pgstat_enabled {
                return None;
            }
            pg_sys::pgstat_assoc_relation(index);
        }
        Some(&mut (*(*index).pgstat_info).t_counts)
    }
}
