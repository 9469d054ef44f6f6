//! What kind of difference lies between two outputs of one test.

use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::kind::{Differences, Kind};
use super::output::{Message, Piece, Table, pieces};
use super::run::CONTROL;

/// Replaces the names of access methods by what they have in common.
fn without_names(text: &str, am: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut word = String::new();
    let flush = |word: &mut String, result: &mut String| {
        result.push_str(match word.as_str() {
            name if name == am || name == CONTROL => "TABLEAM",
            "rowref" | "btree" => "INDEXAM",
            name => name,
        });
        word.clear();
    };
    for c in text.chars() {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
        } else {
            flush(&mut word, &mut result);
            result.push(c);
        }
    }
    flush(&mut word, &mut result);
    result
}

/// Sets what `am` printed against what the control printed.
pub fn compare(control: &str, printed: &str, am: &str) -> Differences {
    let mut differences = Differences::default();
    if printed.is_empty() && !control.is_empty() {
        differences.add(Kind::Crash);
        return differences;
    }
    let (old_raw, new_raw) = (pieces(control), pieces(printed));
    let nameless = |pieces: &[Piece]| -> Vec<Piece> {
        pieces
            .iter()
            .map(|piece| piece.map(|text| without_names(text, am)))
            .collect()
    };
    let (old, new) = (nameless(&old_raw), nameless(&new_raw));
    let mut notes = Notes::default();
    for op in capture_diff_slices(Algorithm::Myers, &old, &new) {
        let (in_old, in_new) = (op.old_range(), op.new_range());
        if let DiffOp::Equal { .. } = op {
            for (old, new) in old_raw[in_old].iter().zip(&new_raw[in_new]) {
                if old != new {
                    differences.add(Kind::Names);
                }
            }
            continue;
        }
        let statement = statement_before(&old, in_old.start);
        let sides = (&old[in_old], &new[in_new]);
        hunk(sides, &statement, &mut notes, &mut differences);
    }
    notes.count(&mut differences);
    differences
}

/// Notices on one side of a hunk only. Rows in another order tell their notices
/// in another order too, which may put them into different hunks; so these are
/// set against each other at the end.
#[derive(Default)]
struct Notes {
    old: Vec<Message>,
    new: Vec<Message>,
    /// Those of hunks that failed on the new side.
    follow: usize,
}

impl Notes {
    fn count(self, differences: &mut Differences) {
        let (old, new, moved) = apart(self.old, self.new);
        for _ in 0..moved {
            differences.add(Kind::Order);
        }
        for at in 0..old.len().max(new.len()) {
            let follows = at < self.follow;
            differences.add(if follows {
                Kind::Cascade
            } else {
                Kind::Message
            });
        }
    }
}

/// The lines that lead to a piece: its statement.
fn statement_before(pieces: &[Piece], at: usize) -> String {
    let mut lines: Vec<&str> = pieces[..at]
        .iter()
        .rev()
        .map_while(|piece| match piece {
            Piece::Line(line) => Some(line.as_str()),
            _ => None,
        })
        .take(12)
        .collect();
    lines.reverse();
    lines.join("\n")
}

/// What is on one side only, and how many are on both.
fn apart<T: Ord + Clone>(old: Vec<T>, new: Vec<T>) -> (Vec<T>, Vec<T>, usize) {
    let mut new_only = new;
    let mut old_only = Vec::new();
    let mut common = 0;
    for item in old {
        match new_only.iter().position(|other| *other == item) {
            Some(at) => {
                new_only.remove(at);
                common += 1;
            }
            None => old_only.push(item),
        }
    }
    (old_only, new_only, common)
}

