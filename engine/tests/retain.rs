//! `retain` against brute force: no snapshot that can exist, now or later, on
//! the primary or on a standby, sees another row after pruning than before.

use std::collections::HashMap;

use engine::mvcc::retain::{Fate, retain};
use engine::mvcc::{Transactions, XidStatus};
use engine::page::cell::{EntryKind, Head, bit};
use engine::{CommandId, Sequence, Xid};
use proptest::prelude::*;

/// Xids 3, 4, … with a status each; those below `horizon` have ended, and all
/// snapshots see the committed ones among them.
#[derive(Clone, Debug)]
struct World {
    statuses: HashMap<u32, XidStatus>,
    horizon: u32,
}

impl Transactions for World {
    fn status(&self, xid: Xid) -> XidStatus {
        self.statuses[&xid.0]
    }

    fn visible_to_all(&self, xid: Xid) -> bool {
        xid.0 < self.horizon
    }
}

fn version(kind: EntryKind, xid: u32, sequence: u64, bits: u8) -> Head {
    Head {
        flags: kind as u8 | bits,
        xmin: Xid(xid),
        cid: CommandId(0),
        sequence: Sequence(sequence),
    }
}

/// What is left after pruning, as `apply` would leave it.
fn pruned(entries: &[Head], fates: &[Fate]) -> Vec<Head> {
    let kept = entries.iter().zip(fates);
    kept.filter(|(_, fate)| **fate != Fate::Remove)
        .map(|(head, fate)| Head {
            flags: head.flags
                | if *fate == Fate::Freeze {
                    bit::FROZEN
                } else {
                    0
                },
            ..*head
        })
        .collect()
}

/// The version a snapshot sees that takes just `seen` for committed; `None`
/// for no row, whether by a tombstone or for want of any version.
fn visible(entries: &[Head], seen: impl Fn(Head) -> bool) -> Option<Sequence> {
    let head = entries
        .iter()
        .find(|head| head.is_version() && (head.has(bit::FROZEN) || seen(**head)))?;
    (head.kind() == EntryKind::Put).then_some(head.sequence)
}

/// Where a walk from `from` towards newer versions ends (rule 3): at the last
/// Put, or at the first version that ends the row.
fn walk(entries: &[Head], from: Sequence, counts: impl Fn(Head) -> bool) -> (EntryKind, Sequence) {
    let mut at = (EntryKind::Put, from);
    for head in entries.iter().rev() {
        if !head.is_version() || head.sequence <= from || !counts(*head) {
            continue;
        }
        at = (head.kind(), head.sequence);
        if head.kind() != EntryKind::Put {
            break;
        }
    }
    at
}

const KINDS: [EntryKind; 4] = [
    EntryKind::Put,
    EntryKind::Put,
    EntryKind::Tombstone,
    EntryKind::Moved,
];

/// A key's history: runs of versions by one transaction each, oldest first;
/// the transactions are numbered in an order of their own, as xids are given
/// out at begin and not at commit. Only the newest may still be running.
fn histories() -> impl Strategy<Value = (World, Vec<Head>, bool)> {
    let runs = prop::collection::vec(
        (
            prop::collection::vec(0usize..4, 1..4), // kinds
            0u8..4,                                 // the end: aborted in one of four cases
            any::<bool>(),                          // hinted
            prop::bool::weighted(0.2),              // what it put first is everybody's
        ),
        1..6,
    );
    (
        runs,
        any::<prop::sample::Index>(),
        any::<bool>(),
        any::<bool>(),
        Just([5u32, 3, 4, 7, 6]).prop_shuffle(),
    )
        .prop_map(|(runs, horizon, ends_here, running, xids)| {
            let mut statuses = HashMap::new();
            let mut entries = Vec::new();
            let mut sequence = 0;
            let last = runs.len() - 1;
            for (nth, (kinds, end, hinted, frozen)) in runs.into_iter().enumerate() {
                let status = if nth == last && running {
                    XidStatus::InProgress
                } else if end == 0 {
                    XidStatus::Aborted
                } else {
                    XidStatus::Committed
                };
                statuses.insert(xids[nth], status);
                for (place, kind) in kinds.into_iter().enumerate() {
                    sequence += 1;
                    let hint = match status {
                        XidStatus::Committed
                            if frozen && place == 0 && KINDS[kind] == EntryKind::Put =>
                        {
                            bit::FROZEN
                        }
                        XidStatus::Committed if hinted => bit::COMMITTED,
                        XidStatus::Aborted if hinted => bit::ABORTED,
                        _ => 0,
                    };
                    entries.push(version(KINDS[kind], xids[nth], sequence, hint));
                }
            }
            entries.reverse();
            let oldest_running = statuses
                .iter()
                .filter(|(_, status)| **status == XidStatus::InProgress)
                .map(|(xid, _)| *xid)
                .min()
                .unwrap_or(8);
            let horizon = 3 + horizon.index(oldest_running as usize - 3 + 1) as u32;
            (World { statuses, horizon }, entries, ends_here)
        })
}

