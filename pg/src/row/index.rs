//! The layout of one stored index: a table of its own, whose columns are the
//! index's (key columns, then INCLUDE columns) followed by those of the table's
//! key, and whose key is the index's columns followed by the *reference*, the
//! very bytes that name the row in its table.

use std::rc::Rc;

use pgrx::pg_sys;
use rowref::key::MalformedKey;

use super::attribute::Attribute;
use super::encode::compress;
use super::fill::fill_of;
use super::varlena::{Shape, shape};
use super::{Error, KeyColumnSpec, Organization, TableLayout};

/// How the entries of one index are stored. Immutable; obtained from
/// [`super::of_index`].
pub struct IndexLayout {
    layout: Rc<TableLayout>,
    own_columns: usize,
    own_attributes: usize,
    reference: Box<[Option<usize>]>,
    /// The bytes of a reference, if all have as many.
    reference_bytes: Option<usize>,
}

impl IndexLayout {
    /// The layout of an open index that is organized as its metapage says.
    ///
    /// # Safety
    /// `index` is an open index.
    pub unsafe fn new(
        index: pg_sys::Relation,
        organization: Organization,
    ) -> Result<IndexLayout, Error> {
        // SAFETY: an open index has a descriptor with natts columns.
        let (relation, forms) = unsafe {
            let descriptor = (*index).rd_att;
            let natts = usize::try_from((*descriptor).natts).unwrap_or(0);
            ((*index).rd_id, (*descriptor).attrs.as_slice(natts))
        };
        let attributes = forms.iter().map(Attribute::of).collect();
        let mut made = Self::assemble(relation, attributes, organization)?;
        let layout = Rc::get_mut(&mut made.layout).expect("nobody else has it yet");
        // SAFETY: the index is open.
        layout.fill = unsafe { fill_of(index) };
        Ok(made)
    }

    /// The pure part of [`IndexLayout::new`]; `attributes` are the index's own.
    pub(super) fn assemble(
        relation: pg_sys::Oid,
        mut attributes: Vec<Attribute>,
        organization: Organization,
    ) -> Result<IndexLayout, Error> {
        let Organization::Index { columns, own } = &organization else {
            return Err(Error::MalformedLayout("it is not that of an index".into()));
        };
        let (own_columns, own_attributes) = (*own, attributes.len());
        if own_columns > own_attributes {
            return Err(Error::MalformedLayout(
                "it has more columns than its index".into(),
            ));
        }
        // What the catalogs say of an index's column may differ from what is
        // indexed (they call a name a cstring).
        for (attribute, column) in attributes.iter_mut().zip(&columns[..own_columns]) {
            *attribute = of_column(column);
        }
        let mut reference = Vec::new();
        for column in &columns[own_columns..] {
            if column.attribute == 0 {
                reference.push(None);
                continue;
            }
            reference.push(Some(attributes.len()));
            attributes.push(of_column(column));
        }
        for (at, column) in columns.iter().enumerate() {
            let expected = if at < own_columns {
                at + 1
            } else {
                reference[at - own_columns].map_or(0, |number| number + 1)
            };
            if usize::try_from(column.attribute) != Ok(expected) {
                return Err(Error::MalformedLayout(
                    "its columns are not numbered in their order".into(),
                ));
            }
        }
        let reference_bytes = columns[own_columns..]
            .iter()
            .map(|column| column.form.width_bytes().filter(|_| !column.nullable))
            .sum();
        let layout = TableLayout::assemble(relation, attributes, Vec::new(), None, organization);
        Ok(IndexLayout {
            layout: Rc::new(layout),
            own_columns,
            own_attributes,
            reference: reference.into(),
            reference_bytes,
        })
    }

    /// How an entry's columns, those of the reference included, lie in key and
    /// payload.
    pub fn layout(&self) -> &Rc<TableLayout> {
        &self.layout
    }

    /// How many key columns are the index's own.
    pub fn key_columns(&self) -> usize {
        self.own_columns
    }

    /// How many columns the index has, INCLUDE columns included; in
    /// [`IndexLayout::layout`] those of the reference follow them.
    pub fn attributes(&self) -> usize {
        self.own_attributes
    }

    /// For each column of the table's key the attribute (from 0) of
    /// [`IndexLayout::layout`] that gives it back; `None` if the reference does
    /// not hold the very value. A hidden row id is one column that is not
    /// given back.
    pub fn reference_attributes(&self) -> &[Option<usize>] {
        &self.reference
    }

    /// The bytes of a reference, if all have as many.
    pub fn reference_bytes(&self) -> Option<usize> {
        self.reference_bytes
    }

    /// The number of bytes that the index's own columns take in a key.
    #[inline]
    pub fn columns_len(&self, key: &[u8]) -> Result<usize, MalformedKey> {
        if let Some(columns) = self
            .reference_bytes
            .and_then(|reference| key.len().checked_sub(reference))
        {
            return Ok(columns);
        }
        let keys = self.layout.order().layout();
        let mut reader = keys.expect("an index has columns").reader(key);
        for _ in 0..self.own_columns {
            reader.skip()?;
        }
        Ok(reader.position())
    }

