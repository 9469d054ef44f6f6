//! One file per supported server version, behind one name: [`server`].
//! Nothing outside this folder mentions a version.

pub mod pg15;

pub use pg15 as server;
