//! A run over many cases: one after the other, each with its rounds.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::case::{Case, Place};
use super::contender::{self, BOUND, Built, Contender, Leaves};
use super::fixture::{Fixture, images};
use super::measure::{self, Bench, Files};
use super::random::Random;
use super::record::{Raw, Record};
use super::server::{self, Server};
use super::{Args, ROUNDS, derive, machine, make_dir, shell};
use crate::say;

/// Left free when a case keeps its files in memory.
const SPARE_MEMORY: u64 = 2 << 30;
/// Even a run that is short of time has so many rounds of each case.
const FEWEST: usize = 3;
/// How often tables are made of what there is so far.
const DERIVE: Duration = Duration::from_mins(2);
/// Who takes so many times as long as we do is not waited for.
const PATIENCE: u64 = 25;
/// Where files lie that are measured in memory.
const MEMORY: &str = "/dev/shm/longshore-versus";

pub(super) struct Session {
    pub(super) built: Built,
    pub(super) base: PathBuf,
    /// Bytes of the disk.
    pub(super) size: u64,
    pub(super) rounds: usize,
    /// How long it may take.
    pub(super) time: Option<Duration>,
    pub(super) random: Random,
    pub(super) processors: usize,
}

/// A folder that is gone when the case is over, however it ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> Result<Self> {
        // A killed run leaves its own behind; the lock says that nobody uses it.
        drop(fs::remove_dir_all(&path));
        make_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A case with its files where they belong, and who serves them.
struct Stage<'a> {
    bench: Bench<'a>,
    raw: PathBuf,
    result_size: u64,
    // Dropped in this order: the server first.
    _server: Option<Server>,
    _scratch: Scratch,
}

impl Session {
    fn fixture(&self, case: &Case) -> Result<Fixture> {
        Fixture::ready(&self.base, case.disk(self.size))
    }

    /// Makes every image that the cases need.
    pub(super) fn prepare(&self, cases: &[Case]) -> Result<()> {
        for case in cases {
            let fixture = self.fixture(case)?;
            fixture.path(&case.image)?;
            if case.is_http() && case.place == Place::Disk {
                fixture.path(&images::named("qcow2"))?;
            }
        }
        Ok(())
    }

    /// What was prepared.
    pub(super) fn facts(&self, cases: &[Case]) -> Result<String> {
        let mut sizes: Vec<u64> = cases.iter().map(|case| case.disk(self.size)).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let facts = sizes
            .into_iter()
            .rev()
            .map(|size| Fixture::ready(&self.base, size)?.facts());
        facts.collect()
    }

    /// Measures, and writes down.
    pub(super) fn run(&mut self, cases: &[Case], results: &Path) -> Result<()> {
        let mut raw = Raw::create(&results.join("raw.csv"))?;
        let deadline = self.time.map(|time| Instant::now() + time);
        let weights: Vec<f64> = cases
            .iter()
            .map(|case| {
                let contenders = contender::all().filter(|contender| contender.takes(case));
                let count = u32::try_from(contenders.count()).unwrap_or(u32::MAX);
                f64::from(case.weight(self.size, count))
            })
            .collect();
        let mut faults = Vec::new();
        let mut last = Instant::now();
        for (done, case) in cases.iter().enumerate() {
            let left = cases.len() - done;
            say::line(&format!("\n{} ({left} left)", case.name()));
            let to_come: f64 = weights.iter().skip(done).sum();
            let weight = weights.get(done).copied().unwrap_or(1.0);
            let share = deadline.map(|end| {
                let left = end.saturating_duration_since(Instant::now());
                left.mul_f64(weight / to_come)
            });
            // If it is us who fail, that ends the case, and in the end the run.
            if let Err(error) = self.case(case, share, &mut raw) {
                let why = format!("{error:#}");
                say::problem(&why);
                raw.add(&Record::missing(&case.name(), contender::OURS, &why))?;
                faults.push(why);
            }
            if last.elapsed() > DERIVE {
                derive(results)?;
                last = Instant::now();
            }
        }
        ensure!(faults.is_empty(), "{}", faults.join("; "));
        Ok(())
    }

