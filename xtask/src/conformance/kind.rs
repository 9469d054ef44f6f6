//! Kinds of difference between two outputs of one test.

use std::collections::BTreeMap;

use super::output::Message;

/// A kind of difference, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The session was lost, or the test printed nothing.
    Crash,
    /// A statement had to be stopped.
    Hang,
    /// Other rows.
    Rows,
    /// No error where the control reports one.
    MissingError,
    /// An error where the control reports none, or another one.
    Error,
    /// Another line than these: a step that waits, a description.
    Text,
    /// Another notice, warning, detail or context.
    Message,
    /// An error that follows from an earlier one: a missing table, an aborted
    /// transaction; and what is missing because of it.
    Cascade,
    /// An error that says what is not supported.
    Refused,
    /// The access methods' names.
    Names,
    /// Tuple ids and other system columns.
    Ctid,
    /// Sizes and counters of storage.
    Size,
    /// The order of rows.
    Order,
    /// The shape of a plan.
    Plan,
}

impl Kind {
    /// All kinds, worst first.
    pub const ALL: [Kind; 14] = [
        Kind::Crash,
        Kind::Hang,
        Kind::Rows,
        Kind::MissingError,
        Kind::Error,
        Kind::Text,
        Kind::Message,
        Kind::Cascade,
        Kind::Refused,
        Kind::Names,
        Kind::Ctid,
        Kind::Size,
        Kind::Order,
        Kind::Plan,
    ];

    /// Its name in reports and in the files of verdicts.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Crash => "crash",
            Kind::Hang => "hang",
            Kind::Rows => "rows",
            Kind::MissingError => "missing-error",
            Kind::Error => "error",
            Kind::Text => "text",
            Kind::Message => "message",
            Kind::Cascade => "cascade",
            Kind::Refused => "refused",
            Kind::Names => "names",
            Kind::Ctid => "ctid",
            Kind::Size => "size",
            Kind::Order => "order",
            Kind::Plan => "plan",
        }
    }

    /// What another access method may differ in.
    pub fn is_harmless(self) -> bool {
        self >= Kind::Names
    }
}

/// The differences of one test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// How many of each kind.
    pub kinds: BTreeMap<Kind, usize>,
    /// The first errors that are not in the control's output.
    pub errors: Vec<String>,
}

impl Differences {
    /// Counts a difference.
    pub fn add(&mut self, kind: Kind) {
        *self.kinds.entry(kind).or_default() += 1;
    }

    /// The worst kind; `None` if there is no difference.
    pub fn worst(&self) -> Option<Kind> {
        self.kinds.keys().next().copied()
    }

    /// Counts an error, and keeps what it says if it is one of the first.
    pub fn error(&mut self, kind: Kind, message: &Message) {
        self.add(kind);
        if kind != Kind::Cascade && self.errors.len() < 3 && !self.errors.contains(&message.text) {
            self.errors.push(message.text.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_harmless_kinds_are_those_that_may_differ() {
        let harmless: Vec<Kind> = Kind::ALL
            .into_iter()
            .filter(|kind| kind.is_harmless())
            .collect();
        assert_eq!(
            harmless,
            [Kind::Names, Kind::Ctid, Kind::Size, Kind::Order, Kind::Plan]
        );
    }
}
