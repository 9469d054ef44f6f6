//! Random statements, on a table with indexes and on its twin in heap: the same
//! outcome each time, and the same rows by every way to read, also under a
//! snapshot from before.

use std::fmt::Write;

use anyhow::Result;
use postgres::{Client, SimpleQueryMessage};
use rowref_tests::{Cluster, Options, access_method, needs_extension, verify::verify};

/// Columns that make the primary key, with the type of the first.
const KEYS: [(&str, &str); 6] = [
    ("int", "primary key (id)"),
    ("numeric", "primary key (id)"),
    ("text collate nocase", "primary key (id)"),
    ("int", "primary key (id, k)"),
    ("int", "primary key (id) include (a)"),
    ("int", "unique (u, k)"),
];

/// `@` is the table.
const INDEXES: [&str; 10] = [
    "create index @_a on @ (a)",
    "create index @_na on @ (n desc nulls last, a) include (t)",
    "create index @_t on @ (t)",
    "create index @_e on @ (coded(t, a), k)",
    "create index @_p on @ (a, k) where n > 2",
    "create index @_pe on @ (k) where lower(t) > 'm' or a is null",
    "create unique index @_u on @ (u)",
    "create index @_g on @ (g, a desc)",
    "create unique index @_d on @ (u, k) nulls not distinct where k = 3",
    "alter table @ add constraint @_late unique (d) deferrable initially deferred",
];

/// Settings of sequential, index, index-only and bitmap scans.
const WAYS: [&str; 4] = [
    "on off off off",
    "off on off off",
    "off on on off",
    "off off off on",
];

struct Twins {
    random: fastrand::Rng,
    key: &'static str,
    log: Vec<String>,
}

