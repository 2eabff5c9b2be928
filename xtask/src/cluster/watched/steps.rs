//! Which steps an import takes, and how long each took.

use std::fmt;
use std::time::{Instant, SystemTime};

/// What one watch told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Seen {
    Volume {
        phase: String,
        progress: String,
    },
    Claim {
        bound: bool,
    },
    Pod {
        placed: bool,
        running: bool,
        done: bool,
    },
}

impl Seen {
    /// Reads a line `A|B` of the watch of `kind`.
    pub(super) fn parse(kind: &str, line: &str) -> Option<Self> {
        let (first, second) = line.split_once('|')?;
        Some(match kind {
            "dv" => Self::Volume {
                phase: first.to_owned(),
                progress: second.to_owned(),
            },
            "pvc" => Self::Claim {
                bound: first == "Bound",
            },
            _ => Self::Pod {
                placed: !first.is_empty(),
                // A container that runs has a time at which it was started.
                running: second.len() > "Running".len() && second.starts_with("Running"),
                done: second == "Succeeded",
            },
        })
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume { phase, progress } if phase.is_empty() => {
                write!(f, "data volume  created {progress}")
            }
            Self::Volume { phase, progress } => write!(f, "data volume  {phase} {progress}"),
            Self::Claim { bound: true } => f.write_str("claim        bound"),
            Self::Claim { bound: false } => f.write_str("claim        waits for a volume"),
            Self::Pod { done: true, .. } => f.write_str("pod          done"),
            Self::Pod { running: true, .. } => f.write_str("pod          runs"),
            Self::Pod { placed: true, .. } => f.write_str("pod          has a node"),
            Self::Pod { .. } => f.write_str("pod          created"),
        }
    }
}

/// The steps, in their order.
const STEPS: [&str; 5] = [
    "until the claim and its pod are made",
    "until the claim has its volume and the pod its node",
    "until the container runs",
    "until the pod has ended: the transfer, and what the kubelet takes to see its end",
    "until the data volume says Succeeded",
];

/// When what was seen first.
#[derive(Debug)]
pub(in super::super) struct Steps {
    begun: Instant,
    /// The same by the clock, which is what logs have.
    pub(in super::super) clock: SystemTime,
    made: Option<Instant>,
    bound: Option<Instant>,
    placed: Option<Instant>,
    running: Option<Instant>,
    done: Option<Instant>,
    succeeded: Option<Instant>,
}

impl Steps {
    /// Now.
    pub(super) fn begin() -> Self {
        Self {
            begun: Instant::now(),
            clock: SystemTime::now(),
            made: None,
            bound: None,
            placed: None,
            running: None,
            done: None,
            succeeded: None,
        }
    }

    /// Seconds from the beginning.
    pub(super) fn since(&self, when: Instant) -> f32 {
        when.saturating_duration_since(self.begun).as_secs_f32()
    }

    pub(super) fn see(&mut self, when: Instant, seen: &Seen) {
        let first = |step: &mut Option<Instant>, holds: bool| {
            if holds {
                step.get_or_insert(when);
            }
        };
        match seen {
            Seen::Volume { phase, .. } => first(&mut self.succeeded, phase == "Succeeded"),
            Seen::Claim { bound } => first(&mut self.bound, *bound),
            Seen::Pod {
                placed,
                running,
                done,
            } => {
                first(&mut self.made, true);
                first(&mut self.placed, *placed);
                first(&mut self.running, *running);
                first(&mut self.done, *done);
            }
        }
    }

    pub(super) fn over(&self) -> bool {
        self.succeeded.is_some()
    }

    /// Seconds from the beginning until claim and pod were made, until they had volume and node, until the pod
    /// had ended, and until the data volume said so.
    pub(in super::super) fn seconds(&self) -> Option<[f64; 4]> {
        let placed = self.placed?.max(self.bound?);
        let ends = [self.made?, placed, self.done?, self.succeeded?];
        Some(ends.map(|end| end.saturating_duration_since(self.begun).as_secs_f64()))
    }

    /// One line for each step.
    pub(in super::super) fn table(&self) -> String {
        let placed = self.placed.max(self.bound);
        let mut before = self.begun;
        let mut lines = Vec::new();
        let at = [self.made, placed, self.running, self.done, self.succeeded];
        for (step, when) in STEPS.iter().zip(at) {
            // What was over before anybody saw it is part of the step after it.
            let Some(when) = when else { continue };
            let when = when.max(before);
            let took = when.saturating_duration_since(before).as_secs_f32();
            lines.push(format!("{took:>7.2} s  {step}"));
            before = when;
        }
        lines.push(format!("{:>7.2} s  in all", self.since(before)));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_step_takes_the_time_since_the_one_before() {
        let mut steps = Steps::begin();
        let at = |tenths| steps_at(&steps, tenths);
        let seen = [
            (at(1), Seen::parse("pvc", "Pending|").unwrap()),
            (at(2), Seen::parse("pod", "|Pending").unwrap()),
            (at(12), Seen::parse("pvc", "Bound|").unwrap()),
            (at(13), Seen::parse("pod", "node-1|Pending").unwrap()),
            (
                at(20),
                Seen::parse("pod", "node-1|Running2026-11-22T00:00:00Z").unwrap(),
            ),
            (at(50), Seen::parse("pod", "node-1|Succeeded").unwrap()),
            (at(51), Seen::parse("dv", "Succeeded|100.0%").unwrap()),
        ];
        for (when, seen) in &seen {
            assert!(!steps.over());
            steps.see(*when, seen);
        }
        assert!(steps.over());
        let table = steps.table();
        let times: Vec<&str> = table
            .lines()
            .map(|line| line.split_whitespace().next().unwrap())
            .collect();
        assert_eq!(times, ["0.20", "1.10", "0.70", "3.00", "0.10", "5.10"]);
    }

    fn steps_at(steps: &Steps, tenths: u64) -> Instant {
        steps.begun + Duration::from_millis(100 * tenths)
    }
}
