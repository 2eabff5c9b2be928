//! The command, killed at random moments.
//!
//! Whatever the moment: a file target is whole, or what was there before, or not there; a block device is whole,
//! or untouched, or its first 4 KiB are zeros, so that nothing boots or mounts it. What a kill left behind is in
//! nobody's way: the next run starts on top of it. Then imports that are gone on with: see `resumed`.

mod resumed;

use std::fmt::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use longshore_tests::data;
use longshore_tests::device::Loop;
use longshore_tests::http::{Page, Server};
use longshore_tests::program::{longshore, run as run_tool, said};

use crate::dice::Dice;
use crate::{report, say};

/// How often, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many runs are to be killed
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// How often imports are to be killed that are gone on with
    #[arg(long, default_value_t = 200)]
    resumed: u32,
    /// MiB of the disk
    #[arg(long, default_value_t = 48)]
    size: usize,
    /// Where the moments begin; the same again is not the same moments
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A folder on a real disk, so that fsync takes its time
    #[arg(long, default_value = "/var/tmp")]
    work: PathBuf,
    /// Where the report goes
    #[arg(long, default_value = "target/soak/kills.md")]
    report: PathBuf,
}

const OLD: &[u8] = b"what was there before";
/// What no disk may show before it is whole.
const HEAD: usize = 4096;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    NewFile,
    Replaced,
    Qcow2,
    Device,
}

/// A way to run the command.
struct Scenario {
    name: &'static str,
    words: Vec<String>,
    target: Target,
    /// How long a whole run takes.
    whole: Duration,
    killed: u32,
    finished: u32,
    /// Killed with the target whole, and with what was there before (or nothing).
    left: [u32; 2],
}

struct Bench {
    dir: tempfile::TempDir,
    disk: Vec<u8>,
    device: Option<Loop>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    let bench = Bench::new(args)?;
    let server = Server::start([("/disk.qcow2", Page::file(&bench.path("in.qcow2")))]);
    let mut scenarios = bench.scenarios(&server.url("/disk.qcow2"));
    for scenario in &mut scenarios {
        bench.prepare(scenario)?;
        let begun = Instant::now();
        let output = bench.command(scenario).output()?;
        ensure!(
            output.status.success(),
            "{}: {}",
            scenario.name,
            said(&output)
        );
        scenario.whole = begun.elapsed();
        ensure!(
            bench.judge(scenario)?,
            "{}: a whole run made no disk",
            scenario.name
        );
    }
    let mut dice = Dice::new(args.seed);
    while scenarios.iter().map(|s| s.killed).sum::<u32>() < args.kills {
        for scenario in &mut scenarios {
            bench.kill_once(scenario, &mut dice)?;
        }
        let tried: u32 = scenarios.iter().map(|s| s.killed + s.finished).sum();
        ensure!(
            tried < 20 * args.kills + 100,
            "hardly any run can be killed"
        );
    }
    for scenario in &scenarios {
        bench.prepare(scenario)?;
        let output = bench.command(scenario).output()?;
        ensure!(
            output.status.success(),
            "after the kills: {}",
            said(&output)
        );
        ensure!(bench.judge(scenario)?, "after the kills: {}", scenario.name);
    }
    let text = report::head("Killed at random moments", started.elapsed())
        + &table(args, &scenarios, bench.device.is_some())
        + "\n"
        + &resumed::run(bench.dir.path(), &bench.disk, args.resumed, &mut dice)?;
    if let Some(folder) = args.report.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&args.report, &text).context("writing the report")?;
    say::line(&text);
    Ok(())
}

impl Bench {
    fn new(args: &Args) -> Result<Self> {
        let dir = tempfile::tempdir_in(&args.work)?;
        let disk = data::disk(args.size << 20, 7);
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("in.raw"), &disk)?;
        let mut qemu = Command::new("qemu-img");
        qemu.current_dir(dir.path());
        run_tool(qemu.args(["convert", "-c", "-O", "qcow2", "in.raw", "in.qcow2"]));
        std::fs::File::create(path("backing"))?.set_len((args.size as u64) << 20)?;
        let device = Loop::over(&path("backing"));
        Ok(Self { dir, disk, device })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn scenarios(&self, url: &str) -> Vec<Scenario> {
        let scenario = |name, words: &[&str], target| Scenario {
            name,
            words: words.iter().map(|&word| word.to_owned()).collect(),
            target,
            whole: Duration::ZERO,
            killed: 0,
            finished: 0,
            left: [0; 2],
        };
        let mut all = vec![
            scenario(
                "convert, raw to a new file",
                &["convert", "--sync", "in.raw", "out"],
                Target::NewFile,
            ),
            scenario(
                "import of compressed qcow2 over HTTP, to a new file",
                &["import", url, "out"],
                Target::NewFile,
            ),
            scenario(
                "convert, compressed qcow2 over an existing file",
                &["convert", "--sync", "in.qcow2", "out"],
                Target::Replaced,
            ),
            scenario(
                "convert to compressed qcow2",
                &[
                    "convert",
                    "--sync",
                    "-O",
                    "qcow2",
                    "--compress",
                    "in.raw",
                    "out",
                ],
                Target::Qcow2,
            ),
        ];
        if let Some(device) = &self.device {
            let name = device.name();
            all.push(scenario(
                "convert, raw to a block device",
                &["convert", "--sync", "in.raw", name],
                Target::Device,
            ));
            all.push(scenario(
                "import of compressed qcow2 over HTTP, to a block device",
                &["import", url, name],
                Target::Device,
            ));
        }
        all
    }

