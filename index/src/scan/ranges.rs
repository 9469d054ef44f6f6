//! From scan keys to key ranges.
//!
//! Every leading column with equalities is *listed*: it has a sorted list of
//! values, of one if nothing but `=` is said. The first column that is not
//! listed may be *limited*. Each combination of listed values is one range of
//! keys; in lexicographic order of the combinations the ranges ascend and do
//! not touch. What is said of columns behind that is tested entry by entry
//! ([`Ranges::passes`]); what cannot be said in key bytes is left to the
//! executor ([`Ranges::recheck`]).

mod turn;

pub use turn::set_edge;

use std::cmp::Ordering;

use pg::row::KeyOrder;
use pgrx::pg_sys;
use rowref::key::{ColumnForm, CompareColumn, KeyLayout, KeyValue};

use super::convert::{Operator, Says, convert};

/// A piece of [`Column::bytes`].
type Span = (u32, u32);

/// One end of a column's values, in the order of the key.
#[derive(Clone, Copy)]
struct Limit {
    value: Span,
    exclusive: bool,
}

/// What is said of one column. The order in here is that of keys, so that a
/// descending column's upper limit is its first.
#[derive(Default)]
struct Column {
    /// Encoded values.
    bytes: Vec<u8>,
    /// Ascending and distinct; says something if `is_listed`.
    values: Vec<Span>,
    is_listed: bool,
    first: Option<Limit>,
    last: Option<Limit>,
    /// `IS NOT NULL` of a column that could be.
    not_null: bool,
}

impl Column {
    fn clear(&mut self) {
        self.bytes.clear();
        self.values.clear();
        self.is_listed = false;
        self.first = None;
        self.last = None;
        self.not_null = false;
    }

    fn get(&self, (start, end): Span) -> &[u8] {
        &self.bytes[start as usize..end as usize]
    }

    /// Lists a value behind those that are listed.
    fn push(&mut self, value: &[u8]) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(value);
        self.values.push((start, self.bytes.len() as u32));
    }

    /// Strikes the values off the list that are not to be kept.
    fn strike(&mut self, keep: impl Fn(&[u8]) -> bool) {
        let mut values = std::mem::take(&mut self.values);
        values.retain(|span| keep(self.get(*span)));
        self.values = values;
    }

    fn is_limited(&self) -> bool {
        self.first.is_some() || self.last.is_some()
    }
}

/// The types that a key's operator classes compare, and the order of the key.
#[derive(Clone, Copy)]
pub struct KeyTypes<'k> {
    /// The order.
    pub order: &'k KeyOrder,
    /// For each column that scan keys may name. In a stored index those of the
    /// reference follow.
    pub inputs: &'k [pg_sys::Oid],
}

impl<'k> KeyTypes<'k> {
    fn layout(&self) -> &'k KeyLayout {
        self.order
            .layout()
            .expect("an index's table is organized by columns")
    }

    /// Whether scan keys can name every column of the key.
    fn is_whole(&self) -> bool {
        self.inputs.len() == self.order.columns().len()
    }

    fn is_descending(&self, column: usize) -> bool {
        self.order.columns()[column].descending
    }

    /// Compares two encoded values of a column, in the order of the key.
    fn compare(&self, column: usize, left: &[u8], right: &[u8]) -> Ordering {
        let spec = &self.order.columns()[column];
        let ColumnForm::Comparator { fixed_len } = spec.form else {
            return left.cmp(right);
        };
        // A marker, where there can be nulls, and a length precede the datum.
        let marker = usize::from(spec.nullable);
        let datum = marker + if fixed_len.is_none() { 2 } else { 0 };
        if left[..marker] != right[..marker] || left.len() < datum || right.len() < datum {
            return left.cmp(right);
        }
        let ordering = CompareColumn::compare(self.order, column, &left[datum..], &right[datum..]);
        if spec.descending {
            ordering.reverse()
        } else {
            ordering
        }
    }
}

/// The ranges of a scan. Reused from one rescan to the next.
#[derive(Default)]
pub struct Ranges {
    columns: Vec<Column>,
    /// How many leading columns are listed.
    listed: usize,
    /// One row at most matches each combination: all columns are listed.
    is_point: bool,
    /// No row matches.
    is_empty: bool,
    /// The rows that come out have to be tested by the executor.
    recheck: bool,
    /// `prefix` is all there is: `=` on every column, encoded as it came.
    is_plain: bool,
    /// Something is said of columns behind the limited one.
    is_filtered: bool,
    /// What the values of the column behind the listed ones begin with, if
    /// nulls do not pass.
    open: &'static [u8],
    /// Which value of each listed column the current combination has.
    at: Vec<u32>,
    /// The current combination's values, encoded.
    prefix: Vec<u8>,
    /// For datums on their way into `prefix` or a column.
    scratch: Vec<u8>,
    /// For one encoded value.
    one: Vec<u8>,
}

