//! What psql or isolationtester printed, taken apart.
//!
//! The two runs of a test echo the same statements, so the pieces between them
//! can be set against each other: tables as sets of rows, messages as such.

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Piece {
    /// A statement's line, or anything else.
    Line(String),
    /// A result.
    Table(Table),
    /// An error, a notice, a warning.
    Message(Message),
}

/// A result: spacing is evened out, for one wide value moves all columns.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table {
    /// The names of its columns.
    pub header: String,
    /// Its rows.
    pub rows: Vec<String>,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Message {
    /// `ERROR`, `NOTICE`, …
    pub severity: String,
    /// What it says first.
    pub text: String,
    /// DETAIL, HINT, CONTEXT, LINE.
    pub rest: Vec<String>,
}

impl Piece {
    /// The piece with each of its texts changed.
    pub fn map(&self, change: impl Fn(&str) -> String) -> Piece {
        let all = |texts: &[String]| texts.iter().map(|text| change(text)).collect();
        match self {
            Piece::Line(line) => Piece::Line(change(line)),
            Piece::Table(table) => Piece::Table(Table {
                header: change(&table.header),
                rows: all(&table.rows),
            }),
            Piece::Message(message) => Piece::Message(Message {
                severity: message.severity.clone(),
                text: change(&message.text),
                rest: all(&message.rest),
            }),
        }
    }
}

impl Message {
    /// Whether a statement failed by it.
    pub fn is_error(&self) -> bool {
        matches!(self.severity.as_str(), "ERROR" | "FATAL" | "PANIC")
    }
}

impl Table {
    /// Whether it shows a plan.
    pub fn is_plan(&self) -> bool {
        const NODES: [&str; 9] = [
            "Seq Scan on",
            "Index Scan",
            "Index Only Scan",
            "Sort Key",
            "Nested Loop",
            "Hash",
            "Merge",
            "Append",
            "->  ",
        ];
        let nodes = self
            .rows
            .iter()
            .filter(|row| NODES.iter().any(|node| row.contains(node)))
            .count();
        self.header.contains("QUERY PLAN") || (nodes > 0 && 2 * nodes >= self.rows.len())
    }
}

const SEVERITIES: [&str; 9] = [
    "ERROR",
    "FATAL",
    "PANIC",
    "WARNING",
    "NOTICE",
    "INFO",
    "LOG",
    "DEBUG",
    "EXCEPTION",
];
const CONTINUATIONS: [&str; 8] = [
    "DETAIL:",
    "HINT:",
    "CONTEXT:",
    "QUERY:",
    "LINE ",
    "LOCATION:",
    "STATEMENT:",
    "SCHEMA NAME:",
];

fn even(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `ERROR:  text`, after the session's name in isolation tests or psql's place
/// in a file.
fn message_head(line: &str) -> Option<(String, String)> {
    let mut rest = line;
    for _ in 0..3 {
        let (word, after) = rest.split_once(':')?;
        let severity = word.trim();
        if SEVERITIES.contains(&severity) && after.starts_with("  ") {
            return Some((severity.to_owned(), even(after)));
        }
        if word.len() > 60 || word.contains(['(', '|']) {
            return None;
        }
        rest = after.trim_start();
    }
    None
}

fn is_continuation(line: &str) -> bool {
    CONTINUATIONS.iter().any(|word| line.starts_with(word))
}

/// Whether `line` is the rule below the column names `header`.
fn is_rule(header: &str, line: &str) -> bool {
    let dashes =
        line.starts_with('-') && line.ends_with('-') && line.chars().all(|c| c == '-' || c == '+');
    if !dashes || header.trim().is_empty() || header.starts_with("--") {
        return false;
    }
    let places = |text: &str, wanted: char| -> Vec<usize> {
        let found = text.chars().enumerate().filter(|(_, c)| *c == wanted);
        found.map(|(at, _)| at).collect()
    };
    let crossings = places(line, '+');
    if crossings.is_empty() {
        // A comment of dashes has another length than the line above it.
        header.chars().count().abs_diff(line.chars().count()) <= 1
    } else {
        places(header, '|') == crossings
    }
}

fn is_count(line: &str) -> bool {
    let Some(inside) = line
        .strip_prefix('(')
        .and_then(|line| line.strip_suffix(')'))
    else {
        return false;
    };
    inside
        .split_once(' ')
        .is_some_and(|(count, unit)| count.parse::<u64>().is_ok() && unit.starts_with("row"))
}

/// Takes output apart. Blank lines are left out.
pub fn pieces(text: &str) -> Vec<Piece> {
    let lines: Vec<&str> = text.lines().collect();
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        if lines.get(at + 1).is_some_and(|next| is_rule(line, next)) {
            let (table, next) = table(&lines, at);
            pieces.push(Piece::Table(table));
            at = next;
        } else if let Some((severity, text)) = message_head(line) {
            let (rest, next) = message_rest(&lines, at + 1);
            pieces.push(Piece::Message(Message {
                severity,
                text,
                rest,
            }));
            at = next;
        } else {
            if !line.trim().is_empty() {
                pieces.push(Piece::Line(even(line)));
            }
            at += 1;
        }
    }
    pieces
}

