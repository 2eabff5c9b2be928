//! An archive of files onto a filesystem volume.

use longshore_crds::contract::Termination;

use super::PodError;
use super::metrics::Phase;
use super::source::{Opened, open_files};
use super::volume::Volume;
use super::work::Job;
use crate::{Destination, Existing, unpack};

/// Unpacks it.
pub(super) fn run(job: &Job, volume: &Volume) -> Result<Termination, PodError> {
    let data = match volume {
        Volume::Filesystem { data } => data,
        Volume::Block { device } => {
            return Err(PodError::Volume {
                action: "unpack an archive to",
                path: device.clone(),
                source: std::io::ErrorKind::NotADirectory.into(),
            });
        }
    };
    let Opened {
        mut source,
        identity,
        ..
    } = open_files(&job.import, &job.credentials, &job.access())?;
    job.gauges.enter(Phase::Copying);
    let destination = Destination {
        directory: data.clone(),
        // An earlier attempt may have been killed while it moved things to their place.
        existing: Existing::Replace,
    };
    let unpacked = unpack(
        source.as_mut(),
        &destination,
        &job.options()?,
        &job.progress,
        &job.cancel,
    );
    let unpacked = unpacked.map_err(|error| match error {
        crate::Error::Local(error) => error.into(),
        error => PodError::Unpack(error),
    })?;
    let path = data.display();
    // The text is one that tests look for.
    tracing::info!("Successfully completed fsync({path}) syscall");
    Ok(Termination {
        preallocation_applied: Some(false),
        format: Some("archive".to_owned()),
        source: Some(identity),
        checksum: job.import.checksum.clone(),
        bytes_read: Some(job.progress.snapshot().read),
        bytes_written: Some(unpacked.bytes_written),
        bytes_spilled: Some(0),
        ..job.complete()
    })
}
