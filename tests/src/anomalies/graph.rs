//! Which transaction must have come before which, and circles in that.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use super::history::{Key, Tick};
use super::versions::Number;

/// Why one transaction comes before another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Why {
    /// The second replaced what the first had written.
    WriteWrite,
    /// The second put a row where the first had removed one. Snapshot isolation
    /// as PostgreSQL has it lets it do so without having seen the removal: it
    /// changes no row that another one changed.
    Reborn,
    /// The second saw what the first had written.
    WriteRead,
    /// The first did not see what the second wrote.
    ReadWrite,
}

/// Transactions and the reasons for their order.
#[derive(Default)]
pub struct Graph {
    edges: BTreeMap<Number, BTreeSet<(Number, Why, Key)>>,
}

impl Graph {
    /// Adds a reason; a transaction is not before itself.
    pub fn add(&mut self, before: Option<Number>, after: Option<Number>, why: Why, key: Key) {
        if let (Some(before), Some(after)) = (before, after)
            && before != after
        {
            self.edges
                .entry(before)
                .or_default()
                .insert((after, why, key));
        }
    }

    /// All reasons.
    pub fn edges(&self) -> impl Iterator<Item = (Number, Number, Why, Key)> {
        self.edges
            .iter()
            .flat_map(|(from, all)| all.iter().map(|(to, why, key)| (*from, *to, *why, *key)))
    }

    fn next(&self, from: Number, reasons: &[Why]) -> impl Iterator<Item = Number> {
        let all = self.edges.get(&from).into_iter().flatten();
        all.filter(move |(_, why, _)| reasons.contains(why))
            .map(|(to, ..)| *to)
    }

    /// The transactions in an order that these reasons allow, those
    /// that ended first as early as can be; or the ones that are in a circle or
    /// behind one.
    pub fn order(&self, ended: &[Tick], reasons: &[Why]) -> Result<Vec<usize>, BTreeSet<Number>> {
        let mut before = vec![0usize; ended.len()];
        for from in 0..ended.len() {
            for to in self.next(from, reasons) {
                before[to] += 1;
            }
        }
        let mut ready: BinaryHeap<_> = (0..ended.len())
            .filter(|number| before[*number] == 0)
            .map(|number| Reverse((ended[number], number)))
            .collect();
        let (mut position, mut done) = (vec![usize::MAX; ended.len()], 0);
        while let Some(Reverse((_, number))) = ready.pop() {
            position[number] = done;
            done += 1;
            for to in self.next(number, reasons) {
                before[to] -= 1;
                if before[to] == 0 {
                    ready.push(Reverse((ended[to], to)));
                }
            }
        }
        if done == ended.len() {
            return Ok(position);
        }
        Err((0..ended.len())
            .filter(|number| position[*number] == usize::MAX)
            .collect())
    }

    /// The shortest way from one transaction to another among those allowed.
    pub fn way(
        &self,
        from: Number,
        to: Number,
        reasons: &[Why],
        allowed: impl Fn(Number) -> bool,
    ) -> Option<Vec<Number>> {
        let mut came_from = BTreeMap::from([(from, from)]);
        let mut queue = VecDeque::from([from]);
        while let Some(at) = queue.pop_front() {
            for next in self.next(at, reasons) {
                if next == to {
                    let mut way = vec![to, at];
                    let mut at = at;
                    while at != from {
                        at = came_from[&at];
                        way.push(at);
                    }
                    way.reverse();
                    return Some(way);
                }
                if allowed(next) && !came_from.contains_key(&next) {
                    came_from.insert(next, at);
                    queue.push_back(next);
                }
            }
        }
        None
    }

    /// A shortest circle through any of these transactions.
    pub fn circle(&self, among: &BTreeSet<Number>, reasons: &[Why]) -> Option<Vec<Number>> {
        among
            .iter()
            .filter_map(|number| self.way(*number, *number, reasons, |at| among.contains(&at)))
            .min_by_key(Vec::len)
    }

    /// A way in words.
    pub fn tell(&self, way: &[Number]) -> String {
        let step = |pair: &[Number]| {
            let reason = self.edges.get(&pair[0]).into_iter().flatten();
            let reason = reason.clone().find(|(to, ..)| *to == pair[1]);
            reason.map_or(String::new(), |(_, why, key)| {
                format!("T{} -{why:?}({key})-> T{}", pair[0], pair[1])
            })
        };
        way.windows(2).map(step).collect::<Vec<_>>().join(", ")
    }
}
