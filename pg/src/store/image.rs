//! Pages of a relation that does not exist yet, in this session's memory: what
//! fills new storage before anybody else can see it.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::ops::Deref;
use std::rc::Rc;

use engine::predicate::Predicates;
use engine::record::Record;
use engine::store::{Hint, LSN_BYTES, PageStore};
use engine::{BlockNumber, Error, Result};
use pgrx::pg_sys;

use crate::version::server::WritePage;

use super::commit::{apply_in_scratch, with_scratch};

const PAGE_BYTES: usize = pg_sys::BLCKSZ as usize;

/// A page, aligned as the server's page functions expect.
#[repr(align(8))]
struct Bytes([u8; PAGE_BYTES]);

struct Image {
    bytes: UnsafeCell<Bytes>,
    /// Readers, or -1 for one writer.
    held: Cell<i32>,
}

/// A page of an [`ImageStore`].
pub struct ImagePage {
    image: Rc<Image>,
    block: u32,
    exclusive: bool,
}

impl Deref for ImagePage {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `held` keeps a writer and readers apart, and a writer
        // changes the page only through `&mut ImagePage`.
        unsafe { &(&(*self.image.bytes.get()).0)[LSN_BYTES..] }
    }
}

impl ImagePage {
    fn change(&mut self) -> &mut [u8] {
        assert!(self.exclusive, "only a locked page is changed");
        // SAFETY: exclusive, see `deref`.
        unsafe { &mut (&mut (*self.image.bytes.get()).0)[LSN_BYTES..] }
    }
}

impl Drop for ImagePage {
    fn drop(&mut self) {
        let held = self.image.held.get();
        self.image
            .held
            .set(if self.exclusive { 0 } else { held - 1 });
    }
}

/// A [`PageStore`] of pages that [`super::create_storage`] writes out.
#[derive(Default)]
pub struct ImageStore {
    pages: RefCell<Vec<Rc<Image>>>,
}

impl ImageStore {
    /// No pages yet.
    pub fn new() -> ImageStore {
        ImageStore::default()
    }

    /// Calls `write` with each page, whole, in block order.
    pub(super) fn write_out(&self, write: &mut WritePage<'_>) {
        for (block, image) in (0u32..).zip(self.pages.borrow().iter()) {
            assert!(image.held.get() == 0, "no page is held any more");
            // SAFETY: nobody holds the page, as was just asserted.
            let bytes = unsafe { &mut *image.bytes.get() };
            write(block, &mut bytes.0);
        }
    }

    fn hold(&self, at: BlockNumber, exclusive: bool) -> Result<Option<ImagePage>> {
        let pages = self.pages.borrow();
        let image = pages
            .get(at.0 as usize)
            .ok_or_else(|| Error::corrupt(at, "the block lies behind the end of the relation"))?;
        let held = image.held.get();
        if if exclusive { held != 0 } else { held < 0 } {
            return Ok(None);
        }
        image.held.set(if exclusive { -1 } else { held + 1 });
        Ok(Some(ImagePage {
            image: image.clone(),
            block: at.0,
            exclusive,
        }))
    }
}

// Nobody else knows these pages.
impl Predicates for ImageStore {}

impl PageStore for ImageStore {
    type Shared<'s> = ImagePage;
    type Exclusive<'s> = ImagePage;

    fn page_size(&self) -> usize {
        PAGE_BYTES
    }

    fn block_count(&self) -> Result<u32> {
        Ok(self.pages.borrow().len() as u32)
    }

    fn read(&self, at: BlockNumber) -> Result<ImagePage> {
        Ok(self
            .hold(at, false)?
            .expect("nobody waits for a lock of its own"))
    }

    fn lock(&self, at: BlockNumber) -> Result<ImagePage> {
        Ok(self
            .hold(at, true)?
            .expect("nobody waits for a lock of its own"))
    }

    fn try_lock(&self, at: BlockNumber) -> Result<Option<ImagePage>> {
        self.hold(at, true)
    }

    fn allocate(&self) -> Result<ImagePage> {
        let block = {
            let mut pages = self.pages.borrow_mut();
            pages.push(Rc::new(Image {
                bytes: UnsafeCell::new(Bytes([0; PAGE_BYTES])),
                held: Cell::new(0),
            }));
            BlockNumber(pages.len() as u32 - 1)
        };
        self.lock(block)
    }

    fn offer(&self, _at: BlockNumber) {}

    fn block_of(&self, guard: &ImagePage) -> BlockNumber {
        BlockNumber(guard.block)
    }

    fn block_of_shared(&self, guard: &ImagePage) -> BlockNumber {
        BlockNumber(guard.block)
    }

    fn commit(&self, record: &Record, pages: &mut [&mut ImagePage]) {
        assert!(record.changes.len() == pages.len());
        with_scratch(|scratch| {
            for (change, page) in record.changes.iter().zip(pages.iter_mut()) {
                assert!(
                    change.block.0 == page.block,
                    "a record's pages come in its own order"
                );
                let applied = apply_in_scratch(page.change(), &change.ops, scratch);
                assert!(applied == Ok(()), "a record applies: {applied:?}");
            }
        });
    }

    fn hint(&self, _at: BlockNumber, _hints: &[Hint]) {}

    fn recycle_stamp(&self) -> u64 {
        // SAFETY: reads shared state.
        unsafe { pg_sys::ReadNextFullTransactionId().value }
    }
}