    fn case(&mut self, case: &Case, share: Option<Duration>, raw: &mut Raw) -> Result<()> {
        let name = case.name();
        let stage = match self.stage(case) {
            Ok(stage) => stage,
            // Too little memory, no web server: said, and the next one may do.
            Err(error) => {
                let why = format!("{error:#}");
                say::line(&format!("  not measured: {why}"));
                return raw.add(&Record::missing(&name, contender::OURS, &why));
            }
        };
        let begun = Instant::now();
        let (mut contenders, once) = self.verified(&name, &stage, raw)?;
        let left = share.map(|share| share.saturating_sub(begun.elapsed()));
        let rounds = self.affordable(once, left);
        let estimate = once * u32::try_from(rounds).unwrap_or(u32::MAX);
        say::line(&format!(
            "  {rounds} rounds, about {:.1} min",
            estimate.as_secs_f64() / 60.0
        ));
        for round in 1..=rounds {
            self.random.shuffle(&mut contenders);
            let mut line = format!("  round {round}:");
            let mut failed = Vec::new();
            for (index, (contender, program)) in contenders.iter().enumerate() {
                stage.bench.forget()?;
                measure::touch(stage.result_size)?;
                match stage.bench.once(contender, program) {
                    Ok(mut record) => {
                        record.case.clone_from(&name);
                        record.round = round;
                        record.position = index + 1;
                        raw.add(&record)?;
                        line.extend([format!(" {} {:.2} s,", contender.name, record.wall)]);
                    }
                    Err(error) if contender.is_longshore() => {
                        return Err(error.context(format!("{} in round {round}", contender.name)));
                    }
                    Err(error) => {
                        let why = format!("failed in round {round}: {error:#}");
                        say::line(&format!("  {}: {why}", contender.name));
                        raw.add(&Record::missing(&name, contender.name, &why))?;
                        failed.push(contender.name);
                    }
                }
            }
            contenders.retain(|(contender, _)| !failed.contains(&contender.name));
            say::line(line.trim_end_matches(','));
        }
        stage.bench.forget()
    }

    /// As many rounds as there is time for, if verifying took as long as a round does.
    fn affordable(&self, once: Duration, left: Option<Duration>) -> usize {
        let Some(left) = left else {
            return self.rounds;
        };
        let fits = left.as_millis() / once.as_millis().max(1);
        let fits = usize::try_from(fits).unwrap_or(usize::MAX);
        fits.clamp(FEWEST.min(self.rounds), self.rounds)
    }

