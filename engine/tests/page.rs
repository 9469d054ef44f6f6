//! Page operations against a model: a list of entries between two fences.

mod fuzzed;

use engine::btree::Tree;
use engine::compare::{Bytewise, common_prefix_len};
use engine::mem::MemStore;
use engine::page::apply::{Scratch, apply};
use engine::page::cell::{EntryKind, Head, InnerCell, bit};
use engine::page::check::check;
use engine::page::op::{Fence, Format, Ops, Tombstone};
use engine::page::{Page, PageKind, PositionBuf, SLOT_BYTES, flag, head_of};
use engine::store::LSN_BYTES;
use engine::{BlockNumber, CommandId, Level, Sequence, SlotNumber, Xid};
use proptest::prelude::*;

const AT: BlockNumber = BlockNumber(1);
const KEY_BYTES: usize = 7;

/// An entry: of a leaf a version or lock with its body, of an inner page a
/// downlink, whose child is in `xmin`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    key: Vec<u8>,
    head: Head,
    body: Vec<u8>,
}

impl Entry {
    /// The order of entries: keys ascend, sequences descend.
    fn rank(&self) -> (Vec<u8>, std::cmp::Reverse<u64>) {
        (self.key.clone(), std::cmp::Reverse(self.head.sequence.0))
    }
}

#[derive(Clone, Debug)]
struct Model {
    leaf: bool,
    ordered: bool,
    entries: Vec<Entry>,
    prefix_len: usize,
    low: Option<PositionBuf>,
    high: Option<PositionBuf>,
}

/// What a test wants done; numbers are reduced to what fits the page.
#[derive(Clone, Debug)]
enum Wish {
    Insert {
        key: u32,
        share_key: bool,
        lock: bool,
        frozen: bool,
        body: Vec<u8>,
    },
    InsertRun {
        key: u32,
        versions: Vec<Vec<u8>>,
    },
    InsertLike {
        base: usize,
        prefix: usize,
        suffix: usize,
        middle: Vec<u8>,
        newer: bool,
    },
    Replace {
        slot: usize,
        body: Vec<u8>,
    },
    Prune {
        remove: u64,
        freeze: u64,
    },
    Confirm {
        nth: usize,
    },
    End {
        rows: u64,
        cid: u32,
    },
    Cut {
        keep: usize,
        prefix: usize,
        with_sequence: bool,
    },
    Fences {
        low: u32,
        high: u32,
        prefix: usize,
    },
    Flags {
        set: bool,
    },
}

fn wishes() -> impl Strategy<Value = Wish> {
    let body = || prop::collection::vec(any::<u8>(), 0..30);
    prop_oneof![
        4 => (any::<u32>(), any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.2), body())
            .prop_map(|(key, share_key, lock, frozen, body)| Wish::Insert { key, share_key, lock, frozen, body }),
        2 => (any::<u32>(), prop::collection::vec(body(), 1..5)).prop_map(|(key, versions)| Wish::InsertRun { key, versions }),
        3 => (any::<usize>(), any::<usize>(), any::<usize>(), body(), any::<bool>())
            .prop_map(|(base, prefix, suffix, middle, newer)| Wish::InsertLike { base, prefix, suffix, middle, newer }),
        2 => (any::<usize>(), body()).prop_map(|(slot, body)| Wish::Replace { slot, body }),
        2 => (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(a, b, freeze)| Wish::Prune { remove: a & b, freeze }),
        2 => any::<usize>().prop_map(|nth| Wish::Confirm { nth }),
        3 => (any::<u64>(), 0u32..400).prop_map(|(rows, cid)| Wish::End { rows, cid }),
        1 => (any::<usize>(), any::<usize>(), any::<bool>()).prop_map(|(keep, prefix, with_sequence)| Wish::Cut { keep, prefix, with_sequence }),
        1 => (any::<u32>(), any::<u32>(), any::<usize>()).prop_map(|(low, high, prefix)| Wish::Fences { low, high, prefix }),
        1 => any::<bool>().prop_map(|set| Wish::Flags { set }),
    ]
}

/// Keys that share long prefixes and of which none is another's prefix.
fn key(number: u32) -> Vec<u8> {
    let mut key = b"aaa".to_vec();
    for digit in 0..KEY_BYTES - 3 {
        key.push(b'b' + ((number >> (2 * digit)) & 3) as u8);
    }
    key
}

