//! Conversions side by side: fixture, contenders, rounds, results.
//!
//! The order of things is the rule: equal output is checked before anything is timed; each round runs
//! every contender once, in an order drawn anew; before each run the last result is gone and written
//! out, memory of the result's size was taken and given back, and the source was read once.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use flate2::bufread::MultiGzDecoder;

use crate::say;
use contender::Built;
use session::Session;
use table::Table;

mod case;
mod cgroup;
mod chart;
mod compare;
mod contender;
mod fixture;
mod goals;
mod json;
mod machine;
mod measure;
mod random;
mod record;
mod server;
mod session;
mod shell;
mod size;
mod statistics;
mod summary;
mod table;

pub(crate) use compare::{Args as CompareArgs, run as compare};
pub(crate) use machine::describe as describe_machine;
pub(crate) use measure::equal as compare_files;
pub(crate) use server::configuration as nginx_configuration;
pub(crate) use statistics::median;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often each contender runs at the most [default: 11, or 5 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// End after about so many minutes: every case gets its share of what is left, and three rounds
    /// at the least [default: no end, or 3 with --quick]
    #[arg(long, value_name = "N")]
    minutes: Option<u16>,
    /// Only this case: its name, its format, its place, or a group: files, limits, import,
    /// sweep-threads, sweep-clusters, sweep-allocation, sweeps (may be given more than once)
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// How large the disk is, such as 1G; 45 % of it is files. Imports and sweeps have many cases and
    /// take half of it [default: 6G, or 512M with --quick]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    size: Option<u64>,
    /// A first result in less than five minutes: a small disk, the main cases, few rounds
    #[arg(long)]
    quick: bool,
    /// Only make the images, at low priority, for a later run
    #[arg(long)]
    prepare: bool,
    /// Print the results as JSON on standard output instead of the summary
    #[arg(long)]
    json: bool,
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
    /// The web server for imports; xtask unpacks it
    #[arg(long, env = "LONGSHORE_BENCH_NGINX", value_name = "PATH")]
    nginx: Option<PathBuf>,
}

/// Fewer rounds than this are not for publication.
const ROUNDS: u16 = 11;
const QUICK_ROUNDS: u16 = 5;
const QUICK_MINUTES: u16 = 3;

pub(crate) fn run(args: &Args) -> Result<()> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let mut names = args.cases.clone();
    if args.quick && names.is_empty() {
        names = case::QUICK.iter().map(|name| (*name).to_owned()).collect();
    }
    let cases = case::chosen(&names, processors)?;
    let base = match &args.dir {
        Some(dir) => dir.clone(),
        None => cache()?,
    };
    make_dir(&base)?;
    let lock = File::create(base.join("lock")).context("making the lock file")?;
    if lock.try_lock().is_err() {
        bail!("another run is using {}", base.display());
    }
    let default = if args.quick {
        fixture::SMALL
    } else {
        fixture::FULL
    };
    let mut session = Session {
        built: Built {
            longshore: args.longshore.clone(),
            qcow2_rs: args.qcow2_rs.clone(),
            nginx: args.nginx.clone(),
        },
        size: args.size.unwrap_or(default),
        rounds: args
            .rounds
            .unwrap_or(if args.quick { QUICK_ROUNDS } else { ROUNDS })
            .into(),
        time: args
            .minutes
            .or_else(|| args.quick.then_some(QUICK_MINUTES))
            .map(|minutes| Duration::from_mins(minutes.into())),
        random: random::Random::new(args.seed),
        processors,
        base,
    };
    session.prepare(&cases)?;
    if args.prepare {
        say::data(&session.facts(&cases)?);
        return Ok(());
    }
    let results = results(args, &session.base)?;
    let machine = session.describe(args, &cases)?;
    write(&results.join("machine.txt"), &machine)?;
    // What is measured is written down at once: a run that is interrupted has what it has.
    let outcome = session.run(&cases, &results);
    report(&results, args.json)?;
    outcome
}

/// Writes what is made from the raw data, and prints the summary, or all of it as JSON.
pub(crate) fn report(results: &Path, json: bool) -> Result<()> {
    let page = derive(results)?;
    say::data(if json { &page.json } else { &page.summary });
    say::line(&results.display().to_string());
    Ok(())
}

struct Page {
    summary: String,
    json: String,
}

fn derive(results: &Path) -> Result<Page> {
    let records = record::read(&results.join("raw.csv"))?;
    let machine = results.join("machine.txt");
    let machine =
        fs::read_to_string(&machine).with_context(|| format!("reading {}", machine.display()))?;
    let tables = Table::all(&records);
    let charts = chart::all(&tables);
    let names: Vec<&str> = charts.iter().map(|(name, _)| name.as_str()).collect();
    let page = Page {
        summary: summary::render(&tables, &machine, &names),
        json: json::render(&tables, &machine)?,
    };
    write(&results.join("summary.md"), &page.summary)?;
    write(&results.join("summary.json"), &page.json)?;
    for (name, chart) in &charts {
        write(&results.join(name), chart)?;
    }
    Ok(page)
}

/// Inflates a file into nothing.
pub(crate) fn gunzip(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut decoder = MultiGzDecoder::new(BufReader::with_capacity(1 << 20, file));
    io::copy(&mut decoder, &mut io::sink()).context("inflating")?;
    Ok(())
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

fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("making the folder {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
