//! What sessions did and what they were told, with the order in time of
//! questions and answers.

/// A row's key.
pub type Key = i32;
/// What a write stored. No two writes store the same.
pub type Value = i64;
/// A moment: a number that grows, whoever asks for it.
pub type Tick = u64;

/// An isolation level.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// READ COMMITTED.
    ReadCommitted,
    /// REPEATABLE READ, which is snapshot isolation.
    RepeatableRead,
    /// SERIALIZABLE.
    Serializable,
}

impl Level {
    /// All of them, weakest first.
    pub const ALL: [Level; 3] = [
        Level::ReadCommitted,
        Level::RepeatableRead,
        Level::Serializable,
    ];

    /// As SQL has it.
    pub fn sql(self) -> &'static str {
        match self {
            Level::ReadCommitted => "read committed",
            Level::RepeatableRead => "repeatable read",
            Level::Serializable => "serializable",
        }
    }
}

/// One thing that a statement found out or did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// A key had this value, or no row.
    Read(Key, Option<Value>),
    /// A statement that waits for others found no row. At READ COMMITTED that
    /// says little: it goes by the row that its snapshot had, and looks at what
    /// became of that one alone.
    Missed(Key),
    /// Of the keys from the first to before the second, these had rows.
    Scan(Key, Key, Vec<(Key, Value)>),
    /// A key got a value, or lost its row, in place of another or of none.
    Write {
        /// Which key.
        key: Key,
        /// What it replaced.
        over: Option<Value>,
        /// What it has now.
        value: Option<Value>,
    },
}

/// A thing, and when its statement was sent and answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Action {
    /// Before the statement was sent.
    pub asked: Tick,
    /// After its answer had come.
    pub answered: Tick,
    /// What it was.
    pub what: What,
    /// The savepoint that it came behind and that was rolled back, if any:
    /// they are numbered from 1 in each transaction.
    pub undone: Option<u32>,
}

/// One transaction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transaction {
    /// Before its first statement was sent: its snapshot is no older.
    pub begun: Tick,
    /// What it did.
    pub actions: Vec<Action>,
    /// Whether it committed; else it had no effect.
    pub committed: bool,
    /// After its end was acknowledged.
    pub ended: Tick,
}

/// All transactions, and what stood in the table before the first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// Rows at the start.
    pub initial: Vec<(Key, Value)>,
    /// In no order.
    pub transactions: Vec<Transaction>,
}