fn at(key: &[u8]) -> PositionBuf {
    PositionBuf {
        key: key.to_vec(),
        sequence: None,
    }
}

fn fence(fence: &Option<PositionBuf>) -> Fence<'_> {
    fence.as_ref().map(PositionBuf::as_ref)
}

/// The longest prefix that these fences promise.
fn promised(low: &Option<PositionBuf>, high: &Option<PositionBuf>) -> usize {
    match (low, high) {
        (Some(low), Some(high)) => common_prefix_len(&low.key, &high.key),
        _ => 0,
    }
}

impl Model {
    fn bytes(&self, page_size: usize) -> Vec<u8> {
        let mut bytes = vec![0; page_size - LSN_BYTES];
        let format = Ops::new().format(&Format {
            kind: if self.leaf {
                PageKind::Leaf
            } else {
                PageKind::Inner
            },
            level: Level(u8::from(!self.leaf)),
            flags: if self.ordered { flag::ORDERED } else { 0 },
            left: BlockNumber(7),
            right: BlockNumber::NONE,
            generation: 3,
            prefix_len: self.prefix_len as u16,
            low: fence(&self.low),
            high: fence(&self.high),
        });
        apply(&mut bytes, format.as_bytes(), &mut Scratch::new(page_size)).unwrap();
        bytes
    }

    fn cell(&self, entry: &Entry, own_key: bool) -> Vec<u8> {
        let mut cell = Vec::new();
        if self.leaf {
            let suffix = own_key.then(|| &entry.key[self.prefix_len..]);
            entry.head.encode(suffix, &entry.body, &mut cell);
        } else {
            let child = BlockNumber(entry.head.xmin.0);
            InnerCell::encode(child, at(&entry.key).as_ref(), self.prefix_len, &mut cell);
        }
        cell
    }

    fn key_in_bounds(&self, number: u32) -> Option<Vec<u8>> {
        let key = key(number);
        let low = self.low.as_ref().is_none_or(|low| low.key <= key);
        let high = self.high.as_ref().is_none_or(|high| key < high.key);
        (low && high).then_some(key)
    }

    /// Sequence of the next newer version of a key.
    fn next_sequence(&self, key: &[u8]) -> Sequence {
        let of_key = self.entries.iter().filter(|entry| entry.key == key);
        let newest = of_key.filter(|entry| !entry.head.sequence.is_lock());
        Sequence(newest.map(|entry| entry.head.sequence.0).max().unwrap_or(0) + 1)
    }

    fn slot_for(&self, entry: &Entry) -> usize {
        self.entries
            .partition_point(|there| there.rank() < entry.rank())
    }

    /// Whether the entry about to stand in `slot` can take its key from there.
    fn can_share(&self, slot: usize, key: &[u8]) -> bool {
        self.leaf && self.entries.get(slot).is_some_and(|next| next.key == key)
    }

