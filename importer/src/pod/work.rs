//! The import itself.

use longshore_crds::contract::{
    CacheMode, ContentType, Credentials, Import, Source as From, Termination,
};
use longshore_transfer::{
    Cache, Cancel, Journal, Options, Preallocate, Progress, Report, TargetSpec, blank, transfer,
    wipe,
};

use super::metrics::{Gauges, Phase};
use super::pulled::let_go;
use super::source::{Access, Opened, open, vddk_info};
use super::volume::Volume;
use super::{Place, PodError, archive};

/// One import with all it needs.
pub(super) struct Job {
    pub(super) import: Import,
    pub(super) credentials: Credentials,
    pub(super) place: Place,
    pub(super) progress: Progress,
    pub(super) gauges: Gauges,
    pub(super) cancel: Cancel,
}

impl Job {
    /// Does it, and says what came of it.
    pub(super) fn run(self) -> Result<Termination, PodError> {
        let volume = Volume::of(&self.place)?;
        let end = match (&self.import.source, self.import.content) {
            (From::Blank, _) => self.blank(&volume),
            (_, ContentType::Archive) => archive::run(&self, &volume),
            (_, ContentType::Kubevirt) => self.disk(&volume),
        };
        // Unless another attempt follows, which needs what is beside us.
        if end.as_ref().map_or_else(PodError::exit_code, |_| 0) == 0 {
            let_go(&self.import);
        }
        end
    }

    pub(super) fn access(&self) -> Access {
        Access {
            cancel: self.cancel.clone(),
            retries: self.gauges.retries(),
        }
    }

    fn disk(&self, volume: &Volume) -> Result<Termination, PodError> {
        let target = self.target(volume)?;
        let options = self.options()?;
        let Opened {
            mut source,
            labels,
            identity,
            served,
        } = open(&self.import, &self.credentials, &self.access())?;
        // Changes are of the disk that is there.
        if !source.changes_only() {
            volume.clear()?;
        }
        self.gauges.enter(Phase::Copying);
        let copied = transfer(
            source.as_mut(),
            &target,
            &options,
            &self.progress,
            &self.cancel,
        );
        let report = match copied {
            Ok(report) => report,
            Err(error) => return Err(self.failed(error, volume, &target)),
        };
        self.gauges.enter(Phase::Finishing);
        volume.seal()?;
        Ok(Termination {
            labels,
            vddk_info: served.as_ref().and_then(vddk_info),
            format: Some(format_of(&report)),
            virtual_size: Some(report.virtual_size),
            disk_size: Some(target.size.unwrap_or(report.virtual_size)),
            source: Some(identity),
            checksum: self.import.checksum.clone(),
            bytes_read: Some(report.bytes_read),
            bytes_written: Some(report.bytes_written),
            bytes_spilled: Some(report.bytes_spilled),
            bytes_resumed: Some(report.bytes_resumed),
            ..self.complete()
        })
    }

    /// What is not what was asked for must not stay readable on a device either.
    fn failed(
        &self,
        error: longshore_transfer::Error,
        volume: &Volume,
        target: &TargetSpec,
    ) -> PodError {
        if let (longshore_transfer::Error::Checksum { .. }, Volume::Block { .. }) = (&error, volume)
            && let Err(error) = wipe(&self.as_far_as_written(target), &self.cancel)
        {
            tracing::error!(%error, "what was read could not be wiped from the device");
        }
        error.into()
    }

    /// The target, as large as the disk that was written to it.
    fn as_far_as_written(&self, target: &TargetSpec) -> TargetSpec {
        TargetSpec {
            size: self.progress.snapshot().size,
            ..target.clone()
        }
    }

    fn blank(&self, volume: &Volume) -> Result<Termination, PodError> {
        let mut target = self.target(volume)?;
        if let Volume::Block { .. } = volume {
            // A blank disk is what the claim is; a device that is smaller is refused by its size.
            target.size = None;
        }
        volume.clear()?;
        self.gauges.enter(Phase::Copying);
        let made = blank(&target, &self.progress, &self.cancel).map_err(|error| match error {
            longshore_transfer::Error::Interrupted => PodError::Interrupted,
            error => PodError::Blank(error),
        })?;
        if made.untouched {
            tracing::info!("a blank device without preallocation is exactly an empty claim");
        } else {
            volume.seal()?;
        }
        Ok(Termination {
            format: Some("blank".to_owned()),
            disk_size: Some(made.size),
            bytes_written: Some(made.written),
            ..self.complete()
        })
    }

    pub(super) fn complete(&self) -> Termination {
        Termination {
            scratch_space_required: Some(false),
            preallocation_applied: Some(self.import.preallocation),
            message: Some("Import Complete".to_owned()),
            reason: Some("Complete".to_owned()),
            ..Termination::default()
        }
    }

    fn target(&self, volume: &Volume) -> Result<TargetSpec, PodError> {
        Ok(TargetSpec {
            path: volume.disk(),
            preallocate: if self.import.preallocation {
                Preallocate::Falloc
            } else {
                Preallocate::Off
            },
            cache: match self.import.cache {
                CacheMode::Writeback => Cache::Writeback,
                CacheMode::TryNone => Cache::None,
            },
            size: volume.disk_size(&self.import)?,
            sync: true,
            journal: Some(self.journal()),
            ..TargetSpec::default()
        })
    }

    /// A container that is started again goes on where it was, and so does a pod in its place, but for a
    /// block volume: that one's journal is the pod's.
    fn journal(&self) -> Journal {
        let Import {
            resume, owner_uid, ..
        } = &self.import;
        let claim = resume.claim_uid.as_ref().unwrap_or(owner_uid);
        Journal {
            directory: resume.journal_dir.clone(),
            target_id: Some(claim.clone()).filter(|claim| !claim.is_empty()),
            step: self.place.journal_step,
            ..Journal::default()
        }
    }

    pub(super) fn options(&self) -> Result<Options, PodError> {
        let checksum = self.import.checksum.as_deref().map(str::parse).transpose();
        // The contract has checked its form already.
        let checksum = checksum.map_err(|_| PodError::Crashed)?;
        Ok(Options {
            checksum,
            ..Options::default()
        })
    }
}

/// What the image is: `qcow2 in gz`.
fn format_of(report: &Report) -> String {
    let wrappers = report.wrappers.iter().rev().map(|w| w.name());
    let names: Vec<_> = std::iter::once(report.info.format.name())
        .chain(wrappers)
        .collect();
    names.join(" in ")
}
