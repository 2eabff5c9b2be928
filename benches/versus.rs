//! Conversions side by side: fixture, contenders, rounds, results.
//!
//! The order of things is the rule: equal output is checked before anything is timed; each round runs
//! every contender once, in an order drawn anew; before each run the last result is gone and written
//! out, memory of the result's size was taken and given back, and the source was read once.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::say;
use contender::{Built, Contender};
use fixture::{Fixture, IMAGES, Image};
use measure::Bench;
use random::Random;
use record::{Raw, Record};

mod chart;
mod contender;
mod fixture;
mod machine;
mod measure;
mod random;
mod record;
mod shell;
mod statistics;
mod summary;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often each contender runs [default: 11, or 3 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Only this case: its name, its format or its place (may be given more than once)
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// A small image and few rounds: to try the harness, not to publish
    #[arg(long)]
    quick: bool,
    /// Only make the images, at low priority, for a later run
    #[arg(long)]
    prepare: bool,
    /// Where images and results on disk are kept [default: ~/.cache/longshore/versus]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where the tables go [default: a new folder in benches/results, with --quick in the cache]
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// What decides the orders; recorded
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The command to measure; xtask builds it
    #[arg(long, env = "LONGSHORE_BENCH_COMMAND", value_name = "PATH")]
    longshore: PathBuf,
    /// The qcow2-rs peer; xtask builds it
    #[arg(long, env = "LONGSHORE_BENCH_QCOW2_RS", value_name = "PATH")]
    qcow2_rs: Option<PathBuf>,
}

/// Fewer rounds than this are not for publication.
const ROUNDS: u16 = 11;
const QUICK_ROUNDS: u16 = 3;
/// Left free when a case keeps its files in memory.
const SPARE_MEMORY: u64 = 2 << 30;

/// Where source and result are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In memory: what is measured is decoding.
    Tmpfs,
    /// End to end.
    Disk,
}

impl Place {
    const fn name(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Disk => "disk",
        }
    }
}

/// One image in one place.
#[derive(Debug)]
struct Case {
    image: &'static Image,
    place: Place,
}

impl Case {
    fn all() -> Vec<Self> {
        let of = |place| IMAGES.iter().map(move |image| Self { image, place });
        of(Place::Tmpfs).chain(of(Place::Disk)).collect()
    }

    /// `qcow2-zlib@tmpfs`.
    fn name(&self) -> String {
        format!("{}@{}", self.image.name, self.place.name())
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let cases = chosen(&args.cases)?;
    let base = match &args.dir {
        Some(dir) => dir.clone(),
        None => cache()?,
    };
    make_dir(&base)?;
    let lock = File::create(base.join("lock")).context("making the lock file")?;
    if lock.try_lock().is_err() {
        bail!("another run is using {}", base.display());
    }
    let built = Built {
        longshore: args.longshore.clone(),
        qcow2_rs: args.qcow2_rs.clone(),
    };
    let size = if args.quick {
        fixture::SMALL
    } else {
        fixture::FULL
    };
    let fixture = Fixture::ready(&base, size)?;
    if args.prepare {
        say::line(&fixture.facts);
        return Ok(());
    }
    let results = results(args, &base)?;
    let rounds = args
        .rounds
        .unwrap_or(if args.quick { QUICK_ROUNDS } else { ROUNDS });
    let mut session = Session {
        fixture,
        built,
        base,
        rounds: rounds.into(),
        random: Random::new(args.seed),
        raw: Raw::create(&results.join("raw.csv"))?,
    };
    write(&results.join("machine.txt"), &session.describe(args)?)?;
    for case in &cases {
        say::line(&format!("\n{}", case.name()));
        session.case(case)?;
    }
    report(&results)
}

/// Writes what is made from the raw data.
pub(crate) fn report(results: &Path) -> Result<()> {
    let records = record::read(&results.join("raw.csv"))?;
    let machine = results.join("machine.txt");
    let machine =
        fs::read_to_string(&machine).with_context(|| format!("reading {}", machine.display()))?;
    let tables = summary::Table::all(&records);
    let summary = summary::render(&tables, &machine);
    write(&results.join("summary.md"), &summary)?;
    write(&results.join("chart.svg"), &chart::render(&tables))?;
    say::line(&format!("\n{summary}\n{}", results.display()));
    Ok(())
}

struct Session {
    fixture: Fixture,
    built: Built,
    base: PathBuf,
    rounds: usize,
    random: Random,
    raw: Raw,
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

impl Session {
    fn case(&mut self, case: &Case) -> Result<()> {
        let name = case.name();
        let original = self.fixture.path(case.image);
        let raw = self.fixture.raw();
        let result_size = allocated(&raw)?;
        let scratch = match case.place {
            Place::Disk => Scratch::new(self.base.join("run"))?,
            Place::Tmpfs => {
                // Source, result, and the memory taken before a run.
                let needed = allocated(&original)? + 2 * result_size + SPARE_MEMORY;
                if machine::available() < needed {
                    let why = format!("needs {needed} bytes of free memory");
                    say::line(&format!("  not measured: {why}"));
                    return self.raw.add(&Record::missing(&name, contender::OURS, &why));
                }
                Scratch::new(PathBuf::from("/dev/shm/longshore-versus"))?
            }
        };
        let input = match case.place {
            Place::Disk => original,
            Place::Tmpfs => {
                let copy = scratch.0.join(case.image.file);
                let args = [
                    "--sparse=always".as_ref(),
                    original.as_os_str(),
                    copy.as_os_str(),
                ];
                shell::run("cp", &args)?;
                copy
            }
        };
        let bench = Bench {
            image: case.image,
            input,
            output: scratch.0.join("result.raw"),
            report: scratch.0.join("time.txt"),
        };
        let mut contenders = self.verified(&name, &bench, &raw)?;
        for round in 1..=self.rounds {
            self.random.shuffle(&mut contenders);
            let mut line = format!("  round {round}:");
            for (index, (contender, program)) in contenders.iter().enumerate() {
                bench.forget()?;
                measure::touch(result_size)?;
                let mut record = bench
                    .once(contender, program)
                    .with_context(|| format!("{} in round {round}", contender.name))?;
                record.case.clone_from(&name);
                record.round = round;
                record.position = index + 1;
                self.raw.add(&record)?;
                line.extend([format!(" {} {:.2} s,", contender.name, record.wall)]);
            }
            say::line(line.trim_end_matches(','));
        }
        bench.forget()
    }

