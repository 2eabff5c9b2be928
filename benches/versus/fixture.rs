//! The image that is measured: an ext4 disk with real files of an operating system, in every format.
//!
//! Made once, kept outside the checkout, keyed by how it is made. The files are those of this
//! machine, so two machines measure different images; `fixture.txt` beside them says which.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::shell;
use crate::say;

/// Where files are taken from, in this order until there are enough: programs, documents and data,
/// libraries, headers.
const ROOTS: &[&str] = &[
    "/usr/bin",
    "/usr/sbin",
    "/usr/libexec",
    "/usr/share",
    "/usr/lib",
    "/usr/include",
    "/usr/local",
];
/// One vendor's kit as large as the rest of the system together: no disk looks like that.
const LEFT_OUT: &[&str] = &["/usr/lib/google-cloud-sdk"];
/// Raised when the way of making an image changes.
const RECIPE: u32 = 1;
/// The same identity every time, so that equal files make an equal disk.
const IDENTITY: &str = "6c6f6e67-7368-6f72-6562-656e63680001";

/// How large.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) name: &'static str,
    pub(super) disk: u64,
    pub(super) files: u64,
}

/// The image of published results: 6 GiB with 2.7 GiB of files.
pub(super) const FULL: Size = Size {
    name: "full",
    disk: 6 << 30,
    files: 2_899_102_924,
};

/// For trying the harness.
pub(super) const SMALL: Size = Size {
    name: "small",
    disk: 1 << 30,
    files: 384 << 20,
};

/// A format, and how qemu-img makes it.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) name: &'static str,
    pub(super) file: &'static str,
    /// As QEMU calls it.
    pub(super) format: &'static str,
    make: &'static [&'static str],
}

pub(super) const IMAGES: &[Image] = &[
    Image {
        name: "qcow2-zlib",
        file: "zlib.qcow2",
        format: "qcow2",
        make: &["-O", "qcow2", "-c"],
    },
    Image {
        name: "qcow2-zstd",
        file: "zstd.qcow2",
        format: "qcow2",
        make: &["-O", "qcow2", "-c", "-o", "compression_type=zstd"],
    },
    Image {
        name: "vmdk-stream",
        file: "stream.vmdk",
        format: "vmdk",
        make: &["-O", "vmdk", "-o", "subformat=streamOptimized"],
    },
    Image {
        name: "qcow2",
        file: "plain.qcow2",
        format: "qcow2",
        make: &["-O", "qcow2"],
    },
    Image {
        name: "vmdk",
        file: "plain.vmdk",
        format: "vmdk",
        make: &["-O", "vmdk", "-o", "subformat=monolithicSparse"],
    },
    Image {
        name: "raw",
        file: RAW,
        format: "raw",
        make: &[],
    },
];

const RAW: &str = "disk.raw";
const FACTS: &str = "fixture.txt";

#[derive(Debug)]
pub(super) struct Fixture {
    folder: PathBuf,
    /// What it is and how large: for the record.
    pub(super) facts: String,
}

impl Fixture {
    /// Finds the images, or makes them.
    pub(super) fn ready(base: &Path, size: Size) -> Result<Self> {
        let folder = base.join(format!("image-{}-{:08x}", size.name, key(size)?));
        let facts = folder.join(FACTS);
        if !facts.is_file() {
            forget_others(base, size)?;
            make(&folder, size)?;
        }
        let facts =
            fs::read_to_string(&facts).with_context(|| format!("reading {}", facts.display()))?;
        Ok(Self { folder, facts })
    }

    pub(super) fn path(&self, image: &Image) -> PathBuf {
        self.folder.join(image.file)
    }

    /// What every result has to equal.
    pub(super) fn raw(&self) -> PathBuf {
        self.folder.join(RAW)
    }
}

/// Of everything that decides what the images look like, but the files themselves: a package more on
/// the machine is no reason to make gigabytes again.
fn key(size: Size) -> Result<u32> {
    let mut text = format!(
        "{RECIPE} {} {} {ROOTS:?} {LEFT_OUT:?}",
        size.disk, size.files
    );
    for image in IMAGES {
        text.push_str(&image.make.join(" "));
    }
    text.push_str(&version("qemu-img")?);
    Ok(checksum(text.as_bytes()))
}

