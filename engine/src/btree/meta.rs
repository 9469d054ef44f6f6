//! The metapage: where the root is, how the relation is organized.

use std::ops::Range;

use super::Tree;
use crate::compare::Compare;
use crate::error::{Error, Result};
use crate::page::op::{Format, Ops};
use crate::page::{Page, PageKind, flag};
use crate::record::{Record, RecordKind};
use crate::store::PageStore;
use crate::types::{BlockNumber, Level};

/// Marks a metapage of this engine ("rwrf", little-endian).
pub const MAGIC: u32 = 0x6672_7772;
/// The format that this engine reads and writes.
pub const FORMAT_VERSION: u16 = 2;

/// The metapage's body, in block 0.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Meta {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`FORMAT_VERSION`].
    pub format_version: u16,
    /// The root's block.
    pub root: u32,
    /// The root's height above the leaves.
    pub root_level: u8,
    /// Whether keys compare as bytes.
    pub ordered: bool,
    /// The first hidden row id that was never leased.
    pub next_row_id: u64,
    /// How the relation is organized; the engine's users know what it says.
    pub layout: Vec<u8>,
}

impl Meta {
    /// Of a new relation.
    pub(super) fn new(layout: &[u8], ordered: bool, root: BlockNumber, level: Level) -> Meta {
        Meta {
            magic: MAGIC,
            format_version: FORMAT_VERSION,
            root: root.0,
            root_level: level.0,
            ordered,
            next_row_id: 1,
            layout: layout.to_vec(),
        }
    }

    /// The bytes that stand on the page.
    pub fn encode(&self) -> Result<Vec<u8>> {
        rkyv::to_bytes::<rkyv::rancor::Error>(self)
            .map(|bytes| bytes.to_vec())
            .map_err(|error| Error::Store(format!("the metapage cannot be encoded: {error}")))
    }

    /// Reads and validates the bytes of a metapage behind its LSN.
    pub fn decode(bytes: &[u8]) -> Result<Meta> {
        let page = Page::open(bytes, BlockNumber::META)?;
        if page.kind() != PageKind::Meta {
            return Err(Error::corrupt(BlockNumber::META, "it is not a metapage"));
        }
        // The body is not aligned where it stands.
        let mut aligned = rkyv::util::AlignedVec::<16>::new();
        aligned.extend_from_slice(page.meta_body());
        let meta = rkyv::from_bytes::<Meta, rkyv::rancor::Error>(&aligned).map_err(|error| {
            Error::corrupt(
                BlockNumber::META,
                format!("the metapage does not validate: {error}"),
            )
        })?;
        if meta.magic != MAGIC {
            return Err(Error::corrupt(
                BlockNumber::META,
                "the magic number is wrong",
            ));
        }
        if meta.format_version != FORMAT_VERSION {
            return Err(Error::corrupt(
                BlockNumber::META,
                format!(
                    "format version {} is not {FORMAT_VERSION}, the one this library knows",
                    meta.format_version
                ),
            ));
        }
        Ok(meta)
    }

    /// The operations that make a metapage with this body.
    pub(super) fn init(&self, page_size: usize) -> Result<Ops> {
        let format = Format {
            kind: PageKind::Meta,
            level: Level::LEAF,
            flags: 0,
            left: BlockNumber::NONE,
            right: BlockNumber::NONE,
            generation: 0,
            prefix_len: 0,
            low: None,
            high: None,
        };
        let body = self.encode()?;
        check_fits(&body, page_size)?;
        Ok(Ops::new().format(&format).meta(&body))
    }
}

fn check_fits(body: &[u8], page_size: usize) -> Result<()> {
    let limit = super::measure::usable_bytes(page_size);
    if body.len() > limit {
        return Err(Error::Store(format!(
            "a layout whose metapage takes {} bytes exceeds the limit of {limit} bytes",
            body.len()
        )));
    }
    Ok(())
}

impl<'t, S: PageStore, C: Compare> Tree<'t, S, C> {
    /// Makes a metapage (block 0) and an empty root leaf (block 1) in a
    /// relation that has no blocks yet, in one record.
    pub fn create(store: &S, layout: &[u8], ordered: bool) -> Result<()> {
        let meta = Meta::new(layout, ordered, BlockNumber(1), Level::LEAF);
        let meta_ops = meta.init(store.page_size())?;
        let mut metapage = store.allocate()?;
        let mut root = store.allocate()?;
        assert_eq!(store.block_of(&metapage), BlockNumber::META);
        assert_eq!(store.block_of(&root), BlockNumber(1));
        let root_ops = Ops::new().format(&Format {
            kind: PageKind::Leaf,
            level: Level::LEAF,
            flags: flag::ROOT | if ordered { flag::ORDERED } else { 0 },
            left: BlockNumber::NONE,
            right: BlockNumber::NONE,
            generation: 0,
            prefix_len: 0,
            low: None,
            high: None,
        });
        let record = Record::new(RecordKind::Create)
            .init(BlockNumber(1), root_ops)
            .init(BlockNumber::META, meta_ops);
        store.commit(&record, &mut [&mut root, &mut metapage]);
        Ok(())
    }

    /// Reads the metapage.
    pub fn meta(&self) -> Result<Meta> {
        let guard = self.store.read(BlockNumber::META)?;
        let meta = Meta::decode(&guard)?;
        self.check_order(&meta)?;
        Ok(meta)
    }

    pub(super) fn check_order(&self, meta: &Meta) -> Result<()> {
        if meta.ordered != self.compare.ordered() {
            return Err(Error::corrupt(
                BlockNumber::META,
                "the relation's order is not the one it is opened with",
            ));
        }
        Ok(())
    }

    /// Replaces the layout.
    pub fn set_layout(&self, layout: &[u8]) -> Result<()> {
        self.change_meta(|meta| meta.layout = layout.to_vec())
    }

    /// Leases hidden row ids: nobody else gets these. Ids that are not used
    /// are lost, which harms nobody.
    pub fn lease_row_ids(&self, count: u64) -> Result<Range<u64>> {
        let mut leased = 0..0;
        self.change_meta(|meta| {
            leased = meta.next_row_id..meta.next_row_id + count;
            meta.next_row_id = leased.end;
        })?;
        Ok(leased)
    }

    fn change_meta(&self, change: impl FnOnce(&mut Meta)) -> Result<()> {
        let mut guard = self.store.lock(BlockNumber::META)?;
        let mut meta = Meta::decode(&guard)?;
        change(&mut meta);
        let body = meta.encode()?;
        check_fits(&body, self.store.page_size())?;
        let record =
            Record::new(RecordKind::Meta).change(BlockNumber::META, Ops::new().meta(&body));
        self.store.commit(&record, &mut [&mut guard]);
        Ok(())
    }
}
