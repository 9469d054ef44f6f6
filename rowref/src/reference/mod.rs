//! Row references: what names a row to an access method.

use std::borrow::Borrow;

/// How an access method names its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowRefType {
    /// By a physical block and offset, as PostgreSQL's heap does.
    Tid,
    /// By a byte array, such as the encoded primary key.
    Bytes,
}

/// A borrowed row reference. Its order is the order of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct RowRef<'a>(pub &'a [u8]);

/// An owned row reference. Its order is the order of its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct RowRefBuf(pub Vec<u8>);

impl<'a> RowRef<'a> {
    /// The bytes of the reference.
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// An owned copy.
    pub fn to_owned(self) -> RowRefBuf {
        RowRefBuf(self.0.to_vec())
    }

    /// The block and offset of a [`RowRefType::Tid`] reference, or `None` when
    /// the bytes are not six long and so cannot be one.
    pub fn to_tid(self) -> Option<(u32, u16)> {
        let bytes: [u8; 6] = self.0.try_into().ok()?;
        let [a, b, c, d, e, f] = bytes;
        Some((u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f])))
    }
}

impl RowRefBuf {
    /// The reference of a row that lies at a physical place. Big-endian, so
    /// that byte order is the order of places, as for every other reference.
    pub fn from_tid(block: u32, offset: u16) -> Self {
        let mut bytes = Vec::with_capacity(6);
        bytes.extend_from_slice(&block.to_be_bytes());
        bytes.extend_from_slice(&offset.to_be_bytes());
        RowRefBuf(bytes)
    }

    /// Borrows the reference.
    #[inline]
    pub fn as_ref(&self) -> RowRef<'_> {
        RowRef(&self.0)
    }
}

impl Borrow<[u8]> for RowRefBuf {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for RowRefBuf {
    fn from(bytes: Vec<u8>) -> Self {
        RowRefBuf(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tid_references_sort_by_block_then_offset() {
        let mut places = [(7, 1), (0, 2048), (1, 1), (256, 3), (1, 300), (0, 1)];
        let mut references: Vec<_> = places
            .iter()
            .map(|&(block, offset)| RowRefBuf::from_tid(block, offset))
            .collect();
        places.sort();
        references.sort();
        let back: Vec<_> = references
            .iter()
            .map(|reference| reference.as_ref().to_tid().unwrap())
            .collect();
        assert_eq!(back, places);
        assert_eq!(RowRef(b"12345").to_tid(), None);
    }
}
