//! Keys: column values encoded so that byte order is the columns' order.
//!
//! A [`KeyLayout`] is made once for each table or index. Its verbs have a file
//! each: `encode`, `read`, `compare`, `bound`, `separate`. The encoding of each
//! form is drawn in the crate's README, section "Keys".

mod bound;
mod compare;
mod encode;
mod read;
mod separate;
mod tail;

pub use bound::{Bound, KeyRange, Limit, successor};
pub use compare::{CompareColumn, NoComparator};
pub use encode::EncodeKeyError;
pub use read::{KeyReader, MalformedKey};
pub use separate::common_prefix_len;

/// The marker of a null that sorts before all values.
pub(crate) const NULL_FIRST: u8 = 0x00;
/// The marker of a value that is there.
pub(crate) const VALUE: u8 = 0x01;
/// The marker of a null that sorts after all values.
pub(crate) const NULL_LAST: u8 = 0x02;

/// What a `Bytes` value ends with, and so does the number of a tail.
pub(crate) const BYTES_END: [u8; 2] = [0x00, 0x00];
/// What stands behind the head of a long `Bytes` value instead.
pub(crate) const BYTES_GO_ON: [u8; 2] = [0x00, 0x01];
/// What stands behind the head of a long text, where a shorter one ends with 00.
pub(crate) const TEXT_GOES_ON: u8 = 0x01;

/// Set in the length of a comparator column's value if more of it follows: such
/// values are searched for, but no page has room for them.
pub(crate) const LONG_LENGTH: u16 = 0x8000;

/// The longest `name` in bytes: the 64-byte type keeps one for its NUL.
pub(crate) const NAME_BYTES_MAX: usize = 63;

/// How one column's values are laid into a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnForm {
    /// `bool`, false before true.
    Bool,
    /// `int2`.
    Int2,
    /// `int4`, and what is stored as one, such as `date`.
    Int4,
    /// `int8`, and what is stored as one, such as `timestamp` and `time`.
    Int8,
    /// An unsigned 32-bit number, such as `oid`.
    UInt4,
    /// `float4` in PostgreSQL's order: −0 equals +0, NaN equals NaN and is greatest.
    Float4,
    /// `float8`, ordered as [`ColumnForm::Float4`].
    Float8,
    /// `"char"`, one byte compared unsigned.
    Char,
    /// `uuid`, 16 bytes.
    Uuid,
    /// `bytea`, compared byte by byte.
    Bytes,
    /// Text under a collation that compares byte by byte; it cannot hold NUL.
    Text,
    /// `name`: at most 63 bytes up to a NUL, compared byte by byte.
    Name,
    /// A hidden row id: eight bytes, big-endian, as they name the row in its
    /// table. In an index such a reference is the key's last column.
    RowId,
    /// A type without an ordered form. The key carries the datum's bytes and an
    /// outside function, [`CompareColumn`], says their order.
    Comparator {
        /// The length of every value if the type has a fixed one, so that no
        /// length needs to be stored.
        fixed_len: Option<u16>,
    },
}

impl ColumnForm {
    /// Whether the value read from a key is the very value that was written,
    /// *and* values that compare equal have equal bytes.
    ///
    /// Where this is false the row's payload has to carry the column too:
    /// −0 and +0 are one key but two values, and what equality means for a
    /// comparator column only its operator class knows. Callers that find an
    /// `equalimage` support function for it may read comparator columns back.
    pub fn is_lossless(self) -> bool {
        !matches!(
            self,
            ColumnForm::Float4 | ColumnForm::Float8 | ColumnForm::Comparator { .. }
        )
    }

    /// Whether encoded values of this form compare by memcmp.
    pub fn is_ordered(self) -> bool {
        !matches!(self, ColumnForm::Comparator { .. })
    }