fn hunk(
    (old, new): (&[Piece], &[Piece]),
    statement: &str,
    notes: &mut Notes,
    differences: &mut Differences,
) {
    let lines = |side: &[Piece]| -> Vec<String> {
        side.iter()
            .filter_map(|piece| match piece {
                Piece::Line(line) => Some(line.clone()),
                _ => None,
            })
            .collect()
    };
    let tables = |side: &[Piece]| -> Vec<Table> {
        side.iter()
            .filter_map(|piece| match piece {
                Piece::Table(table) => Some(table.clone()),
                _ => None,
            })
            .collect()
    };
    let messages = |side: &[Piece]| -> Vec<Message> {
        side.iter()
            .filter_map(|piece| match piece {
                Piece::Message(message) => Some(message.clone()),
                _ => None,
            })
            .collect()
    };
    let (old_lines, new_lines, moved) = apart(lines(old), lines(new));
    let statement = format!("{statement}\n{}", lines(old).join("\n"));
    for _ in 0..moved {
        differences.add(Kind::Order);
    }
    let failed = compare_messages(messages(old), messages(new), notes, differences);
    compare_tables(tables(old), tables(new), &statement, failed, differences);
    let odd_lines = old_lines.len().max(new_lines.len());
    for at in 0..odd_lines {
        let shown = [old_lines.get(at), new_lines.get(at)];
        let lost = shown.iter().flatten().any(|line| is_loss(line));
        differences.add(match () {
            () if lost => Kind::Crash,
            () if failed => Kind::Cascade,
            () => Kind::Text,
        });
    }
}

fn is_loss(text: &str) -> bool {
    [
        "server closed the connection unexpectedly",
        "connection to server was lost",
        "connection to server on socket",
        "because of crash of another server process",
        "the database system is",
    ]
    .iter()
    .any(|words| text.contains(words))
}

fn is_stop(text: &str) -> bool {
    [
        "canceling statement due to user request",
        "terminating connection due to administrator command",
        "canceling step",
    ]
    .iter()
    .any(|words| text.contains(words))
}

fn is_refusal(text: &str) -> bool {
    text.starts_with("pg_rowref does not support")
}

fn follows(text: &str) -> bool {
    text.starts_with("current transaction is aborted")
        || text.contains("does not exist")
        || text.starts_with("no partition of relation")
        || text.starts_with("there is no unique")
}

/// Returns whether the new side failed where the old one did not.
fn compare_messages(
    old: Vec<Message>,
    new: Vec<Message>,
    notes: &mut Notes,
    differences: &mut Differences,
) -> bool {
    let (old, new, moved) = apart(old, new);
    for _ in 0..moved {
        differences.add(Kind::Order);
    }
    let (old_errors, old_notes): (Vec<_>, Vec<_>) = old.into_iter().partition(Message::is_error);
    let (new_errors, new_notes): (Vec<_>, Vec<_>) = new.into_iter().partition(Message::is_error);
    let troubled = differences.kinds.keys().any(|kind| {
        matches!(
            kind,
            Kind::Error | Kind::Refused | Kind::Cascade | Kind::MissingError
        )
    });
    let mut old_errors = old_errors;
    let mut failed = false;
    for error in &new_errors {
        // The same error in other surroundings: detail, hint, context.
        if let Some(at) = old_errors.iter().position(|other| other.text == error.text) {
            old_errors.remove(at);
            differences.add(Kind::Message);
            continue;
        }
        failed = true;
        // It stands in the place of the control's.
        if !old_errors.is_empty() {
            old_errors.remove(0);
        }
        let text = &error.text;
        let kind = match () {
            () if is_loss(text) => Kind::Crash,
            () if is_stop(text) => Kind::Hang,
            () if is_refusal(text) => Kind::Refused,
            () if follows(text) && troubled => Kind::Cascade,
            () => Kind::Error,
        };
        differences.error(kind, error);
    }
    for error in &old_errors {
        if differences.errors.len() < 3 {
            differences.errors.push(format!("missing: {}", error.text));
        }
        differences.add(Kind::MissingError);
    }
    if failed {
        notes.follow += old_notes.len().max(new_notes.len());
    }
    notes.old.extend(old_notes);
    notes.new.extend(new_notes);
    failed
}

