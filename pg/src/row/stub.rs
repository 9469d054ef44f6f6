//! The server's symbols that unit tests link against and must never reach:
//! what is tested here touches bytes alone. A test that strays into the server
//! aborts at once. In the library proper these come from the server itself.
//! The index crate's tests include this file.

/// Functions of the server.
macro_rules! functions {
    ($($name:ident)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name() {
                std::process::abort();
            }
        )*
    };
}

/// Variables of the server, as wide as the widest in use.
macro_rules! variables {
    ($($name:ident)*) => {
        $(
            #[unsafe(no_mangle)]
            static $name: [std::sync::atomic::AtomicU64; 8] =
                [const { std::sync::atomic::AtomicU64::new(0) }; 8];
        )*
    };
}

functions! {
    AllocSetContextCreateInternal
    CopyErrorData
    DatumGetEOHP
    deconstruct_array
    detoast_external_attr
    EOH_flatten_into
    EOH_get_flat_size
    FlushErrorState
    fmgr_info_cxt
    FreeErrorData
    FunctionCall2Coll
    get_typlenbyvalalign
    MemoryContextAllocZero
    MemoryContextDelete
    OidFunctionCall1Coll
    palloc0
    pfree
    pg_detoast_datum
    pg_detoast_datum_packed
    toast_compress_datum
}

variables! {
    CacheMemoryContext
    CurrentMemoryContext
    PG_exception_stack
    error_context_stack
}
