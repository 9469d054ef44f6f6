//! Counting and showing results.

use std::time::Instant;

/// What has passed and failed so far.
pub struct Tally {
    passed: usize,
    failed: usize,
    failures: Vec<String>,
    started: Instant,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            passed: 0,
            failed: 0,
            failures: Vec::new(),
            started: Instant::now(),
        }
    }
}

impl Tally {
    /// Announces what comes next.
    pub fn section(&self, title: &str) {
        println!(
            "==> {title} [{:.0} s]",
            self.started.elapsed().as_secs_f64()
        );
    }

    /// One test passed.
    pub fn pass(&mut self, name: &str) {
        println!("ok      {name}");
        self.passed += 1;
    }

    /// One test failed; `why` is printed.
    pub fn fail(&mut self, name: &str, why: &str) {
        println!("FAILED  {name}\n{why}");
        self.failures.push(name.to_owned());
        self.failed += 1;
    }

    /// One test by its complaint, if any.
    pub fn judge(&mut self, name: &str, complaint: Option<String>) {
        match complaint {
            None => self.pass(name),
            Some(why) => self.fail(name, &why),
        }
    }

    /// Counts of a test program.
    pub fn add(&mut self, passed: usize, failed: usize, failures: Vec<String>) {
        self.passed += passed;
        self.failed += failed;
        self.failures.extend(failures);
    }

    /// Prints the failures' names and, last and alone on its line, the counts.
    /// A run in which nothing passed is a failed run.
    pub fn finish(&self) -> bool {
        if !self.failures.is_empty() {
            println!("\nfailed:");
            for name in &self.failures {
                println!("  {name}");
            }
        }
        println!("\n{} passed, {} failed", self.passed, self.failed);
        self.failed == 0 && self.passed > 0
    }
}
