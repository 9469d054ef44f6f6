//! A temporary file of the server: what retained leases and sorted runs spill
//! to.

use std::ffi::{CStr, c_int};
use std::io;

use pgrx::pg_sys;
use rowref::handle::SpillFile;

/// A temporary file of the server, opened when it is first written. It is not
/// tied to the resource owner of the moment, which may be a cursor's or a
/// savepoint's and end before the leases do; the transaction's end closes it
/// by truncating it to nothing, and the server removes it if the process dies.
#[derive(Debug, Default)]
pub struct TemporaryFile {
    file: Option<pg_sys::File>,
    end: u64,
    /// Closed by the end of the transaction at the latest.
    in_transaction: bool,
}

impl TemporaryFile {
    /// One that the current (sub)transaction's end closes, whatever becomes of
    /// its owner.
    pub fn of_transaction() -> TemporaryFile {
        TemporaryFile {
            in_transaction: true,
            ..TemporaryFile::default()
        }
    }

    /// A new one that other processes can open by its name in a set that is
    /// shared, whose end removes it.
    ///
    /// # Safety
    /// This process is attached to the set.
    pub unsafe fn create_shared(files: *mut pg_sys::SharedFileSet, name: &CStr) -> TemporaryFile {
        // SAFETY: the caller's promise.
        let file = unsafe { pg_sys::FileSetCreate(&raw mut (*files).fs, name.as_ptr()) };
        TemporaryFile::opened(file)
    }

    /// One that another process has made, to be read.
    ///
    /// # Safety
    /// As [`TemporaryFile::create_shared`].
    pub unsafe fn open_shared(
        files: *mut pg_sys::SharedFileSet,
        name: &CStr,
    ) -> io::Result<TemporaryFile> {
        const READ_ONLY: c_int = 0;
        // SAFETY: the caller's promise.
        let file = unsafe { pg_sys::FileSetOpen(&raw mut (*files).fs, name.as_ptr(), READ_ONLY) };
        if file <= 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(TemporaryFile::opened(file))
    }

    fn opened(file: pg_sys::File) -> TemporaryFile {
        TemporaryFile {
            file: Some(file),
            end: 0,
            in_transaction: true,
        }
    }
}

impl SpillFile for TemporaryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let file = match self.file {
            Some(file) => file,
            None => {
                // SAFETY: in a transaction, as all leasing is.
                let file = unsafe { pg_sys::OpenTemporaryFile(!self.in_transaction) };
                *self.file.insert(file)
            }
        };
        let at = self.end;
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            let amount = c_int::try_from(rest.len()).unwrap_or(c_int::MAX);
            // SAFETY: the buffer has `amount` bytes, which the call only reads.
            // It raises an ERROR beyond temp_file_limit; nothing was counted
            // as written then.
            let written = unsafe {
                pg_sys::FileWrite(
                    file,
                    rest.as_ptr().cast_mut().cast(),
                    amount,
                    (at + done as u64) as pg_sys::off_t,
                    pg_sys::WaitEventIO::WAIT_EVENT_BUFFILE_WRITE,
                )
            };
            if written <= 0 {
                return Err(io::Error::last_os_error());
            }
            done += written as usize;
        }
        self.end = at + bytes.len() as u64;
        Ok(at)
    }

    fn read(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let Some(file) = self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            let rest = &mut bytes[done..];
            let amount = c_int::try_from(rest.len()).unwrap_or(c_int::MAX);
            // SAFETY: the buffer has room for `amount` bytes.
            let read = unsafe {
                pg_sys::FileRead(
                    file,
                    rest.as_mut_ptr().cast(),
                    amount,
                    (offset + done as u64) as pg_sys::off_t,
                    pg_sys::WaitEventIO::WAIT_EVENT_BUFFILE_READ,
                )
            };
            match read {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                1.. => done += read as usize,
                _ => return Err(io::Error::last_os_error()),
            }
        }
        Ok(bytes)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.end = self.end.min(len);
        let Some(file) = self.file else {
            return Ok(());
        };
        if len == 0 {
            self.file = None;
            // SAFETY: open until now, and forgotten.
            unsafe { pg_sys::FileClose(file) };
            return Ok(());
        }
        // SAFETY: an open file of ours.
        let result = unsafe {
            pg_sys::FileTruncate(
                file,
                len as pg_sys::off_t,
                pg_sys::WaitEventIO::WAIT_EVENT_BUFFILE_TRUNCATE,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}