impl Ranges {
    /// Whether the executor has to test the rows.
    pub fn recheck(&self) -> bool {
        self.recheck
    }

    /// The key of the current combination if it names one row at most.
    #[inline]
    pub fn point(&self) -> Option<&[u8]> {
        self.is_point.then_some(&self.prefix[..])
    }

    /// Takes new scan keys.
    ///
    /// # Safety
    /// The keys are filled in for this index; array arguments are arrays. Runs
    /// in a memory context that may keep what detoasting leaves.
    pub unsafe fn set(&mut self, keys: &[pg_sys::ScanKeyData], types: KeyTypes<'_>) {
        // SAFETY: the caller's promise.
        unsafe {
            if self.set_plain(keys, types) {
                return;
            }
            self.clear(types);
            for key in keys {
                self.add_key(key, types);
            }
        }
        self.resolve(types);
    }

    /// [`Ranges::set`] for tests, which have no server to make arrays.
    #[cfg(test)]
    pub fn set_clauses(&mut self, clauses: &[super::tests::Said], types: KeyTypes<'_>) {
        use super::tests::Said;
        self.clear(types);
        for clause in clauses {
            let mut scratch = Vec::new();
            // SAFETY: tests pass datums of the type they name.
            unsafe {
                match clause {
                    Said::Key(key) => self.add_key(key, types),
                    Said::Any(column, operator, argument_type, arguments) => self.add_any(
                        *column,
                        *operator,
                        *argument_type,
                        arguments,
                        types,
                        &mut scratch,
                    ),
                }
            }
        }
        self.resolve(types);
    }

    /// The way of most scans by far: `=` on every column, in order, no arrays
    /// and no nulls. The key, or all of it but a reference, is encoded as it
    /// comes.
    ///
    /// # Safety
    /// As [`Ranges::set`].
    #[inline]
    unsafe fn set_plain(&mut self, keys: &[pg_sys::ScanKeyData], types: KeyTypes<'_>) -> bool {
        if keys.len() != types.inputs.len() {
            return false;
        }
        let specs = types.order.columns();
        self.prefix.clear();
        for (column, key) in keys.iter().enumerate() {
            if key.sk_flags != 0
                || u32::from(key.sk_strategy) != pg_sys::BTEqualStrategyNumber
                || key.sk_attno as usize != column + 1
            {
                return false;
            }
            // SAFETY: the argument is of the key's subtype and not null.
            let said = unsafe {
                convert(
                    &specs[column],
                    types.inputs[column],
                    key.sk_subtype,
                    Operator::Equal,
                    key.sk_argument,
                    &mut self.scratch,
                )
            };
            let Says::Compare(Operator::Equal, value) = said else {
                return false;
            };
            let encoded = types.layout().encode(column, value, &mut self.prefix);
            if encoded.is_err() {
                return false;
            }
        }
        self.listed = 0;
        self.is_plain = true;
        self.is_point = types.is_whole();
        self.is_filtered = false;
        self.is_empty = false;
        self.recheck = false;
        true
    }

    /// Forgets what was said.
    fn clear(&mut self, types: KeyTypes<'_>) {
        let count = types.inputs.len();
        self.columns.resize_with(count, Column::default);
        self.columns.iter_mut().for_each(Column::clear);
        self.is_empty = false;
        self.recheck = false;
    }

