//! What a table is organized by: taken from an index, stored in the metapage.

use pgrx::pg_sys;
use rkyv::{Archive, Deserialize, Serialize};
use rowref::key::{ColumnForm, KeyColumn, KeyLayout};

use super::{Error, attribute::align_bytes};

/// The version of the stored form. Another one is refused, never guessed at.
const STORED_VERSION: u16 = 1;

/// B-tree support function numbers (`nbtree.h`).
const ORDER_PROC: i16 = 1;
const EQUAL_IMAGE_PROC: i16 = 4;
/// `INDOPTION_DESC` and `INDOPTION_NULLS_FIRST`.
const OPTION_DESCENDING: i16 = 1;
const OPTION_NULLS_FIRST: i16 = 2;

/// What orders a table's rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Organization {
    /// A hidden number of eight bytes, big-endian.
    #[default]
    RowId,
    /// Columns of the table.
    Key {
        /// In the order of the key.
        columns: Vec<KeyColumnSpec>,
    },
    /// An index: its own columns, then the key of the table's row, which names
    /// the row ("the reference").
    Index {
        /// In the order of the key. Their attributes count through the index's
        /// own columns and then those of the reference that can be read back.
        columns: Vec<KeyColumnSpec>,
        /// How many of them are the index's own.
        own: usize,
    },
}

/// One key column, complete without the catalogs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyColumnSpec {
    /// The table's column, from 1; 0 for an expression, and in an index for a
    /// column that is not read back.
    pub attribute: i16,
    /// How values are encoded.
    pub form: ColumnForm,
    /// The type of the values, for diagnostics.
    pub type_oid: u32,
    /// The collation the comparison is called with.
    pub collation: u32,
    /// The operator class's three-way comparison.
    pub compare_proc: u32,
    /// Greater values first.
    pub descending: bool,
    /// Nulls before values.
    pub nulls_first: bool,
    /// Whether nulls can occur.
    pub nullable: bool,
    /// Whether the key gives back the very datum. If not, the payload carries
    /// the column too and it is never read from the key.
    pub lossless: bool,
    /// Bytes of a value; -1 for a varlena.
    pub length: i16,
    /// Whether the datum is the value.
    pub by_value: bool,
    /// Whether the type's functions insist on a long varlena header (`PLAIN`
    /// storage: oidvector, int2vector).
    pub plain: bool,
    /// Alignment of values in bytes.
    pub align: u8,
}

impl KeyColumnSpec {
    /// A hidden row id at the end of an index's key. It is no column.
    const ROW_ID: KeyColumnSpec = KeyColumnSpec {
        attribute: 0,
        form: ColumnForm::RowId,
        type_oid: 0,
        collation: 0,
        compare_proc: 0,
        descending: false,
        nulls_first: false,
        nullable: false,
        lossless: true,
        length: 8,
        by_value: true,
        plain: false,
        align: 8,
    };

    /// The codec's view of the column.
    pub fn key_column(&self) -> KeyColumn {
        KeyColumn {
            form: self.form,
            descending: self.descending,
            nulls_first: self.nulls_first,
            nullable: self.nullable,
        }
    }
}

/// The archived form of [`KeyColumnSpec`].
#[derive(Archive, Serialize, Deserialize)]
struct StoredColumn {
    attribute: i16,
    form: u8,
    fixed_len: u16,
    type_oid: u32,
    collation: u32,
    compare_proc: u32,
    bits: u8,
    length: i16,
    align: u8,
}

/// The archived form of [`Organization::Key`].
#[derive(Archive, Serialize, Deserialize)]
struct Stored {
    version: u16,
    columns: Vec<StoredColumn>,
}

const BIT_DESCENDING: u8 = 1;
const BIT_NULLS_FIRST: u8 = 2;
const BIT_NULLABLE: u8 = 4;
const BIT_LOSSLESS: u8 = 8;
const BIT_BY_VALUE: u8 = 16;
const BIT_PLAIN: u8 = 32;