    fn stage<'a>(&self, case: &'a Case) -> Result<Stage<'a>> {
        let fixture = self.fixture(case)?;
        let original = fixture.path(&case.image)?;
        let raw = fixture.raw(&case.image);
        let result_size = allocated(&raw)?;
        let scratch = match case.place {
            Place::Disk => Scratch::new(self.base.join("run"))?,
            Place::Tmpfs => {
                // Source, a downloaded or unpacked copy, the result, and the memory taken before a run.
                let copies = if case.is_http() { 3 } else { 2 };
                let needed = allocated(&original)? + copies * result_size + SPARE_MEMORY;
                ensure!(
                    machine::available() >= needed,
                    "needs {needed} bytes of free memory"
                );
                Scratch::new(PathBuf::from(MEMORY))?
            }
        };
        let folder = scratch.0.as_path();
        let input = match case.place {
            Place::Disk => original,
            Place::Tmpfs => {
                let copy = folder.join(case.image.file());
                let args = [
                    "--sparse=always".as_ref(),
                    original.as_os_str(),
                    copy.as_os_str(),
                ];
                shell::run("cp", &args)?;
                copy
            }
        };
        let server = if case.is_http() {
            let nginx = server::find(self.built.nginx.as_deref())?;
            let root = input.parent().context("a file has a folder")?;
            Some(Server::start(&nginx, root, folder)?)
        } else {
            None
        };
        let file = input.file_name().unwrap_or_default().to_string_lossy();
        let files = Files {
            url: server.as_ref().map(|server| server.url(&file)),
            sha256: case.digest().then(|| measure::sha256(&input)).transpose()?,
            dense: match (case.is_http(), case.place) {
                (true, Place::Disk) => fixture.path(&images::named("qcow2"))?,
                _ => input.clone(),
            },
            input,
            output: folder.join("result.raw"),
            scratch: folder.to_owned(),
        };
        Ok(Stage {
            bench: Bench {
                case,
                files,
                processors: self.processors,
                patience: Cell::new(None),
            },
            raw,
            result_size,
            _server: server,
            _scratch: scratch,
        })
    }

    /// Those who give the right bytes, and how long they took together. Others are named, with what was wrong; if it is us, that is
    /// the end.
    fn verified(
        &self,
        case: &str,
        stage: &Stage<'_>,
        raw: &mut Raw,
    ) -> Result<(Vec<(&'static Contender, PathBuf)>, Duration)> {
        let mut verified = Vec::new();
        let mut took = Duration::ZERO;
        for contender in contender::all() {
            if !contender.takes(stage.bench.case) {
                continue;
            }
            let begun = Instant::now();
            let tried = contender.find(&self.built).and_then(|program| {
                let ran = stage.bench.once(contender, &program);
                if let (Ok(record), true) = (&ran, contender.ours()) {
                    let ours = Duration::from_secs_f64(record.wall).as_secs() + 1;
                    stage.bench.patience.set(Some(PATIENCE * ours));
                }
                let right = ran.and_then(|_| match contender.leaves() {
                    Leaves::Disk => measure::equal(&stage.bench.files.output, &stage.raw),
                    Leaves::Bytes | Leaves::Nothing => Ok(()),
                });
                right
                    .map(|()| program)
                    .map_err(|error| format!("{error:#}"))
            });
            match tried {
                Ok(program) => {
                    took += begun.elapsed();
                    verified.push((contender, program));
                }
                Err(why) if contender.is_longshore() => bail!("{case}: {}: {why}", contender.name),
                Err(why) => {
                    say::line(&format!("  not measured: {}: {why}", contender.name));
                    raw.add(&Record::missing(case, contender.name, &why))?;
                }
            }
        }
        let peers = verified
            .iter()
            .filter(|(contender, _)| !contender.ours() && !contender.name.starts_with(BOUND));
        if peers.count() == 0 {
            say::line("  nobody to compare with");
        }
        Ok((verified, took))
    }

    /// For the record: machine, programs, commands, images.
    pub(super) fn describe(&self, args: &Args, cases: &[Case]) -> Result<String> {
        let mut text = String::new();
        let mut add = |line: &str| {
            text.push_str(line.trim_end());
            text.push('\n');
        };
        add(&format!("date: {}", machine::today()?));
        add(&format!("rounds: {}", self.rounds));
        if let Some(time) = self.time {
            add(&format!(
                "time: {} min for everything, so cases may have fewer rounds: the tables say how many",
                time.as_secs() / 60
            ));
        }
        add(&format!("seed: {}", args.seed));
        if args.quick || self.rounds < ROUNDS.into() {
            add("quick: few rounds, not for publication");
        }
        add(&machine::describe());
        add(&format!(
            "filesystem on disk: {}",
            measure::filesystem(&self.base)?
        ));
        add("page cache: warm, the source is read once before each run; results are new files");
        add("end of the clock: after fsync of the result, for everyone");
        add(&format!("commit: {}", machine::commit()));
        add(&machine::versions(
            &self.built.longshore,
            server::find(self.built.nginx.as_deref()).ok().as_deref(),
        ));
        add("");
        for contender in contender::all() {
            if !cases.iter().any(|case| contender.takes(case)) {
                continue;
            }
            let missing = match contender.find(&self.built) {
                Ok(_) => String::new(),
                Err(why) => format!(" (missing: {why})"),
            };
            add(&format!(
                "{}: {}{missing}",
                contender.name,
                contender.template()
            ));
        }
        add("");
        add(&self.facts(cases)?);
        Ok(text)
    }
}

fn allocated(path: &Path) -> Result<u64> {
    let found = fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    Ok(found.blocks() * 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_fill_the_time_that_is_left_and_are_never_fewer_than_three() {
        let session = Session {
            built: Built {
                longshore: PathBuf::new(),
                qcow2_rs: None,
                nginx: None,
            },
            base: PathBuf::new(),
            size: 0,
            rounds: 11,
            time: None,
            random: Random::new(1),
            processors: 2,
        };
        let round = Duration::from_secs(10);
        assert_eq!(session.affordable(round, None), 11);
        let left = |seconds| session.affordable(round, Some(Duration::from_secs(seconds)));
        assert_eq!([left(0), left(55), left(1000)], [3, 5, 11]);
    }
}