    /// Encodes a wish and does it to the model; `None` if it makes no sense
    /// now. Also answers how many bytes it takes.
    fn carry_out(&mut self, wish: &Wish) -> Option<(Ops, usize)> {
        match wish {
            Wish::Insert {
                key,
                share_key,
                lock,
                frozen,
                body,
            } => {
                let key = self.key_in_bounds(*key)?;
                let mut head = Head {
                    flags: EntryKind::Put as u8,
                    xmin: Xid(3 + body.len() as u32),
                    cid: CommandId(300),
                    sequence: self.next_sequence(&key),
                };
                if *lock && self.leaf {
                    head.flags = EntryKind::Lock as u8;
                    head.sequence = Sequence::of_lock(head.xmin);
                } else if *frozen {
                    head.flags |= bit::FROZEN;
                    head.cid = CommandId(0);
                }
                let entry = Entry {
                    key,
                    head,
                    body: if self.leaf { body.clone() } else { Vec::new() },
                };
                let slot = self.slot_for(&entry);
                let there = self.entries.get(slot);
                if there.is_some_and(|there| there.rank() == entry.rank())
                    || (!self.leaf && there.is_some_and(|there| there.key == entry.key))
                {
                    return None;
                }
                let below = *share_key && self.can_share(slot, &entry.key);
                let cell = self.cell(&entry, !below);
                let ops = Ops::new().insert(SlotNumber(slot as u16), below, &cell);
                self.entries.insert(slot, entry);
                Some((ops, cell.len() + SLOT_BYTES))
            }
            Wish::InsertRun { key, versions } => {
                let key = self.key_in_bounds(*key)?;
                let taken = self.entries.iter().any(|entry| entry.key == key);
                if taken || (!self.leaf && versions.len() > 1) {
                    return None;
                }
                let count = versions.len() as u64;
                let entries: Vec<Entry> = versions
                    .iter()
                    .zip(0..)
                    .map(|(body, nth)| Entry {
                        key: key.clone(),
                        head: Head {
                            flags: EntryKind::Put as u8,
                            xmin: Xid(9),
                            cid: CommandId(1),
                            sequence: Sequence(count - nth),
                        },
                        body: if self.leaf { body.clone() } else { Vec::new() },
                    })
                    .collect();
                let cells: Vec<(bool, Vec<u8>)> = entries
                    .iter()
                    .map(|entry| {
                        let below = entry.head.sequence.0 > 1;
                        (below, self.cell(entry, !below))
                    })
                    .collect();
                let slot = self.slot_for(&entries[0]);
                let need = cells.iter().map(|cell| cell.1.len() + SLOT_BYTES).sum();
                let run = cells.iter().map(|(below, cell)| (*below, &cell[..]));
                let ops = Ops::new().insert_run(SlotNumber(slot as u16), run);
                self.entries.splice(slot..slot, entries);
                Some((ops, need))
            }
            Wish::InsertLike {
                base,
                prefix,
                suffix,
                middle,
                newer,
            } => {
                if !self.leaf || self.entries.is_empty() {
                    return None;
                }
                let base = base % self.entries.len();
                let like = self.entries[base].clone();
                let prefix = prefix % (like.body.len() + 1);
                let suffix = suffix % (like.body.len() - prefix + 1);
                let mut body = like.body[..prefix].to_vec();
                body.extend_from_slice(middle);
                body.extend_from_slice(&like.body[like.body.len() - suffix..]);
                let entry = Entry {
                    head: Head {
                        flags: EntryKind::Put as u8 | bit::KEYS_UPDATED | bit::SPECULATIVE,
                        xmin: Xid(5),
                        cid: CommandId(0),
                        sequence: self.next_sequence(&like.key),
                    },
                    key: like.key,
                    body,
                };
                let slot = self.slot_for(&entry);
                let below = *newer && self.can_share(slot, &entry.key);
                let header = self.cell(
                    &Entry {
                        body: Vec::new(),
                        ..entry.clone()
                    },
                    !below,
                );
                let need = header.len() + entry.body.len() + SLOT_BYTES;
                let ops = Ops::new().insert_like(
                    SlotNumber(slot as u16),
                    below,
                    SlotNumber(base as u16),
                    prefix as u16,
                    suffix as u16,
                    &header,
                    middle,
                );
                self.entries.insert(slot, entry);
                Some((ops, need))
            }
            Wish::Replace { slot, body } => {
                if self.entries.is_empty() {
                    return None;
                }
                let slot = slot % self.entries.len();
                let mut entry = self.entries[slot].clone();
                if self.leaf {
                    entry.body = body.clone();
                } else {
                    entry.head.xmin.0 += 1;
                }
                self.entries[slot] = entry;
                // The page knows whether the slot holds its key; the caller
                // encodes the cell.
                Some((Ops::new(), slot))
            }
            Wish::Prune { remove, freeze } => {
                let chosen = |bits: u64, nth: usize| bits >> (nth % 64) & 1 == 1;
                let count = self.entries.len();
                let removed: Vec<usize> = (0..count).filter(|nth| chosen(*remove, *nth)).collect();
                let frozen: Vec<usize> = (0..count)
                    .filter(|nth| self.leaf && !removed.contains(nth) && chosen(*freeze, *nth))
                    .collect();
                let numbers = |list: &[usize]| -> Vec<SlotNumber> {
                    list.iter().map(|nth| SlotNumber(*nth as u16)).collect()
                };
                let ops = Ops::new().prune(&numbers(&removed), &numbers(&frozen));
                for nth in frozen {
                    let head = &mut self.entries[nth].head;
                    if head.is_version() {
                        head.flags |= bit::FROZEN | bit::COMMITTED;
                        head.flags &= !bit::SPECULATIVE;
                        head.cid = CommandId(0);
                    }
                }
                let mut nth = 0;
                self.entries.retain(|_| {
                    nth += 1;
                    !removed.contains(&(nth - 1))
                });
                Some((ops, 0))
            }
            Wish::Confirm { nth } => {
                let speculative = |entry: &Entry| entry.head.has(bit::SPECULATIVE);
                let mut slots: Vec<usize> = (0..self.entries.len()).collect();
                slots.retain(|slot| self.leaf && speculative(&self.entries[*slot]));
                let slot = *slots.get(nth % slots.len().max(1))?;
                self.entries[slot].head.flags &= !bit::SPECULATIVE;
                Some((Ops::new().confirm(SlotNumber(slot as u16)), 0))
            }
            Wish::End { rows, cid } => {
                // The newest version of a key ends, if it is a row.
                let is_row = |nth: usize| {
                    let entry = &self.entries[nth];
                    entry.head.kind() == EntryKind::Put
                        && (nth == 0 || self.entries[nth - 1].key != entry.key)
                };
                let chosen: Vec<usize> = (0..self.entries.len())
                    .filter(|nth| self.leaf && rows >> (nth % 64) & 1 == 1 && is_row(*nth))
                    .collect();
                if chosen.is_empty() {
                    return None;
                }
                let tombstone = Tombstone {
                    flags: EntryKind::Tombstone as u8 | bit::KEYS_UPDATED,
                    xmin: Xid(12),
                    cid: CommandId(*cid),
                };
                let slots: Vec<_> = chosen.iter().map(|nth| SlotNumber(*nth as u16)).collect();
                let mut need = 0;
                for nth in chosen.into_iter().rev() {
                    let entry = Entry {
                        key: self.entries[nth].key.clone(),
                        head: tombstone.above(self.entries[nth].head.sequence).unwrap(),
                        body: Vec::new(),
                    };
                    need += self.cell(&entry, false).len() + SLOT_BYTES;
                    self.entries.insert(nth, entry);
                }
                Some((Ops::new().end(tombstone, &slots), need))
            }
            Wish::Cut {
                keep,
                prefix,
                with_sequence,
            } => {
                let keep = keep % (self.entries.len() + 1);
                let next = self.entries.get(keep)?;
                let same_key = keep > 0 && self.entries[keep - 1].key == next.key;
                let high = Some(PositionBuf {
                    key: next.key.clone(),
                    sequence: (self.leaf && (same_key || *with_sequence))
                        .then_some(next.head.sequence),
                });
                let prefix_len = prefix % (promised(&self.low, &high) + 1);
                let ops = Ops::new().cut(keep as u16, prefix_len as u16, fence(&high));
                self.entries.truncate(keep);
                (self.high, self.prefix_len) = (high, prefix_len);
                Some((ops, 0))
            }
            Wish::Fences { low, high, prefix } => {
                let first = self.entries.first().map(|entry| entry.key.clone());
                let last = self.entries.last().map(|entry| entry.key.clone());
                let low = Some(key(*low)).filter(|low| first.is_none_or(|first| *low <= first));
                let high = Some(key(*high)).filter(|high| last.is_none_or(|last| last < *high));
                if low.is_some() && high.is_some() && low >= high {
                    return None;
                }
                let (low, high) = (low.map(|key| at(&key)), high.map(|key| at(&key)));
                let prefix_len = prefix % (promised(&low, &high) + 1);
                let ops = Ops::new().fences(prefix_len as u16, fence(&low), fence(&high));
                (self.low, self.high, self.prefix_len) = (low, high, prefix_len);
                Some((ops, 0))
            }
            Wish::Flags { set } => {
                let ops = if *set {
                    Ops::new().flags(flag::ALL_FROZEN, 0)
                } else {
                    Ops::new().flags(0, flag::ALL_FROZEN)
                };
                Some((ops, 0))
            }
        }
    }