    /// # Safety
    /// As [`Ranges::set`].
    unsafe fn add_key(&mut self, key: &pg_sys::ScanKeyData, types: KeyTypes<'_>) {
        let column = key.sk_attno as usize - 1;
        let flags = key.sk_flags as u32;
        let nullable = types.order.columns()[column].nullable;
        if flags & pg_sys::SK_SEARCHNULL != 0 {
            if nullable {
                self.add_value(column, KeyValue::Null, types);
            } else {
                self.is_empty = true;
            }
            return;
        }
        if flags & pg_sys::SK_SEARCHNOTNULL != 0 {
            self.columns[column].not_null = nullable;
            return;
        }
        // The operators are strict: no comparison with null is true.
        if flags & pg_sys::SK_ISNULL != 0 {
            self.is_empty = true;
            return;
        }
        let Some(operator) = Operator::from_strategy(key.sk_strategy) else {
            self.recheck = true;
            return;
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        // SAFETY: by the caller, the argument is what the flags say.
        unsafe {
            if flags & pg_sys::SK_SEARCHARRAY != 0 {
                let elements = array_elements(key.sk_argument);
                self.add_any(
                    column,
                    operator,
                    key.sk_subtype,
                    &elements,
                    types,
                    &mut scratch,
                );
            } else {
                let said = convert(
                    &types.order.columns()[column],
                    types.inputs[column],
                    key.sk_subtype,
                    operator,
                    key.sk_argument,
                    &mut scratch,
                );
                match said {
                    Says::Compare(Operator::Equal, value) => {
                        self.add_value(column, value, types);
                    }
                    Says::Compare(operator, value) => {
                        self.one.clear();
                        let encoded = types.layout().encode(column, value, &mut self.one);
                        if encoded.is_ok() {
                            self.limit(column, operator, types);
                        } else {
                            self.recheck = true;
                        }
                    }
                    Says::Always => self.columns[column].not_null = nullable,
                    Says::Never => self.is_empty = true,
                    Says::Unknown => self.recheck = true,
                }
            }
        }
        self.scratch = scratch;
    }

    /// `column <operator> ANY (elements)`: a list for `=`, else the weakest
    /// limit.
    ///
    /// # Safety
    /// The elements are datums of the operator's right-hand type, not null.
    unsafe fn add_any(
        &mut self,
        column: usize,
        operator: Operator,
        element_type: pg_sys::Oid,
        elements: &[pg_sys::Datum],
        types: KeyTypes<'_>,
        scratch: &mut Vec<u8>,
    ) {
        let layout = types.layout();
        let spec = &types.order.columns()[column];
        let mut values: Vec<Vec<u8>> = Vec::new();
        let mut weakest: Option<(Operator, Vec<u8>)> = None;
        for element in elements {
            // SAFETY: the caller's promise.
            let said = unsafe {
                convert(
                    spec,
                    types.inputs[column],
                    element_type,
                    operator,
                    *element,
                    scratch,
                )
            };
            let (operator, value) = match said {
                Says::Compare(operator, value) => (operator, value),
                Says::Never => continue,
                Says::Always => {
                    self.columns[column].not_null = spec.nullable;
                    return;
                }
                Says::Unknown => {
                    self.recheck = true;
                    return;
                }
            };
            let mut encoded = Vec::new();
            if layout.encode(column, value, &mut encoded).is_err() {
                self.recheck = true;
                return;
            }
            if operator == Operator::Equal {
                values.push(encoded);
                continue;
            }
            let weaker = weakest.as_ref().is_none_or(|(than, limit)| {
                let ordering = types.compare(column, &encoded, limit);
                let outward = if is_last(operator, types.is_descending(column)) {
                    ordering
                } else {
                    ordering.reverse()
                };
                outward.is_gt() || outward.is_eq() && than.excludes()
            });
            if weaker {
                weakest = Some((operator, encoded));
            }
        }
        if operator == Operator::Equal {
            self.add_list(column, values, types);
        } else if let Some((operator, encoded)) = weakest {
            self.one = encoded;
            self.limit(column, operator, types);
        } else {
            self.is_empty = true;
        }
    }

    /// Lists the one value for a column, or strikes all others off its list.
    fn add_value(&mut self, column: usize, value: KeyValue<'_>, types: KeyTypes<'_>) {
        self.one.clear();
        let encoded = types.layout().encode(column, value, &mut self.one);
        if encoded.is_err() {
            self.recheck = true;
            return;
        }
        let (said, one) = (&mut self.columns[column], &self.one);
        if said.is_listed {
            said.strike(|value| types.compare(column, value, one).is_eq());
        } else {
            said.is_listed = true;
            said.push(one);
        }
    }

    /// Lists values for a column, or strikes what is not among them off its list.
    fn add_list(&mut self, column: usize, mut list: Vec<Vec<u8>>, types: KeyTypes<'_>) {
        list.sort_unstable_by(|a, b| types.compare(column, a, b));
        list.dedup_by(|a, b| types.compare(column, a, b).is_eq());
        let said = &mut self.columns[column];
        if said.is_listed {
            said.strike(|value| {
                list.binary_search_by(|one| types.compare(column, one, value))
                    .is_ok()
            });
        } else {
            said.is_listed = true;
            list.iter().for_each(|value| said.push(value));
        }
    }

    /// Limits a column by the value in `one`, unless it is limited more.
    fn limit(&mut self, column: usize, operator: Operator, types: KeyTypes<'_>) {
        let said = &mut self.columns[column];
        let is_last = is_last(operator, types.is_descending(column));
        let exclusive = operator.excludes();
        let known = if is_last { said.last } else { said.first };
        if let Some(known) = known {
            let ordering = types.compare(column, &self.one, said.get(known.value));
            let inward = if is_last {
                ordering.reverse()
            } else {
                ordering
            };
            if inward.is_lt() || inward.is_eq() && (known.exclusive || !exclusive) {
                return;
            }
        }
        let start = said.bytes.len() as u32;
        said.bytes.extend_from_slice(&self.one);
        let limit = Limit {
            value: (start, said.bytes.len() as u32),
            exclusive,
        };
        if is_last {
            said.last = Some(limit);
        } else {
            said.first = Some(limit);
        }
    }

    /// Settles which columns bound the scan, once all keys are taken.
    fn resolve(&mut self, types: KeyTypes<'_>) {
        self.is_plain = false;
        self.is_filtered = false;
        self.listed = 0;
        self.open = &[];
        let mut bounded = true;
        for column in 0..self.columns.len() {
            let said = &mut self.columns[column];
            // No comparison with null is true.
            let marker = types.layout().value_marker(column);
            let no_nulls = said.not_null || said.is_limited();
            if said.is_listed && no_nulls {
                let mut values = std::mem::take(&mut said.values);
                values.retain(|span| {
                    let value = said.get(*span);
                    value.starts_with(marker) && said.is_within(column, value, types)
                });
                said.values = values;
            }
            self.is_empty |= if said.is_listed {
                said.values.is_empty()
            } else {
                said.limits_cross(column, types)
            };
            if bounded && said.is_listed {
                self.listed += 1;
            } else if bounded {
                bounded = false;
                if no_nulls {
                    self.open = marker;
                }
            } else {
                self.is_filtered |= said.is_listed || no_nulls;
            }
        }
        self.is_point = types.is_whole() && self.listed == self.columns.len();
    }

    /// Whether a key of the ranges passes what is said of columns that do not
    /// bound them.
    #[inline]
    pub fn passes(&self, key: &[u8], types: KeyTypes<'_>) -> bool {
        !self.is_filtered || self.passes_filters(key, types)
    }

    /// Whether there are filters.
    pub fn is_filtered(&self) -> bool {
        self.is_filtered
    }

    fn passes_filters(&self, key: &[u8], types: KeyTypes<'_>) -> bool {
        let layout = types.layout();
        let mut rest = key;
        for (column, said) in self.columns.iter().enumerate() {
            // A key that cannot be read goes to one who can say so.
            let Ok(length) = layout.skip(column, rest) else {
                return true;
            };
            let (value, behind) = rest.split_at(length);
            rest = behind;
            if column <= self.listed {
                continue;
            }
            let passes = if said.is_listed {
                said.values
                    .binary_search_by(|span| types.compare(column, said.get(*span), value))
                    .is_ok()
            } else {
                let no_nulls = said.not_null || said.is_limited();
                (!no_nulls || value.starts_with(layout.value_marker(column)))
                    && said.is_within(column, value, types)
            };
            if !passes {
                return false;
            }
        }
        true
    }
}

impl Column {
    /// Whether a value lies within the limits.
    fn is_within(&self, column: usize, value: &[u8], types: KeyTypes<'_>) -> bool {
        let beyond = |limit: Limit, outward: Ordering| {
            let ordering = types.compare(column, value, self.get(limit.value));
            ordering == outward || ordering.is_eq() && limit.exclusive
        };
        !self
            .first
            .is_some_and(|limit| beyond(limit, Ordering::Less))
            && !self
                .last
                .is_some_and(|limit| beyond(limit, Ordering::Greater))
    }

