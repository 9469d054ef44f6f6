//! What an index holds of a row: its columns, expressions and predicate, as the
//! row in a slot has them.
//!
//! Core evaluates them itself for `aminsert`. Whoever has to know what an index
//! holds of an *old* row (an UPDATE, a DELETE), of every row (a build, a check),
//! evaluates them here. Expressions are the user's: they may raise, and may run
//! other statements, so no page is locked meanwhile.

use pgrx::pg_sys::{self, ffi::pg_guard_ffi_boundary as guarded};

use crate::error::keeping_context;
use crate::slot;

/// The most columns that an index has.
const COLUMNS_MAX: usize = pg_sys::INDEX_MAX_KEYS as usize;

/// The values of one entry.
pub struct IndexValues {
    /// The index's columns, INCLUDE columns last.
    pub values: [pg_sys::Datum; COLUMNS_MAX],
    /// Which of them are null.
    pub isnull: [bool; COLUMNS_MAX],
}

impl Default for IndexValues {
    fn default() -> IndexValues {
        IndexValues {
            values: [pg_sys::Datum::null(); COLUMNS_MAX],
            isnull: [true; COLUMNS_MAX],
        }
    }
}

/// An index's columns made ready to be evaluated, row after row.
pub struct Evaluator {
    info: *mut pg_sys::IndexInfo,
    /// Where it was made, and where its state lies.
    memory: pg_sys::MemoryContext,
    /// Null as long as nothing was evaluated, and for plain columns.
    estate: *mut pg_sys::EState,
    predicate: *mut pg_sys::ExprState,
    /// One more than the greatest plain column, from 0: rows are read no
    /// further than that.
    columns_end: usize,
}

impl Evaluator {
    /// Makes an index's columns ready, in memory below the current context.
    ///
    /// # Safety
    /// `info` describes an index, and it and the context outlive the result;
    /// nobody else uses its expressions meanwhile.
    pub unsafe fn new(info: *mut pg_sys::IndexInfo) -> Evaluator {
        Evaluator {
            info,
            // SAFETY: reads a variable of the server's.
            memory: unsafe { pg_sys::CurrentMemoryContext },
            estate: std::ptr::null_mut(),
            predicate: std::ptr::null_mut(),
            columns_end: {
                // SAFETY: the caller's promise.
                let info = unsafe { &*info };
                let numbers = &info.ii_IndexAttrNumbers[..info.ii_NumIndexAttrs as usize];
                numbers.iter().copied().max().unwrap_or(0).max(0) as usize
            },
        }
    }

    /// Makes expressions and predicate ready, if there are any; whether there
    /// are.
    unsafe fn prepare(&mut self) -> bool {
        // SAFETY: the description is live.
        unsafe {
            let info = self.info;
            if (*info).ii_Expressions.is_null() && (*info).ii_Predicate.is_null() {
                return false;
            }
            if self.estate.is_null() {
                let before = pg_sys::CurrentMemoryContext;
                pg_sys::CurrentMemoryContext = self.memory;
                // Expressions that others have made ready are their executor's.
                (*info).ii_ExpressionsState = std::ptr::null_mut();
                self.estate = pg_sys::CreateExecutorState();
                self.predicate = pg_sys::ExecPrepareQual((*info).ii_Predicate, self.estate);
                pg_sys::CurrentMemoryContext = before;
            }
            true
        }
    }

    /// The values that the index has of the row in `row`; false if its
    /// predicate leaves the row out. They live until the next row, or until
    /// the slot changes.
    ///
    /// # Safety
    /// `row` holds a row of the index's table.
    pub unsafe fn evaluate(
        &mut self,
        row: *mut pg_sys::TupleTableSlot,
        into: &mut IndexValues,
    ) -> bool {
        // SAFETY: the caller's promise; the arrays have room for all columns.
        unsafe {
            if !self.prepare() {
                // Plain columns, without a call for each.
                let (values, isnull) = slot::columns_upto(row, self.columns_end);
                for at in 0..(*self.info).ii_NumIndexAttrs as usize {
                    let number = (*self.info).ii_IndexAttrNumbers[at] as usize - 1;
                    into.values[at] = values[number];
                    into.isnull[at] = isnull[number];
                }
                return true;
            }
            let context = self.expressions();
            pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            (*context).ecxt_scantuple = row;
            if !self.holds(context) {
                return false;
            }
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = (*context).ecxt_per_tuple_memory;
            keeping_context(|| {
                pg_sys::FormIndexDatum(
                    self.info,
                    row,
                    self.estate,
                    into.values.as_mut_ptr(),
                    into.isnull.as_mut_ptr(),
                );
            });
            pg_sys::CurrentMemoryContext = before;
            true
        }
    }

    /// Whether the predicate takes the row in.
    unsafe fn holds(&self, context: *mut pg_sys::ExprContext) -> bool {
        if self.predicate.is_null() {
            return true;
        }
        // SAFETY: a qualification made ready for this context; it yields a
        // boolean that is never null.
        unsafe {
            let evaluate = (*self.predicate).evalfunc.expect("it was made ready");
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = (*context).ecxt_per_tuple_memory;
            let mut is_null = false;
            let holds =
                keeping_context(|| guarded(|| evaluate(self.predicate, context, &mut is_null)));
            pg_sys::CurrentMemoryContext = before;
            holds.value() != 0
        }
    }

    unsafe fn expressions(&self) -> *mut pg_sys::ExprContext {
        // SAFETY: the state lives until `end`.
        unsafe {
            if (*self.estate).es_per_tuple_exprcontext.is_null() {
                pg_sys::MakePerTupleExprContext(self.estate);
            }
            (*self.estate).es_per_tuple_exprcontext
        }
    }

    /// Lets go of what was made ready, as the end of a statement does. It can
    /// be used again.
    pub fn rest(&mut self) {
        let estate = std::mem::replace(&mut self.estate, std::ptr::null_mut());
        self.predicate = std::ptr::null_mut();
        if !estate.is_null() {
            // SAFETY: made by `prepare`; what was made ready in it goes with it.
            unsafe {
                (*self.info).ii_ExpressionsState = std::ptr::null_mut();
                pg_sys::FreeExecutorState(estate);
            }
        }
    }
}

impl Drop for Evaluator {
    fn drop(&mut self) {
        if !self.estate.is_null() {
            // SAFETY: as in `rest`; after an ERROR nothing but memory is given
            // back.
            unsafe {
                (*self.info).ii_ExpressionsState = std::ptr::null_mut();
                pg_sys::MemoryContextDelete((*self.estate).es_query_cxt);
            }
        }
    }
}
