//! The disk in a container image that the node pulled.
//!
//! The image is a container of our pod, in which a program of ours waits for the end of the import. The
//! containers of the pod see each other's processes, and through `/proc/PID/root` each other's files: the disk
//! is read where the node unpacked it, at random, and nothing serves or copies it.
//!
//! Files of the image are whoever's who made it. What is no regular file is not opened, and no link in it is
//! followed: it would lead to files of our own container.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use longshore_crds::contract::{Import, Pull, Source as From};
use longshore_transfer::{Cancel, FileSource};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};

use super::PodError;
use super::source::{Opened, connect};
use crate::registry::of_environment;
use crate::{Error, RegistryError};

/// How long the image's container may take to come once ours runs.
const READY: Duration = Duration::from_mins(1);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(100);
/// What it says of itself is not longer than this.
const MOST_SAID: u64 = 64 << 10;

/// The only file in the folder that the first line of `ready_file` names, once that is there. The other lines are
/// variables of the image's environment.
pub(super) fn open(
    import: &Import,
    ready_file: &Path,
    cancel: &Cancel,
) -> Result<Opened, PodError> {
    let said = wait_for(ready_file, cancel)?;
    let mut lines = said.lines();
    let folder = PathBuf::from(lines.next().unwrap_or_default());
    let image = import.source.endpoint().map_or("", |image| image.reveal());
    let (name, labels) = of_environment(image, lines);
    let failed = |source| {
        let name = name.clone();
        let source = Box::new(source);
        connect(import, Error::Image { name, source })
    };
    if folder.parent().is_none_or(|root| !root.exists()) {
        // It ended, and is started again.
        return Err(PodError::NotReady {
            path: ready_file.to_owned(),
        });
    }
    let disk = disk_in(&folder).map_err(failed)?;
    let source = FileSource::named(disk, name.clone());
    let source = source.map_err(|error| connect(import, error.into()))?;
    let mut opened = Opened::of(Box::new(source));
    opened.labels = labels;
    Ok(opened)
}

/// The only regular file in `folder`.
fn disk_in(folder: &Path) -> Result<File, RegistryError> {
    let unreadable = |path: &Path, error: rustix::io::Errno| RegistryError::Read {
        path: path.to_owned(),
        source: error.into(),
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(CWD, folder, flags | OFlags::DIRECTORY, Mode::empty());
    let opened = opened.map_err(|error| match error {
        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP => {
            RegistryError::NoDisk {
                why: "it has no directory disk".to_owned(),
            }
        }
        error => unreadable(folder, error),
    })?;
    let mut found: Option<String> = None;
    for entry in Dir::read_from(&opened).map_err(|e| unreadable(folder, e))? {
        let entry = entry.map_err(|e| unreadable(folder, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let stat = statat(&opened, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(|e| unreadable(&folder.join(&name), e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            continue;
        }
        if let Some(first) = found {
            let second = name;
            return Err(RegistryError::SeveralDisks { first, second });
        }
        found = Some(name);
    }
    let Some(name) = found else {
        return Err(RegistryError::NoDisk {
            why: "there is no file in its directory disk".to_owned(),
        });
    };
    let path = folder.join(&name);
    let file = openat(
        &opened,
        name.as_str(),
        flags | OFlags::NONBLOCK,
        Mode::empty(),
    );
    file.map(File::from).map_err(|e| unreadable(&path, e))
}

/// Waits until `path` is there, and gives what is in it.
fn wait_for(path: &Path, cancel: &Cancel) -> Result<String, PodError> {
    let started = Instant::now();
    loop {
        match read(path) {
            Ok(said) => return Ok(said),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(PodError::Volume {
                    action: "read",
                    path: path.to_owned(),
                    source,
                });
            }
        }
        if cancel.is_cancelled() {
            return Err(PodError::Interrupted);
        }
        if started.elapsed() > READY {
            return Err(PodError::NotReady {
                path: path.to_owned(),
            });
        }
        std::thread::sleep(LOOK);
    }
}

/// What variables hold may be anything; of what is no text nothing is a label.
fn read(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut said = Vec::new();
    File::open(path)?.take(MOST_SAID).read_to_end(&mut said)?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// The image's container may end.
pub(super) fn let_go(import: &Import) {
    if let From::Registry {
        pull: Pull::Node { done_file, .. },
        ..
    } = &import.source
        && let Err(error) = std::fs::write(done_file, "")
    {
        tracing::error!(path = %done_file.display(), %error, "could not end the image's container");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_file_of_the_folder_is_the_disk_and_nothing_else_is_opened() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("disk");
        let none = disk_in(&folder).unwrap_err();
        assert!(matches!(none, RegistryError::NoDisk { .. }), "{none}");

        std::fs::create_dir(&folder).unwrap();
        std::fs::create_dir(folder.join("folder")).unwrap();
        std::fs::write(root.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink(root.path().join("secret"), folder.join("link")).unwrap();
        let none = disk_in(&folder).unwrap_err();
        assert!(matches!(none, RegistryError::NoDisk { .. }), "{none}");

        std::fs::write(folder.join("disk.img"), "disk").unwrap();
        let disk = io::read_to_string(disk_in(&folder).unwrap()).unwrap();
        assert_eq!(disk, "disk");

        std::fs::write(folder.join("other.img"), "disk").unwrap();
        let several = disk_in(&folder).unwrap_err();
        assert!(
            matches!(several, RegistryError::SeveralDisks { .. }),
            "{several}"
        );
    }

    #[test]
    fn a_folder_that_is_a_link_is_not_looked_into() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("own")).unwrap();
        std::fs::write(root.path().join("own/secret"), "secret").unwrap();
        std::os::unix::fs::symlink(root.path().join("own"), root.path().join("disk")).unwrap();
        let refused = disk_in(&root.path().join("disk")).unwrap_err();
        assert!(matches!(refused, RegistryError::NoDisk { .. }), "{refused}");
    }
}
