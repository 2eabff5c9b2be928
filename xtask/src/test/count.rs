//! Counting tests out of what cargo test prints.

use std::fmt;

/// How many tests there were, of each ending.
///
/// Ignored ones do not count: [`crate::tidy`] sees to it that they are processes for other tests.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Count {
    /// Takes in one line of output; only a test binary's closing line counts.
    pub(crate) fn see(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let Some((_, numbers)) = result.split_once(". ") else {
            return;
        };
        for part in numbers.split(';') {
            let mut words = part.split_whitespace();
            let Some(number) = words.next().and_then(|word| word.parse::<u64>().ok()) else {
                continue;
            };
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                _ => {}
            }
        }
    }

    /// Ends a stage: one that has no tests counts as one, and so does a failure that no test
    /// accounts for.
    pub(crate) fn close(&mut self, failed: bool) {
        if failed {
            self.failed = self.failed.max(1);
        } else if self.passed == 0 {
            self.passed = 1;
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(lines: &[&str]) -> Count {
        let mut count = Count::default();
        for line in lines {
            count.see(line);
        }
        count
    }

    #[test]
    fn the_closing_lines_of_all_test_binaries_are_added_up() {
        let count = seen(&[
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test something ... ok",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.20s",
        ]);
        assert_eq!(
            count,
            Count {
                passed: 15,
                failed: 2
            }
        );
        assert_eq!(count.to_string(), "15 passed, 2 failed");
    }

    #[test]
    fn nothing_else_counts() {
        assert_eq!(
            seen(&[
                "5 passed",
                "error: test result: ok. 1 passed",
                "test result: ok"
            ]),
            Count::default()
        );
    }

    #[test]
    fn a_stage_without_tests_counts_as_one() {
        let mut count = Count::default();
        count.close(false);
        assert_eq!(count.to_string(), "1 passed, 0 failed");
        let mut count = Count::default();
        count.close(true);
        assert_eq!(count.to_string(), "0 passed, 1 failed");
    }

    #[test]
    fn a_failure_that_no_test_accounts_for_is_counted() {
        let mut count = Count {
            passed: 9,
            failed: 0,
        };
        count.close(true);
        assert_eq!(count.to_string(), "9 passed, 1 failed");
        let mut count = Count {
            passed: 9,
            failed: 2,
        };
        count.close(true);
        assert_eq!(count.to_string(), "9 passed, 2 failed");
    }
}
