//! From the argument of `column <operator> argument` to a value of the column.
//!
//! The argument may be of another type than the column, as far as the B-tree
//! operator family goes. Where the comparison can be said exactly in the
//! column's own type it is; everything else is [`Says::Unknown`] and left to
//! the executor. The table of rules is in the crate's README.

use pg::row::{KeyColumnSpec, key_value};
use pgrx::pg_sys;
use rowref::key::{ColumnForm, KeyValue};

/// A comparison, by its B-tree strategy number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operator {
    Less,
    LessEqual,
    Equal,
    GreaterEqual,
    Greater,
}

impl Operator {
    /// The operator with this B-tree strategy number.
    pub fn from_strategy(number: u16) -> Option<Operator> {
        Some(match u32::from(number) {
            pg_sys::BTLessStrategyNumber => Operator::Less,
            pg_sys::BTLessEqualStrategyNumber => Operator::LessEqual,
            pg_sys::BTEqualStrategyNumber => Operator::Equal,
            pg_sys::BTGreaterEqualStrategyNumber => Operator::GreaterEqual,
            pg_sys::BTGreaterStrategyNumber => Operator::Greater,
            _ => return None,
        })
    }

    /// Whether it limits a column from above, in the order of its type.
    pub fn is_upper(self) -> bool {
        matches!(self, Operator::Less | Operator::LessEqual)
    }

    /// Whether the limit itself does not pass.
    pub fn excludes(self) -> bool {
        matches!(self, Operator::Less | Operator::Greater)
    }
}

/// What a comparison says of a column that is not null.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Says<'v> {
    /// This, in the column's own type.
    Compare(Operator, KeyValue<'v>),
    /// That every value passes.
    Always,
    /// That none does.
    Never,
    /// Something that cannot be said in the column's type.
    Unknown,
}

/// Where a value lies that the column's type cannot hold.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fit<'v> {
    /// It is this one.
    Is(KeyValue<'v>),
    /// Above every value of the type.
    AboveAll,
    /// Below every value of the type.
    BelowAll,
    /// Between this value and the next greater one.
    JustAbove(KeyValue<'v>),
}

fn says(operator: Operator, fit: Fit<'_>) -> Says<'_> {
    match fit {
        Fit::Is(value) => Says::Compare(operator, value),
        _ if operator == Operator::Equal => Says::Never,
        Fit::AboveAll if operator.is_upper() => Says::Always,
        Fit::AboveAll => Says::Never,
        Fit::BelowAll if operator.is_upper() => Says::Never,
        Fit::BelowAll => Says::Always,
        Fit::JustAbove(value) if operator.is_upper() => Says::Compare(Operator::LessEqual, value),
        Fit::JustAbove(value) => Says::Compare(Operator::Greater, value),
    }
}

/// Says a comparison in the column's own type. `input` is what the column's
/// operator class compares, `argument_type` the operator's right-hand type
/// (invalid: the same).
///
/// # Safety
/// `argument` is a datum of that type, not null, and outlives the result.
#[inline]
pub unsafe fn convert<'v>(
    spec: &KeyColumnSpec,
    input: pg_sys::Oid,
    argument_type: pg_sys::Oid,
    operator: Operator,
    argument: pg_sys::Datum,
    scratch: &'v mut Vec<u8>,
) -> Says<'v> {
    if argument_type == input || argument_type == pg_sys::InvalidOid {
        // SAFETY: the argument is of the column's type.
        return Says::Compare(operator, unsafe { key_value(spec, argument, scratch) });
    }
    // SAFETY: the caller's promise.
    unsafe { cross(spec, input, argument_type, operator, argument) }
}

/// # Safety
/// As [`convert`].
#[cold]
unsafe fn cross<'v>(
    spec: &KeyColumnSpec,
    input: pg_sys::Oid,
    argument_type: pg_sys::Oid,
    operator: Operator,
    argument: pg_sys::Datum,
) -> Says<'v> {
    let bits = argument.value();
    let fit = match (input, argument_type) {
        (_, pg_sys::INT2OID) => integer(spec.form, i64::from(bits as i16)),
        (_, pg_sys::INT4OID) => integer(spec.form, i64::from(bits as i32)),
        (_, pg_sys::INT8OID) => integer(spec.form, bits as i64),
        (pg_sys::FLOAT8OID, pg_sys::FLOAT4OID) if spec.form == ColumnForm::Float8 => Some(Fit::Is(
            KeyValue::Float8(f64::from(f32::from_bits(bits as u32))),
        )),
        (pg_sys::FLOAT4OID, pg_sys::FLOAT8OID) if spec.form == ColumnForm::Float4 => {
            Some(float4(f64::from_bits(bits as u64)))
        }
        (pg_sys::TEXTOID, pg_sys::NAMEOID) if spec.form == ColumnForm::Text => {
            // SAFETY: a name is 64 bytes with a NUL among them.
            let name = unsafe { std::ffi::CStr::from_ptr(argument.cast_mut_ptr()) };
            Some(Fit::Is(KeyValue::Bytes(name.to_bytes())))
        }
        (pg_sys::NAMEOID, pg_sys::TEXTOID) if spec.form == ColumnForm::Name => {
            // SAFETY: the argument is a text.
            Some(name(unsafe { text(spec, argument) }))
        }
        (pg_sys::DATEOID, pg_sys::TIMESTAMPOID) if spec.form == ColumnForm::Int4 => {
            Some(date(bits as i64))
        }
        (pg_sys::TIMESTAMPOID, pg_sys::DATEOID) if spec.form == ColumnForm::Int8 => {
            Some(Fit::Is(KeyValue::Int8(midnight(bits as i32))))
        }
        (pg_sys::TIMESTAMPTZOID, pg_sys::DATEOID | pg_sys::TIMESTAMPOID)
            if spec.form == ColumnForm::Int8 =>
        {
            with_time_zone(argument_type, argument)
        }
        _ => None,
    };
    fit.map_or(Says::Unknown, |fit| says(operator, fit))
}