    /// The table's key in an entry's key.
    #[inline]
    pub fn reference_of<'k>(&self, key: &'k [u8]) -> Result<&'k [u8], MalformedKey> {
        Ok(&key[self.columns_len(key)?..])
    }

    /// Appends the index's own columns to a key, given its columns' values. On
    /// an error `key` is as it was.
    ///
    /// # Safety
    /// `values` and `isnull` hold the index's columns, valid for their types.
    pub unsafe fn encode_columns(
        &self,
        values: &[pg_sys::Datum],
        isnull: &[bool],
        key: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let start = key.len();
        let mut scratch = Vec::new();
        for column in 0..self.own_columns {
            // SAFETY: the caller vouches for the values.
            let encoded = unsafe {
                self.layout.order().encode_column(
                    column,
                    values[column],
                    isnull[column],
                    &mut scratch,
                    key,
                )
            };
            if let Err(error) = encoded {
                key.truncate(start);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Makes the entry of a row: appends its key and its payload, and returns
    /// how many of the key's bytes are the index's own columns. Long values
    /// are read in, unpacked and packed anew, in the current memory context: an
    /// index has no TOAST table, and equal values are to be equal bytes, however
    /// the row came to store them.
    ///
    /// # Safety
    /// As for [`IndexLayout::encode_columns`].
    pub unsafe fn entry_of(
        &self,
        values: &[pg_sys::Datum],
        isnull: &[bool],
        reference: &[u8],
        key: &mut Vec<u8>,
        payload: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        let mut inline = [pg_sys::Datum::null(); pg_sys::INDEX_MAX_KEYS as usize];
        let inline = &mut inline[..self.own_attributes];
        // SAFETY: the caller vouches for the values.
        unsafe {
            self.unpack(values, isnull, inline);
            let start = key.len();
            self.encode_columns(inline, isnull, key)?;
            let columns_len = key.len() - start;
            key.extend_from_slice(reference);
            self.pack(isnull, inline);
            self.layout.encode_payload(inline, isnull, payload);
            Ok(columns_len)
        }
    }

    /// Appends the key alone of a row's entry, as [`IndexLayout::entry_of`]
    /// makes it. On an error `key` is as it was.
    ///
    /// # Safety
    /// As for [`IndexLayout::encode_columns`].
    pub unsafe fn key_of(
        &self,
        values: &[pg_sys::Datum],
        isnull: &[bool],
        reference: &[u8],
        key: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let mut inline = [pg_sys::Datum::null(); pg_sys::INDEX_MAX_KEYS as usize];
        let inline = &mut inline[..self.own_columns];
        // SAFETY: the caller vouches for the values.
        unsafe {
            self.unpack(values, isnull, inline);
            self.encode_columns(inline, isnull, key)?;
        }
        key.extend_from_slice(reference);
        Ok(())
    }

    /// Copies as many values as there is room for, long ones read in and
    /// unpacked into the current memory context.
    ///
    /// # Safety
    /// As for [`IndexLayout::encode_columns`].
    unsafe fn unpack(
        &self,
        values: &[pg_sys::Datum],
        isnull: &[bool],
        inline: &mut [pg_sys::Datum],
    ) {
        inline.copy_from_slice(&values[..inline.len()]);
        for (at, value) in inline.iter_mut().enumerate() {
            if self.layout.attributes()[at].length != -1 || isnull[at] {
                continue;
            }
            let long = value.cast_mut_ptr::<u8>();
            // SAFETY: only whole varlenas are looked into.
            unsafe {
                if let Some(Shape::External(_) | Shape::Compressed(_)) = shape(long) {
                    *value = pg_sys::pg_detoast_datum_packed(long.cast())
                        .cast::<u8>()
                        .into();
                }
            }
        }
    }

    /// Compresses long values of the payload, in the current memory context.
    ///
    /// # Safety
    /// The values are of the index's columns and unpacked.
    unsafe fn pack(&self, isnull: &[bool], inline: &mut [pg_sys::Datum]) {
        let attributes = self.layout.attributes();
        for ((value, attribute), null) in inline.iter_mut().zip(attributes).zip(isnull) {
            let may_be =
                attribute.length == -1 && attribute.packable && attribute.is_in_payload() && !null;
            // SAFETY: a varlena that is no pointer.
            if may_be && let Some(compressed) = unsafe { compress(value.cast_mut_ptr()) } {
                *value = compressed.datum();
            }
        }
    }

    /// Whether a null among the index's own key columns sets an entry apart
    /// from all others of a unique index.
    pub fn has_null(&self, isnull: &[bool]) -> bool {
        isnull[..self.own_columns].contains(&true)
    }
}

/// A key column as a column to be read.
fn of_column(column: &KeyColumnSpec) -> Attribute {
    Attribute {
        type_oid: column.type_oid.into(),
        length: column.length,
        align: column.align,
        by_value: column.by_value,
        packable: !column.plain,
        dropped: false,
        has_missing: false,
        in_key: true,
        source: super::Source::Payload(0),
        cached_offset: -1,
    }
}
