//! Which schedules a story is told under.
//!
//! `ROWREF_SHUTTLE_ITERATIONS` sets how many random ones of each kind there
//! are, `SHUTTLE_RANDOM_SEED` where they begin. A failure prints its schedule,
//! which `shuttle::replay` runs again.

use std::sync::{Arc, Mutex};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, Runner};

/// Random schedules of each kind, if nothing else is asked for.
const ITERATIONS: usize = 2000;
/// How many preemptions the probabilistic schedules have. Few races need more.
const PCT_DEPTHS: [usize; 2] = [2, 4];
const SEED: u64 = 0x0bad_5eed;
/// Where an exhaustive search is a mistake of whoever asked for it.
const SCHEDULES_MAX: usize = 500_000;

fn config() -> Config {
    let mut config = Config::new();
    // The default is too small for a split that climbs.
    config.stack_size = 0x4_0000;
    config
}

fn iterations() -> usize {
    std::env::var("ROWREF_SHUTTLE_ITERATIONS").map_or(ITERATIONS, |text| {
        text.parse().expect("ROWREF_SHUTTLE_ITERATIONS is a number")
    })
}

/// Tells a story under many random schedules: even ones, and ones that go
/// straight on but for a few preemptions (PCT).
pub fn explore(story: impl Fn() + Send + Sync + 'static) {
    let story = Arc::new(story);
    let count = iterations();
    let told = Arc::clone(&story);
    Runner::new(RandomScheduler::new_from_seed(SEED, count), config()).run(move || told());
    for depth in PCT_DEPTHS {
        let told = Arc::clone(&story);
        let scheduler = PctScheduler::new_from_seed(SEED, depth, count);
        Runner::new(scheduler, config()).run(move || told());
    }
}

/// Tells a story under *every* schedule with at most so many preemptions, and
/// answers how many there were; `usize::MAX` means all. A preemption takes its turn from a session
/// that could go on; where one waits or ends, any other may follow for free.
pub fn exhaust(preemptions_max: usize, story: impl Fn() + Send + Sync + 'static) -> usize {
    let scheduler = Exhaustive {
        preemptions_max,
        levels: Vec::new(),
        step: 0,
        preemptions: 0,
        schedules: 0,
    };
    Runner::new(scheduler, config()).run(story)
}

/// Makes something that only an execution can make.
pub fn once<T: Send + 'static>(make: impl Fn() -> T + Send + Sync + 'static) -> T {
    let made = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&made);
    Runner::new(RandomScheduler::new_from_seed(SEED, 1), config())
        .run(move || *slot.lock().unwrap() = Some(make()));
    let made = made.lock().unwrap().take();
    made.expect("the execution has ended")
}

/// Whom the present schedule chose at one point, and whom else there was.
struct Level {
    options: Vec<TaskId>,
    taken: usize,
}

/// Depth first through all schedules with a bounded number of preemptions.
/// Shuttle's own depth-first scheduler knows no such bound, and without one
/// two insertions have millions of schedules (Musuvathi and Qadeer, "Iterative
/// Context Bounding", 2007).
struct Exhaustive {
    preemptions_max: usize,
    levels: Vec<Level>,
    step: usize,
    preemptions: usize,
    schedules: usize,
}

impl Scheduler for Exhaustive {
    fn new_execution(&mut self) -> Option<Schedule> {
        if self.schedules > 0 {
            while self.levels.last()?.taken + 1 == self.levels.last()?.options.len() {
                self.levels.pop();
            }
            self.levels.last_mut()?.taken += 1;
        }
        self.schedules += 1;
        assert!(
            self.schedules <= SCHEDULES_MAX,
            "a story too long to be told exhaustively"
        );
        (self.step, self.preemptions) = (0, 0);
        Some(Schedule::new(0))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        _is_yielding: bool,
    ) -> Option<TaskId> {
        let ids: Vec<TaskId> = runnable.iter().map(|task| task.id()).collect();
        let current = current.filter(|task| ids.contains(task));
        if self.step == self.levels.len() {
            // The one that starts the others and waits for them does nothing
            // that they could see: it goes first whenever it can.
            let main = TaskId::from(0);
            let options = if ids.contains(&main) {
                vec![main]
            } else if let Some(current) = current {
                let may_preempt = self.preemptions < self.preemptions_max;
                let others = ids
                    .into_iter()
                    .filter(|task| may_preempt && *task != current);
                std::iter::once(current).chain(others).collect()
            } else {
                ids
            };
            self.levels.push(Level { options, taken: 0 });
        }
        let level = &self.levels[self.step];
        let chosen = level.options[level.taken];
        // Handing over to the main task ends no session's turn.
        if current.is_some_and(|task| task != chosen) && usize::from(chosen) != 0 {
            self.preemptions += 1;
        }
        self.step += 1;
        Some(chosen)
    }

    fn next_u64(&mut self) -> u64 {
        panic!("a story draws no random numbers")
    }
}