fn integer<'v>(form: ColumnForm, value: i64) -> Option<Fit<'v>> {
    let narrow = match form {
        ColumnForm::Int2 => i16::try_from(value).ok().map(KeyValue::Int2),
        ColumnForm::Int4 => i32::try_from(value).ok().map(KeyValue::Int4),
        ColumnForm::Int8 => Some(KeyValue::Int8(value)),
        _ => return None,
    };
    Some(match narrow {
        Some(value) => Fit::Is(value),
        None if value > 0 => Fit::AboveAll,
        None => Fit::BelowAll,
    })
}

/// PostgreSQL compares the two as float8, in which every float4 is exact; NaN
/// is the greatest value of both types.
fn float4<'v>(value: f64) -> Fit<'v> {
    let nearest = value as f32;
    if f64::from(nearest) == value || value.is_nan() {
        return Fit::Is(KeyValue::Float4(nearest));
    }
    // The next value below, if the nearest one is above. For a value beyond
    // the finite ones the nearest is infinite, and this the greatest finite.
    Fit::JustAbove(KeyValue::Float4(if f64::from(nearest) < value {
        nearest
    } else {
        nearest.next_down()
    }))
}

/// The contents of a text.
///
/// # Safety
/// `argument` is a text that outlives the result.
unsafe fn text<'v>(spec: &KeyColumnSpec, argument: pg_sys::Datum) -> &'v [u8] {
    let as_text = KeyColumnSpec {
        form: ColumnForm::Text,
        ..*spec
    };
    // Text is read in place, so nothing comes to lie in the scratch.
    let mut scratch = Vec::new();
    // SAFETY: the datum is of the form that is named.
    match unsafe { key_value(&as_text, argument, &mut scratch) } {
        // SAFETY: the bytes lie in the datum, not in the scratch.
        KeyValue::Bytes(bytes) => unsafe {
            std::slice::from_raw_parts(bytes.as_ptr(), bytes.len())
        },
        other => unreachable!("a text is read as bytes, not as {other:?}"),
    }
}

/// A name holds at most 63 bytes. A longer text lies above its own first 63
/// bytes and below whatever name is above those.
fn name(text: &[u8]) -> Fit<'_> {
    const NAME_BYTES_MAX: usize = pg_sys::NAMEDATALEN as usize - 1;
    match text.get(..NAME_BYTES_MAX) {
        Some(start) if text.len() > NAME_BYTES_MAX => Fit::JustAbove(KeyValue::Bytes(start)),
        _ => Fit::Is(KeyValue::Bytes(text)),
    }
}

const MICROSECONDS_OF_DAY: i64 = 86_400_000_000;

/// A timestamp among dates: PostgreSQL compares a date by its midnight. Both
/// types count from the same day and keep their extremes for the infinities.
fn date<'v>(timestamp: i64) -> Fit<'v> {
    match timestamp {
        i64::MIN => Fit::Is(KeyValue::Int4(i32::MIN)),
        i64::MAX => Fit::Is(KeyValue::Int4(i32::MAX)),
        _ => {
            let day = KeyValue::Int4(timestamp.div_euclid(MICROSECONDS_OF_DAY) as i32);
            if timestamp.rem_euclid(MICROSECONDS_OF_DAY) == 0 {
                Fit::Is(day)
            } else {
                Fit::JustAbove(day)
            }
        }
    }
}

/// A date's midnight among timestamps. A date beyond them lies between the
/// last finite one and infinity, where no timestamp is.
fn midnight(date: i32) -> i64 {
    match date {
        i32::MIN => i64::MIN,
        i32::MAX => i64::MAX,
        _ => i64::from(date)
            .checked_mul(MICROSECONDS_OF_DAY)
            .unwrap_or(if date < 0 { i64::MIN + 1 } else { i64::MAX - 1 }),
    }
}