    /// The page shows exactly this model.
    fn compare(&self, bytes: &[u8]) -> Result<(), TestCaseError> {
        check(bytes, AT).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let page = Page::open(bytes, AT).unwrap();
        prop_assert_eq!(page.prefix_len(), self.prefix_len);
        prop_assert_eq!(page.low().map(|low| low.to_buf()), self.low.clone());
        prop_assert_eq!(page.high().map(|high| high.to_buf()), self.high.clone());
        prop_assert_eq!(page.slot_count(), self.entries.len());
        prop_assert_eq!(
            (page.left(), page.right(), page.generation()),
            (BlockNumber(7), BlockNumber::NONE, 3)
        );
        for (nth, entry) in self.entries.iter().enumerate() {
            let suffix = &entry.key[self.prefix_len..];
            let head = if self.ordered { head_of(suffix) } else { 0 };
            prop_assert_eq!(page.slot(nth).head, head, "head of slot {}", nth);
            if self.leaf {
                let cell = page.leaf_cell(nth, AT).unwrap();
                prop_assert_eq!(cell.head, entry.head);
                prop_assert_eq!(cell.body, &entry.body[..]);
                prop_assert_eq!(page.suffix(nth, AT).unwrap(), suffix);
                prop_assert_eq!(cell.suffix.is_none(), page.slot(nth).key_below);
            } else {
                let cell = page.inner_cell(nth, AT).unwrap();
                prop_assert_eq!(cell.child, BlockNumber(entry.head.xmin.0));
                prop_assert_eq!(cell.position.key, suffix);
            }
        }
        Ok(())
    }
}