    fn command(&self, scenario: &Scenario) -> Command {
        let mut command = longshore();
        command.args(&scenario.words).current_dir(self.dir.path());
        command.stdin(Stdio::null());
        command
    }

    /// The target as it is before a run.
    fn prepare(&self, scenario: &Scenario) -> Result<()> {
        let out = self.path("out");
        match (scenario.target, &self.device) {
            (Target::Device, Some(device)) => {
                let file = std::fs::File::options().write(true).open(device.path())?;
                file.write_all_at(&vec![0xff; self.disk.len()], 0)?;
            }
            (Target::Replaced, _) => std::fs::write(&out, OLD)?,
            _ => drop(std::fs::remove_file(&out)),
        }
        Ok(())
    }

    fn kill_once(&self, scenario: &mut Scenario, dice: &mut Dice) -> Result<()> {
        self.prepare(scenario)?;
        // Half of the moments are near the end, where the target changes its looks.
        let share = match dice.roll(2) {
            0 => dice.roll(1000),
            _ => 800 + dice.roll(250),
        };
        let moment = scenario.whole * u32::try_from(share)? / 1000;
        let mut command = self.command(scenario);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        std::thread::sleep(moment);
        let _ = child.kill();
        let finished = child.wait()?.success();
        let whole = self
            .judge(scenario)
            .with_context(|| format!("{}, killed after {moment:?}", scenario.name))?;
        if finished {
            ensure!(whole, "{}: it ended well without a disk", scenario.name);
            scenario.finished += 1;
        } else {
            scenario.killed += 1;
            scenario.left[usize::from(!whole)] += 1;
        }
        Ok(())
    }

    /// True if the target is whole, false if nothing would take it for a disk; else an error.
    fn judge(&self, scenario: &Scenario) -> Result<bool> {
        let out = self.path("out");
        if let (Target::Device, Some(device)) = (scenario.target, &self.device) {
            let found = std::fs::read(device.path())?;
            if found == self.disk {
                return Ok(true);
            }
            let untouched = found.iter().all(|&b| b == 0xff);
            let blank = found[..HEAD].iter().all(|&b| b == 0);
            ensure!(
                untouched || blank,
                "the device shows a disk that is not whole"
            );
            return Ok(false);
        }
        let found = match std::fs::read(&out) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                ensure!(scenario.target != Target::Replaced, "the old file is gone");
                return Ok(false);
            }
            found => found?,
        };
        match scenario.target {
            Target::Replaced if found == OLD => Ok(false),
            Target::Qcow2 => {
                self.compare(&out)?;
                Ok(true)
            }
            _ if found == self.disk => Ok(true),
            _ => bail!("the file is not whole"),
        }
    }

    /// QEMU finds nothing wrong with an image, and the disk in it.
    fn compare(&self, image: &Path) -> Result<()> {
        for words in [&["check", "-q"][..], &["compare", "-q", "in.raw"]] {
            let mut qemu = Command::new("qemu-img");
            qemu.current_dir(self.dir.path()).args(words).arg(image);
            let output = qemu.output()?;
            ensure!(
                output.status.success(),
                "qemu-img {}: {}",
                words[0],
                said(&output)
            );
        }
        Ok(())
    }
}

fn table(args: &Args, scenarios: &[Scenario], device: bool) -> String {
    let mut text = format!(
        "A disk of {} MiB. No target looked complete when it was not; what a kill left was in no later run's way.\n{}\n\
         | what | a whole run | killed | of these: target whole | nothing, or as before | ended before the kill |\n\
         | --- | --- | --- | --- | --- | --- |\n",
        args.size,
        if device {
            ""
        } else {
            "\nNo block device: that takes root and loop devices.\n"
        }
    );
    let mut sum = 0;
    for s in scenarios {
        sum += s.killed;
        let _ = writeln!(
            text,
            "| {} | {} ms | {} | {} | {} | {} |",
            s.name,
            s.whole.as_millis(),
            s.killed,
            s.left[0],
            s.left[1],
            s.finished
        );
    }
    text + &format!("\n{sum} kills.\n")
}