/// What the description of an index begins with; then the version and the
/// number of its own columns, two bytes each, and [`Stored`] with all columns.
/// A table's description begins with an attribute number, never with this.
const INDEX_MAGIC: [u8; 4] = *b"rwix";
const INDEX_HEADER_BYTES: usize = 8;
/// The version of an index's stored form.
const INDEX_VERSION: u16 = 1;

/// Numbers of forms in the stored description; they must never change.
const FORMS: [ColumnForm; 13] = [
    ColumnForm::Bool,
    ColumnForm::Int2,
    ColumnForm::Int4,
    ColumnForm::Int8,
    ColumnForm::UInt4,
    ColumnForm::Float4,
    ColumnForm::Float8,
    ColumnForm::Char,
    ColumnForm::Uuid,
    ColumnForm::Bytes,
    ColumnForm::Text,
    ColumnForm::Name,
    ColumnForm::RowId,
];
const FORM_COMPARATOR: u8 = 100;
const FORM_COMPARATOR_FIXED: u8 = 101;

impl Organization {
    /// The bytes for the metapage. Nothing at all means row ids, so that an
    /// engine's fresh metapage needs no caller.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Organization::RowId => Vec::new(),
            Organization::Key { columns } => stored_columns(columns),
            Organization::Index { columns, own } => {
                let mut bytes = INDEX_MAGIC.to_vec();
                bytes.extend_from_slice(&INDEX_VERSION.to_le_bytes());
                bytes.extend_from_slice(&(*own as u16).to_le_bytes());
                bytes.extend_from_slice(&stored_columns(columns));
                bytes
            }
        }
    }

    /// Reads the metapage's bytes, which are validated, not trusted.
    pub fn from_bytes(bytes: &[u8]) -> Result<Organization, Error> {
        if bytes.is_empty() {
            return Ok(Organization::RowId);
        }
        let Some((header, rest)) = bytes
            .split_first_chunk::<INDEX_HEADER_BYTES>()
            .filter(|(header, _)| header.starts_with(&INDEX_MAGIC))
        else {
            return Ok(Organization::Key {
                columns: read_columns(bytes)?,
            });
        };
        let version = u16::from_le_bytes([header[4], header[5]]);
        if version != INDEX_VERSION {
            return Err(unknown_version(version, INDEX_VERSION));
        }
        let own = usize::from(u16::from_le_bytes([header[6], header[7]]));
        let columns = read_columns(rest)?;
        // The reference has at least one column, and so has the index.
        if own == 0 || own >= columns.len() {
            return Err(Error::MalformedLayout(
                "an index without columns, or without a reference".into(),
            ));
        }
        Ok(Organization::Index { columns, own })
    }

    /// The key columns; none for row ids.
    pub fn columns(&self) -> &[KeyColumnSpec] {
        match self {
            Organization::RowId => &[],
            Organization::Key { columns } | Organization::Index { columns, .. } => columns,
        }
    }

    /// The codec for keys of this organization; `None` for row ids.
    pub fn key_layout(&self) -> Option<KeyLayout> {
        match self {
            Organization::RowId => None,
            Organization::Key { columns } | Organization::Index { columns, .. } => Some(
                KeyLayout::new(columns.iter().map(KeyColumnSpec::key_column).collect()),
            ),
        }
    }

    /// A table's organization by an index's key columns (INCLUDE columns are
    /// none). Reads catalogs.
    ///
    /// # Safety
    /// Both relations are open; `index` is an index of `table` with B-tree
    /// operator classes.
    pub unsafe fn of_index(table: pg_sys::Relation, index: pg_sys::Relation) -> Organization {
        // SAFETY: the caller's promise.
        unsafe {
            let nullable = !(*(*index).rd_index).indisprimary;
            Organization::Key {
                columns: columns_of(table, index, nullable),
            }
        }
    }

    /// The organization of an index that is stored beside its table, which is
    /// organized as `of_table` says. Reads catalogs.
    ///
    /// # Safety
    /// As for [`Organization::of_index`].
    pub unsafe fn of_entries(
        table: pg_sys::Relation,
        index: pg_sys::Relation,
        of_table: &Organization,
    ) -> Organization {
        // SAFETY: the caller's promise.
        unsafe {
            let attributes = (*(*index).rd_index).indnatts;
            // NOT NULL may be dropped from a column at any time.
            let columns = columns_of(table, index, true);
            Organization::entries(columns, attributes, of_table)
        }
    }

    /// The pure part of [`Organization::of_entries`]: the index's key columns
    /// and the number of all its columns.
    pub(super) fn entries(
        mut columns: Vec<KeyColumnSpec>,
        attributes: i16,
        of_table: &Organization,
    ) -> Organization {
        for (at, column) in columns.iter_mut().enumerate() {
            column.attribute = at as i16 + 1;
        }
        let own = columns.len();
        let mut next = attributes + 1;
        if *of_table == Organization::RowId {
            columns.push(KeyColumnSpec::ROW_ID);
        }
        columns.extend(of_table.columns().iter().map(|column| {
            let attribute = if column.lossless { next } else { 0 };
            next += i16::from(column.lossless);
            KeyColumnSpec {
                attribute,
                ..*column
            }
        }));
        Organization::Index { columns, own }
    }
}