/// How running transactions can end.
fn resolutions(world: &World) -> Vec<World> {
    let mut worlds = vec![world.clone()];
    for (xid, status) in &world.statuses {
        if *status == XidStatus::InProgress {
            worlds = worlds
                .into_iter()
                .flat_map(|world| {
                    [XidStatus::Committed, XidStatus::Aborted].map(|end| {
                        let mut world = world.clone();
                        world.statuses.insert(*xid, end);
                        world
                    })
                })
                .collect();
        }
    }
    worlds
}

/// Every set of committed xids that holds all below `all_below`.
fn snapshots(world: &World, all_below: u32) -> Vec<Vec<u32>> {
    let mut sets = vec![Vec::new()];
    for (xid, status) in &world.statuses {
        if *status != XidStatus::Committed {
            continue;
        }
        let with: Vec<Vec<u32>> = sets
            .iter()
            .map(|set| set.iter().copied().chain([*xid]).collect())
            .collect();
        if *xid < all_below {
            sets = with;
        } else {
            sets.extend(with);
        }
    }
    sets
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_possible_snapshot_sees_the_same_row_after_pruning((world, entries, ends_here) in histories()) {
        let mut fates = Vec::new();
        let horizon = retain(entries.iter().copied(), ends_here, &world, &mut fates);
        prop_assert_eq!(fates.len(), entries.len());
        let (mut before, mut after) = (entries.clone(), pruned(&entries, &fates));
        if !ends_here {
            // An old row of the key lies on another leaf.
            let elsewhere = version(EntryKind::Put, 2, 0, bit::FROZEN);
            before.push(elsewhere);
            after.push(elsewhere);
        }
        for world in resolutions(&world) {
            let counts = |head: Head| head.has(bit::FROZEN) || world.status(head.xmin) == XidStatus::Committed;
            for seen in snapshots(&world, world.horizon) {
                let sees = |head: Head| seen.contains(&head.xmin.0);
                let row = visible(&before, sees);
                prop_assert_eq!(row, visible(&after, sees), "{:?} {:?}", seen, after);
                // A writer that starts from that row ends at the same place.
                if let Some(row) = row {
                    prop_assert_eq!(walk(&before, row, counts), walk(&after, row, counts));
                }
            }
            // A standby keeps no horizon back; it lives by the record's.
            for seen in snapshots(&world, horizon.0 + 1) {
                let sees = |head: Head| seen.contains(&head.xmin.0);
                prop_assert_eq!(visible(&before, sees), visible(&after, sees), "standby {:?} horizon {:?}", seen, horizon);
            }
        }
        // The writer that is still running sees its own versions.
        for (xid, status) in &world.statuses {
            if *status == XidStatus::InProgress {
                let of_it = |entries: &[Head]| entries.iter().filter(|head| head.xmin.0 == *xid).map(|head| head.sequence).collect::<Vec<_>>();
                prop_assert_eq!(of_it(&before), of_it(&after));
            }
        }
    }

    #[test]
    fn pruning_again_changes_nothing((world, entries, ends_here) in histories()) {
        let mut fates = Vec::new();
        retain(entries.iter().copied(), ends_here, &world, &mut fates);
        let once = pruned(&entries, &fates);
        let horizon = retain(once.iter().copied(), ends_here, &world, &mut fates);
        prop_assert!(fates.iter().all(|fate| *fate == Fate::Keep), "{:?} {:?}", once, fates);
        prop_assert_eq!(horizon, Xid::NONE);
    }
}

fn fates_of(world: &World, entries: &[Head], ends_here: bool) -> (Vec<Fate>, Xid) {
    let mut fates = Vec::new();
    let horizon = retain(entries.iter().copied(), ends_here, world, &mut fates);
    (fates, horizon)
}

fn world(horizon: u32, statuses: &[(u32, XidStatus)]) -> World {
    World {
        statuses: statuses.iter().copied().collect(),
        horizon,
    }
}

use EntryKind::{Lock, Moved, Put, Tombstone};
use Fate::{Freeze, Keep, Remove};
use XidStatus::{Aborted, Committed, InProgress, Own};

#[test]
fn rule_2_a_tombstone_stays_while_an_older_version_may_lie_elsewhere() {
    let world = world(5, &[(3, Committed), (4, Committed)]);
    for kind in [Tombstone, Moved, EntryKind::MovedPartition] {
        let entries = [version(kind, 4, 2, 0), version(Put, 3, 1, 0)];
        assert_eq!(fates_of(&world, &entries, false).0, [Freeze, Remove]);
        assert_eq!(fates_of(&world, &entries, true).0, [Remove, Remove]);
    }
}