impl Twins {
    fn pick<'c>(&mut self, choices: &[&'c str]) -> &'c str {
        choices[self.random.usize(0..choices.len())]
    }

    fn id(&mut self) -> String {
        let number = self.random.u8(0..80);
        match self.key {
            "numeric" => format!("{number}{}", self.pick(&["", ".0", ".00"])),
            "int" => number.to_string(),
            _ => format!("'{}{number}'", self.pick(&["k", "K"])),
        }
    }

    fn value(&mut self, column: char) -> String {
        if self.random.u8(0..7) == 0 {
            return "null".into();
        }
        match column {
            'a' => self.random.u8(0..25).to_string(),
            'n' => {
                let digits = self.pick(&["", ".0", ".00", ".5"]);
                format!("{}{digits}", self.random.u8(0..6))
            }
            'u' => self.random.u8(0..60).to_string(),
            _ => format!(
                "'{}{}'",
                self.pick(&["a", "A", "m", "z", "Z", "ss", ""]),
                self.pick(&["", "x", "X"])
            ),
        }
    }

    fn wide(&mut self) -> String {
        let length = self.pick(&["1", "200", "1500", "9000"]);
        format!(
            "(select left(string_agg(md5(({} + s)::text), ''), {length}) from generate_series(1, 300) s)",
            self.random.u8(0..9)
        )
    }

    fn row(&mut self) -> String {
        let (id, a, n, t) = (self.id(), self.value('a'), self.value('n'), self.value('t'));
        let (w, u) = (self.wide(), self.value('u'));
        let (k, d) = (self.random.u8(0..5), self.random.u16(0..300));
        format!(
            "insert into @ (id, k, a, n, t, w, u, d) values ({id}, {k}, {a}, {n}, {t}, {w}, {u}, {d})"
        )
    }

    fn condition(&mut self) -> String {
        let (low, high) = (self.random.u8(0..12), self.random.u8(8..25));
        match self.random.u8(0..12) {
            0..4 => format!("id = {}", self.id()),
            4 => format!("a between {low} and {high}"),
            5 => format!("a is null or n = {}", low / 2),
            6 => format!("n > {} and a < {high}", low / 2),
            7 => format!("t = {}", self.value('t')),
            8 => format!("lower(t) > 'm' or a is null and k < {}", low / 3),
            9 => format!("u in ({low}, {high}, 40)"),
            10 => format!("k = 3 and n > 2 and a >= {low}"),
            _ => format!(
                "coded(t, a) = '{}{}' or g > {}",
                self.pick(&["a", "zx", "m"]),
                low % 5,
                high * 2
            ),
        }
    }

    fn assignment(&mut self) -> String {
        let column = ['a', 'n', 't'][self.random.usize(0..3)];
        format!("{column} = {}", self.value(column))
    }

    fn statement(&mut self) -> String {
        let (condition, assignment) = (self.condition(), self.assignment());
        match self.random.u8(0..20) {
            0..5 => self.row(),
            5..8 => format!("update @ set {assignment} where {condition}"),
            8 => format!("update @ set w = {} where {condition}", self.wide()),
            9..11 => format!(
                "update @ set u = {}, d = d + 1 where id = {}",
                self.value('u'),
                self.id()
            ),
            11 => format!("update @ set id = {} where id = {}", self.id(), self.id()),
            12..14 => format!("delete from @ where {condition}"),
            14..16 => format!("{} on conflict do nothing", self.row()),
            16 => format!(
                "{} on conflict (u) do update set {assignment}, w = excluded.w",
                self.row()
            ),
            17 => format!(
                "merge into @ using (values ({}, {}::int)) v (id, a) on @.id = v.id when matched and @.a < 9 then delete when matched then update set a = v.a when not matched then insert (id, a, t) values (v.id, v.a, 'new')",
                self.id(),
                self.value('a')
            ),
            18 => format!(
                "do $$ begin begin update @ set a = 99, t = 'gone' where {condition}; raise 'back'; exception when raise_exception then null; end; update @ set {assignment} where id = {}; end $$",
                self.id()
            ),
            _ => {
                "update @ set a = other.a + 1 from (select k, min(a) as a from @ group by k) other \
                  where other.k = @.k and @.a < 9"
                    .into()
            }
        }
    }

    /// Says a statement to both; each must answer alike. One that either
    /// refuses is undone in both. Whether they did it.
    fn say(&mut self, client: &mut Client, statement: &str) -> Result<bool> {
        client.batch_execute("savepoint twins")?;
        let mut answers = Vec::new();
        for table in ["i", "h"] {
            let statement = statement.replace('@', table);
            self.log.push(statement.clone());
            answers.push(match client.simple_query(&statement) {
                Ok(messages) => Ok(messages.iter().find_map(|message| match message {
                    SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
                    _ => None,
                })),
                Err(error) => {
                    client.batch_execute("rollback to twins")?;
                    Err(error.code().map(|code| code.code().to_owned()))
                }
            });
        }
        assert_eq!(answers[0], answers[1], "{}", self.story(statement));
        if answers[1].is_err() {
            client.batch_execute("rollback to twins")?;
        }
        client.batch_execute("release twins")?;
        Ok(answers[1].is_ok())
    }

    /// The same rows, by every way to read.
    fn compare(&mut self, client: &mut Client) -> Result<()> {
        let condition = self.condition();
        let columns = self.pick(&[
            "id, k, a, n, t, w, g, u, d",
            "id, a",
            "n, a, t",
            "u",
            "g, a",
            "k, id",
            "d",
        ]);
        let order = self.pick(&[
            "a",
            "a desc",
            "n desc nulls last, a",
            "t",
            "u",
            "g, a desc",
            "id",
            "id desc",
        ]);
        let key = self.key;
        let query = |table: &str, way: &str| {
            let mut query = String::new();
            for (name, value) in ["seqscan", "indexscan", "indexonlyscan", "bitmapscan"]
                .iter()
                .zip(way.split(' '))
            {
                let _ = write!(query, "set enable_{name} = {value}; ");
            }
            // The rows as a set, and what they are ordered by in order; as far
            // as equal values may differ, that does not count.
            let column = order.split([' ', ',']).next().unwrap_or(order);
            let same = match column {
                "n" => "trim_scale(n)::text".to_owned(),
                "id" if key == "numeric" => "trim_scale(id)::text".to_owned(),
                _ => format!("lower({column}::text)"),
            };
            let _ = write!(
                query,
                "select md5(string_agg(r, '|' order by r)), md5(string_agg(o, '|' order by place))
                 from (select row({columns})::text as r, {same} as o, row_number() over () as place
                       from (select * from {table} where {condition} order by {order}) rows) listed"
            );
            query
        };
        let mut ask = |table: &str, way: &str| -> Result<Vec<Option<String>>> {
            let messages = client.simple_query(&query(table, way))?;
            let row = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(
                    [row.get(0), row.get(1)]
                        .map(|text| text.map(str::to_owned))
                        .to_vec(),
                ),
                _ => None,
            });
            Ok(row.unwrap_or_default())
        };
        let expected = ask("h", WAYS[0])?;
        for way in WAYS {
            assert_eq!(ask("i", way)?, expected, "{}", self.story(&query("i", way)));
        }
        client.batch_execute("reset enable_seqscan; reset enable_indexscan; reset enable_indexonlyscan; reset enable_bitmapscan")?;
        Ok(())
    }

    fn story(&self, last: &str) -> String {
        let from = self.log.len().saturating_sub(30);
        format!("{}\n-- at last: {last}", self.log[from..].join(";\n"))
    }
}

