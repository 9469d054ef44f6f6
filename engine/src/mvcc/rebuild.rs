//! Writing a store anew, bottom-up and compact, with the histories that
//! somebody may still need: CLUSTER and VACUUM FULL.

use super::histories::{History, Kept};
use super::{Transactions, Versioned};
use crate::btree::Bulk;
use crate::compare::Compare;
use crate::error::Result;
use crate::page::cell::{EntryKind, Head, bit};
use crate::store::PageStore;
use crate::types::Xid;

/// What a rebuild kept and left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rebuilt {
    /// Rows that the newest version of their key is.
    pub live: u64,
    /// Entries kept that are no live row.
    pub dead: u64,
    /// Entries left behind.
    pub removed: u64,
    /// The oldest transaction id kept unfrozen.
    pub oldest_xid: Option<Xid>,
}

impl Rebuilt {
    /// Counts an entry that is kept, which may be a live row.
    pub fn count(&mut self, head: Head, is_live: bool) {
        if !head.has(bit::FROZEN) {
            self.oldest_xid = Some(match self.oldest_xid {
                Some(oldest) if oldest.precedes(head.xmin) => oldest,
                _ => head.xmin,
            });
        }
        if is_live {
            self.live += 1;
        } else {
            self.dead += 1;
        }
    }
}

impl<S: PageStore, C: Compare, T: Transactions> Versioned<'_, S, C, T> {
    /// Adds every entry that is to be kept to `bulk`, in order. Nobody may
    /// write meanwhile. `convert` is given key and body of each row that is
    /// kept, and may want another body; it and `pause`, between leaves, are
    /// called with no lock held.
    pub fn rebuild<N: PageStore, D: Compare>(
        &self,
        bulk: &mut Bulk<'_, N, D>,
        mut convert: impl FnMut(&[u8], &[u8]) -> Option<Vec<u8>>,
        pause: impl FnMut(),
    ) -> Result<Rebuilt> {
        let mut rebuilt = Rebuilt::default();
        let mut heads = Kept::default();
        self.each_history(pause, |history| {
            history.kept(self.transactions, &mut heads);
            keep(history, &heads, bulk, &mut rebuilt, &mut convert)
        })?;
        bulk.state_horizon(heads.horizon());
        Ok(rebuilt)
    }
}

/// Adds what is to be kept of one key's history.
fn keep<N: PageStore, D: Compare>(
    history: &History,
    heads: &[Option<Head>],
    bulk: &mut Bulk<'_, N, D>,
    rebuilt: &mut Rebuilt,
    convert: &mut impl FnMut(&[u8], &[u8]) -> Option<Vec<u8>>,
) -> Result<()> {
    let mut newest = true;
    for (head, (_, body)) in heads.iter().zip(history.entries()) {
        let Some(head) = *head else {
            rebuilt.removed += 1;
            continue;
        };
        rebuilt.count(head, head.kind() == EntryKind::Put && newest);
        newest &= !head.is_version();
        let converted = match head.kind() {
            EntryKind::Put => convert(&history.key, body),
            _ => None,
        };
        bulk.add(head, &history.key, converted.as_deref().unwrap_or(body))?;
    }
    Ok(())
}