/// The key columns of an index.
///
/// # Safety
/// As for [`Organization::of_index`].
unsafe fn columns_of(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    nullable: bool,
) -> Vec<KeyColumnSpec> {
    // SAFETY: an open index relation has rd_index, and the arrays behind
    // its rd_* pointers have one element for each key column.
    unsafe {
        let form = &*(*index).rd_index;
        let keys = usize::try_from(form.indnkeyatts).unwrap_or(0);
        let attributes = form.indkey.values.as_slice(keys);
        (0..keys)
            .map(|at| {
                let attribute = attributes[at];
                let (descriptor, number) = if attribute > 0 {
                    ((*table).rd_att, attribute as usize - 1)
                } else {
                    ((*index).rd_att, at)
                };
                let column = &(*descriptor).attrs.as_slice(number + 1)[number];
                let option = *(*index).rd_indoption.add(at);
                column_of(
                    column,
                    KeySource {
                        attribute,
                        family: *(*index).rd_opfamily.add(at),
                        input_type: *(*index).rd_opcintype.add(at),
                        collation: *(*index).rd_indcollation.add(at),
                        option,
                        nullable,
                    },
                )
            })
            .collect()
    }
}

fn stored_columns(columns: &[KeyColumnSpec]) -> Vec<u8> {
    let stored = Stored {
        version: STORED_VERSION,
        columns: columns.iter().map(StoredColumn::from).collect(),
    };
    rkyv::to_bytes::<rkyv::rancor::Error>(&stored)
        .expect("serializing to memory has no way to fail")
        .to_vec()
}

fn read_columns(bytes: &[u8]) -> Result<Vec<KeyColumnSpec>, Error> {
    // The archive has to lie aligned, which bytes from a page do not.
    let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    let stored = rkyv::from_bytes::<Stored, rkyv::rancor::Error>(&aligned)
        .map_err(|error| Error::MalformedLayout(error.to_string()))?;
    if stored.version != STORED_VERSION {
        return Err(unknown_version(stored.version, STORED_VERSION));
    }
    // An index has as many columns of its own, and as many of the reference.
    if stored.columns.is_empty() || stored.columns.len() > 2 * pg_sys::INDEX_MAX_KEYS as usize {
        return Err(Error::MalformedLayout(
            "its key has no columns, or too many".into(),
        ));
    }
    let columns = stored.columns.iter().map(KeyColumnSpec::try_from);
    columns.collect()
}

