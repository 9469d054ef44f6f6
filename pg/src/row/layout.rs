//! The layout of one table: its organization and its columns as they are now.

use std::cell::Cell;
use std::ptr::NonNull;

use engine::btree::Fill;
use engine::{BlockNumber, Level};
use pgrx::pg_sys;

use super::attribute::{self, Attribute, Direct, Source};
use super::fill::fill_of;
use super::{KeyOrder, Organization, copy_datum, datum_bytes};

/// How the rows of one table are stored. Immutable; a changed table gets a new
/// one. Obtained from [`super::of_relation`], or [`super::keep`] for one that
/// is not in the catalogs yet.
pub struct TableLayout {
    pub(super) relation: pg_sys::Oid,
    pub(super) attributes: Box<[Attribute]>,
    /// What a row that was written before a column existed shows for it.
    pub(super) missing: Box<[Missing]>,
    pub(super) order: KeyOrder,
    /// Where a key column begins, if all columns before it have fixed widths.
    pub(super) key_offsets: Box<[Option<u32>]>,
    pub(super) payload_columns: usize,
    /// Short ways to the first columns.
    pub(super) direct: Box<[Direct]>,
    /// Arena bytes that key columns may need beyond the bytes of the key; none
    /// if no column read from the key needs any.
    pub(super) arena_overhead: Option<usize>,
    /// How full its leaves are to be.
    pub(super) fill: Fill,
    /// Where things were in the table's tree when this process last looked.
    places: Cell<Places>,
    /// Holds the values in `missing`.
    _missing_memory: Option<Context>,
}

/// Places in a table's tree: hints, verified by whoever uses them (rule 31).
/// They are kept with the layout because it lives as long as what is known of
/// a table's storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The root, and its height above the leaves.
    pub root: Option<(BlockNumber, Level)>,
    /// The leaf that was last appended to behind all other entries.
    pub rightmost: Option<BlockNumber>,
}

/// The value of a column that a row does not have.
#[derive(Clone, Copy)]
pub(super) struct Missing {
    pub(super) value: pg_sys::Datum,
    pub(super) is_null: bool,
}

impl Missing {
    const NULL: Missing = Missing {
        value: pg_sys::Datum::null(),
        is_null: true,
    };
}

/// A memory context that dies with its owner.
pub(super) struct Context(NonNull<pg_sys::MemoryContextData>);

impl Context {
    /// A context that lives beside the server's caches.
    pub(super) fn new() -> Context {
        // SAFETY: CacheMemoryContext is there once a backend runs; the name is
        // a constant, as the function demands.
        let context = unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::CacheMemoryContext,
                c"rowref table layout".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
            )
        };
        Context(NonNull::new(context).expect("the server raises an error instead"))
    }

    pub(super) fn as_ptr(&self) -> pg_sys::MemoryContext {
        self.0.as_ptr()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by `new` and deleted only here.
        unsafe { pg_sys::MemoryContextDelete(self.as_ptr()) }
    }
}

impl TableLayout {
    /// The layout of an open table whose rows are organized as its metapage says.
    ///
    /// # Safety
    /// `table` is an open relation.
    pub unsafe fn new(table: pg_sys::Relation, organization: Organization) -> TableLayout {
        // SAFETY: an open relation has a descriptor.
        unsafe {
            TableLayout {
                fill: fill_of(table),
                ..Self::described((*table).rd_id, (*table).rd_att, organization)
            }
        }
    }

    /// The layout of rows that `descriptor` describes: while ALTER TABLE
    /// rewrites a table, its old rows are not what the catalog says any more.
    ///
    /// # Safety
    /// `descriptor` is live.
    pub unsafe fn described(
        relation: pg_sys::Oid,
        descriptor: pg_sys::TupleDesc,
        organization: Organization,
    ) -> TableLayout {
        // SAFETY: a descriptor has natts columns.
        let (attributes, (missing, memory)) = unsafe {
            let natts = usize::try_from((*descriptor).natts).unwrap_or(0);
            let forms = (*descriptor).attrs.as_slice(natts);
            (
                forms.iter().map(Attribute::of).collect(),
                missing_values(descriptor, forms),
            )
        };
        Self::assemble(relation, attributes, missing, memory, organization)
    }