fn live(cluster: &Cluster, seed: usize) -> Result<()> {
    let database = format!("twins{seed}");
    cluster
        .connect("postgres")?
        .batch_execute(&format!("create database {database}"))?;
    if needs_extension(&access_method()) {
        cluster.create_extension(&database)?;
    }
    let mut client = cluster.connect(&database)?;
    let (key, constraint) = KEYS[seed % KEYS.len()];
    let mut twins = Twins {
        random: fastrand::Rng::with_seed(seed as u64),
        key: key.split(' ').next().unwrap_or(key),
        log: Vec::new(),
    };
    client.batch_execute(
        "create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         create function coded(text, int) returns text immutable language plpgsql as
           'begin return lower($1) || $2 % 5; end'",
    )?;
    let collation = ["\"C\"", "nocase"][seed / KEYS.len() % 2];
    for (table, method) in [("i", access_method()), ("h", "heap".into())] {
        client.batch_execute(&format!(
            "create table {table} (gone int, id {key} not null, k int not null default 0, a int,
               n numeric, t text collate {collation}, w text, u int, d int,
               g int generated always as (a * 2) stored, {constraint}) using {method};
             alter table {table} drop column gone;
             create unique index {table}_u on {table} (u)"
        ))?;
    }
    let mut indexes = vec![6];
    let mut before: Option<Client> = None;
    for step in 0..80 {
        let nth = twins.random.usize(0..INDEXES.len());
        match twins.random.u8(0..40) {
            0..3 if before.is_none() && !indexes.contains(&nth) => {
                client.batch_execute("begin")?;
                if twins.say(&mut client, INDEXES[nth])? {
                    indexes.push(nth);
                }
                client.batch_execute("commit")?;
            }
            3 => client.batch_execute("vacuum i")?,
            4 if before.is_none() => client.batch_execute("reindex table i")?,
            5..7 if before.is_none() => {
                let mut old = cluster.connect(&database)?;
                old.batch_execute("begin isolation level repeatable read; select from h limit 1")?;
                before = Some(old);
            }
            5..8 => {
                if let Some(mut old) = before.take() {
                    for _ in 0..6 {
                        twins.compare(&mut old)?;
                    }
                }
            }
            _ => {
                client.batch_execute("begin")?;
                for _ in 0..twins.random.u8(1..6) {
                    let statement = twins.statement();
                    if twins.random.u8(0..4) == 0 {
                        client.batch_execute("savepoint back")?;
                        twins.say(&mut client, &statement)?;
                        client.batch_execute("rollback to back")?;
                        twins.log.push("rollback to back".into());
                    } else {
                        twins.say(&mut client, &statement)?;
                    }
                }
                // What is deferred is checked in one and the other.
                twins.say(&mut client, "set constraints @_late immediate")?;
                let end = twins.pick(&["commit", "commit", "commit", "rollback"]);
                twins.log.push(end.into());
                // It may be violated, in both at once.
                let _ = client.batch_execute(end);
                twins.compare(&mut client)?;
            }
        }
        if step % 40 == 39 && needs_extension(&access_method()) {
            assert_eq!(
                verify(&mut client, "i")?,
                Vec::<String>::new(),
                "{}",
                twins.story("verify")
            );
        }
    }
    Ok(())
}

#[test]
fn a_table_with_indexes_answers_as_its_twin_in_heap() -> Result<()> {
    let cluster = Cluster::start(Options::test())?;
    for seed in 0..2 * KEYS.len() {
        live(&cluster, seed)?;
    }
    cluster.finish()
}