#[test]
fn rule_3_a_row_that_was_deleted_and_inserted_again_keeps_its_end() {
    // Transaction 4 deleted the row of 3 and inserted another; somebody still
    // reads the first, and must not be led to the second.
    let world = world(4, &[(3, Committed), (4, Committed)]);
    let entries = [
        version(Put, 4, 3, 0),
        version(Tombstone, 4, 2, 0),
        version(Put, 3, 1, 0),
    ];
    assert_eq!(fates_of(&world, &entries, true).0, [Keep, Keep, Freeze]);
}

#[test]
fn rule_5_the_callers_own_transaction_counts_as_running() {
    for status in [Own, InProgress] {
        // Even if every snapshot were past it: the caller may still abort.
        let world = world(9, &[(3, Committed), (4, status)]);
        let entries = [
            version(Put, 4, 3, 0),
            version(Put, 4, 2, 0),
            version(Put, 3, 1, 0),
        ];
        assert_eq!(
            fates_of(&world, &entries, true).0,
            [Keep, Keep, Freeze],
            "{status:?}"
        );
    }
}

#[test]
fn rule_5_of_one_ended_transactions_versions_the_newest_stays() {
    let world = world(4, &[(3, Committed), (4, Committed)]);
    let entries = [
        version(Put, 4, 3, 0),
        version(Put, 4, 2, 0),
        version(Put, 3, 1, 0),
    ];
    assert_eq!(
        fates_of(&world, &entries, true),
        (vec![Keep, Remove, Freeze], Xid(3))
    );
}

/// Rule 17: an entry that an unfinished index lacked is put as frozen by the one
/// who ends it, and carries his xid where he had changed the row before.
#[test]
fn rule_5_a_frozen_version_stays_beneath_its_writers_newer_one() {
    let entries = [version(Tombstone, 4, 2, 0), version(Put, 4, 1, bit::FROZEN)];
    let somebody_reads = world(4, &[(4, Committed)]);
    assert_eq!(fates_of(&somebody_reads, &entries, true).0, [Keep, Keep]);
    let nobody_does = world(5, &[(4, Committed)]);
    assert_eq!(fates_of(&nobody_does, &entries, true).0, [Remove, Remove]);
}

#[test]
fn rule_8_a_lock_stays_until_its_holder_has_ended() {
    for (status, fate) in [
        (Own, Keep),
        (InProgress, Keep),
        (Committed, Remove),
        (Aborted, Remove),
    ] {
        let world = world(9, &[(3, Committed), (4, status), (5, Committed)]);
        let lock = Head {
            sequence: Sequence::of_lock(Xid(4)),
            ..version(Lock, 4, 0, 0)
        };
        let entries = [lock, version(Put, 5, 2, 0), version(Put, 3, 1, 0)];
        assert_eq!(
            fates_of(&world, &entries, true).0,
            [fate, Freeze, Remove],
            "{status:?}"
        );
    }
}

#[test]
fn rule_30_the_horizon_is_the_superseders_not_the_removed_versions() {
    let world = world(9, &[(3, Committed), (7, Committed)]);
    let entries = [version(Put, 7, 2, 0), version(Put, 3, 1, 0)];
    assert_eq!(
        fates_of(&world, &entries, true),
        (vec![Freeze, Remove], Xid(7))
    );
    let deleted = [version(Tombstone, 7, 2, 0), version(Put, 3, 1, 0)];
    assert_eq!(
        fates_of(&world, &deleted, true),
        (vec![Remove, Remove], Xid(7))
    );
}

#[test]
fn rule_30_freezing_alone_carries_a_horizon_and_removing_the_aborted_does_not() {
    let world = world(9, &[(3, Committed), (4, Aborted)]);
    assert_eq!(
        fates_of(&world, &[version(Put, 3, 1, 0)], true),
        (vec![Freeze], Xid(3))
    );
    assert_eq!(
        fates_of(
            &world,
            &[version(Put, 4, 2, 0), version(Put, 3, 1, bit::FROZEN)],
            true
        ),
        (vec![Remove, Keep], Xid::NONE)
    );
}

#[test]
fn rule_30_a_frozen_version_is_too_old_to_name_in_a_horizon() {
    let world = world(9, &[(3, Committed)]);
    let entries = [
        version(Put, 2_147_483_900, 2, bit::FROZEN),
        version(Put, 3, 1, 0),
    ];
    assert_eq!(
        fates_of(&world, &entries, true),
        (vec![Keep, Remove], Xid::NONE)
    );
}
