//! The node's calls: volumes are attached and mounted, and let go.
//!
//! A volume is staged once, at a path of the kubelet's, and published to each pod from there. As a
//! filesystem it is mounted at the staging path, with a loop device that lives as long as the mount; as a
//! device it is only attached, and the device is shown at the pod's path.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::controller::{of, storage};
use crate::grpc::{Code, Status};
use crate::proto::{
    Access, Empty, ExpandResponse, NodeExpandRequest, NodeInfo, PublishRequest, StageRequest,
    UndoRequest, VolumeCapability,
};
use crate::store::Kind;
use crate::{Driver, host};

/// `NodeServiceCapability`: to stage, to expand, and to give a volume to one pod alone.
pub const CAN: [i32; 3] = [1, 3, 5];

impl Driver {
    pub(crate) fn node_info(&self) -> NodeInfo {
        NodeInfo {
            id: self.node.clone(),
            topology: Some(self.topology()),
        }
    }

    /// Puts in order what a driver that was killed has left: filesystems that are frozen.
    pub(crate) fn go_on(&self) -> io::Result<()> {
        let mounts = host::mounts()?;
        for name in self.store.volumes.names()? {
            let Some(device) = host::device_over(&self.store.volumes.image(&name))? else {
                continue;
            };
            if let Some(mounted) = mounts.iter().find(|mounted| mounted.source == device)
                && host::thaw(&mounted.at).is_ok()
            {
                tracing::info!(volume = name, "thawed");
            }
        }
        Ok(())
    }

    pub(crate) fn stage(&self, request: &StageRequest) -> Result<Empty, Status> {
        let at = path(&request.staging_path)?;
        let (image, kind, flags) = self.wanted(&request.id, request.capability.as_ref())?;
        let _turn = self.store.volumes.turn(&request.id);
        match kind {
            Kind::Block => host::attach(&image).map(drop),
            Kind::Filesystem => mount(&image, &at, flags),
        }
        .map_err(storage)?;
        Ok(Empty {})
    }

    pub(crate) fn unstage(&self, request: &UndoRequest) -> Result<Empty, Status> {
        let at = path(&request.path)?;
        let _turn = self.store.volumes.turn(&request.id);
        let undo = || {
            if host::is_mounted(&at)? {
                host::unmount(&at)?;
            }
            let volume = self.store.volumes.get(&request.id)?;
            if volume.is_none_or(|volume| volume.kind == Kind::Filesystem) {
                return Ok(());
            }
            let device = host::device_over(&self.store.volumes.image(&request.id))?;
            device.map_or(Ok(()), |device| host::detach(&device))
        };
        undo().map_err(storage)?;
        Ok(Empty {})
    }

    pub(crate) fn publish(&self, request: &PublishRequest) -> Result<Empty, Status> {
        let at = path(&request.target_path)?;
        let staging = path(&request.staging_path)?;
        let (image, kind, _) = self.wanted(&request.id, request.capability.as_ref())?;
        let _turn = self.store.volumes.turn(&request.id);
        if host::is_mounted(&at).map_err(storage)? {
            return Ok(Empty {});
        }
        let device = host::device_over(&image).map_err(storage)?;
        let Some(device) = device else {
            let text = format!("{} is not staged", request.id);
            return Err(Status::new(Code::FailedPrecondition, text));
        };
        let show = || match kind {
            Kind::Block => {
                fs::File::create(&at)?;
                host::bind(&device, &at, request.readonly)
            }
            Kind::Filesystem => {
                fs::create_dir_all(&at)?;
                host::bind(&staging, &at, request.readonly)
            }
        };
        if let Err(error) = show() {
            // The next attempt begins anew.
            drop(remove(&at));
            return Err(storage(error));
        }
        Ok(Empty {})
    }

    pub(crate) fn unpublish(&self, request: &UndoRequest) -> Result<Empty, Status> {
        let at = path(&request.path)?;
        let _turn = self.store.volumes.turn(&request.id);
        let undo = || {
            if host::is_mounted(&at)? {
                host::unmount(&at)?;
            }
            remove(&at)
        };
        undo().map_err(storage)?;
        Ok(Empty {})
    }

    pub(crate) fn node_expand(
        &self,
        request: &NodeExpandRequest,
    ) -> Result<ExpandResponse, Status> {
        let volume = self.volume(&request.id)?;
        path(&request.path)?;
        let _turn = self.store.volumes.turn(&request.id);
        let image = self.store.volumes.image(&request.id);
        let Some(device) = host::device_over(&image).map_err(storage)? else {
            let text = format!("{} is not staged", request.id);
            return Err(Status::new(Code::FailedPrecondition, text));
        };
        let expand = || {
            host::look_again(&device)?;
            let mounts = host::mounts()?;
            let mounted = mounts.iter().find(|mounted| mounted.source == device);
            mounted.map_or(Ok(()), |mounted| host::grow(&mounted.at))
        };
        expand().map_err(storage)?;
        Ok(ExpandResponse {
            capacity_bytes: i64::try_from(volume.size).unwrap_or(i64::MAX),
            node_has_to: false,
        })
    }

    /// Where a volume is that is to be used like this, and how it is mounted.
    fn wanted<'a>(
        &self,
        id: &str,
        capability: Option<&'a VolumeCapability>,
    ) -> Result<(PathBuf, Kind, &'a [String]), Status> {
        let volume = self.volume(id)?;
        let capability =
            capability.ok_or_else(|| Status::invalid("the volume's capability is missing"))?;
        let kind = of(capability)?;
        if kind != volume.kind {
            let text = format!("{id} was made as {:?}, not as {kind:?}", volume.kind);
            return Err(Status::invalid(text));
        }
        let flags: &[String] = match &capability.access {
            Some(Access::Mount(mount)) => &mount.flags,
            _ => &[],
        };
        Ok((self.store.volumes.image(id), kind, flags))
    }
}

/// Mounts a volume, if it is not, and lets its filesystem take all of it: it may be the copy of a smaller
/// one, or may have grown while nobody used it.
fn mount(image: &Path, at: &Path, flags: &[String]) -> io::Result<()> {
    if !host::is_mounted(at)? {
        fs::create_dir_all(at)?;
        host::mount_file(image, at, flags)?;
    }
    if flags.iter().any(|flag| flag == "ro") {
        return Ok(());
    }
    host::grow(at)
}

/// A path that was given, if it can be one.
fn path(given: &str) -> Result<PathBuf, Status> {
    let path = PathBuf::from(given);
    if path.is_absolute() {
        return Ok(path);
    }
    let text = format!("a path has to begin at the root: {given:?}");
    Err(Status::invalid(text))
}

/// Removes a file or an empty folder, if it is there.
fn remove(at: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(at) {
        Ok(found) if found.is_dir() => fs::remove_dir(at),
        Ok(_) => fs::remove_file(at),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