    /// The encoded length in bytes without a marker, or `None` if it varies.
    pub fn width_bytes(self) -> Option<usize> {
        match self {
            ColumnForm::Bool | ColumnForm::Char => Some(1),
            ColumnForm::Int2 => Some(2),
            ColumnForm::Int4 | ColumnForm::UInt4 | ColumnForm::Float4 => Some(4),
            ColumnForm::Int8 | ColumnForm::Float8 | ColumnForm::RowId => Some(8),
            ColumnForm::Uuid => Some(16),
            ColumnForm::Comparator { fixed_len } => fixed_len.map(usize::from),
            ColumnForm::Bytes | ColumnForm::Text | ColumnForm::Name => None,
        }
    }
}

/// One column of a key: its form and its place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyColumn {
    /// How its values are encoded.
    pub form: ColumnForm,
    /// Whether greater values come first.
    pub descending: bool,
    /// Whether nulls come before all values, whichever way these run.
    pub nulls_first: bool,
    /// Whether nulls can occur; if so each value is preceded by a marker byte.
    pub nullable: bool,
}

impl KeyColumn {
    /// An ascending column that cannot be null, as in a primary key.
    pub fn ascending(form: ColumnForm) -> Self {
        KeyColumn {
            form,
            descending: false,
            nulls_first: false,
            nullable: false,
        }
    }

    /// All ones if the bytes of the value are stored inverted, else zero.
    /// Comparator columns never are: the result of their comparison is.
    #[inline]
    pub(crate) fn flip(self) -> u8 {
        if self.descending && self.form.is_ordered() {
            0xFF
        } else {
            0
        }
    }

    /// The marker of a null in this column.
    #[inline]
    pub(crate) fn null_marker(self) -> u8 {
        if self.nulls_first {
            NULL_FIRST
        } else {
            NULL_LAST
        }
    }
}

/// A column's value on its way into or out of a key.
///
/// `PartialEq` is that of Rust's types, so NaN differs from itself here; the
/// order of keys is that of their bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum KeyValue<'a> {
    /// No value.
    Null,
    /// For [`ColumnForm::Bool`].
    Bool(bool),
    /// For [`ColumnForm::Int2`].
    Int2(i16),
    /// For [`ColumnForm::Int4`].
    Int4(i32),
    /// For [`ColumnForm::Int8`].
    Int8(i64),
    /// For [`ColumnForm::UInt4`].
    UInt4(u32),
    /// For [`ColumnForm::Float4`].
    Float4(f32),
    /// For [`ColumnForm::Float8`].
    Float8(f64),
    /// For [`ColumnForm::Char`].
    Char(u8),
    /// For [`ColumnForm::Uuid`].
    Uuid([u8; 16]),
    /// For [`ColumnForm::RowId`].
    RowId(u64),
    /// For [`ColumnForm::Bytes`], [`ColumnForm::Text`], [`ColumnForm::Name`]
    /// and [`ColumnForm::Comparator`]. Text is in the server's encoding, so it
    /// is bytes here; a name may be given with its padding and is read back
    /// without.
    Bytes(&'a [u8]),
}

/// The columns of a key in their order, and what follows from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLayout {
    columns: Vec<KeyColumn>,
    /// How many columns come before the first comparator one.
    leading_ordered: usize,
}

impl KeyLayout {
    /// Fixes the layout of a key.
    pub fn new(columns: Vec<KeyColumn>) -> Self {
        let leading_ordered = columns
            .iter()
            .position(|column| !column.form.is_ordered())
            .unwrap_or(columns.len());
        KeyLayout {
            columns,
            leading_ordered,
        }
    }

    /// The columns in key order.
    pub fn columns(&self) -> &[KeyColumn] {
        &self.columns
    }

    /// Whether whole keys compare by memcmp.
    #[inline]
    pub fn is_ordered(&self) -> bool {
        self.leading_ordered == self.columns.len()
    }

    /// What the encodings of all values of a column begin with, and that of a
    /// null does not; nothing if the column cannot be null. As a prefix of keys
    /// it leaves the nulls out, on whichever side they are.
    pub fn value_marker(&self, column: usize) -> &'static [u8] {
        if self.columns[column].nullable {
            &[VALUE]
        } else {
            &[]
        }
    }

    /// How many leading columns compare by memcmp.
    pub fn leading_ordered(&self) -> usize {
        self.leading_ordered
    }
}
