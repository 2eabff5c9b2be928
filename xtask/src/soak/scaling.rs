//! Does time grow with what is allocated, and memory not at all?
//!
//! Images of 1 TiB with more and more data in them, and empty ones as large as their formats allow. The
//! data lies in runs all over the disk, so that every table of a 1 TiB image is there and is walked. Host
//! clusters are referred to [`SHARED`] times, so that an image with 20 GiB of data takes 2.5 GiB.
//!
//! The disks go to a folder, or with `--zram` to a filesystem in memory for which pages of one repeated
//! word take no room: there 20 GiB of data fit on any machine, and storage is no part of what is measured.

mod image;
mod place;
mod report;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use self::image::{Kind, SHARED};
use self::place::Place;
use self::report::{Empty, Point};
use crate::shell::Run;
use crate::{cargo, paths, say};

const GIB: u64 = 1 << 30;
/// Size of the disks with data.
const DISK: u64 = 1 << 40;

/// Where, and how much.
#[derive(Debug, clap::Parser)]
#[command(name = "scaling")]
pub(crate) struct Args {
    /// GiB of data in a disk of 1 TiB
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8])]
    gib: Vec<u32>,
    /// Rounds over all of them; the fastest counts
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Where images and disks are put: 1.2 GiB for each GiB of the largest, on a filesystem that has files
    /// of 64 TiB (XFS, tmpfs; not ext4)
    #[arg(long, conflicts_with = "zram")]
    dir: Option<PathBuf>,
    /// Puts them on a filesystem on /dev/zram0, which must be unused; takes root
    #[arg(long)]
    zram: bool,
    /// Where the report is written
    #[arg(long, default_value = "docs/soak/scaling.md")]
    report: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.gib.is_empty() || args.gib.contains(&0) || args.rounds == 0 {
        bail!("there must be rounds, and GiB of data");
    }
    cargo::locked("build")
        .args(["--release", "--package", "longshore-cli"])
        .check()?;
    let program = paths::target().join("release/longshore");
    let place = match &args.dir {
        _ if args.zram => Place::zram()?,
        Some(dir) => Place::folder(dir)?,
        None => Place::folder(&paths::target().join("soak"))?,
    };
    let empties = empties(&program, place.path())?;
    let mut points = Vec::new();
    for kind in [Kind::Plain, Kind::Zlib] {
        points.extend(with_data(kind, args, &program, place.path())?);
    }
    let text = report::write(&empties, &points, &place.describe(), args.rounds)?;
    let to = paths::root().join(&args.report);
    if let Some(folder) = to.parent() {
        paths::make_dir(folder)?;
    }
    paths::write(&to, &text)?;
    say::line(&format!("\n{text}\nwritten to {}", to.display()));
    report::judge(&empties, &points)
}

/// What one conversion took.
#[derive(Debug, Clone, Copy)]
struct Took {
    seconds: f64,
    cpu: f64,
    /// Most memory that was resident, in KiB.
    memory: u32,
    written: u64,
}

impl Took {
    fn better(self, other: Self) -> Self {
        Self {
            seconds: self.seconds.min(other.seconds),
            cpu: self.cpu.min(other.cpu),
            memory: self.memory.max(other.memory),
            written: self.written,
        }
    }
}

fn convert(program: &Path, from: &Path, to: &Path) -> Result<Took> {
    let times = to.with_extension("times");
    let started = Instant::now();
    let lines = Run::new("time")
        .args(["--format", "%U %S %M", "--output"])
        .arg(&times)
        .arg(program)
        .args(["convert", "--sync", "--progress", "json"])
        .args([from, to])
        .quiet()
        .capture()?;
    let seconds = started.elapsed().as_secs_f64();
    let done: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap_or_default())
        .context("the last line that longshore printed")?;
    let text = paths::read(&times)?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let [user, system, memory] = words[..] else {
        bail!("what `time` said was not understood: {text}");
    };
    let (user, system): (f64, f64) = (user.parse()?, system.parse()?);
    Ok(Took {
        seconds,
        cpu: user + system,
        memory: memory.parse()?,
        written: done["written"].as_u64().unwrap_or(0),
    })
}

fn remove(path: &Path) -> Result<()> {
    std::fs::remove_file(path).with_context(|| format!("removing {}", path.display()))
}

fn empties(program: &Path, place: &Path) -> Result<Vec<Empty>> {
    let mut found = Vec::new();
    for (format, options, size) in [
        ("qcow2", "", "8T"),
        ("qcow2", "preallocation=metadata", "256G"),
        ("vhdx", "", "64T"),
        ("vmdk", "", "2T"),
        ("vdi", "", "2T"),
        ("vpc", "", "2000G"),
    ] {
        let (from, to) = (place.join("empty.img"), place.join("empty.raw"));
        let mut make = Run::new("qemu-img").args(["create", "-q", "-f", format]);
        if !options.is_empty() {
            make = make.args(["-o", options]);
        }
        make.arg(&from).arg(size).check()?;
        let best = (0..3)
            .map(|_| {
                let took = convert(program, &from, &to)?;
                remove(&to)?;
                Ok(took)
            })
            .reduce(|a: Result<Took>, b| Ok(a?.better(b?)))
            .context("three is more than none")??;
        remove(&from)?;
        found.push(Empty {
            what: format!("{format} {options}").trim().to_owned(),
            size,
            took: best,
        });
    }
    Ok(found)
}

fn with_data(kind: Kind, args: &Args, program: &Path, place: &Path) -> Result<Vec<Point>> {
    let mut images = Vec::new();
    for &gib in &args.gib {
        let to = place.join(format!("{}-{gib}.qcow2", kind.name()));
        say::line(&format!(
            "making {} with {gib} GiB of data in 1 TiB, each cluster {SHARED} times",
            to.display()
        ));
        image::make(kind, DISK, u64::from(gib) * GIB, &to)?;
        images.push((gib, to));
    }
    let mut best: Vec<Option<Took>> = vec![None; images.len()];
    for round in 0..args.rounds {
        for ((gib, image), best) in images.iter().zip(&mut best) {
            let out = place.join("out.raw");
            let took = convert(program, image, &out)?;
            if took.written != u64::from(*gib) * GIB {
                bail!("{} GiB became {} bytes", gib, took.written);
            }
            // Once, and where it does not take all day.
            if round == 0 && *gib <= 4 {
                Run::new("qemu-img")
                    .args(["compare", "-f", "qcow2", "-F", "raw"])
                    .args([image, &out])
                    .check()?;
            }
            remove(&out)?;
            *best = Some(best.map_or(took, |best| best.better(took)));
        }
    }
    let mut points = Vec::new();
    for ((gib, image), best) in images.iter().zip(best) {
        remove(image)?;
        points.push(Point {
            kind,
            gib: *gib,
            took: best.context("there is at least one round")?,
        });
    }
    Ok(points)
}