    /// Those who give the right bytes. Others are named, with what was wrong; if it is us, that is
    /// the end.
    fn verified(
        &mut self,
        case: &str,
        bench: &Bench<'_>,
        raw: &Path,
    ) -> Result<Vec<(&'static Contender, PathBuf)>> {
        let mut verified = Vec::new();
        for contender in contender::ALL {
            if !contender.takes(bench.image) {
                continue;
            }
            let tried = contender.find(&self.built).and_then(|program| {
                bench
                    .once(contender, &program)
                    .and_then(|_| measure::equal(&bench.output, raw))
                    .map(|()| program)
                    .map_err(|error| format!("{error:#}"))
            });
            match tried {
                Ok(program) => verified.push((contender, program)),
                Err(why) if contender.ours() => bail!("{case}: {}: {why}", contender.name),
                Err(why) => {
                    say::line(&format!("  not measured: {}: {why}", contender.name));
                    self.raw.add(&Record::missing(case, contender.name, &why))?;
                }
            }
        }
        ensure!(verified.len() > 1, "{case}: nobody to compare with");
        Ok(verified)
    }

    fn describe(&self, args: &Args) -> Result<String> {
        let mut text = String::new();
        let mut add = |line: &str| {
            text.push_str(line.trim_end());
            text.push('\n');
        };
        add(&format!("date: {}", machine::today()?));
        add(&format!("rounds: {}", self.rounds));
        add(&format!("seed: {}", args.seed));
        if args.quick || self.rounds < ROUNDS.into() {
            add("quick: a trial of the harness, not for publication");
        }
        add(&machine::describe());
        add(&format!(
            "filesystem on disk: {}",
            measure::filesystem(&self.base)?
        ));
        add("page cache: warm, the source is read once before each run; results are new files");
        add("end of the clock: after fsync of the result, for everyone");
        add(&format!("commit: {}", machine::commit()));
        add(&machine::versions(&self.built.longshore));
        add("");
        for contender in contender::ALL {
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
        add(&self.fixture.facts);
        Ok(text)
    }
}

fn chosen(names: &[String]) -> Result<Vec<Case>> {
    let wanted = |case: &Case, name: &String| {
        let whole = case.name();
        whole == *name || case.image.name == name || case.place.name() == name
    };
    for name in names {
        if !Case::all().iter().any(|case| wanted(case, name)) {
            let all: Vec<String> = Case::all().iter().map(Case::name).collect();
            bail!("there is no case {name}; there are: {}", all.join(" "));
        }
    }
    let mut cases = Case::all();
    if !names.is_empty() {
        cases.retain(|case| names.iter().any(|name| wanted(case, name)));
    }
    Ok(cases)
}

fn cache() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME says where to keep a cache")?;
    Ok(base.join("longshore/versus"))
}

/// A folder of its own for every run.
fn results(args: &Args, base: &Path) -> Result<PathBuf> {
    let path = if let Some(path) = &args.results {
        path.clone()
    } else {
        let parent = if args.quick {
            base.join("quick")
        } else {
            Path::new(env!("CARGO_MANIFEST_DIR")).join("results")
        };
        let name = format!("{}-{}", machine::today()?, machine::label());
        let numbered = (2..).map(|number| parent.join(format!("{name}-{number}")));
        std::iter::once(parent.join(&name))
            .chain(numbered)
            .find(|path| !path.exists())
            .context("there is always another number")?
    };
    make_dir(&path)?;
    Ok(path)
}

fn allocated(path: &Path) -> Result<u64> {
    let found = fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    Ok(found.blocks() * 512)
}

fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("making the folder {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(chosen: &[&str]) -> Result<Vec<String>> {
        let wanted: Vec<String> = chosen.iter().map(|name| (*name).to_owned()).collect();
        Ok(super::chosen(&wanted)?.iter().map(Case::name).collect())
    }

    #[test]
    fn a_case_is_chosen_by_its_name_its_format_or_its_place() {
        assert_eq!(names(&["qcow2@disk"]).unwrap(), ["qcow2@disk"]);
        assert_eq!(names(&["qcow2"]).unwrap(), ["qcow2@tmpfs", "qcow2@disk"]);
        assert_eq!(names(&["tmpfs"]).unwrap().len(), IMAGES.len());
        assert_eq!(names(&[]).unwrap().len(), 2 * IMAGES.len());
    }

    #[test]
    fn an_unknown_case_is_an_error_that_lists_the_known_ones() {
        let text = names(&["qcow3"]).unwrap_err().to_string();
        assert!(text.contains("qcow2-zlib@tmpfs"), "{text}");
    }
}
