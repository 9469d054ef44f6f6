//! What the fuzz targets run, and the property tests as well: decoders and
//! `apply` on arbitrary bytes. Each must come back; none may panic.
#![allow(dead_code, reason = "each fuzz target runs one of these")]

use engine::btree::Meta;
use engine::page::apply::{Scratch, apply};
use engine::page::cell::{InnerCell, LeafCell};
use engine::page::check::check;
use engine::page::{Page, PageKind, PositionBuf, op};
use engine::store::LSN_BYTES;
use engine::{BlockNumber, Level};

const AT: BlockNumber = BlockNumber(1);

/// Opens a page and reads everything on it.
pub fn page(bytes: &[u8]) {
    let sound = check(bytes, AT).is_ok();
    let Ok(page) = Page::open(bytes, AT) else {
        return;
    };
    let _ = (
        page.low().map(|low| low.to_buf()),
        page.high().map(|high| high.to_buf()),
        page.prefix(),
        page.free(),
        page.level(),
        page.flags(),
        page.left(),
        page.right(),
        page.deleted_stamp(),
        page.meta_body().len(),
    );
    if !matches!(page.kind(), PageKind::Leaf | PageKind::Inner) {
        return;
    }
    for slot in 0..page.slot_count() {
        let _ = (
            page.leaf_cell(slot, AT).is_ok(),
            page.inner_cell(slot, AT).is_ok(),
        );
        let suffix = page.suffix(slot, AT);
        assert!(!sound || page.kind() != PageKind::Leaf || suffix.is_ok());
    }
}

/// Decodes cells and positions.
pub fn cell(bytes: &[u8]) {
    for key_below in [false, true] {
        if let Some(cell) = LeafCell::decode(bytes, key_below) {
            let mut again = Vec::new();
            cell.head.encode(cell.suffix, cell.body, &mut again);
            // Numbers can be written longer than need be, but not shorter.
            assert!(again.len() <= bytes.len());
            assert_eq!(LeafCell::decode(&again, key_below), Some(cell));
        }
    }
    if let Some(cell) = InnerCell::decode(bytes) {
        let mut again = Vec::new();
        InnerCell::encode(cell.child, cell.position, 0, &mut again);
        assert_eq!(again, bytes);
    }
    let _: Option<PositionBuf> =
        engine::page::Position::decode(bytes).map(|position| position.to_buf());
}

/// Decodes operations and applies them to this page, whatever it is.
pub fn operations_on(page_bytes: &[u8], ops: &[u8]) {
    for op in op::read(ops) {
        let _ = format!("{op:?}");
    }
    let mut bytes = page_bytes.to_vec();
    let applied = apply(
        &mut bytes,
        ops,
        &mut Scratch::new(page_bytes.len() + LSN_BYTES),
    );
    if applied.is_ok() {
        page(&bytes);
    }
}

/// Splits the input into operations that make a page, and a page as it is.
pub fn any_input(bytes: &[u8]) {
    cell(bytes);
    meta(bytes);
    operations_on(&[0; 512 - LSN_BYTES], bytes);
    if let Some((page_bytes, ops)) = bytes.split_at_checked(256 - LSN_BYTES) {
        page(page_bytes);
        operations_on(page_bytes, ops);
    }
}

/// Reads the input as a metapage's body.
pub fn meta(body: &[u8]) {
    let mut bytes = vec![0; 8192 - LSN_BYTES];
    let format = op::Ops::new().format(&op::Format {
        kind: PageKind::Meta,
        level: Level::LEAF,
        flags: 0,
        left: BlockNumber::NONE,
        right: BlockNumber::NONE,
        generation: 0,
        prefix_len: 0,
        low: None,
        high: None,
    });
    let Some(body) = body.get(..body.len().min(8000)) else {
        return;
    };
    let ops: Vec<u8> = format.meta(body).into();
    apply(&mut bytes, &ops, &mut Scratch::new(8192)).expect("a body that fits");
    if let Ok(meta) = Meta::decode(&bytes) {
        assert!(Meta::decode(&bytes) == Ok(meta));
    }
}
