//! The disk that is measured: ext4 with real files of an operating system, and the images made of it.
//!
//! Made once, kept outside the checkout, keyed by how it is made; an image is made when a case first
//! asks for it. The files are those of this machine, so two machines measure different images: what is
//! written down beside them says which.

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
use images::{Base, Image, Made};

pub(super) mod images;
mod spread;

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
/// Raised when the way of making a disk changes.
const RECIPE: u32 = 2;
/// The same identity every time, so that equal files make an equal disk.
const IDENTITY: &str = "6c6f6e67-7368-6f72-6562-656e63680001";

/// The disk of published results: 6 GiB with 2.7 GiB of files.
pub(super) const FULL: u64 = 6 << 30;
/// For a first result.
pub(super) const SMALL: u64 = 512 << 20;
/// How much of a disk is files.
const PERCENT: u64 = 45;

const FACTS: &str = "fixture.txt";

/// The images of one disk.
#[derive(Debug)]
pub(super) struct Fixture {
    folder: PathBuf,
    disk: u64,
}

impl Fixture {
    /// Finds the disk of so many bytes, or makes it.
    pub(super) fn ready(base: &Path, disk: u64) -> Result<Self> {
        let key = format!("{RECIPE} {disk} {PERCENT} {ROOTS:?} {LEFT_OUT:?}");
        let name = format!("disk-{}M", disk >> 20);
        let folder = base.join(format!("{name}-{:08x}", checksum(key.as_bytes())));
        let this = Self { folder, disk };
        if !this.folder.join(FACTS).is_file() {
            forget_others(base, &name)?;
            this.make()?;
        }
        Ok(this)
    }

    /// What every result of `image` has to equal.
    pub(super) fn raw(&self, image: &Image) -> PathBuf {
        self.folder.join(image.base.file())
    }

    /// The image's file; makes it where it is missing, or was made in another way.
    pub(super) fn path(&self, image: &Image) -> Result<PathBuf> {
        if let Base::Spread(percent) = image.base {
            self.once(&image.base.file(), "pieces of the disk", |path| {
                spread::make(&self.folder.join(Base::Files.file()), path, percent)
            })?;
        }
        if image.made == Made::Itself {
            return Ok(self.raw(image));
        }
        let raw = self.raw(image);
        self.once(&image.file(), &image.recipe(), |path| {
            convert(image.made, &raw, path)
        })
    }

    /// What it is and how large, for the record: a line for each image made so far.
    pub(super) fn facts(&self) -> Result<String> {
        let mut names: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(&self.folder)
            .with_context(|| format!("listing {}", self.folder.display()))?
        {
            let path = entry?.path();
            if path.extension() == Some(OsStr::new("txt")) && !path.ends_with(FACTS) {
                names.push(path);
            }
        }
        names.sort();
        names.insert(0, self.folder.join(FACTS));
        let mut text = String::new();
        for name in names {
            text += &fs::read_to_string(&name)
                .with_context(|| format!("reading {}", name.display()))?;
        }
        Ok(text)
    }

    /// Makes a file and, when it is whole, a note beside it that says how it was made.
    fn once(
        &self,
        file: &str,
        recipe: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let path = self.folder.join(file);
        let note = self.folder.join(format!("{file}.txt"));
        let how = format!("({recipe}; disk {})", self.disk);
        let noted = fs::read_to_string(&note).unwrap_or_default();
        if !noted.trim_end().ends_with(&how) {
            say::line(&format!("  making {}", path.display()));
            drop(fs::remove_file(&note));
            make(&path)?;
            let found =
                fs::metadata(&path).with_context(|| format!("looking at {}", path.display()))?;
            let (length, blocks) = (found.len(), found.blocks() * 512);
            let line = format!("{file}: {length} bytes, {blocks} allocated {how}\n");
            fs::write(&note, line).with_context(|| format!("writing {}", note.display()))?;
        }
        Ok(path)
    }

    fn make(&self) -> Result<()> {
        say::line(&format!("making a disk in {}", self.folder.display()));
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("making {}", self.folder.display()))?;
        let stage = self.folder.join("stage");
        drop(fs::remove_dir_all(&stage));
        let (count, bytes) = fill(&stage, &self.folder, self.disk / 100 * PERCENT)?;
        let raw = self.folder.join(Base::Files.file());
        disk(&stage, &raw, self.disk)?;
        fs::remove_dir_all(&stage).context("removing the staged files")?;
        let digest = nice("sha256sum", |command| command.arg(&raw))?;
        let digest = digest.split_whitespace().next().unwrap_or_default();
        let made = fs::metadata(&raw).context("looking at the raw disk")?;
        let facts = format!(
            "disk: {} bytes, {} allocated, sha256 {digest}\n\
             {count} files, {bytes} bytes, of {}\nmade by {}\n",
            made.len(),
            made.blocks() * 512,
            ROOTS.join(" "),
            version("qemu-img")?
        );
        // Last, because it says that everything is there.
        let path = self.folder.join(FACTS);
        fs::write(&path, facts).with_context(|| format!("writing {}", path.display()))
    }
}

fn convert(made: Made, raw: &Path, path: &Path) -> Result<()> {
    let qemu = |options: &[&str], more: &[String]| {
        nice("qemu-img", |command| {
            command.args(["convert", "-f", "raw"]).args(options);
            command.args(more).arg(raw).arg(path)
        })
        .map(drop)
    };
    match made {
        Made::Itself => Ok(()),
        Made::Convert(options) => qemu(options, &[]),
        Made::Clusters(options, size) => {
            qemu(options, &["-o".to_owned(), format!("cluster_size={size}")])
        }
        Made::Packed(line) => {
            let (name, args) = line.split_first().context("a command has a name")?;
            let program =
                shell::program(name).with_context(|| format!("{name} is not installed"))?;
            let out = File::create(path).with_context(|| format!("making {}", path.display()))?;
            let status = Command::new("nice")
                .args(["-n", "5"])
                .arg(program)
                .args(args)
                .stdin(File::open(raw).context("opening the raw disk")?)
                .stdout(out)
                .status()
                .with_context(|| format!("starting {name}"))?;
            ensure!(status.success(), "{name} failed ({status})");
            Ok(())
        }
    }
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

/// Disks of this size made in another way would only fill the disk.
fn forget_others(base: &Path, name: &str) -> Result<()> {
    let prefix = format!("{name}-");
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
        wanted: FULL / 100 * PERCENT,
        ..Chosen::default()
    };
    for root in ROOTS {
        chosen.walk(Path::new(root))?;
    }
    chosen.thin(wanted)?;
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

    /// Leaves a share of the files, of every kind alike: which ones is in their names.
    fn thin(&mut self, wanted: u64) -> Result<()> {
        if wanted >= self.wanted {
            return Ok(());
        }
        let mut paths: Vec<PathBuf> = std::mem::take(&mut self.paths);
        paths.sort_by_cached_key(|path| checksum(path.as_os_str().as_bytes()));
        (self.bytes, self.wanted) = (0, wanted);
        for path in paths {
            let size = fs::metadata(&path)
                .with_context(|| format!("looking at {}", path.display()))?
                .len();
            if self.bytes + size <= wanted {
                self.bytes += size;
                self.paths.push(path);
            }
        }
        self.paths.sort();
        Ok(())
    }
}

/// An ext4 disk with the staged files in it.
fn disk(stage: &Path, raw: &Path, size: u64) -> Result<()> {
    say::line("  making the filesystem");
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
