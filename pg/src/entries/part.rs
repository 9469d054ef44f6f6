//! What one participant does: shares of the table, one after the other.

use engine::mvcc::cursor::Cursor;
use engine::mvcc::divide::Share;
use engine::mvcc::histories::Kept;
use engine::mvcc::scan::{Direction, Range};
use engine::page::cell::{EntryKind, Head};
use pgrx::pg_sys;

use super::read::Reader;
use super::{Counts, EntrySorter, Rows, Task};
use crate::error::OrRaise;
use crate::open::OpenStore;
use crate::row::IndexLayout;
use crate::xact::ServerSnapshot;

/// A participant, ready to read.
pub struct Part<'p> {
    rows: &'p OpenStore,
    reader: Reader<'p>,
    task: Task,
}

impl<'p> Part<'p> {
    /// # Safety
    /// The relations are open, `info` describes the index; under an active
    /// snapshot, if the task is to read what it sees.
    pub unsafe fn new(
        rows: &'p OpenStore,
        index: pg_sys::Relation,
        info: *mut pg_sys::IndexInfo,
        layout: &'p IndexLayout,
        task: Task,
    ) -> Part<'p> {
        // SAFETY: the caller's promise.
        let reader = unsafe { Reader::new(rows.relation(), index, info, layout, rows.layout()) };
        Part { rows, reader, task }
    }

    /// Reads every share that `next` gives, into `sorter`.
    pub unsafe fn read(
        &mut self,
        mut next: impl FnMut() -> Option<Share>,
        sorter: &mut EntrySorter<'_>,
    ) -> Counts {
        let mut counts = Counts::default();
        // SAFETY: by `new`.
        unsafe {
            match self.task.rows {
                Rows::Histories => {
                    let mut heads = Kept::default();
                    while let Some(share) = next() {
                        counts += self.read_histories(&share.range, &mut heads, sorter);
                    }
                    counts.horizon = heads.horizon();
                }
                Rows::Seen => {
                    let table = self.rows.relation();
                    let snapshot = ServerSnapshot::from_pg(pg_sys::GetActiveSnapshot(), table);
                    let mut cursor = Cursor::new(Range::default());
                    while let Some(share) = next() {
                        cursor.restart(share.range);
                        counts += self.read_seen(&mut cursor, &snapshot, sorter);
                    }
                }
            }
        }
        counts
    }

    unsafe fn read_histories(
        &mut self,
        range: &Range,
        heads: &mut Kept,
        sorter: &mut EntrySorter<'_>,
    ) -> Counts {
        let mut counts = Counts::default();
        let (rows, reader) = (self.rows, &mut self.reader);
        let read = rows.with(|versions| {
            versions.each_history_of(
                range,
                || {
                    pgrx::check_for_interrupts!();
                },
                |history| {
                    history.kept(versions.transactions, heads);
                    counts.rows += f64::from(u8::from(is_live(heads)));
                    // SAFETY: by `new`; no page is locked.
                    counts.entries += unsafe { reader.take(history, heads, sorter) };
                    Ok(())
                },
            )
        });
        // SAFETY: the table is open.
        unsafe { read.or_raise(rows.relation()) };
        counts
    }

    unsafe fn read_seen(
        &mut self,
        cursor: &mut Cursor,
        snapshot: &ServerSnapshot<'_>,
        sorter: &mut EntrySorter<'_>,
    ) -> Counts {
        let mut counts = Counts::default();
        // SAFETY: by `new`.
        unsafe {
            while self
                .rows
                .with(|versions| cursor.step(versions, snapshot, Direction::Forward))
                .or_raise(self.rows.relation())
            {
                pgrx::check_for_interrupts!();
                counts.rows += 1.0;
                let row = cursor.row().expect("the cursor stands on a row");
                let sorter = self.task.keeps.then_some(&mut *sorter);
                counts.entries += self.reader.take_seen(&row, sorter);
            }
        }
        counts
    }

    /// Lets go of what was made ready.
    pub fn end(self) {
        self.reader.end();
    }
}

/// Whether the newest version kept is a row.
fn is_live(heads: &[Option<Head>]) -> bool {
    heads
        .iter()
        .flatten()
        .find(|head| head.is_version())
        .is_some_and(|head| head.kind() == EntryKind::Put)
}
