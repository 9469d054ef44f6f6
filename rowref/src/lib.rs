//! rowref