    /// The pure part of [`TableLayout::new`].
    pub(super) fn assemble(
        relation: pg_sys::Oid,
        mut attributes: Vec<Attribute>,
        missing: Vec<Missing>,
        memory: Option<Context>,
        organization: Organization,
    ) -> TableLayout {
        let columns = organization.columns();
        for column in columns {
            let at = usize::try_from(column.attribute).ok();
            if let Some(attribute) = at.and_then(|at| attributes.get_mut(at.wrapping_sub(1))) {
                attribute.in_key = true;
            }
        }
        attribute::settle(&mut attributes, |index| {
            let column = columns
                .iter()
                .position(|column| column.attribute as usize == index + 1 && column.lossless)?;
            Some(column as u16)
        });
        let payload_columns = attributes
            .iter()
            .filter(|attribute| matches!(attribute.source, Source::Payload(_)))
            .count();
        let mut fixed = Some(0u32);
        let key_offsets: Box<[Option<u32>]> = columns
            .iter()
            .map(|column| {
                let at = fixed;
                fixed = match (fixed, column.form.width_bytes()) {
                    (Some(at), Some(width)) if !column.nullable => Some(at + width as u32),
                    _ => None,
                };
                at
            })
            .collect();
        let direct = attribute::direct_ways(&attributes, |number| {
            let column = &columns[usize::from(number)];
            let offset = key_offsets[usize::from(number)].filter(|_| !column.nullable)?;
            Some((column.form, column.descending, offset))
        });
        let arena_overhead = columns
            .iter()
            .filter(|column| column.lossless && !column.by_value)
            // Header, padding and what a padded name adds.
            .map(|column| 16 + usize::try_from(column.length).unwrap_or(0))
            .reduce(|a, b| a + b);
        TableLayout {
            relation,
            attributes: attributes.into(),
            missing: missing.into(),
            order: KeyOrder::new(organization),
            key_offsets,
            payload_columns,
            direct,
            arena_overhead,
            fill: Fill::default(),
            places: Cell::default(),
            _missing_memory: memory,
        }
    }

    /// The table.
    pub fn relation(&self) -> pg_sys::Oid {
        self.relation
    }

    /// What orders the rows.
    pub fn organization(&self) -> &Organization {
        self.order.organization()
    }

    /// The order of the keys, and how their columns are encoded.
    pub fn order(&self) -> &KeyOrder {
        &self.order
    }

    /// The bytes of a key, if all keys have as many.
    pub fn key_width(&self) -> Option<usize> {
        let columns = self.order.columns();
        if columns.is_empty() {
            return rowref::key::ColumnForm::RowId.width_bytes();
        }
        columns
            .iter()
            .map(|column| column.form.width_bytes().filter(|_| !column.nullable))
            .sum()
    }

    /// The table's columns, dropped ones included.
    pub fn attributes(&self) -> &[Attribute] {
        &self.attributes
    }

    /// How full its leaves are to be left behind.
    pub fn fill(&self) -> Fill {
        self.fill
    }

    /// Where things were in the table's tree when this process last looked.
    pub fn places(&self) -> Places {
        self.places.get()
    }

    /// Notes where things are.
    pub fn set_places(&self, places: Places) {
        self.places.set(places);
    }

    /// Whether rows that `descriptor` describes are read as this layout has it.
    ///
    /// # Safety
    /// `descriptor` is live.
    pub unsafe fn fits(&self, descriptor: pg_sys::TupleDesc) -> bool {
        // SAFETY: a descriptor has natts columns.
        let forms = unsafe {
            let natts = usize::try_from((*descriptor).natts).unwrap_or(0);
            (*descriptor).attrs.as_slice(natts)
        };
        forms.len() == self.attributes.len()
            && self
                .attributes
                .iter()
                .zip(forms)
                .all(|(attribute, form)| attribute.reads_like(form))
    }

    /// Whether rows are organized by their hidden number.
    pub fn is_row_id(&self) -> bool {
        *self.organization() == Organization::RowId
    }
}

/// Copies the values that `ALTER TABLE … ADD COLUMN … DEFAULT` left for older
/// rows out of the relcache, whose copy dies at the next invalidation.
///
/// # Safety
/// `forms` are the columns of `descriptor`, an open relation's.
unsafe fn missing_values(
    descriptor: pg_sys::TupleDesc,
    forms: &[pg_sys::FormData_pg_attribute],
) -> (Vec<Missing>, Option<Context>) {
    let mut memory = None;
    let missing = forms
        .iter()
        .map(|form| {
            if !form.atthasmissing {
                return Missing::NULL;
            }
            let mut is_null = true;
            // SAFETY: the column has a missing value, says its flag; a value by
            // reference is a whole, plain datum, whose size its length or its
            // header tells.
            unsafe {
                let value =
                    pg_sys::getmissingattr(descriptor, i32::from(form.attnum), &mut is_null);
                if is_null || form.attbyval {
                    return Missing { value, is_null };
                }
                let size = datum_bytes(value, form.attlen);
                let memory = memory.get_or_insert_with(Context::new);
                let copy = pg_sys::MemoryContextAlloc(memory.as_ptr(), size).cast::<u8>();
                copy_datum(value, form.attlen, copy);
                Missing {
                    value: copy.into(),
                    is_null,
                }
            }
        })
        .collect();
    (missing, memory)
}
