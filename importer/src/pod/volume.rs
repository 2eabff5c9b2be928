//! The volume: how much room it has, and what state its disk is left in.

use std::fs::{File, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use longshore_crds::contract::Import;
use longshore_transfer::FileSource;

use super::{Place, PodError};

/// The disk on a filesystem volume.
const DISK: &str = "disk.img";
/// What `transfer` calls it until it is whole.
const PARTIAL: &str = ".disk.img.partial";
/// What `transfer` writes down beside it.
const JOURNAL: &str = ".disk.img.longshore-journal";
/// Whoever runs the machine is in the group.
const MODE: u32 = 0o660;

/// The target's volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Volume {
    /// A directory.
    Filesystem { data: PathBuf },
    /// A device.
    Block { device: PathBuf },
}

impl Volume {
    /// Which of the two is there.
    pub(super) fn of(place: &Place) -> Result<Self, PodError> {
        let is_device =
            std::fs::metadata(&place.device).is_ok_and(|meta| meta.file_type().is_block_device());
        if is_device {
            return Ok(Self::Block {
                device: place.device.clone(),
            });
        }
        match std::fs::metadata(&place.data) {
            Ok(meta) if meta.is_dir() => Ok(Self::Filesystem {
                data: place.data.clone(),
            }),
            Ok(_) => Err(volume(
                "use",
                &place.data,
                std::io::ErrorKind::NotADirectory.into(),
            )),
            Err(source) => Err(volume("look at", &place.data, source)),
        }
    }

    /// The file or device that becomes the disk.
    pub(super) fn disk(&self) -> PathBuf {
        match self {
            Self::Filesystem { data } => data.join(DISK),
            Self::Block { device } => device.clone(),
        }
    }

    /// Bytes that the disk may have, and is to have in the end. `None`: a device is as large as it is.
    pub(super) fn disk_size(&self, import: &Import) -> Result<Option<u64>, PodError> {
        let Self::Filesystem { data } = self else {
            return Ok(None);
        };
        let available = available(data)?;
        let requested = import
            .image_size
            .as_ref()
            .and_then(longshore_crds::Quantity::to_u64);
        let room = match requested {
            Some(requested) if requested > available => {
                tracing::warn!(
                    requested,
                    available,
                    "the volume has less room than was requested"
                );
                available
            }
            Some(requested) => requested,
            None => available,
        };
        let size = import.filesystem_overhead.usable(room);
        tracing::info!(requested, available, size, "space for the disk");
        Ok(Some(size))
    }

    /// Makes room: a disk that an earlier attempt left is in the way. One that somebody uses is not
    /// touched.
    pub(super) fn clear(&self) -> Result<(), PodError> {
        let Self::Filesystem { .. } = self else {
            return Ok(());
        };
        let disk = self.disk();
        match std::fs::symlink_metadata(&disk) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Ok(meta) if meta.is_file() => drop(FileSource::open(&disk, false)?),
            // A link is removed, and what it leads to is not.
            Ok(_) => {}
            Err(source) => return Err(volume("look at", &disk, source)),
        }
        tracing::info!(path = %disk.display(), "removing what an earlier attempt left");
        std::fs::remove_file(&disk).map_err(|source| volume("remove", &disk, source))
    }

    /// The disk is there: its group may use it, and it is durable.
    pub(super) fn seal(&self) -> Result<(), PodError> {
        let disk = self.disk();
        let file = File::open(&disk).map_err(|source| volume("open", &disk, source))?;
        if let Self::Filesystem { .. } = self {
            file.set_permissions(Permissions::from_mode(MODE))
                .map_err(|source| volume("set the mode of", &disk, source))?;
        }
        file.sync_all()
            .map_err(|source| volume("fsync", &disk, source))?;
        // The text is one that tests look for.
        let path = disk.display();
        tracing::info!("Successfully completed fsync({path}) syscall");
        Ok(())
    }
}

/// Bytes there are for the disk, with those that an earlier attempt holds.
fn available(data: &Path) -> Result<u64, PodError> {
    let stat = rustix::fs::statvfs(data).map_err(|e| volume("ask the size of", data, e.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let held = [DISK, PARTIAL, JOURNAL].into_iter().map(|name| {
        let meta = std::fs::symlink_metadata(data.join(name));
        meta.map_or(0, |meta| meta.blocks().saturating_mul(512))
    });
    Ok(held.fold(free, u64::saturating_add))
}

fn volume(action: &'static str, path: &Path, source: std::io::Error) -> PodError {
    PodError::Volume {
        action,
        path: path.to_owned(),
        source,
    }
}
