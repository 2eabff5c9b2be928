//! Imports over a long line: one gigabit a second between two network namespaces, with the delay, the
//! windows and the cuts that [`relay`] plays.
//!
//! Measured is the share of the line that an import gets, beside one stream (`curl`). The result of each
//! import is compared with what was served. Raw data and a summary go to the results.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use self::net::{Line, Running, THERE};
use crate::say;
use crate::versus::{compare_files, describe_machine, nginx_configuration};

mod net;
pub(crate) mod relay;
mod stores;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Bits a second of the line, in millions
    #[arg(long, default_value_t = 1000)]
    megabits: u32,
    /// How often each case runs
    #[arg(long, default_value_t = 3)]
    rounds: u16,
    /// Only cases whose name has this in it (may be given more than once)
    #[arg(long = "case", value_name = "TEXT")]
    cases: Vec<String>,
    /// Where the served file and the results of imports lie
    #[arg(long, value_name = "DIR", default_value = "/dev/shm/longshore-line")]
    dir: PathBuf,
    /// Where line.csv and line.md go
    #[arg(long, value_name = "DIR")]
    results: PathBuf,
    /// The command to measure; xtask builds it
    #[arg(long, env = "LONGSHORE_BENCH_COMMAND", value_name = "PATH")]
    longshore: PathBuf,
    /// The web server; xtask unpacks it
    #[arg(long, env = "LONGSHORE_BENCH_NGINX", value_name = "PATH")]
    nginx: PathBuf,
    /// The store of objects; xtask builds it
    #[arg(long, env = "LONGSHORE_BENCH_VERSITYGW", value_name = "PATH")]
    versitygw: Option<PathBuf>,
}

/// What Linux lets a connection have under way, by default, at the most.
const FULL_WINDOW: usize = 4 << 20;
/// What is left of it where one packet of a thousand is lost.
const LOSSY_WINDOW: usize = 56_000;
const NGINX_PORT: u16 = 8080;
const S3_PORT: u16 = 8081;
const REGISTRY_PORT: u16 = 8082;
const FIRST_PORT: u16 = 9000;

/// A line, and how much is fetched over it.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    server: Server,
    delay: u64,
    window: usize,
    cut: u64,
    size: u64,
    /// What one stream fetches: a part of it, where it would take minutes.
    one_stream: u64,
    goal: Goal,
}

/// Who serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Web,
    S3,
    Registry,
}

impl Server {
    fn port(self) -> u16 {
        match self {
            Self::Web => NGINX_PORT,
            Self::S3 => S3_PORT,
            Self::Registry => REGISTRY_PORT,
        }
    }