/// A local time among instants, by the session's time zone as the operators
/// have it. Times so far off that the server's conversion would raise an error
/// are left to the operators, which do not.
fn with_time_zone<'v>(argument_type: pg_sys::Oid, argument: pg_sys::Datum) -> Option<Fit<'v>> {
    const DAYS: std::ops::Range<i64> = -2_400_000..106_000_000;
    let bits = argument.value();
    let (days, infinite, function): (i64, bool, u32) = if argument_type == pg_sys::DATEOID {
        let date = bits as i32;
        let infinite = date == i32::MIN || date == i32::MAX;
        (date.into(), infinite, pg_sys::F_TIMESTAMPTZ_DATE)
    } else {
        let timestamp = bits as i64;
        let infinite = timestamp == i64::MIN || timestamp == i64::MAX;
        let days = timestamp.div_euclid(MICROSECONDS_OF_DAY);
        (days, infinite, pg_sys::F_TIMESTAMPTZ_TIMESTAMP)
    };
    if !infinite && !DAYS.contains(&days) {
        return None;
    }
    // SAFETY: the function takes one argument of this type.
    let instant =
        unsafe { pg_sys::OidFunctionCall1Coll(function.into(), pg_sys::InvalidOid, argument) };
    Some(Fit::Is(KeyValue::Int8(instant.value() as i64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a value passes what is said, by a comparison of its own.
    fn passes<T: PartialOrd>(operator: Operator, value: T, limit: T) -> bool {
        match operator {
            Operator::Less => value < limit,
            Operator::LessEqual => value <= limit,
            Operator::Equal => value == limit,
            Operator::GreaterEqual => value >= limit,
            Operator::Greater => value > limit,
        }
    }

    const OPERATORS: [Operator; 5] = [
        Operator::Less,
        Operator::LessEqual,
        Operator::Equal,
        Operator::GreaterEqual,
        Operator::Greater,
    ];

    #[test]
    fn integers_beyond_the_column_pass_as_the_wider_comparison_says() {
        let values = [i16::MIN, -1, 0, 1, i16::MAX];
        let limits = [i64::MIN, -32769, -32768, -1, 0, 32767, 32768, i64::MAX];
        for (operator, value, limit) in cases(&values, &limits) {
            let said = match says(operator, integer(ColumnForm::Int2, limit).unwrap()) {
                Says::Compare(operator, KeyValue::Int2(limit)) => passes(operator, value, limit),
                Says::Always => true,
                Says::Never => false,
                other => panic!("{other:?}"),
            };
            assert_eq!(
                said,
                passes(operator, i64::from(value), limit),
                "{operator:?} {value} {limit}"
            );
        }
    }

    #[test]
    fn doubles_between_two_floats_pass_as_the_wider_comparison_says() {
        let values = [
            f32::NEG_INFINITY,
            f32::MIN,
            -0.1,
            0.0,
            0.1,
            1.0,
            f32::MAX,
            f32::INFINITY,
        ];
        let limits = [
            f64::NEG_INFINITY,
            -1e300,
            f64::from(f32::MIN),
            -0.1,
            f64::from(-0.1f32),
            -1e-300,
            0.0,
            1e-300,
            0.1,
            f64::from(0.1f32),
            1.0,
            1e300,
            f64::INFINITY,
        ];
        for (operator, value, limit) in cases(&values, &limits) {
            let said = match says(operator, float4(limit)) {
                Says::Compare(operator, KeyValue::Float4(limit)) => passes(operator, value, limit),
                Says::Never => false,
                other => panic!("{other:?}"),
            };
            assert_eq!(
                said,
                passes(operator, f64::from(value), limit),
                "{operator:?} {value} {limit}"
            );
        }
    }

    #[test]
    fn timestamps_among_dates_pass_as_their_midnights_say() {
        let dates = [
            i32::MIN,
            -2_451_545,
            -1,
            0,
            1,
            106_751_991,
            2_000_000_000,
            i32::MAX,
        ];
        let times = [
            i64::MIN,
            -1,
            0,
            1,
            MICROSECONDS_OF_DAY - 1,
            MICROSECONDS_OF_DAY,
            -MICROSECONDS_OF_DAY,
            -MICROSECONDS_OF_DAY - 1,
            i64::MAX,
        ];
        for (operator, day, time) in cases(&dates, &times) {
            let said = match says(operator, date(time)) {
                Says::Compare(operator, KeyValue::Int4(limit)) => passes(operator, day, limit),
                Says::Never => false,
                other => panic!("{other:?}"),
            };
            assert_eq!(
                said,
                passes(operator, midnight(day), time),
                "{operator:?} {day} {time}"
            );
        }
    }

    #[test]
    fn texts_longer_than_a_name_lie_above_their_beginning() {
        let long = [b'a'; 70];
        let start = &long[..63];
        assert_eq!(name(&long), Fit::JustAbove(KeyValue::Bytes(start)));
        assert_eq!(name(start), Fit::Is(KeyValue::Bytes(start)));
    }

    fn cases<V: Copy, L: Copy>(values: &[V], limits: &[L]) -> Vec<(Operator, V, L)> {
        let mut all = Vec::new();
        for operator in OPERATORS {
            for value in values {
                for limit in limits {
                    all.push((operator, *value, *limit));
                }
            }
        }
        all
    }
}