fn version(program: &str) -> Result<String> {
    let text = shell::run(program, &[OsStr::new("--version")])?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// FNV-1a: names a folder, protects nothing.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// Images of this size made in another way would only fill the disk.
fn forget_others(base: &Path, size: Size) -> Result<()> {
    let prefix = format!("image-{}-", size.name);
    for entry in fs::read_dir(base).with_context(|| format!("listing {}", base.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let path = entry.path();
            say::line(&format!("removing {}", path.display()));
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

fn make(folder: &Path, size: Size) -> Result<()> {
    say::line(&format!("making the images in {}", folder.display()));
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut facts = Facts::default();
    let stage = folder.join("stage");
    let (count, bytes) = fill(&stage, folder, size.files)?;
    facts.add(&format!(
        "{count} files, {bytes} bytes, of {}",
        ROOTS.join(" ")
    ));
    let raw = folder.join(RAW);
    disk(&stage, &raw, size.disk)?;
    fs::remove_dir_all(&stage).context("removing the staged files")?;
    let digest = nice("sha256sum", |command| command.arg(&raw))?;
    let digest = digest.split_whitespace().next().unwrap_or_default();
    facts.add(&format!("sha256 of the raw disk: {digest}"));
    for image in IMAGES {
        let path = folder.join(image.file);
        if !image.make.is_empty() {
            say::line(&format!("  {}", image.file));
            nice("qemu-img", |command| {
                command.args(["convert", "-f", "raw"]).args(image.make);
                command.arg(&raw).arg(&path)
            })?;
        }
        let found =
            fs::metadata(&path).with_context(|| format!("looking at {}", path.display()))?;
        let how = match image.make {
            [] => "mke2fs -d".to_owned(),
            options => format!("qemu-img convert {}", options.join(" ")),
        };
        facts.add(&format!(
            "{}: {} bytes, {} allocated ({how})",
            image.name,
            found.len(),
            found.blocks() * 512
        ));
    }
    facts.add(&format!("made by {}", version("qemu-img")?));
    // Last, because it says that everything is there.
    let path = folder.join(FACTS);
    fs::write(&path, facts.0).with_context(|| format!("writing {}", path.display()))
}

#[derive(Debug, Default)]
struct Facts(String);

impl Facts {
    fn add(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }
}

/// Making images must not be felt by others on the machine.
fn nice(program: &str, with: impl FnOnce(&mut Command) -> &mut Command) -> Result<String> {
    let path = shell::program(program).with_context(|| format!("{program} is not installed"))?;
    let mut command = Command::new("nice");
    command.args(["-n", "5"]).arg(path);
    shell::output(with(&mut command))
}

/// Copies files to the stage, with their paths, modes and times.
fn fill(stage: &Path, folder: &Path, wanted: u64) -> Result<(usize, u64)> {
    let mut chosen = Chosen {
        wanted,
        ..Chosen::default()
    };
    for root in ROOTS {
        chosen.walk(Path::new(root))?;
    }
    let missing = wanted.saturating_sub(chosen.bytes);
    if missing > wanted / 10 {
        say::line(&format!(
            "this machine has {missing} bytes of files less than wanted"
        ));
    }
    ensure!(!chosen.paths.is_empty(), "no files to make a disk of");
    let list = folder.join("files.list");
    let mut writer = BufWriter::new(File::create(&list).context("making the list of files")?);
    for path in &chosen.paths {
        writer.write_all(path.as_os_str().as_bytes())?;
        writer.write_all(b"\0")?;
    }
    writer.flush().context("writing the list of files")?;
    fs::create_dir_all(stage).with_context(|| format!("making {}", stage.display()))?;
    let list = File::open(&list).context("opening the list of files")?;
    let status = Command::new("nice")
        .args(["-n", "5", "cpio", "--pass-through", "--make-directories"])
        .args(["--preserve-modification-time", "--null", "--quiet"])
        .arg(stage)
        .current_dir("/")
        .stdin(Stdio::from(list))
        .status()
        .context("starting cpio")?;
    ensure!(status.success(), "cpio failed ({status})");
    Ok((chosen.paths.len(), chosen.bytes))
}

/// Files in the order of their paths, up to a sum of sizes.
#[derive(Debug, Default)]
struct Chosen {
    wanted: u64,
    bytes: u64,
    paths: Vec<PathBuf>,
}

impl Chosen {
    fn walk(&mut self, folder: &Path) -> Result<()> {
        if LEFT_OUT
            .iter()
            .any(|left_out| folder == Path::new(left_out))
        {
            return Ok(());
        }
        // What is not there or not ours to read is left out as well.
        let Ok(entries) = fs::read_dir(folder) else {
            return Ok(());
        };
        let mut entries: Vec<_> = entries.collect::<std::io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let kind = entry.file_type()?;
            let path = entry.path();
            if kind.is_dir() {
                self.walk(&path)?;
            } else if kind.is_file() {
                let size = entry.metadata()?.len();
                if self.bytes + size <= self.wanted && File::open(&path).is_ok() {
                    self.bytes += size;
                    self.paths.push(path);
                }
            }
        }
        Ok(())
    }
}

/// An ext4 disk with the staged files in it.
fn disk(stage: &Path, raw: &Path, size: u64) -> Result<()> {
    say::line("  disk.raw");
    let file = File::create(raw).context("making the raw disk")?;
    file.set_len(size).context("sizing the raw disk")?;
    let mut features = format!("hash_seed={IDENTITY}");
    features.push_str(",root_owner=0:0");
    nice("mke2fs", |command| {
        command
            .args(["-q", "-F", "-t", "ext4", "-m", "0", "-U", IDENTITY])
            .args(["-E", &features, "-d"])
            .arg(stage)
            .arg(raw)
    })?;
    let made = fs::metadata(raw).context("looking at the raw disk")?;
    if made.len() != size || made.blocks() * 512 < size / 10 {
        bail!("mke2fs made an empty disk");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_chosen_in_the_order_of_their_paths_up_to_the_size() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        for (name, length) in [("c", 10), ("a", 20), ("b/z", 5), ("b/y", 100)] {
            fs::write(folder.path().join(name), vec![1; length]).unwrap();
        }
        let mut chosen = Chosen {
            wanted: 36,
            ..Chosen::default()
        };
        chosen.walk(folder.path()).unwrap();
        let names: Vec<_> = chosen
            .paths
            .iter()
            .map(|path| path.strip_prefix(folder.path()).unwrap().to_str().unwrap())
            .collect();
        // b/y is too large for what is left, and what comes after it is not.
        assert_eq!(names, ["a", "b/z", "c"]);
        assert_eq!(chosen.bytes, 35);
    }

    #[test]
    fn the_checksum_is_the_published_one() {
        assert_eq!(checksum(b""), 0x811c_9dc5);
        assert_eq!(checksum(b"foobar"), 0xbf9c_f968);
    }
}