    /// What longshore is told to import.
    fn source(self, address: &str) -> Vec<String> {
        match self {
            Self::Web => vec![format!("http://{address}/disk.raw")],
            Self::S3 => stores::s3_source(address),
            Self::Registry => stores::registry_source(address),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Goal {
    /// Percent of the line.
    Share(f64),
    /// Times one stream.
    Times(f64),
}

const MIB: u64 = 1 << 20;

const CASES: &[Case] = &[
    Case {
        name: "20ms",
        server: Server::Web,
        delay: 20,
        window: FULL_WINDOW,
        cut: 0,
        size: 2048 * MIB,
        one_stream: 512 * MIB,
        goal: Goal::Share(80.0),
    },
    Case {
        name: "100ms",
        server: Server::Web,
        delay: 100,
        window: FULL_WINDOW,
        cut: 0,
        size: 2048 * MIB,
        one_stream: 256 * MIB,
        goal: Goal::Share(80.0),
    },
    Case {
        name: "20ms+cuts",
        server: Server::Web,
        delay: 20,
        window: FULL_WINDOW,
        cut: 32 * MIB,
        size: 2048 * MIB,
        one_stream: 0,
        goal: Goal::Share(80.0),
    },
    Case {
        name: "100ms+cuts",
        server: Server::Web,
        delay: 100,
        window: FULL_WINDOW,
        cut: 32 * MIB,
        size: 2048 * MIB,
        one_stream: 0,
        goal: Goal::Share(80.0),
    },
    Case {
        name: "S3 100ms+cuts",
        server: Server::S3,
        delay: 100,
        window: FULL_WINDOW,
        cut: 32 * MIB,
        size: 2048 * MIB,
        one_stream: 0,
        goal: Goal::Share(80.0),
    },
    Case {
        name: "registry 100ms+cuts",
        server: Server::Registry,
        delay: 100,
        window: FULL_WINDOW,
        cut: 32 * MIB,
        size: 2048 * MIB,
        one_stream: 0,
        goal: Goal::Share(80.0),
    },
    Case {
        name: "20ms+loss",
        server: Server::Web,
        delay: 20,
        window: LOSSY_WINDOW,
        cut: 0,
        size: 256 * MIB,
        one_stream: 16 * MIB,
        goal: Goal::Times(8.0),
    },
    Case {
        name: "100ms+loss",
        server: Server::Web,
        delay: 100,
        window: LOSSY_WINDOW,
        cut: 0,
        size: 128 * MIB,
        one_stream: 4 * MIB,
        goal: Goal::Times(8.0),
    },
];

/// A run of one contender.
#[derive(Debug)]
struct Run {
    case: &'static str,
    who: &'static str,
    bytes: u64,
    seconds: f64,
    processor: f64,
    resident_kib: u64,
}

impl Run {
    /// Bytes a second.
    fn rate(&self) -> f64 {
        to_f64(self.bytes) / self.seconds
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a disk, for people")]
fn to_f64(bytes: u64) -> f64 {
    bytes as f64
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let cases: Vec<Case> = CASES
        .iter()
        .filter(|case| {
            args.cases.is_empty() || args.cases.iter().any(|name| case.name.contains(name))
        })
        .copied()
        .collect();
    ensure!(!cases.is_empty(), "there is no such case");
    drop(fs::remove_dir_all(&args.dir));
    fs::create_dir_all(&args.dir).with_context(|| format!("making {}", args.dir.display()))?;
    fs::create_dir_all(&args.results)
        .with_context(|| format!("making {}", args.results.display()))?;
    let scratch = Scratch(args.dir.clone());
    let line = Line::new(args.megabits).context("making a line takes root, `ip` and `tc`")?;
    let config = scratch.0.join("nginx.conf");
    let text = nginx_configuration(&scratch.0, &scratch.0, NGINX_PORT);
    fs::write(&config, text).context("configuring nginx")?;
    let log = scratch.0.join("nginx.log");
    let mut server = line.command(&args.nginx);
    server.arg("-p").arg(&scratch.0).arg("-e").arg(&log);
    let _server = Running::start(server.arg("-c").arg(&config))?;
    let mut runs = Vec::new();
    let mut store: Option<(Server, Running)> = None;
    for (case, port) in cases.iter().zip(FIRST_PORT..) {
        let address = format!("{THERE}:{port}");
        let own = std::env::current_exe().context("finding this program")?;
        let mut relay = line.command(&own);
        relay.arg("relay").args(["--listen", &address]);
        relay.args(["--to", &format!("127.0.0.1:{}", case.server.port())]);
        relay.args(["--delay", &case.delay.to_string()]);
        relay.args(["--window", &case.window.to_string()]);
        relay.args(["--cut", &case.cut.to_string()]);
        let mut relay = Running::start(&mut relay)?;
        relay.wait_for(&address)?;
        let source = scratch.0.join("disk.raw");
        noise(&source, case.size)?;
        if store
            .as_ref()
            .is_none_or(|(server, _)| *server != case.server)
        {
            // What the last one held is memory.
            drop(store.take());
            store = start(args, case.server, &line, &scratch.0, &source)?;
        }
        for _ in 0..args.rounds {
            measure(args, case, &address, &source, &mut runs)?;
            write(args, &runs)?;
        }
    }
    let summary = summary(&runs, args.megabits);
    say::data(&summary);
    fs::write(args.results.join("line.md"), &summary).context("writing the summary")
}

/// The server that a case takes besides nginx.
fn start(
    args: &Args,
    server: Server,
    line: &Line,
    dir: &Path,
    disk: &Path,
) -> Result<Option<(Server, Running)>> {
    for held in ["objects", "registry"] {
        drop(fs::remove_dir_all(dir.join(held)));
    }
    let running = match server {
        Server::Web => return Ok(None),
        Server::S3 => {
            let program = args.versitygw.as_deref();
            let program = program.context("there is no versitygw: see --versitygw")?;
            stores::start_s3(line, program, dir, S3_PORT, disk)?
        }
        Server::Registry => stores::start_registry(line, dir, REGISTRY_PORT, disk)?,
    };
    Ok(Some((server, running)))
}

/// One round: us, and one stream.
fn measure(
    args: &Args,
    case: &Case,
    address: &str,
    source: &Path,
    runs: &mut Vec<Run>,
) -> Result<()> {
    let out = args.dir.join("out.raw");
    drop(fs::remove_file(&out));
    let mut import = timed(&args.dir);
    import
        .arg(&args.longshore)
        .env("AWS_ACCESS_KEY_ID", stores::ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", stores::SECRET_KEY)
        .env("AWS_REGION", stores::REGION)
        .args(["import", "--progress", "off"])
        .args(case.server.source(address));
    runs.push(done(
        case,
        "longshore",
        case.size,
        import.arg(&out),
        &args.dir,
    )?);
    compare_files(source, &out).context("the import differs")?;
    fs::remove_file(&out).context("removing the result")?;
    if case.one_stream > 0 {
        let mut curl = timed(&args.dir);
        let range = format!("0-{}", case.one_stream - 1);
        let url = format!("http://{address}/disk.raw");
        curl.args(["curl", "-sSf", "-o", "/dev/null", "-r", &range, &url]);
        runs.push(done(
            case,
            "one stream",
            case.one_stream,
            &mut curl,
            &args.dir,
        )?);
    }
    Ok(())
}

/// GNU time, in front of a command.
fn timed(dir: &Path) -> Command {
    let mut command = Command::new("/usr/bin/time");
    let report = dir.join("time.txt");
    drop(fs::remove_file(&report));
    command.args(["-f", "%e %U %S %M", "-o"]).arg(report);
    // Nobody waits for a line that has gone dead.
    let limit = Duration::from_mins(5).as_secs().to_string();
    command.args(["timeout", "--foreground", "--signal=KILL", &limit]);
    command
}

fn done(
    case: &Case,
    who: &'static str,
    bytes: u64,
    command: &mut Command,
    dir: &Path,
) -> Result<Run> {
    let output = command.output().context("starting time")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} over {}: {}", who, case.name, said.trim());
    }
    let report = fs::read_to_string(dir.join("time.txt")).context("reading what time measured")?;
    let numbers: Vec<f64> = report
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [seconds, user, system, resident] = numbers[..] else {
        bail!("time measured something else: {report}");
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number of KiB that was written as such"
    )]
    let resident_kib = resident as u64;
    let run = Run {
        case: case.name,
        who,
        bytes,
        seconds,
        processor: user + system,
        resident_kib,
    };
    say::line(&format!(
        "{}: {who} {seconds:.2} s, {:.1} MB/s, {:.2} s of processor, {} MiB",
        case.name,
        run.rate() / 1e6,
        run.processor,
        resident_kib / 1024
    ));
    Ok(run)
}

/// Bytes without zeros to skip, and not twice the same.
fn noise(path: &Path, size: u64) -> Result<()> {
    if fs::metadata(path).is_ok_and(|meta| meta.len() == size) {
        return Ok(());
    }
    let mut file = File::create(path).context("making what is served")?;
    let mut state = size | 1;
    let mut block = vec![0; 1 << 20];
    for _ in 0..size / MIB {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block).context("making what is served")?;
    }
    Ok(())
}

fn write(args: &Args, runs: &[Run]) -> Result<()> {
    let mut text = String::from("case,contender,bytes,seconds,processor_seconds,resident_kib\n");
    for run in runs {
        writeln!(
            text,
            "{},{},{},{},{},{}",
            run.case, run.who, run.bytes, run.seconds, run.processor, run.resident_kib
        )?;
    }
    fs::write(args.results.join("line.csv"), text).context("writing the raw data")?;
    let machine = format!(
        "{}line: {} Mbit/s by tbf\n",
        describe_machine(),
        args.megabits
    );
    fs::write(args.results.join("line-machine.txt"), machine).context("describing the machine")
}

fn summary(runs: &[Run], megabits: u32) -> String {
    let line = f64::from(megabits) * 1e6 / 8.0;
    let mut text = format!(
        "# Imports over a line of {megabits} Mbit/s\n\n\
         Medians of the rounds in `line.csv`. The line is tbf between two network namespaces; delay (of a \
         round trip), windows and cuts are those of `benches/line/relay.rs`: loss is a window of {} KB for \
         each connection, cuts come after 16 to 48 MiB. Behind it are nginx, versitygw (S3) and Debian's docker-registry. At most 16 connections. One stream is `curl`.\n\n\
         | case | longshore | share of the line | one stream | times one stream | processor | memory | goal |\n\
         |---|---|---|---|---|---|---|---|\n",
        LOSSY_WINDOW / 1000
    );
    for case in CASES {
        let of = |who: &str| -> Vec<&Run> {
            let mut of: Vec<&Run> = runs
                .iter()
                .filter(|run| run.case == case.name && run.who == who)
                .collect();
            of.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
            of
        };
        let ours = of("longshore");
        let Some(middle) = ours.get(ours.len() / 2) else {
            continue;
        };
        let single = of("one stream");
        let single = single.get(single.len() / 2).map(|run| run.rate());
        let share = middle.rate() / line * 100.0;
        let times = single.map(|single| middle.rate() / single);
        let goal = match case.goal {
            Goal::Share(goal) => format!("{goal:.0} %: {}", word(share >= goal)),
            Goal::Times(goal) => {
                let reached = times.is_some_and(|times| times >= goal);
                format!("{goal:.0}x: {}", word(reached))
            }
        };
        let shown = |value: Option<f64>, unit: &str| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}{unit}"))
        };
        text.extend([format!(
            "| {} | {:.1} MB/s | {share:.0} % | {} | {} | {:.2} s | {} MiB | {goal} |\n",
            case.name,
            middle.rate() / 1e6,
            shown(single.map(|single| single / 1e6), " MB/s"),
            shown(times, "x"),
            middle.processor,
            middle.resident_kib / 1024,
        )]);
    }
    text
}

fn word(reached: bool) -> &'static str {
    if reached { "reached" } else { "not reached" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_what_was_reached() {
        let run = |who, bytes, seconds| Run {
            case: "20ms+loss",
            who,
            bytes,
            seconds,
            processor: 0.5,
            resident_kib: 20_480,
        };
        let runs = [
            run("longshore", 256 * MIB, 8.0),
            run("one stream", 16 * MIB, 5.0),
        ];
        let text = summary(&runs, 1000);
        assert!(
            text.contains("| 20ms+loss | 33.6 MB/s | 27 % | 3.4 MB/s | 10.0x |"),
            "{text}"
        );
        assert!(text.contains("8x: reached"), "{text}");
    }
}
