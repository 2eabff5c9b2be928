//! The state directory: one for each machine, used by one run at a time.
//!
//! ```text
//! DIR/machine       whose it is: NAMESPACE/NAME
//! DIR/claim.lock    locked while a run uses it
//! DIR/disks/        see `disk`
//! DIR/...           sockets, logs and seeds: the launcher's
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use longshore_crds::VirtualMachine;
use rustix::fs::{FlockOperation, flock};

use crate::failure::Failure;

/// Why a state directory or a disk in it is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// Another run has it.
    #[error("{} is in use by another longshore run", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// It is another machine's.
    #[error("{} belongs to the machine {owner}, not to {machine}", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who wants it.
        machine: String,
    },
    /// Something in it could not be read or written.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A machine needs a name that can be a directory.
    #[error("{name:?} can't be the {what} of a machine")]
    Name {
        /// What it should be.
        what: &'static str,
        /// What was given.
        name: String,
    },
    /// A disk that must not be overwritten, and is not what the manifest asks for.
    #[error("{} is kept: {why}", path.display())]
    DiskKept {
        /// The disk.
        path: PathBuf,
        /// What is the matter with it.
        why: String,
        /// The data volume.
        name: String,
    },
}

impl StateError {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "StateInUse",
            Self::Foreign { .. } => "StateForeign",
            Self::Io { .. } => "StateUnusable",
            Self::Name { .. } => "FieldInvalid",
            Self::DiskKept { .. } => "DiskKept",
        }
    }

    pub(crate) fn next_step(&self) -> Option<String> {
        match self {
            Self::InUse { .. } => Some("end that run, or give another --state".to_owned()),
            Self::Foreign { .. } => Some("give another --state".to_owned()),
            Self::DiskKept { name, path, .. } => Some(format!(
                "--reimport {name} makes it anew, and what is on it is lost; or move {} away",
                path.display()
            )),
            Self::Io { .. } | Self::Name { .. } => None,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// A state directory that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct State {
    dir: PathBuf,
    disks: PathBuf,
    _lock: File,
}

impl State {
    /// Makes the directory where it is missing, and locks it.
    pub(super) fn claim(chosen: Option<&Path>, vm: &VirtualMachine) -> Result<Self, Failure> {
        let (namespace, name) = (
            component("namespace", vm.namespace())?,
            component("name", vm.name())?,
        );
        let dir = match chosen {
            Some(dir) => dir.to_owned(),
            None => default_base().join(namespace).join(name),
        };
        let dir = std::path::absolute(&dir).map_err(StateError::io("find", &dir))?;
        let disks = dir.join("disks");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&disks)
            .map_err(StateError::io("make the directory", &disks))?;
        let lock = lock(&dir)?;
        own(&dir, &format!("{namespace}/{name}"))?;
        Ok(Self {
            dir,
            disks,
            _lock: lock,
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn disks(&self) -> &Path {
        &self.disks
    }
}

fn component<'a>(what: &'static str, name: &'a str) -> Result<&'a str, StateError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if name.is_empty() || name.starts_with('.') || name.len() > 253 || !name.chars().all(plain) {
        let name = name.to_owned();
        return Err(StateError::Name { what, name });
    }
    Ok(name)
}

/// Where machines are kept unless told otherwise, and what else outlives a run.
pub(crate) fn default_base() -> PathBuf {
    let set = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    match (set("XDG_STATE_HOME"), set("HOME")) {
        (Some(state), _) => state.join("longshore"),
        (None, Some(home)) => home.join(".local/state/longshore"),
        (None, None) => PathBuf::from(".longshore"),
    }
}

fn lock(dir: &Path) -> Result<File, StateError> {
    let path = dir.join("claim.lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(StateError::io("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse {
            dir: dir.to_owned(),
        }),
        Err(error) => Err(StateError::io("lock", &path)(error.into())),
    }
}

/// Two machines in one directory would find each other's disks.
fn own(dir: &Path, machine: &str) -> Result<(), StateError> {
    let path = dir.join("machine");
    match fs::read_to_string(&path) {
        Ok(owner) if owner.trim() == machine => Ok(()),
        // A run that was killed right here left it empty; only we have the lock.
        Ok(owner) if owner.trim().is_empty() => write_durably(&path, machine),
        Ok(owner) => Err(StateError::Foreign {
            dir: dir.to_owned(),
            owner: owner.trim().to_owned(),
            machine: machine.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => write_durably(&path, machine),
        Err(error) => Err(StateError::io("read", &path)(error)),
    }
}

/// Replaces a small file as a whole: whatever happens, there is the old one or the new one.
pub(super) fn write_durably(path: &Path, text: &str) -> Result<(), StateError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let new = path.with_file_name(name);
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
    };
    written().map_err(StateError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_crds::virtual_machine::VirtualMachineSpec;

    fn vm(name: &str) -> VirtualMachine {
        VirtualMachine {
            api_version: VirtualMachine::API_VERSION.to_owned(),
            kind: VirtualMachine::KIND.to_owned(),
            metadata: longshore_crds::ObjectMeta {
                name: Some(name.to_owned()),
                ..longshore_crds::ObjectMeta::default()
            },
            spec: VirtualMachineSpec::default(),
            status: None,
        }
    }

    #[test]
    fn a_directory_is_used_by_one_run_at_a_time_and_by_one_machine() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("a/b");
        let first = State::claim(Some(&dir), &vm("one")).unwrap();
        let second = State::claim(Some(&dir), &vm("one")).unwrap_err();
        assert_eq!(second.reason(), "StateInUse");
        drop(first);
        drop(State::claim(Some(&dir), &vm("one")).unwrap());
        let other = State::claim(Some(&dir), &vm("two")).unwrap_err();
        assert_eq!(other.reason(), "StateForeign");
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", ".", "..", "../x", "a/b", "a\0", ".hidden"] {
            assert!(component("name", name).is_err(), "{name:?}");
        }
        assert_eq!(component("name", "a-1.b").unwrap(), "a-1.b");
    }
}
