//! What one client knows about its own rows.

use std::collections::BTreeMap;

/// A row's place: table and key.
pub type Place = (&'static str, String);
/// Rows by place; a row is its value and its padding's length.
pub type Rows = BTreeMap<Place, (i64, usize)>;

/// The acknowledged state of a client's rows, and what the transaction in
/// flight would make of them.
pub struct Model {
    /// Number of the client, the `client` column of its rows.
    pub client: usize,
    /// After the last acknowledged commit.
    pub rows: Rows,
    /// After the commit that was sent and not answered.
    pub in_flight: Option<Rows>,
    /// Acknowledged commits.
    pub commits: u64,
    /// Next number for `log`.
    pub sequence: u64,
}

impl Model {
    /// A client without rows.
    pub fn new(client: usize) -> Model {
        Model {
            client,
            rows: Rows::new(),
            in_flight: None,
            commits: 0,
            sequence: 0,
        }
    }

    /// Compares with what the server has, and goes on from there.
    pub fn reconcile(&mut self, found: Rows) -> Result<(), String> {
        let in_flight = self.in_flight.take();
        if found == self.rows {
            return Ok(());
        }
        if in_flight.as_ref() == Some(&found) {
            self.rows = found;
            return Ok(());
        }
        let mut lines = vec![format!(
            "client {}: the server has neither the acknowledged state ({} commits) nor that of the commit in flight ({})",
            self.client,
            self.commits,
            if in_flight.is_some() {
                "there was one"
            } else {
                "there was none"
            }
        )];
        let places: std::collections::BTreeSet<&Place> =
            self.rows.keys().chain(found.keys()).collect();
        for place in places {
            let (known, there) = (self.rows.get(place), found.get(place));
            if known != there {
                lines.push(format!(
                    "  {} {:?}: acknowledged {known:?}, in flight {:?}, found {there:?}",
                    place.0,
                    place.1,
                    in_flight.as_ref().map(|rows| rows.get(place))
                ));
            }
        }
        lines.truncate(40);
        Err(lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(list: &[(&str, i64)]) -> Rows {
        list.iter()
            .map(|(key, value)| (("t", (*key).to_owned()), (*value, 0)))
            .collect()
    }

    #[test]
    fn only_the_acknowledged_state_or_the_whole_commit_in_flight_is_accepted() {
        let mut model = Model::new(0);
        model.rows = rows(&[("a", 1), ("b", 1)]);
        for (found, accepted) in [
            (rows(&[("a", 1), ("b", 1)]), true),
            (rows(&[("a", 2), ("b", 2)]), true),
            (rows(&[("a", 2), ("b", 1)]), false),
            (rows(&[("a", 1)]), false),
        ] {
            model.rows = rows(&[("a", 1), ("b", 1)]);
            model.in_flight = Some(rows(&[("a", 2), ("b", 2)]));
            assert_eq!(model.reconcile(found).is_ok(), accepted);
        }
    }

    #[test]
    fn a_commit_that_was_never_sent_is_not_accepted() {
        let mut model = Model::new(0);
        assert!(model.reconcile(rows(&[("a", 1)])).is_err());
    }
}