fn models() -> impl Strategy<Value = Model> {
    (any::<bool>(), any::<bool>()).prop_map(|(leaf, ordered)| Model {
        leaf,
        ordered,
        entries: Vec::new(),
        prefix_len: 0,
        low: None,
        high: None,
    })
}

/// Carries wishes out on a page and on its model; the page in the end.
fn run(mut model: Model, wishes: &[Wish], page_size: usize) -> Result<Vec<u8>, TestCaseError> {
    let mut bytes = model.bytes(page_size);
    let mut scratch = Scratch::new(page_size);
    for wish in wishes {
        let mut after = model.clone();
        let Some((mut ops, mut need)) = after.carry_out(wish) else {
            continue;
        };
        let page = Page::open(&bytes, AT).unwrap();
        if let Wish::Replace { .. } = wish {
            let slot = need;
            let cell = after.cell(&after.entries[slot], !page.slot(slot).key_below);
            let old = page.slot(slot).length as usize;
            need = if cell.len() > old { cell.len() } else { 0 };
            ops = Ops::new().replace(SlotNumber(slot as u16), &cell);
        }
        let fits = need <= page.free();
        let mut copy = bytes.clone();
        match apply(&mut copy, ops.as_bytes(), &mut scratch) {
            Ok(()) => {
                prop_assert!(
                    fits || matches!(wish, Wish::Fences { .. } | Wish::Cut { .. }),
                    "{:?}",
                    wish
                );
                after.compare(&copy)?;
                (bytes, model) = (copy, after);
            }
            // Longer fences, a shorter prefix, and keys that are no longer
            // shared take room that these operations do not state.
            Err("no room on the page")
                if matches!(wish, Wish::Fences { .. } | Wish::Cut { .. }) => {}
            Err(mismatch) => prop_assert!(!fits, "{wish:?}: {mismatch}"),
        }
    }
    Ok(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn operations_make_of_a_page_what_the_model_says(
        model in models(), wishes in prop::collection::vec(wishes(), 1..80),
        page_size in prop::sample::select(vec![256usize, 512, 1024, 8192]),
    ) {
        run(model, &wishes, page_size)?;
    }

    #[test]
    fn apply_never_panics_on_a_page_and_operations_that_do_not_belong_together(
        model in models(), made_by in prop::collection::vec(wishes(), 1..40),
        other in models(), others in prop::collection::vec(wishes(), 1..20),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let page = run(model, &made_by, 512)?;
        // Well-formed operations, meant for another page, with a few bytes off.
        let mut other = other;
        let mut ops = Vec::new();
        for wish in &others {
            if let Some((more, _)) = other.carry_out(wish) {
                ops.extend_from_slice(more.as_bytes());
            }
        }
        for (at, flip) in &flips {
            if !ops.is_empty() {
                let at = at.index(ops.len());
                ops[at] ^= flip;
            }
        }
        fuzzed::operations_on(&page, &ops);
    }

    #[test]
    fn apply_never_panics_on_arbitrary_operations(
        model in models(), made_by in prop::collection::vec(wishes(), 1..40),
        ops in prop::collection::vec((1u8..13, prop::collection::vec(prop_oneof![Just(0u8), Just(1), 0u8..20, any::<u8>()], 0..24)), 0..4),
    ) {
        let page = run(model, &made_by, 512)?;
        let ops: Vec<u8> = ops.into_iter().flat_map(|(code, operands)| std::iter::once(code).chain(operands)).collect();
        fuzzed::operations_on(&page, &ops);
    }

    #[test]
    fn a_corrupted_page_is_read_checked_and_changed_without_a_panic(
        model in models(), made_by in prop::collection::vec(wishes(), 1..40),
        others in prop::collection::vec(wishes(), 1..10),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut page = run(model.clone(), &made_by, 512)?;
        for (at, flip) in &flips {
            let at = at.index(page.len());
            page[at] ^= flip;
        }
        fuzzed::page(&page);
        let mut ops = Vec::new();
        let mut model = model;
        for wish in &others {
            if let Some((more, _)) = model.carry_out(wish) {
                ops.extend_from_slice(more.as_bytes());
            }
        }
        fuzzed::operations_on(&page, &ops);
    }

    #[test]
    fn arbitrary_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzzed::any_input(&bytes);
    }
}

