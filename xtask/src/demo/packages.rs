//! Debian's package index as rows.

use std::collections::HashSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Rows in COPY's text format, and their keys.
pub struct Index {
    /// Where it came from.
    pub source: &'static str,
    /// `package, architecture, version, …`, one line each.
    pub packages: Vec<String>,
    /// `package, architecture, version, kind, position, alternative, …`.
    pub dependencies: Vec<String>,
}

/// Number of key columns of a package.
pub const PACKAGE_KEY: usize = 3;
/// Number of key columns of a dependency.
pub const DEPENDENCY_KEY: usize = 6;

/// Columns of the packages table.
pub const PACKAGE_COLUMNS: &str = "package text, architecture text, version text, section text, \
     priority text, maintainer text, installed_size bigint not null, size bigint not null, \
     description text, sha256 text, primary key (package, architecture, version)";

/// Columns of the dependencies table.
pub const DEPENDENCY_COLUMNS: &str = "package text, architecture text, version text, kind text, \
     position int, alternative int, target text not null, requirement text, \
     primary key (package, architecture, version, kind, position, alternative)";

const KINDS: [&str; 9] = [
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Suggests",
    "Enhances",
    "Breaks",
    "Conflicts",
    "Replaces",
    "Provides",
];

/// The first `columns` columns of a line: its key.
pub fn key(line: &str, columns: usize) -> &str {
    match line.match_indices('\t').nth(columns - 1) {
        Some((end, _)) => &line[..end],
        None => line,
    }
}

/// Reads apt's index, or dpkg's list of installed packages where apt has none.
pub fn read() -> Result<Index> {
    let output = Command::new("apt-cache")
        .arg("dumpavail")
        .output()
        .context("running apt-cache")?;
    let available = String::from_utf8_lossy(&output.stdout);
    // Without lists, apt-cache prints what dpkg knows, or nothing.
    if available.matches("\nPackage: ").count() > 5000 {
        return parse("apt-cache dumpavail", &available);
    }
    let status = std::fs::read("/var/lib/dpkg/status").context("reading dpkg's status")?;
    parse("/var/lib/dpkg/status", &String::from_utf8_lossy(&status))
}

fn parse(source: &'static str, text: &str) -> Result<Index> {
    let mut index = Index {
        source,
        packages: Vec::new(),
        dependencies: Vec::new(),
    };
    let mut seen = HashSet::new();
    for stanza in text.split("\n\n") {
        let fields = fields(stanza);
        let get = |name: &str| {
            fields
                .iter()
                .find(|(field, _)| field.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
        };
        let (Some(package), Some(version)) = (get("Package"), get("Version")) else {
            continue;
        };
        let key = format!(
            "{}\t{}\t{}",
            escape(package),
            escape(get("Architecture").unwrap_or("all")),
            escape(version)
        );
        if !seen.insert(key.clone()) {
            continue;
        }
        let text = |name: &str| get(name).map_or("\\N".to_owned(), escape);
        let number = |name: &str| {
            get(name)
                .and_then(|value| value.parse::<i64>().ok())
                .unwrap_or(0)
        };
        index.packages.push(format!(
            "{key}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\n",
            text("Section"),
            text("Priority"),
            text("Maintainer"),
            number("Installed-Size"),
            number("Size"),
            text("Description"),
            text("SHA256"),
        ));
        for kind in KINDS {
            let Some(value) = get(kind) else { continue };
            for (position, group) in value.split(',').enumerate() {
                for (alternative, target) in group.split('|').enumerate() {
                    let (target, requirement) = match target.split_once('(') {
                        Some((name, rest)) => {
                            (name.trim(), escape(rest.trim().trim_end_matches(')')))
                        }
                        None => (target.trim(), "\\N".to_owned()),
                    };
                    if target.is_empty() {
                        continue;
                    }
                    index.dependencies.push(format!(
                        "{key}\t{kind}\t{position}\t{alternative}\t{}\t{requirement}\n",
                        escape(target)
                    ));
                }
            }
        }
    }
    ensure!(!index.dependencies.is_empty(), "{source} holds no packages");
    Ok(index)
}

/// The fields of a stanza; continuation lines are joined.
fn fields(stanza: &str) -> Vec<(&str, String)> {
    let mut fields: Vec<(&str, String)> = Vec::new();
    for line in stanza.lines() {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name, value.trim().to_owned()));
        }
    }
    fields
}

/// COPY's text escapes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '\t' => escaped.push_str("\\t"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\0' => {}
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stanza_becomes_a_package_and_its_dependencies() {
        let text = "Package: a\nVersion: 1\nArchitecture: all\nInstalled-Size: 7\n\
                    Depends: b (>= 2) | c,\n d\nDescription: x\\y\n more\n\nPackage: b\n";
        let index = parse("test", text).unwrap();
        assert_eq!(
            index.packages,
            ["a\tall\t1\t\\N\t\\N\t\\N\t7\t0\tx\\\\y\\nmore\t\\N\n"]
        );
        assert_eq!(
            index.dependencies,
            [
                "a\tall\t1\tDepends\t0\t0\tb\t>= 2\n",
                "a\tall\t1\tDepends\t0\t1\tc\t\\N\n",
                "a\tall\t1\tDepends\t1\t0\td\t\\N\n"
            ]
        );
        assert_eq!(
            key(&index.dependencies[2], DEPENDENCY_KEY),
            "a\tall\t1\tDepends\t1\t0"
        );
    }
}