fn unknown_version(found: u16, known: u16) -> Error {
    Error::MalformedLayout(format!(
        "its version is {found}, this library knows {known}"
    ))
}

/// What an index says of one of its columns.
struct KeySource {
    attribute: i16,
    family: pg_sys::Oid,
    input_type: pg_sys::Oid,
    collation: pg_sys::Oid,
    option: i16,
    nullable: bool,
}

unsafe extern "C-unwind" {
    fn lc_collate_is_c(collation: pg_sys::Oid) -> bool;
}

/// Whether a collation compares bytes.
fn compares_bytes(collation: pg_sys::Oid) -> bool {
    // SAFETY: any oid may be asked; the server raises an ERROR for one that is
    // no collation, which the guard turns into a panic.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| lc_collate_is_c(collation)) }
}

/// # Safety
/// To be called in a transaction.
unsafe fn column_of(column: &pg_sys::FormData_pg_attribute, source: KeySource) -> KeyColumnSpec {
    let KeySource {
        family,
        input_type,
        collation,
        ..
    } = source;
    // SAFETY: catalog look-ups inside a transaction.
    let compare = unsafe { pg_sys::get_opfamily_proc(family, input_type, input_type, ORDER_PROC) };
    let form = form_of(compare.to_u32(), column, collation);
    let lossless = if form.is_ordered() {
        form.is_lossless()
    } else {
        // SAFETY: as above; the function takes one oid and returns a boolean.
        unsafe {
            let equal_image =
                pg_sys::get_opfamily_proc(family, input_type, input_type, EQUAL_IMAGE_PROC);
            equal_image != pg_sys::Oid::INVALID
                // 'a' and 'a ' are equal to bpchar but not the same bytes,
                // whatever its operator class claims.
                && compare.to_u32() != pg_sys::F_BPCHARCMP
                && pg_sys::OidFunctionCall1Coll(equal_image, collation, input_type.into()).value()
                    as u8
                    != 0
        }
    };
    KeyColumnSpec {
        attribute: source.attribute,
        form,
        type_oid: column.atttypid.to_u32(),
        collation: collation.to_u32(),
        compare_proc: compare.to_u32(),
        descending: source.option & OPTION_DESCENDING != 0,
        nulls_first: source.option & OPTION_NULLS_FIRST != 0,
        nullable: source.nullable,
        lossless,
        length: column.attlen,
        by_value: column.attbyval,
        // The type's storage, for the column's may be altered at any time.
        // SAFETY: as above.
        plain: unsafe { pg_sys::get_typstorage(column.atttypid) } as u8 == b'p',
        align: align_bytes(column.attalign),
    }
}

/// The form by the comparison function, which alone decides the order: so a
/// domain, or a type that is binary-coercible, gets its base type's form. The
/// value's width is checked all the same.
fn form_of(
    compare: u32,
    column: &pg_sys::FormData_pg_attribute,
    collation: pg_sys::Oid,
) -> ColumnForm {
    let shape = (column.attlen, column.attbyval);
    let ordered = match compare {
        pg_sys::F_BTBOOLCMP if shape == (1, true) => Some(ColumnForm::Bool),
        pg_sys::F_BTCHARCMP if shape == (1, true) => Some(ColumnForm::Char),
        pg_sys::F_BTINT2CMP if shape == (2, true) => Some(ColumnForm::Int2),
        pg_sys::F_BTINT4CMP | pg_sys::F_DATE_CMP if shape == (4, true) => Some(ColumnForm::Int4),
        pg_sys::F_BTINT8CMP
        | pg_sys::F_CASH_CMP
        | pg_sys::F_TIME_CMP
        | pg_sys::F_TIMESTAMP_CMP
        | pg_sys::F_TIMESTAMPTZ_CMP
            if shape == (8, true) =>
        {
            Some(ColumnForm::Int8)
        }
        pg_sys::F_BTOIDCMP if shape == (4, true) => Some(ColumnForm::UInt4),
        pg_sys::F_BTFLOAT4CMP if shape == (4, true) => Some(ColumnForm::Float4),
        pg_sys::F_BTFLOAT8CMP if shape == (8, true) => Some(ColumnForm::Float8),
        pg_sys::F_UUID_CMP if shape == (16, false) => Some(ColumnForm::Uuid),
        pg_sys::F_BYTEACMP if shape == (-1, false) => Some(ColumnForm::Bytes),
        pg_sys::F_BTTEXT_PATTERN_CMP if shape == (-1, false) => Some(ColumnForm::Text),
        pg_sys::F_BTTEXTCMP if shape == (-1, false) && compares_bytes(collation) => {
            Some(ColumnForm::Text)
        }
        pg_sys::F_BTNAMECMP if shape == (64, false) && compares_bytes(collation) => {
            Some(ColumnForm::Name)
        }
        _ => None,
    };
    ordered.unwrap_or(ColumnForm::Comparator {
        fixed_len: u16::try_from(column.attlen).ok(),
    })
}

