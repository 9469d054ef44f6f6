//! Locked pages as types. Releasing is all that `Drop` does.

use std::marker::PhantomData;
use std::ops::Deref;
use std::slice;

use engine::store::LSN_BYTES;
use pgrx::pg_sys;

use crate::ffi;

/// Bytes that a guard shows: a page without its LSN.
pub(super) const SHOWN_BYTES: usize = pg_sys::BLCKSZ as usize - LSN_BYTES;

/// A pinned and locked buffer.
struct Held<'s> {
    /// The page, LSN included; valid while the pin is held.
    page: *mut u8,
    buffer: pg_sys::Buffer,
    block: u32,
    store: PhantomData<&'s ()>,
}

impl Held<'_> {
    #[inline]
    fn shown(&self) -> &[u8] {
        // SAFETY: the pin keeps the page in place, the content lock keeps
        // others from changing what lies behind the LSN (they may change the
        // LSN itself, for a hint, which is why it is left out), and this
        // session changes a page only through `&mut ExclusivePage`.
        unsafe { slice::from_raw_parts(self.page.add(LSN_BYTES), SHOWN_BYTES) }
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this guard holds pin and lock, and gives them up once.
        // Unguarded: the call can only fail for a buffer that is not held.
        unsafe { ffi::rowref_release(self.buffer) }
    }
}

/// A page that others may read as well.
pub struct SharedPage<'s>(Held<'s>);

/// A page that nobody else sees. Changed only by
/// [`engine::store::PageStore::commit`].
pub struct ExclusivePage<'s>(Held<'s>);

impl<'s> SharedPage<'s> {
    /// # Safety
    /// The caller holds pin and share lock of `buffer`, whose page this is,
    /// and leaves both to the guard, which `'s` does not outlive.
    #[inline]
    pub(super) unsafe fn adopt(page: *mut u8, buffer: pg_sys::Buffer, block: u32) -> Self {
        SharedPage(Held {
            page,
            buffer,
            block,
            store: PhantomData,
        })
    }

    /// The block.
    #[inline]
    pub fn block(&self) -> u32 {
        self.0.block
    }

    /// The buffer, for server functions that want one.
    #[inline]
    pub fn buffer(&self) -> pg_sys::Buffer {
        self.0.buffer
    }
}

impl<'s> ExclusivePage<'s> {
    /// # Safety
    /// As [`SharedPage::adopt`], with an exclusive lock.
    #[inline]
    pub(super) unsafe fn adopt(page: *mut u8, buffer: pg_sys::Buffer, block: u32) -> Self {
        ExclusivePage(Held {
            page,
            buffer,
            block,
            store: PhantomData,
        })
    }

    /// The block.
    #[inline]
    pub fn block(&self) -> u32 {
        self.0.block
    }

    /// The buffer, for server functions that want one.
    #[inline]
    pub fn buffer(&self) -> pg_sys::Buffer {
        self.0.buffer
    }

    /// The page's bytes behind the LSN, to be changed. Within this module
    /// only: a commit and a hint come here, and nobody else.
    #[inline]
    pub(super) fn change(&mut self) -> &mut [u8] {
        // SAFETY: as `Held::shown`; the lock is exclusive and so is `self`.
        unsafe { slice::from_raw_parts_mut(self.0.page.add(LSN_BYTES), SHOWN_BYTES) }
    }
}

impl Deref for SharedPage<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.shown()
    }
}

impl Deref for ExclusivePage<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.shown()
    }
}
