//! A cluster on which everything is killed at random, while volumes of all kinds are imported, compared byte by
//! byte, and deleted.
//!
//! In the end chaos stops. Whatever was asked for has to be there soon, or to have failed as it must; and once
//! all is deleted nothing may be left: no claim, pod, source, volume, loop device, mount or folder.
//!
//! The node comes from `cargo xtask soak chaos`, which runs this in its namespaces.

mod disk;
mod fault;
mod leaks;
mod node;
mod tally;
mod volume;
mod wish;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use longshore_tests::gate::{Gate, transparent};
use longshore_tests::stores::Versity;

use self::fault::Fault;
use self::leaks::Left;
use self::node::{NAMESPACE, Node, Snapshot};
use self::tally::Tally;
use self::volume::{News, Stage, Volume};
use self::wish::{Images, Wish};
use crate::dice::Dice;
use crate::{report, say};

/// How long, and how much.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long chaos lasts
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// What is imported and done to it, in which order; when it comes is the machine's
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Volumes at the same time
    #[arg(long, default_value_t = 8)]
    at_once: usize,
    /// Most seconds between two faults
    #[arg(long, default_value_t = 12)]
    every: u64,
    /// Seconds that everything may take once chaos has stopped
    #[arg(long, default_value_t = 420)]
    settle: u64,
    /// Where the report goes
    #[arg(long, default_value = "target/soak/chaos.md")]
    report: PathBuf,
}

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(700);
/// Between two samples of memory.
const SAMPLE: Duration = Duration::from_secs(10);
/// A slow line is no more after so long: what is to be seen is faults.
const SLOW: Duration = Duration::from_mins(2);
/// Longer than anything takes that only waits for its turn: told while it happens.
const LONG: Duration = Duration::from_mins(4);
/// So many that are filled stay to the end.
const KEPT: usize = 12;

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut chaos = Chaos::begin(args)?;
    let until = Duration::from_secs(args.minutes * 60);
    while chaos.tally.elapsed() < until {
        chaos.look(true);
        chaos.strike();
    }
    chaos.settle(Duration::from_secs(args.settle));
    chaos.clear(Duration::from_secs(args.settle));
    let left = std::mem::take(&mut chaos.volumes);
    let text = report::head("Chaos", chaos.tally.elapsed()) + &chaos.tally.report(args.seed, &left);
    if let Some(folder) = args.report.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&args.report, &text).context("writing the report")?;
    say::line(&text);
    let wrong = chaos.tally.wrong.len() + left.len();
    ensure!(wrong == 0, "{wrong} things were wrong");
    Ok(())
}

/// The one object of the store: its address, and which image it is.
type Object = (String, usize);

struct Chaos<'a> {
    args: &'a Args,
    node: Node,
    images: Images,
    object: Object,
    /// What is asked for, and the rest: otherwise one would change with the other.
    wishes: Dice,
    faults: Dice,
    volumes: Vec<Volume>,
    named: u32,
    kept: usize,
    last: Snapshot,
    next_fault: Instant,
    next_sample: Instant,
    /// Whether what is filled may stay.
    keeps: bool,
    tally: Tally,
    _store: (Versity, Gate),
}

