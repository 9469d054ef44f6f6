//! The executor's node for an UPDATE of one row by its whole key.
//!
//! `key_update.c` evaluates what the user wrote; the table AM finds the row and
//! writes its successor. `am/README.md`, "Updates by key", has the argument.

use std::ffi::c_int;
use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::pg_sys;

/// What looking for the row has come to.
#[repr(u32)]
pub enum Found {
    /// The snapshot sees none.
    Nothing,
    /// It is in the slot.
    Row,
    /// Something that ModifyTable has to look at.
    Else,
}

/// Looks under a key, whose columns are not null, and puts the row into the slot;
/// says in which block it was.
pub type Find = unsafe extern "C-unwind" fn(
    table: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    key: *const pg_sys::Datum,
    columns: c_int,
    row: *mut pg_sys::TupleTableSlot,
    near: *mut pg_sys::BlockNumber,
) -> Found;

/// Writes the row that `new` holds on top of the one that `old` holds; the
/// columns whose numbers `changed` lists may differ. False if that is not all
/// that there is to do: then nothing was done.
pub type Write = unsafe extern "C-unwind" fn(
    table: pg_sys::Relation,
    command: pg_sys::CommandId,
    old: *mut pg_sys::TupleTableSlot,
    near: pg_sys::BlockNumber,
    new: *mut pg_sys::TupleTableSlot,
    changed: *mut pg_sys::List,
) -> bool;

unsafe extern "C-unwind" {
    fn rowref_coerces_to_domain(node: *mut pg_sys::Node, context: *mut std::ffi::c_void) -> bool;
    fn rowref_key_update_create(
        methods: *const pg_sys::CustomExecMethods,
        find: Find,
        write: Write,
    ) -> *mut pg_sys::Node;
    fn rowref_key_update_begin(
        node: *mut pg_sys::CustomScanState,
        estate: *mut pg_sys::EState,
        flags: c_int,
    );
    fn rowref_key_update_execute(node: *mut pg_sys::CustomScanState)
    -> *mut pg_sys::TupleTableSlot;
    fn rowref_key_update_end(node: *mut pg_sys::CustomScanState);
    fn rowref_key_update_rescan(node: *mut pg_sys::CustomScanState);
}

/// Whether an expression coerces to a domain, whose constraints may call anything.
///
/// # Safety
/// `expression` is null or a whole expression, or a list of them.
pub unsafe fn coerces_to_domain(expression: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller's promise; it may raise for want of stack.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            rowref_coerces_to_domain(expression, std::ptr::null_mut())
        })
    }
}

/// The state of a node that is about to begin; the table AM does the two steps.
///
/// # Safety
/// `methods` are static, and [`methods`]'. An ERROR may go past the caller's
/// frame, which owns nothing.
pub unsafe fn create(
    methods: *const pg_sys::CustomExecMethods,
    find: Find,
    write: Write,
) -> *mut pg_sys::Node {
    // SAFETY: the caller's promise.
    unsafe { rowref_key_update_create(methods, find, write) }
}

/// The node's methods.
pub const fn methods(
    name: &'static std::ffi::CStr,
    explain: unsafe extern "C-unwind" fn(
        *mut pg_sys::CustomScanState,
        *mut pg_sys::List,
        *mut pg_sys::ExplainState,
    ),
) -> pg_sys::CustomExecMethods {
    pg_sys::CustomExecMethods {
        CustomName: name.as_ptr(),
        BeginCustomScan: Some(rowref_key_update_begin),
        ExecCustomScan: Some(rowref_key_update_execute),
        EndCustomScan: Some(rowref_key_update_end),
        ReScanCustomScan: Some(rowref_key_update_rescan),
        MarkPosCustomScan: None,
        RestrPosCustomScan: None,
        EstimateDSMCustomScan: None,
        InitializeDSMCustomScan: None,
        ReInitializeDSMCustomScan: None,
        InitializeWorkerCustomScan: None,
        ShutdownCustomScan: None,
        ExplainCustomScan: Some(explain),
    }
}

static PLANS: AtomicPtr<pg_sys::CustomScanMethods> = AtomicPtr::new(std::ptr::null_mut());

/// Makes known by which methods plans of this kind are told.
///
/// # Safety
/// Called once, from `_PG_init`; the methods are static.
pub unsafe fn register(methods: *const pg_sys::CustomScanMethods) {
    PLANS.store(methods.cast_mut(), Ordering::Relaxed);
    // SAFETY: the caller's promise.
    unsafe { pg_sys::RegisterCustomScanMethods(methods) };
}

/// Whether a plan is one of this kind.
///
/// # Safety
/// `plan` is null or a whole node.
pub(crate) unsafe fn is_one(plan: *const pg_sys::Plan) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        !plan.is_null()
            && (*plan).type_ == pg_sys::NodeTag::T_CustomScan
            && std::ptr::eq(
                (*plan.cast::<pg_sys::CustomScan>()).methods,
                PLANS.load(Ordering::Relaxed),
            )
    }
}
