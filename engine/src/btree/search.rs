//! Searching a page, and reading keys off it.

use std::cmp::Ordering;

use crate::compare::{Compare, common_prefix_len};
use crate::error::Result;
use crate::page::{Page, PageKind, Position, flag, head_of};
use crate::types::{BlockNumber, Sequence};

/// A place in the order of entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target<'k> {
    /// Before all entries.
    First,
    /// Before all entries of keys that equal or continue this one.
    Before(&'k [u8]),
    /// The place of one entry.
    At(&'k [u8], Sequence),
    /// Behind all entries of keys that equal or continue this one.
    After(&'k [u8]),
    /// Behind all entries.
    Last,
}

impl<'k> Target<'k> {
    /// The place that a fence names.
    pub fn of(position: Position<'k>) -> Target<'k> {
        match position.sequence {
            Some(sequence) => Target::At(position.key, sequence),
            None => Target::Before(position.key),
        }
    }

    fn key(self) -> Option<&'k [u8]> {
        match self {
            Target::First | Target::Last => None,
            Target::Before(key) | Target::At(key, _) | Target::After(key) => Some(key),
        }
    }
}

/// How a position lies to a target.
pub fn compare_position(
    position: Position<'_>,
    target: Target<'_>,
    compare: &impl Compare,
) -> Ordering {
    let keys = match target {
        Target::First => return Ordering::Greater,
        Target::Last => return Ordering::Less,
        Target::Before(bound) => compare.compare_bound(position.key, bound, false),
        Target::After(bound) => compare.compare_bound(position.key, bound, true),
        Target::At(key, _) => compare.compare(position.key, key),
    };
    keys.then_with(|| compare_sequence(position.sequence, target))
}

/// How a sequence lies to a target of the same key: newer ones come first, and
/// no sequence at all before them.
fn compare_sequence(sequence: Option<Sequence>, target: Target<'_>) -> Ordering {
    match (sequence, target) {
        (Some(of), Target::At(_, wanted)) => wanted.cmp(&of),
        (None, Target::At(..)) => Ordering::Less,
        (Some(_), _) => Ordering::Greater,
        (None, _) => Ordering::Equal,
    }
}

/// How two positions lie to each other.
pub fn compare_positions(
    left: Position<'_>,
    right: Position<'_>,
    compare: &impl Compare,
) -> Ordering {
    compare_position(left, Target::of(right), compare)
}

/// A target made ready for one page: what remains of its key behind the
/// page's prefix, and the heads that this leaves undecided.
struct Probe<'k, 'c, C> {
    target: Target<'k>,
    compare: &'c C,
    ordered: bool,
    rest: &'k [u8],
    head_low: u32,
    head_high: u32,
    /// Where all of the page's entries lie, if its prefix says so already.
    all: Option<Ordering>,
}

impl<'k, 'c, C: Compare> Probe<'k, 'c, C> {
    fn new(page: Page<'_>, target: Target<'k>, compare: &'c C) -> Self {
        let mut probe = Probe {
            target,
            compare,
            ordered: page.has(flag::ORDERED),
            rest: &[],
            head_low: 0,
            head_high: 0,
            all: None,
        };
        let Some(key) = target.key() else {
            probe.all = Some(if target == Target::First {
                Ordering::Greater
            } else {
                Ordering::Less
            });
            return probe;
        };
        probe.rest = key;
        if !probe.ordered {
            return probe;
        }
        let prefix = page.prefix();
        let shared = common_prefix_len(prefix, key);
        let after = matches!(target, Target::After(_));
        if shared < prefix.len() {
            probe.all = Some(match key.get(shared) {
                Some(byte) => prefix[shared].cmp(byte),
                // Every key of the page continues the target's.
                None if after => Ordering::Less,
                None => Ordering::Greater,
            });
            return probe;
        }
        probe.rest = &key[shared..];
        probe.head_low = head_of(probe.rest);
        probe.head_high = probe.head_low;
        if after && probe.rest.len() < 4 {
            // All heads that continue the target's are undecided.
            probe.head_high |= u32::MAX >> (8 * probe.rest.len());
        }
        probe
    }

    /// How the entry in a slot lies to the target.
    #[inline]
    fn compare(&self, page: Page<'_>, slot: usize, block: BlockNumber) -> Result<Ordering> {
        if self.ordered {
            let head = page.slot(slot).head;
            if head < self.head_low {
                return Ok(Ordering::Less);
            }
            if head > self.head_high {
                return Ok(Ordering::Greater);
            }
        }
        if page.kind() == PageKind::Leaf {
            let keys = self.compare_keys(page.suffix(slot, block)?);
            if keys != Ordering::Equal || !matches!(self.target, Target::At(..)) {
                // An entry of the very key lies behind the place before it.
                return Ok(keys.then(Ordering::Greater));
            }
            let sequence = page.leaf_cell(slot, block)?.head.sequence;
            Ok(compare_sequence(Some(sequence), self.target))
        } else {
            let position = page.inner_cell(slot, block)?.position;
            Ok(self
                .compare_keys(position.key)
                .then_with(|| compare_sequence(position.sequence, self.target)))
        }
    }

    #[inline]
    fn compare_keys(&self, suffix: &[u8]) -> Ordering {
        match (self.ordered, self.target) {
            (true, Target::After(_)) if suffix.starts_with(self.rest) => Ordering::Less,
            (true, _) => suffix.cmp(self.rest),
            (false, Target::At(..)) => self.compare.compare(suffix, self.rest),
            (false, Target::After(_)) => self.compare.compare_bound(suffix, self.rest, true),
            (false, _) => self.compare.compare_bound(suffix, self.rest, false),
        }
    }

    /// The first slot from `from` on whose order does not satisfy `before`.
    fn partition(
        &self,
        page: Page<'_>,
        block: BlockNumber,
        from: usize,
        before: impl Fn(Ordering) -> bool,
    ) -> Result<usize> {
        let (low, high) = (from, page.slot_count());
        if let Some(all) = self.all {
            return Ok(if before(all) { high } else { low });
        }
        self.halve(page, block, (low, high), before)
    }

    /// As [`Probe::partition`], between two slots, the second of which is the
    /// answer if none before it is.
    fn halve(
        &self,
        page: Page<'_>,
        block: BlockNumber,
        (mut low, mut high): (usize, usize),
        before: impl Fn(Ordering) -> bool,
    ) -> Result<usize> {
        while low < high {
            let middle = usize::midpoint(low, high);
            if before(self.compare(page, middle, block)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

/// The first slot of a leaf whose entry lies at or behind the target.
pub fn lower_bound(
    page: Page<'_>,
    block: BlockNumber,
    target: Target<'_>,
    compare: &impl Compare,
) -> Result<usize> {
    lower_bound_from(page, block, 0, target, compare)
}

/// As [`lower_bound`], where all slots before `from` are known to lie before
/// the target.
pub fn lower_bound_from(
    page: Page<'_>,
    block: BlockNumber,
    from: usize,
    target: Target<'_>,
    compare: &impl Compare,
) -> Result<usize> {
    Probe::new(page, target, compare).partition(page, block, from, Ordering::is_lt)
}

/// As [`lower_bound_from`], of a target that is not far from there: the range is doubled until the place is in it.
pub(crate) fn lower_bound_near(
    page: Page<'_>,
    block: BlockNumber,
    from: usize,
    target: Target<'_>,
    compare: &impl Compare,
) -> Result<usize> {
    let probe = Probe::new(page, target, compare);
    let (mut low, mut high) = (from, page.slot_count());
    if let Some(all) = probe.all {
        return Ok(if all.is_lt() { high } else { low });
    }
    let mut step = 8;
    while low + step < high {
        let at = low + step;
        if probe.compare(page, at, block)?.is_lt() {
            low = at + 1;
            step *= 2;
        } else {
            high = at;
        }
    }
    probe.halve(page, block, (low, high), Ordering::is_lt)
}

/// The first entry of a key among the slots from `from` on, none before which is
/// of it or behind it; `None` if there is none on this page. It is looked for
/// `step` slots further on first, and from there by halves.
///
/// For keys that are looked up one after the other, most often as far from each
/// other as the ones before: then that is two comparisons.
pub(crate) fn find_near(
    page: Page<'_>,
    block: BlockNumber,
    (from, step): (usize, usize),
    key: &[u8],
    compare: &impl Compare,
) -> Result<Option<usize>> {
    let count = page.slot_count();
    if !page.has(flag::ORDERED) {
        let at = lower_bound_near(page, block, from, Target::Before(key), compare)?;
        return Ok((at < count && matches(page, at, block, key, compare)?).then_some(at));
    }
    let Some(rest) = key.strip_prefix(page.prefix()) else {
        return Ok(None);
    };
    let wanted = head_of(rest);
    let order = |slot: usize| {
        let head = page.slot(slot).head;
        Ok(if head == wanted {
            page.suffix(slot, block)?.cmp(rest)
        } else {
            head.cmp(&wanted)
        })
    };
    // The place is in low..=high, and of the key what lies at `high`, if `found`.
    let (mut low, mut high, mut found) = (from, count, false);
    let mut step = step;
    while low + step < high {
        let at = low + step;
        match order(at)? {
            Ordering::Less => {
                low = at + 1;
                step = 2 * step + 1;
            }
            of => {
                (high, found) = (at, of.is_eq());
                break;
            }
        }
    }
    // What lies right before an entry of the key is most often of another.
    if found && (high == low || order(high - 1)?.is_lt()) {
        return Ok(Some(high));
    }
    while low < high {
        let middle = usize::midpoint(low, high);
        match order(middle)? {
            Ordering::Less => low = middle + 1,
            of => (high, found) = (middle, of.is_eq()),
        }
    }
    Ok(found.then_some(high))
}

/// The slot of an inner page at which a downlink for this position belongs.
pub(super) fn downlink_slot(
    page: Page<'_>,
    block: BlockNumber,
    position: Position<'_>,
    compare: &impl Compare,
) -> Result<usize> {
    // The first downlink is that of all that lies before the second.
    let from = page.slot_count().min(1);
    Probe::new(page, Target::of(position), compare).partition(page, block, from, Ordering::is_le)
}

/// What a descent looks for: the page with low <= target < high, or, going
/// `below`, the one with low < target <= high.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal<'k> {
    pub target: Target<'k>,
    pub below: bool,
}

impl<'k> Goal<'k> {
    pub fn at(target: Target<'k>) -> Goal<'k> {
        Goal {
            target,
            below: false,
        }
    }

    pub fn below(position: Position<'k>) -> Goal<'k> {
        Goal {
            target: Target::of(position),
            below: true,
        }
    }

    /// The key that it names, or where it lies among its versions.
    pub fn key(self) -> Option<&'k [u8]> {
        self.target.key()
    }

    /// Whether the goal lies before what this low fence lets in.
    pub fn precedes(self, low: Position<'_>, compare: &impl Compare) -> bool {
        let order = compare_position(low, self.target, compare);
        if self.below {
            order.is_ge()
        } else {
            order.is_gt()
        }
    }

    /// Whether the goal lies behind what this high fence lets in.
    pub fn passes(self, high: Position<'_>, compare: &impl Compare) -> bool {
        let order = compare_position(high, self.target, compare);
        if self.below {
            order.is_lt()
        } else {
            order.is_le()
        }
    }

    /// The slot of the downlink to follow.
    pub fn child_slot(
        self,
        page: Page<'_>,
        block: BlockNumber,
        compare: &impl Compare,
    ) -> Result<usize> {
        let from = page.slot_count().min(1);
        let probe = Probe::new(page, self.target, compare);
        let behind = if self.below {
            probe.partition(page, block, from, Ordering::is_lt)?
        } else {
            probe.partition(page, block, from, Ordering::is_le)?
        };
        Ok(behind.saturating_sub(1))
    }
}

/// Whether the entry in a slot of a leaf is one of `key`.
pub fn matches(
    page: Page<'_>,
    slot: usize,
    block: BlockNumber,
    key: &[u8],
    compare: &impl Compare,
) -> Result<bool> {
    if !page.has(flag::ORDERED) {
        let of = page.suffix(slot, block)?;
        return Ok(compare.compare(of, key).is_eq());
    }
    let Some(rest) = key.strip_prefix(page.prefix()) else {
        return Ok(false);
    };
    Ok(page.slot(slot).head == head_of(rest) && page.suffix(slot, block)? == rest)
}

/// Whether two neighbouring slots of a leaf hold entries of one key.
pub fn same_key(
    page: Page<'_>,
    slot: usize,
    block: BlockNumber,
    compare: &impl Compare,
) -> Result<bool> {
    if page.slot(slot).key_below {
        return Ok(true);
    }
    let (left, right) = (page.suffix(slot, block)?, page.suffix(slot + 1, block)?);
    Ok(if page.has(flag::ORDERED) {
        left == right
    } else {
        compare.compare(left, right).is_eq()
    })
}

/// Writes the whole key of the entry in a slot of a leaf to `key`.
pub fn copy_key(page: Page<'_>, slot: usize, block: BlockNumber, key: &mut Vec<u8>) -> Result<()> {
    key.clear();
    key.extend_from_slice(page.prefix());
    key.extend_from_slice(page.suffix(slot, block)?);
    Ok(())
}