impl From<&KeyColumnSpec> for StoredColumn {
    fn from(column: &KeyColumnSpec) -> StoredColumn {
        let (form, fixed_len) = match column.form {
            ColumnForm::Comparator { fixed_len: None } => (FORM_COMPARATOR, 0),
            ColumnForm::Comparator { fixed_len: Some(n) } => (FORM_COMPARATOR_FIXED, n),
            ordered => {
                let number = FORMS.iter().position(|form| *form == ordered);
                (number.expect("every ordered form has a number") as u8, 0)
            }
        };
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        StoredColumn {
            attribute: column.attribute,
            form,
            fixed_len,
            type_oid: column.type_oid,
            collation: column.collation,
            compare_proc: column.compare_proc,
            bits: bit(column.descending, BIT_DESCENDING)
                | bit(column.nulls_first, BIT_NULLS_FIRST)
                | bit(column.nullable, BIT_NULLABLE)
                | bit(column.lossless, BIT_LOSSLESS)
                | bit(column.by_value, BIT_BY_VALUE)
                | bit(column.plain, BIT_PLAIN),
            length: column.length,
            align: column.align,
        }
    }
}

impl TryFrom<&StoredColumn> for KeyColumnSpec {
    type Error = Error;

    fn try_from(stored: &StoredColumn) -> Result<KeyColumnSpec, Error> {
        let bad = |what: &str| Error::MalformedLayout(format!("{what} of a key column"));
        let form = match stored.form {
            FORM_COMPARATOR => ColumnForm::Comparator { fixed_len: None },
            FORM_COMPARATOR_FIXED => ColumnForm::Comparator {
                fixed_len: Some(stored.fixed_len),
            },
            number => *FORMS
                .get(usize::from(number))
                .ok_or_else(|| bad("unknown form"))?,
        };
        if stored.attribute < 0 || !matches!(stored.align, 1 | 2 | 4 | 8) || stored.length < -2 {
            return Err(bad("impossible column number, length or alignment"));
        }
        // By-value widths are read into a register, so they must fit one.
        if stored.bits & BIT_BY_VALUE != 0 && !matches!(stored.length, 1 | 2 | 4 | 8) {
            return Err(bad("impossible width"));
        }
        let has = |bit: u8| stored.bits & bit != 0;
        Ok(KeyColumnSpec {
            attribute: stored.attribute,
            form,
            type_oid: stored.type_oid,
            collation: stored.collation,
            compare_proc: stored.compare_proc,
            descending: has(BIT_DESCENDING),
            nulls_first: has(BIT_NULLS_FIRST),
            nullable: has(BIT_NULLABLE),
            lossless: has(BIT_LOSSLESS),
            length: stored.length,
            by_value: has(BIT_BY_VALUE),
            plain: has(BIT_PLAIN),
            align: stored.align,
        })
    }
}