impl<'a> Chaos<'a> {
    fn begin(args: &'a Args) -> Result<Self> {
        let node = Node::given()?;
        node.apply(&serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE},
        }))?;
        node.apply(&wish::keys())?;
        let images = Images::make();
        let store = Versity::start().context("versitygw is missing")?;
        let gate = Gate::listen_on(&node.address, Some(store.upstream()), None, transparent);
        let which = 1;
        store.put_bytes("/disks/disk", &images.all[which].file);
        Ok(Self {
            args,
            object: (gate.url("/disks/disk"), which),
            node,
            images,
            wishes: Dice::new(args.seed),
            faults: Dice::new(!args.seed),
            volumes: Vec::new(),
            named: 0,
            kept: 0,
            last: Snapshot::default(),
            next_fault: Instant::now() + Duration::from_secs(10),
            next_sample: Instant::now(),
            keeps: true,
            tally: Tally::new(),
            _store: (store, gate),
        })
    }

    fn tell(&self, what: &str) {
        say::line(&format!("{:>5} s  {what}", self.tally.elapsed().as_secs()));
    }

    /// Looks at everything once, and has new volumes made.
    fn look(&mut self, more: bool) {
        std::thread::sleep(LOOK);
        let busy = |volume: &&Volume| !matches!(volume.stage, Stage::Kept | Stage::Gone);
        while more && self.volumes.iter().filter(busy).count() < self.args.at_once {
            self.named += 1;
            let wish = Wish::of(
                &mut self.wishes,
                &self.images,
                &self.node.address,
                &self.object,
            );
            let name = format!("disk-{}", self.named);
            self.volumes.push(Volume::new(name, wish));
        }
        if Instant::now() > self.next_sample {
            self.tally.sample(&self.node);
            self.next_sample = Instant::now() + SAMPLE;
        }
        let Ok(all) = self.node.snapshot() else {
            self.tally.unanswered += 1;
            return;
        };
        self.last = all;
        let mut volumes = std::mem::take(&mut self.volumes);
        for volume in &mut volumes {
            self.step(volume);
        }
        volumes.retain(|volume| volume.stage != Stage::Gone);
        self.volumes = volumes;
    }

    fn step(&mut self, volume: &mut Volume) {
        let stage = volume.stage;
        if stage == Stage::Going && volume.age() > SLOW {
            volume.wish.calm();
        }
        let slow = volume.since.elapsed() > LONG && !matches!(stage, Stage::Kept | Stage::Gone);
        if slow && !volume.hits.contains(&"told") {
            volume.hits.push("told");
            let Volume {
                name,
                hits,
                waits,
                wish,
                ..
            } = &*volume;
            self.tell(&format!(
                "{name} ({:?} {} {}) takes long, {stage:?}, {hits:?}: {waits}",
                wish.form, wish.class, wish.mode
            ));
        }
        let since = volume.since;
        // The API server may have gone a moment ago: the next look goes on.
        let Ok(news) = volume.step(&self.node, &self.last) else {
            self.tally.unanswered += 1;
            return;
        };
        let filled = matches!(news, News::Filled);
        match news {
            News::Nothing => return,
            News::Gone => {
                self.tally.gone(since.elapsed());
                return;
            }
            News::Filled if self.keeps => self.tally.filled(volume),
            // Once more, in the end.
            News::Filled => {}
            News::Unheld => {
                self.tally.unheld += 1;
                self.tell(&format!("{} was left mounted by the kubelet", volume.name));
                return;
            }
            News::Failed => self.tally.failed(volume.wish.goal),
            News::Wrong(what) => {
                let what = format!("{}: {what}; hit by {:?}", volume.name, volume.hits);
                self.tell(&format!("WRONG: {what}"));
                self.tally.wrong.push(what);
            }
        }
        let keep = filled && self.keeps && self.kept < KEPT && self.wishes.roll(6) == 0;
        self.kept += usize::from(keep);
        if volume.over(&self.node, &mut self.wishes, keep).is_err() {
            // It is seen again as it is.
            self.tally.unanswered += 1;
        }
    }

    /// Something goes wrong, if it is time.
    fn strike(&mut self) {
        if Instant::now() < self.next_fault {
            return;
        }
        let fault = Fault::pick(&mut self.faults);
        let done = fault.strike(
            &self.node,
            &self.last,
            &mut self.volumes,
            &self.images,
            &mut self.faults,
        );
        match done {
            Ok(None) => return,
            Ok(Some(what)) => {
                self.tally.struck(fault);
                self.tell(&format!("{} {what}", fault.name()));
            }
            Err(error) => self.tell(&format!("{} did not happen: {error:#}", fault.name())),
        }
        let pause = 1 + self
            .faults
            .roll(usize::try_from(self.args.every).unwrap_or(1)) as u64;
        self.next_fault = Instant::now() + Duration::from_secs(pause);
    }

    /// Chaos has stopped: waits until everything is as it has to be.
    fn settle(&mut self, patience: Duration) {
        self.tell("chaos stops");
        for volume in &self.volumes {
            volume.wish.calm();
        }
        let begun = Instant::now();
        while begun.elapsed() < patience {
            self.look(false);
            if self
                .volumes
                .iter()
                .all(|volume| volume.stage == Stage::Kept)
            {
                self.tally.settled = Some(begun.elapsed());
                return;
            }
        }
        for volume in &self.volumes {
            if volume.stage != Stage::Kept {
                let Volume {
                    name,
                    stage,
                    waits,
                    hits,
                    ..
                } = volume;
                let what = format!("{name} is still {stage:?}, hit by {hits:?}: {waits}");
                self.tell(&format!("STUCK: {what}"));
                self.tally.wrong.push(what);
            }
        }
    }

    /// Compares what has stayed to the end, deletes it, and looks for what is left.
    fn clear(&mut self, patience: Duration) {
        for volume in &mut self.volumes {
            if volume.stage == Stage::Kept {
                volume.enter(Stage::Going);
            }
        }
        self.keeps = false;
        let begun = Instant::now();
        while begun.elapsed() < patience && !self.volumes.is_empty() {
            self.look(false);
        }
        let begun = Instant::now();
        let left = loop {
            std::thread::sleep(LOOK);
            self.tally.sample(&self.node);
            let left = leaks::find(&self.node);
            let nothing = left.as_ref().is_ok_and(|left| left.ours.is_empty());
            if nothing || begun.elapsed() > patience {
                break left;
            }
        };
        let left = left.unwrap_or_else(|error| Left {
            ours: vec![format!("{error:#}")],
            forgotten: Vec::new(),
        });
        self.tell(&format!("{} things are left", left.ours.len()));
        self.tally.forgotten = left.forgotten.len();
        let left = left.ours.into_iter().map(|what| format!("left: {what}"));
        self.tally.wrong.extend(left);
    }
}