    /// Whether no value can lie between the limits.
    fn limits_cross(&self, column: usize, types: KeyTypes<'_>) -> bool {
        let (Some(first), Some(last)) = (self.first, self.last) else {
            return false;
        };
        let ordering = types.compare(column, self.get(first.value), self.get(last.value));
        ordering.is_gt() || ordering.is_eq() && (first.exclusive || last.exclusive)
    }
}

/// Whether a limit is the last one in key order, where a descending column
/// runs against its type.
fn is_last(operator: Operator, descending: bool) -> bool {
    operator.is_upper() != descending
}

/// The elements of an array that are not null: no comparison with null is true.
///
/// # Safety
/// `array` is an array.
unsafe fn array_elements(array: pg_sys::Datum) -> Vec<pg_sys::Datum> {
    // SAFETY: detoasting yields a whole array, whose header names the type of
    // its elements; the server allocates both results with as many members as
    // it says.
    unsafe {
        let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let element_type = (*array).elemtype;
        let (mut length, mut by_value, mut align) = (0, false, 0);
        pg_sys::get_typlenbyvalalign(element_type, &mut length, &mut by_value, &mut align);
        let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        pg_sys::deconstruct_array(
            array,
            element_type,
            i32::from(length),
            by_value,
            align,
            &mut values,
            &mut nulls,
            &mut count,
        );
        (0..usize::try_from(count).unwrap_or(0))
            .filter(|at| !*nulls.add(*at))
            .map(|at| *values.add(at))
            .collect()
    }
}
