//! What the machine does for us, by its own programs: loop devices, mounts, filesystems, copies.
//!
//! What is attached and mounted is looked up each time, in `/sys/block` and `/proc/self/mountinfo`: nothing
//! about it is remembered that a restart could lose.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program; what it said, or, where that was a complaint, an error.
fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> io::Result<String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    Err(io::Error::other(format!(
        "{program} failed ({}): {said}",
        output.status
    )))
}

/// The loop device over a file, if there is one.
pub fn device_over(file: &Path) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        // It exists for as long as there is a file behind the device.
        let Ok(backing) = fs::read(entry.path().join("loop/backing_file")) else {
            continue;
        };
        if OsStr::from_bytes(backing.trim_ascii_end()) == file.as_os_str() {
            return Ok(Some(Path::new("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}

/// A loop device over a file: the one that there is, or a new one.
pub fn attach(file: &Path) -> io::Result<PathBuf> {
    let args = ["--find", "--show", "--nooverlap"].map(OsStr::new);
    let made = run("losetup", &[&args[..], &[file.as_os_str()]].concat())?;
    Ok(PathBuf::from(made.trim()))
}

/// Frees a loop device; one that is still held, once it is not.
pub fn detach(device: &Path) -> io::Result<()> {
    run("losetup", &[OsStr::new("--detach"), device.as_os_str()]).map(drop)
}

/// Lets a loop device know that its file has grown.
pub fn look_again(device: &Path) -> io::Result<()> {
    run(
        "losetup",
        &[OsStr::new("--set-capacity"), device.as_os_str()],
    )
    .map(drop)
}

/// The smallest filesystem that [`format()`] makes.
pub const SMALLEST: u64 = 16 << 20;

/// Makes a filesystem in a file, with as little of its own as can be.
///
/// It is XFS: to let a mounted ext4 grow takes `CAP_SYS_RESOURCE`, which root in a container often does not
/// have, CI's among them. Less than 300 MiB is unsupported by those who support XFS, and works.
pub fn format(file: &Path) -> io::Result<()> {
    let args = "--unsupported -q -K -m finobt=0,reflink=0,rmapbt=0 -i sparse=0 -d agcount=1";
    let mut args: Vec<&OsStr> = args.split(' ').map(OsStr::new).collect();
    args.push(file.as_os_str());
    run("mkfs.xfs", &args).map(drop)
}

/// Lets a mounted filesystem take all of its device.
pub fn grow(at: &Path) -> io::Result<()> {
    run("xfs_growfs", &[OsStr::new("-d"), at.as_os_str()]).map(drop)
}

/// Mounts a file's filesystem. Its loop device goes when the mount goes, however that comes about.
pub fn mount_file(file: &Path, at: &Path, flags: &[String]) -> io::Result<()> {
    // A copy has its origin's name for itself, and is not taken for it.
    let options = [&["loop", "nouuid"].map(str::to_owned)[..], flags].concat();
    let options = options.join(",");
    let args = ["-t", "xfs", "-o", &options].map(OsStr::new);
    let paths = [file.as_os_str(), at.as_os_str()];
    run("mount", &[&args[..], &paths[..]].concat()).map(drop)
}

/// Shows a file or folder at another place too.
pub fn bind(from: &Path, at: &Path, readonly: bool) -> io::Result<()> {
    let paths = [from.as_os_str(), at.as_os_str()];
    run("mount", &[&[OsStr::new("--bind")], &paths[..]].concat())?;
    if readonly {
        let args = ["-o", "remount,bind,ro"].map(OsStr::new);
        let made = run("mount", &[&args[..], &[at.as_os_str()]].concat());
        if made.is_err() {
            unmount(at)?;
        }
        made?;
    }
    Ok(())
}

/// Takes a mount away.
pub fn unmount(at: &Path) -> io::Result<()> {
    run("umount", &[at]).map(drop)
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// What is mounted: a device, or a word.
    pub source: PathBuf,
    pub at: PathBuf,
}

/// All mounts that we see.
pub fn mounts() -> io::Result<Vec<Mounted>> {
    let text = fs::read("/proc/self/mountinfo")?;
    Ok(text
        .split(|&byte| byte == b'\n')
        .filter_map(parse)
        .collect())
}

/// Whether something is mounted exactly there.
pub fn is_mounted(at: &Path) -> io::Result<bool> {
    Ok(mounts()?.iter().any(|mounted| mounted.at == at))
}

/// One line: `ID PARENT DEVICE ROOT AT OPTIONS [more] - KIND SOURCE OPTIONS`.
fn parse(line: &[u8]) -> Option<Mounted> {
    let mut words = line.split(|&byte| byte == b' ');
    let at = words.nth(4)?;
    words.find(|word| *word == b"-")?;
    let source = words.nth(1)?;
    Some(Mounted {
        source: unescaped(source),
        at: unescaped(at),
    })
}

/// Blanks and the like are written there as `\` and three octal digits.
fn unescaped(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'\\').then(|| after.first_chunk::<3>()).flatten();
        let digits = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = after.get(3..).unwrap_or_default();
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

/// A filesystem to which nobody can write, until this is dropped.
#[derive(Debug)]
pub struct Frozen<'a> {
    at: &'a Path,
}

impl<'a> Frozen<'a> {
    /// Writes down all that is in memory and holds everybody up.
    pub fn new(at: &'a Path) -> io::Result<Self> {
        run("fsfreeze", &[OsStr::new("--freeze"), at.as_os_str()])?;
        Ok(Self { at })
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Err(error) = thaw(self.at) {
            tracing::error!(%error, "a filesystem stays frozen");
        }
    }
}

/// Lets people write again.
pub fn thaw(at: &Path) -> io::Result<()> {
    run("fsfreeze", &[OsStr::new("--unfreeze"), at.as_os_str()]).map(drop)
}

/// Writes down what is in memory of a device.
pub fn flush(device: &Path) -> io::Result<()> {
    fs::File::open(device)?.sync_all()
}

/// Copies a file with its holes; without copying, where the filesystem can.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let args = ["--reflink=auto", "--sparse=auto"].map(OsStr::new);
    let paths = [from.as_os_str(), to.as_os_str()];
    run("cp", &[&args[..], &paths[..]].concat()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_odd_names_and_with_any_number_of_fields() {
        let line =
            br"36 35 98:0 /mnt1 /a\040b\134 rw,noatime master:1 shared:2 - xfs /dev/loop3 rw";
        let expected = Mounted {
            source: "/dev/loop3".into(),
            at: r"/a b\".into(),
        };
        assert_eq!(parse(line), Some(expected));
        let line = b"1 0 0:1 / / rw - tmpfs none rw";
        assert_eq!(parse(line).unwrap().at, Path::new("/"));
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let error = run("sh", &["-c", "echo what happened >&2; exit 3"]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("what happened") && text.contains('3'),
            "{text}"
        );
        let error = run("no-such-program", &["x"]).unwrap_err();
        assert!(error.to_string().contains("no-such-program"));
    }
}