fn compare_tables(
    old: Vec<Table>,
    new: Vec<Table>,
    statement: &str,
    failed: bool,
    differences: &mut Differences,
) {
    let (old, new, moved) = apart(old, new);
    for _ in 0..moved {
        differences.add(Kind::Order);
    }
    for at in 0..old.len().max(new.len()) {
        let kind = match (old.get(at), new.get(at)) {
            (Some(old), Some(new)) => compare_table(old, new, statement),
            (Some(_), None) if failed => Kind::Cascade,
            // The missing error has been counted, or another table was lost.
            (None, Some(_)) if differences.kinds.contains_key(&Kind::MissingError) => continue,
            (Some(table), None) | (None, Some(table)) if table.is_plan() => Kind::Plan,
            _ => Kind::Rows,
        };
        differences.add(kind);
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// Whether a text holds something like `(0,1)`.
fn holds_tid(text: &str) -> bool {
    text.split('(').skip(1).any(|rest| {
        let Some((inside, _)) = rest.split_once(')') else {
            return false;
        };
        inside.split_once(',').is_some_and(|(block, offset)| {
            block.parse::<u32>().is_ok() && offset.parse::<u16>().is_ok()
        })
    })
}

fn compare_table(old: &Table, new: &Table, statement: &str) -> Kind {
    const SYSTEM: [&str; 6] = ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];
    if old.is_plan() || new.is_plan() {
        return Kind::Plan;
    }
    let sorted = |table: &Table| {
        let mut rows = table.rows.clone();
        rows.sort();
        rows
    };
    if old.header == new.header && sorted(old) == sorted(new) {
        return Kind::Order;
    }
    let mentions = |names: &[&str]| {
        words(&old.header)
            .chain(words(statement))
            .any(|word| names.iter().any(|name| word.eq_ignore_ascii_case(name)))
    };
    let tids = old.rows.iter().chain(&new.rows).any(|row| holds_tid(row));
    let in_header = words(&old.header).any(|word| SYSTEM.contains(&word));
    if in_header || mentions(&["ctid"]) || (tids && mentions(&SYSTEM)) {
        return Kind::Ctid;
    }
    let sizes = words(&old.header).chain(words(statement)).any(|word| {
        let word = word.to_ascii_lowercase();
        word.ends_with("_size")
            || word.starts_with("pg_stat")
            || word.starts_with("pg_size")
            || matches!(
                word.as_str(),
                "relpages" | "reltuples" | "relallvisible" | "blks"
            )
    });
    // What EXPLAIN counts of the storage's pages.
    let counters = statement.contains("Heap Fetches") || statement.contains("BUFFERS");
    if sizes || counters {
        Kind::Size
    } else {
        Kind::Rows
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const CONTROL_TEXT: &str = "\
select a, b from t;
 a |  b
---+-----
 1 | one
 2 | two
(2 rows)

explain (costs off) select * from t;
   QUERY PLAN   \x20
-----------------
 Seq Scan on t
(1 row)

insert into t values (1);
ERROR:  duplicate key value violates unique constraint \"t_pkey\"
DETAIL:  Key (a)=(1) already exists.
select ctid from t;
 ctid \x20
-------
 (0,1)
(1 row)

select pg_relation_size('t');
 pg_relation_size\x20
------------------
             8192
(1 row)

\\d t
Indexes:
    \"t_pkey\" PRIMARY KEY, btree (a)
drop table t;
";

    /// The kinds after one replacement in the control's text.
    fn planted(from: &str, to: &str) -> Vec<Kind> {
        assert!(CONTROL_TEXT.contains(from), "nothing to replace: {from}");
        let text = CONTROL_TEXT.replacen(from, to, 1);
        compare(CONTROL_TEXT, &text, "iot")
            .kinds
            .into_keys()
            .collect()
    }

    #[test]
    fn equal_outputs_do_not_differ() {
        assert_eq!(compare(CONTROL_TEXT, CONTROL_TEXT, "iot").worst(), None);
    }

    #[test]
    fn each_planted_difference_gets_its_kind() {
        assert_eq!(
            planted(" 1 | one\n 2 | two\n", " 2 | two\n 1 | one\n"),
            [Kind::Order]
        );
        assert_eq!(
            planted(" 2 | two\n(2 rows)", " 3 | two\n(2 rows)"),
            [Kind::Rows]
        );
        assert_eq!(planted(" 2 | two\n(2 rows)", "(1 row)"), [Kind::Rows]);
        assert_eq!(
            planted(" Seq Scan on t\n", " Index Scan using t_pkey on t\n"),
            [Kind::Plan]
        );
        assert_eq!(planted(" (0,1)", " (808544402,3)"), [Kind::Ctid]);
        assert_eq!(
            planted("             8192", "            16384"),
            [Kind::Size]
        );
        assert_eq!(planted("btree (a)", "rowref (a)"), [Kind::Names]);
        assert_eq!(
            planted("    \"t_pkey\" PRIMARY KEY, btree (a)\n", ""),
            [Kind::Text]
        );
        assert_eq!(
            planted("DETAIL:  Key (a)=(1) already exists.\n", ""),
            [Kind::Message]
        );
        assert_eq!(
            planted(
                "ERROR:  duplicate key value violates unique constraint \"t_pkey\"\nDETAIL:  Key (a)=(1) already exists.\n",
                ""
            ),
            [Kind::MissingError]
        );
        assert_eq!(
            planted(
                "duplicate key value violates unique constraint \"t_pkey\"",
                "cache lookup failed"
            ),
            [Kind::Error]
        );
        assert_eq!(
            planted("drop table t;\n", "drop table t;\nERROR:  something new\n"),
            [Kind::Error]
        );
        assert_eq!(
            planted(
                "drop table t;\n",
                "drop table t;\nserver closed the connection unexpectedly\n"
            ),
            [Kind::Crash]
        );
        assert_eq!(
            planted(
                "drop table t;\n",
                "drop table t;\nERROR:  canceling statement due to user request\n"
            ),
            [Kind::Hang]
        );
        assert_eq!(compare(CONTROL_TEXT, "", "iot").worst(), Some(Kind::Crash));
    }

    #[test]
    fn a_refusal_and_what_follows_from_it_are_no_plain_errors() {
        let control = "\
create index i on t (a);
select * from v;
 a
---
 1
(1 row)

drop index i;
";
        let printed = "\
create index i on t (a);
ERROR:  pg_rowref does not support \"gin\" indexes on iot and lsm tables
HINT:  Use a btree index.
select * from v;
ERROR:  relation \"v\" does not exist
LINE 1: select * from v;
                      ^
drop index i;
ERROR:  index \"i\" does not exist
";
        let found = compare(control, printed, "iot");
        let kinds: Vec<Kind> = found.kinds.keys().copied().collect();
        assert_eq!(kinds, [Kind::Cascade, Kind::Refused]);
        assert_eq!(found.kinds[&Kind::Refused], 1);
    }

    #[test]
    fn notices_in_another_order_are_a_matter_of_order() {
        let control = "NOTICE:  one\nselect 1;\nNOTICE:  two\nselect 2;\nNOTICE:  three\n";
        let printed = "select 1;\nNOTICE:  two\nselect 2;\nNOTICE:  three\nNOTICE:  one\n";
        let found = compare(control, printed, "iot");
        assert_eq!(found.kinds, BTreeMap::from([(Kind::Order, 1)]));
        let found = compare(control, "select 1;\nNOTICE:  two\nselect 2;\n", "iot");
        assert_eq!(found.kinds, BTreeMap::from([(Kind::Message, 2)]));
    }
}