fn table(lines: &[&str], at: usize) -> (Table, usize) {
    let header = lines[at];
    let mut rows = Vec::new();
    let mut next = at + 2;
    while let Some(line) = lines.get(next) {
        if is_count(line) {
            next += 1;
            break;
        }
        // Without a count (\d): by the bars between columns.
        let ends = line.is_empty()
            || message_head(line).is_some()
            || (header.contains('|') && !line.contains('|'));
        if ends {
            break;
        }
        rows.push(even(line));
        next += 1;
    }
    let header = even(header);
    (Table { header, rows }, next)
}

fn message_rest(lines: &[&str], from: usize) -> (Vec<String>, usize) {
    let mut rest = Vec::new();
    let mut next = from;
    while let Some(line) = lines.get(next) {
        let caret = line.trim() == "^";
        if !is_continuation(line) && !caret {
            break;
        }
        if !caret {
            rest.push(even(line));
        }
        next += 1;
    }
    (rest, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_tables_and_messages_are_told_apart() {
        let text = "\
select a, b from t;
 a |  b
---+-----
 1 | one
 2 |
(2 rows)

insert into t values (1);
ERROR:  duplicate key value violates unique constraint \"t_pkey\"
DETAIL:  Key (a)=(1) already exists.
-- a comment
---------
select 1;
";
        let found = pieces(text);
        assert_eq!(found.len(), 7, "{found:?}");
        let Piece::Table(table) = &found[1] else {
            panic!("{found:?}")
        };
        assert_eq!(table.rows, ["1 | one", "2 |"]);
        let Piece::Message(message) = &found[3] else {
            panic!("{found:?}")
        };
        assert!(message.is_error() && message.rest.len() == 1);
    }

    #[test]
    fn isolation_tables_and_messages_with_a_session_are_known() {
        let text = "\
step s1u: UPDATE t SET a = 1; <waiting ...>
a
-
1
(1 row)

s1: NOTICE:  hello
step s1u: <... completed>
ERROR:  could not serialize access due to concurrent update
";
        let found = pieces(text);
        assert!(matches!(&found[1], Piece::Table(table) if table.rows == ["1"]));
        assert!(matches!(&found[2], Piece::Message(message) if message.severity == "NOTICE"));
        assert!(matches!(&found[4], Piece::Message(message) if message.is_error()));
    }

    #[test]
    fn a_description_ends_where_the_bars_end() {
        let text = "\
\\d t
 Column |  Type
--------+---------
 a      | integer
Indexes:
    \"t_pkey\" PRIMARY KEY, btree (a)
";
        let found = pieces(text);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(matches!(&found[1], Piece::Table(table) if table.rows.len() == 1));
    }
}
