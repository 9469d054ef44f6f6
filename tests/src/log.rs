//! Reading a server's log: which lines nobody announced?

/// Lines of `log` that report a warning, a panic, a failed assertion or a
/// process killed by a signal, and contain none of the `announced` texts.
///
/// A log line starts with `… [pid] SEVERITY:  `; continuation lines and the
/// STATEMENT that caused a message may quote anything and are not judged.
pub fn complaints(log: &str, announced: &[String]) -> Vec<String> {
    log.lines()
        .filter(|line| is_complaint(line))
        .filter(|line| !announced.iter().any(|text| line.contains(text.as_str())))
        .map(str::to_owned)
        .collect()
}

fn is_complaint(line: &str) -> bool {
    if line.starts_with("TRAP:") || line.starts_with("thread '") {
        return true;
    }
    let Some((_, message)) = line.split_once("] ") else {
        return false;
    };
    message.starts_with("WARNING:")
        || message.starts_with("PANIC:")
        || (message.starts_with("LOG:") && message.contains("was terminated by signal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-01-01 00:00:00.000 UTC [7] LOG:  database system is ready
2026-01-01 00:00:00.000 UTC [8] WARNING:  page is odd
2026-01-01 00:00:00.000 UTC [8] STATEMENT:  select 'WARNING:'
\tWARNING: a quoted line
2026-01-01 00:00:00.000 UTC [7] LOG:  server process (PID 8) was terminated by signal 9: Killed
2026-01-01 00:00:00.000 UTC [7] PANIC:  block 3
TRAP: FailedAssertion
";

    #[test]
    fn every_severe_line_is_a_complaint_and_quoted_text_is_not() {
        let found = complaints(LOG, &[]);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[0].contains("page is odd") && found[3].starts_with("TRAP"));
    }

    #[test]
    fn an_announced_line_is_no_complaint() {
        let announced = vec!["was terminated by signal 9".to_owned()];
        assert_eq!(complaints(LOG, &announced).len(), 3);
    }
}
