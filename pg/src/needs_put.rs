//! Which indexes an updated row needs a new entry in: found by the table AM,
//! which compares the old row with the new one, and asked for by `aminsert`,
//! which core calls for every index or for none (rule 12).
//!
//! Kept by the new version's handle, not as "the last update": an index's
//! expressions may run other statements between the table's write and the
//! index's. A few updates are remembered. Who finds nothing about his row puts
//! an entry, which is right for an insertion and harmless for an update: an
//! entry that is there already is put once more.

use std::cell::RefCell;

use pgrx::pg_sys;

/// Updates that are remembered: one for each that an expression's function
/// makes while another row's index entries are being made.
const NOTES_MAX: usize = 16;

#[derive(Default)]
struct Notes {
    /// In use from the back; the oldest is overwritten.
    notes: Vec<Note>,
    next: usize,
}

struct Note {
    handle: pg_sys::ItemPointerData,
    indexes: Vec<pg_sys::Oid>,
}

thread_local! {
    static NOTES: RefCell<Notes> = RefCell::default();
}

fn same(left: &pg_sys::ItemPointerData, right: &pg_sys::ItemPointerData) -> bool {
    (left.ip_blkid.bi_hi, left.ip_blkid.bi_lo, left.ip_posid)
        == (right.ip_blkid.bi_hi, right.ip_blkid.bi_lo, right.ip_posid)
}

/// Notes that of all indexes only these need an entry of an updated row.
pub fn note(handle: pg_sys::ItemPointerData, indexes: impl Iterator<Item = pg_sys::Oid>) {
    NOTES.with_borrow_mut(|notes| {
        if notes.notes.len() < NOTES_MAX {
            notes.notes.push(Note {
                handle,
                indexes: indexes.collect(),
            });
            return;
        }
        let next = notes.next;
        notes.next = (next + 1) % NOTES_MAX;
        let note = &mut notes.notes[next];
        note.handle = handle;
        note.indexes.clear();
        note.indexes.extend(indexes);
    });
}

/// Whether an index needs an entry of the row with this handle.
#[inline]
pub fn needs_put(handle: pg_sys::ItemPointerData, index: pg_sys::Oid) -> bool {
    NOTES.with_borrow(|notes| {
        notes
            .notes
            .iter()
            .find(|note| same(&note.handle, &handle))
            .is_none_or(|note| note.indexes.contains(&index))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(offset: u16) -> pg_sys::ItemPointerData {
        pg_sys::ItemPointerData {
            ip_blkid: pg_sys::BlockIdData { bi_hi: 1, bi_lo: 2 },
            ip_posid: offset,
        }
    }

    #[test]
    fn an_update_tells_its_indexes_and_one_that_is_forgotten_puts_everywhere() {
        let oid = pg_sys::Oid::from;
        for number in 1..=NOTES_MAX as u16 + 3 {
            note(handle(number), [oid(u32::from(number))].into_iter());
            assert!(needs_put(handle(number), oid(number.into())));
            assert!(!needs_put(handle(number), oid(9999)));
        }
        // Never noted, and forgotten.
        assert!(needs_put(handle(1000), oid(9999)));
        assert!(needs_put(handle(1), oid(9999)));
    }
}
