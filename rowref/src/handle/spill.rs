//! Where retained leases go when they outgrow memory.

use std::io;

/// A temporary file of the backend.
pub trait SpillFile {
    /// Appends `bytes` and returns the offset at which they begin.
    fn write(&mut self, bytes: &[u8]) -> io::Result<u64>;
    /// Reads `len` bytes from `offset`.
    fn read(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Cuts the file to `len` bytes; the next write appends there.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}