proptest! {
    #[test]
    fn a_damaged_metapage_is_refused_without_a_panic(
        layout in prop::collection::vec(any::<u8>(), 0..60),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let store = MemStore::new(8192);
        Tree::<MemStore, Bytewise>::create(&store, &layout, true).unwrap();
        let compare = Bytewise;
        let meta = Tree::new(&store, &compare).meta().unwrap();
        prop_assert_eq!(&meta.layout, &layout);
        let mut body = meta.encode().unwrap();
        for (at, flip) in &flips {
            let at = at.index(body.len());
            body[at] ^= flip;
        }
        fuzzed::meta(&body);
        body.truncate(cut.index(body.len() + 1));
        fuzzed::meta(&body);
    }
}

#[test]
fn check_finds_each_kind_of_damage() {
    let wishes: Vec<Wish> = (0..6)
        .map(|nth| Wish::Insert {
            key: nth % 3,
            share_key: true,
            lock: false,
            frozen: false,
            body: vec![1, 2, 3],
        })
        .collect();
    let model = Model {
        leaf: true,
        ordered: true,
        entries: Vec::new(),
        prefix_len: 2,
        low: Some(at(b"aaa")),
        high: Some(at(b"aab")),
    };
    let page = run(model, &wishes, 512).unwrap();
    check(&page, AT).unwrap();
    let slot = |nth: usize| 24 + 8 * nth - LSN_BYTES;
    // Offset, length, head of a slot; kind, garbage, prefix of the page.
    let special = 512 - 32 - LSN_BYTES;
    for (at, flip) in [
        (slot(0), 0x01),
        (slot(1) + 2, 0x01),
        (slot(2) + 4, 0x80),
        (slot(5) + 3, 0x80),
        (special, 0x0f),
        (special + 26, 0x01),
        (special + 24, 0x80),
        (12 - LSN_BYTES, 0x01),
        (18 - 2 - LSN_BYTES, 0x01),
    ] {
        let mut damaged = page.clone();
        damaged[at] ^= flip;
        assert!(check(&damaged, AT).is_err(), "byte {at} xor {flip:#x}");
    }
}

#[test]
fn rule_43_versions_of_one_key_share_its_bytes() {
    let model = Model {
        leaf: true,
        ordered: true,
        entries: Vec::new(),
        prefix_len: 0,
        low: None,
        high: None,
    };
    let wish = Wish::InsertRun {
        key: 1,
        versions: vec![vec![7; 3]; 4],
    };
    let page = run(model, &[wish], 512).unwrap();
    let page = Page::open(&page, AT).unwrap();
    let lengths: Vec<u16> = (0..4).map(|nth| page.slot(nth).length).collect();
    let with_key = lengths[3];
    assert_eq!(lengths[..3], [with_key - KEY_BYTES as u16 - 1; 3]);
}
