//! What is counted, and the report of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use longshore_tests::node::processes_of;
use serde_json::Value;

use super::fault::Fault;
use super::node::{Node, resident};
use super::volume::{HELD, Volume};
use super::wish::{Form, Goal};

/// Imports of one kind.
#[derive(Default)]
struct Kind {
    imports: u32,
    hit: u32,
    longest: Duration,
    restarts: u64,
    /// Of those whose server counts: bytes of the sources, and sent.
    size: u64,
    sent: u64,
    requests: usize,
}

/// Memory of one life of the controller.
struct Life {
    container: String,
    began: Duration,
    lasted: Duration,
    first: u64,
    last: u64,
    most: u64,
}

pub(crate) struct Tally {
    begun: Instant,
    faults: BTreeMap<Fault, u32>,
    kinds: BTreeMap<String, Kind>,
    failed: BTreeMap<Goal, u32>,
    deleted: u32,
    /// Longest that something took to go.
    slowest_end: Duration,
    lives: Vec<Life>,
    /// What must never be.
    pub(crate) wrong: Vec<String>,
    /// How often the API server did not answer.
    pub(crate) unanswered: u32,
    pub(crate) settled: Option<Duration>,
    /// Folders that are the provisioner's to remove.
    pub(crate) forgotten: usize,
    /// Volumes that the kubelet forgot on the node.
    pub(crate) unheld: u32,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            faults: BTreeMap::new(),
            kinds: BTreeMap::new(),
            failed: BTreeMap::new(),
            deleted: 0,
            slowest_end: Duration::ZERO,
            lives: Vec::new(),
            wrong: Vec::new(),
            unanswered: 0,
            settled: None,
            forgotten: 0,
            unheld: 0,
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(crate) fn struck(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub(crate) fn filled(&mut self, volume: &Volume) {
        let wish = &volume.wish;
        let form = match wish.form {
            Form::Direct => "DataVolume, directly",
            Form::Populator => "DataVolume, by populator",
            Form::Annotated => "annotated claim",
            Form::Populated => "populated claim",
        };
        let name = format!("{form} | {} | {}", wish.class, wish.mode);
        let kind = self.kinds.entry(name).or_default();
        kind.imports += 1;
        kind.hit += u32::from(!volume.hits.is_empty());
        kind.longest = kind.longest.max(volume.age());
        kind.restarts += volume.restarts;
        // Of another disk at the same address it is not known how much of the first was sent.
        if let Some((sent, requests)) = wish.sent().filter(|_| wish.disks.len() == 1) {
            kind.size += wish.size;
            kind.sent += sent;
            kind.requests += requests;
        }
    }

    pub(crate) fn failed(&mut self, goal: Goal) {
        *self.failed.entry(goal).or_default() += 1;
    }

    pub(crate) fn gone(&mut self, took: Duration) {
        self.deleted += 1;
        self.slowest_end = self.slowest_end.max(took);
    }

    pub(crate) fn imports(&self) -> u32 {
        self.kinds.values().map(|kind| kind.imports).sum()
    }

    /// How much memory the controller has now.
    pub(crate) fn sample(&mut self, node: &Node) {
        let Ok(pods) = node.controllers() else { return };
        for pod in &pods {
            let now = self.elapsed();
            let resident = processes_of(pod).into_iter().filter_map(resident).max();
            let id = &pod["status"]["containerStatuses"][0]["containerID"];
            let (Some(resident), Value::String(id)) = (resident, id) else {
                continue;
            };
            match self.lives.iter_mut().find(|life| life.container == *id) {
                Some(life) => {
                    life.lasted = now.saturating_sub(life.began);
                    life.last = resident;
                    life.most = life.most.max(resident);
                }
                None => self.lives.push(Life {
                    container: id.clone(),
                    began: now,
                    lasted: Duration::ZERO,
                    first: resident,
                    last: resident,
                    most: resident,
                }),
            }
        }
    }

    /// Without its head.
    pub(crate) fn report(&self, seed: u64, left: &[Volume]) -> String {
        let mut text = String::new();
        let faults: u32 = self.faults.values().sum();
        let settled = self.settled.map_or_else(
            || "not everything settled".to_owned(),
            |took| format!("all had settled {} s after the last fault", took.as_secs()),
        );
        let _ = writeln!(
            text,
            "Seed {seed}. {faults} faults, {} imports whose bytes were compared, {} deletions that left nothing behind \
             (the slowest after {} s); {settled}. {} looks found no API server.\n",
            self.imports(),
            self.deleted,
            self.slowest_end.as_secs(),
            self.unanswered,
        );
        text += "| fault | times |\n| --- | --- |\n";
        for (fault, times) in &self.faults {
            let name = match fault {
                Fault::KillService(name) => format!("{name} killed"),
                other => other.name().to_owned(),
            };
            let _ = writeln!(text, "| {name} | {times} |");
        }
        text += "\n`longest` is from apply to compared bytes, `sent` what servers sent for each byte of a source, \
                 restarts those of containers. Slow lines, pods that wait for each other, and faults are in all of it.\n\n\
                 | by | class | mode | imports | hit themselves | restarts | longest | sent | requests for each |\n\
                 | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
        for (name, kind) in &self.kinds {
            let share = kind.sent * 100 / kind.size.max(1);
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {} | {} s | {}.{:02} | {} |",
                kind.imports,
                kind.hit,
                kind.restarts,
                kind.longest.as_secs(),
                share / 100,
                share % 100,
                kind.requests / usize::try_from(kind.imports).unwrap_or(1).max(1),
            );
        }
        text += "\nWhat had to fail, and said why: ";
        let words = self.failed.iter().map(|(goal, times)| {
            let why = match goal {
                Goal::Missing => "404",
                Goal::WrongSum => "a wrong checksum",
                Goal::TooSmall => "a disk that is too large",
                Goal::Filled => "nothing",
            };
            format!("{why} {times} times")
        });
        text += &words.collect::<Vec<_>>().join(", ");
        text += ".\n\n";
        self.memory(&mut text);
        if self.forgotten > 0 {
            let _ = writeln!(
                text,
                "{} empty folders are left by the provisioner local-path, which forgets what it made for a claim \
                 that is deleted before it has told of the volume: no importer ever saw them.\n",
                self.forgotten
            );
        }
        if self.unheld > 0 {
            let _ = writeln!(
                text,
                "{} volumes were unmounted by us, {} s and more after their importer had ended: the kubelet was killed \
                 when it had taken them from their pods and not yet from the node, and does not look for such.\n",
                self.unheld,
                HELD.as_secs()
            );
        }
        if self.wrong.is_empty() && left.is_empty() {
            text += "Nothing was wrong, nothing stuck and nothing left.\n";
            return text;
        }
        text += "## What was wrong\n\n";
        for what in &self.wrong {
            let _ = writeln!(text, "- {what}");
        }
        for volume in left {
            let _ = writeln!(
                text,
                "- {} ({:?}, {} {} {:?}) is {:?} for {} s, hit by {:?}: {}",
                volume.name,
                volume.wish.form,
                volume.wish.class,
                volume.wish.mode,
                volume.wish.goal,
                volume.stage,
                volume.since.elapsed().as_secs(),
                volume.hits,
                volume.waits,
            );
        }
        text
    }

    fn memory(&self, text: &mut String) {
        let mib = |kib: u64| format!("{}.{}", kib / 1024, kib % 1024 * 10 / 1024);
        let most = self
            .lives
            .iter()
            .map(|life| life.most)
            .max()
            .unwrap_or_default();
        let _ = writeln!(
            text,
            "The controller had {} lives, and at most {} MiB. The five longest:\n\n\
             | began | lasted | first | last | most |\n| --- | --- | --- | --- | --- |",
            self.lives.len(),
            mib(most)
        );
        let mut lives: Vec<&Life> = self.lives.iter().collect();
        lives.sort_by_key(|life| std::cmp::Reverse(life.lasted));
        for life in lives.into_iter().take(5) {
            let _ = writeln!(
                text,
                "| {} s | {} s | {} MiB | {} MiB | {} MiB |",
                life.began.as_secs(),
                life.lasted.as_secs(),
                mib(life.first),
                mib(life.last),
                mib(life.most)
            );
        }
        *text += "\n";
    }
}
