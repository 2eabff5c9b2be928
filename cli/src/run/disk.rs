//! One data volume becomes one disk.
//!
//! ```text
//! disks/NAME.json           the record: see `record`
//! disks/NAME.img            the disk, raw; whole whenever it is there
//! disks/.NAME.img.partial   an import in progress, or what is left of one
//! disks/.NAME.img.longshore-journal   what of that is done
//! disks/NAME.ca.pem         certificates to trust while importing
//! ```
//!
//! Killed while importing, the record says `importing` and the next run goes on where the journal says. Killed
//! between the disk getting its name and the record saying so, the next run begins again: nobody has written to
//! the disk.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use longshore_image::{Format, ReadAt};
use longshore_importer::{BasicAuth, SourceOptions, parse_header, source_from};
use longshore_launcher::plan::imports::{DataVolumeImport, HttpImport, ImportSource};
use longshore_transfer::{Cancel, Checksum, Journal, Options, Preallocate, Source, TargetSpec};

use super::decide::{Decision, decide};
use super::record::{self, Image, Origin, Record, Stage};
use super::state::{StateError, write_durably};
use crate::bytes::bytes;
use crate::copy::Job;
use crate::failure::Failure;
use crate::output;
use crate::progress::{Display, Mode};
use crate::signals::Signals;
use crate::source::without_user;

/// A disk that is ready.
#[derive(Debug)]
pub(super) struct Disk {
    record: PathBuf,
}

/// `NAME.img`.
pub(super) fn path_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.img"))
}

impl Disk {
    /// From here on a machine may have written to it. Durable when it returns.
    pub(super) fn mark_used(&self) -> Result<(), StateError> {
        match Record::load(&self.record)? {
            Some(record) if record.stage != Stage::Used => Record {
                stage: Stage::Used,
                ..record
            }
            .store(&self.record),
            _ => Ok(()),
        }
    }
}

/// Makes disks.
pub(super) struct Importer<'a> {
    pub(super) directory: &'a Path,
    pub(super) progress: Mode,
    pub(super) deadline: Option<Instant>,
    pub(super) signals: &'a Signals,
}

impl Importer<'_> {
    /// Makes the disk, or finds it made.
    pub(super) fn provide(
        &self,
        volume: DataVolumeImport,
        reimport: bool,
    ) -> Result<Disk, Failure> {
        let path = path_of(self.directory, &volume.name);
        let record_path = record::path_of(self.directory, &volume.name);
        let origin = origin(&volume.source);
        let length = length_of(&path)?;
        let known = match Record::load(&record_path) {
            // The disk is worth more than the record: without one it is not touched.
            Err(error) if length.is_some() && !reimport => {
                let (why, name) = (longshore_telemetry::error_chain(&error), volume.name);
                return Err(StateError::DiskKept { path, why, name }.into());
            }
            known => known.unwrap_or(None),
        };
        match decide(&origin, volume.size, known.as_ref(), length, reimport) {
            Decision::Refuse { why } => {
                let name = volume.name;
                return Err(StateError::DiskKept { path, why, name }.into());
            }
            Decision::Keep { grow, remark } => {
                output::say(&format!(
                    "{}: the disk is there ({})",
                    volume.name,
                    path.display()
                ));
                if let Some(remark) = remark {
                    output::say(&format!("note: {}: {remark}", volume.name));
                }
                if let (Some(size), Some(record)) = (grow, known) {
                    grow_to(&path, size)?;
                    Record { size, ..record }.store(&record_path)?;
                    output::say(&format!(
                        "{}: the disk has grown to {}",
                        volume.name,
                        bytes(size)
                    ));
                }
            }
            Decision::Import => {
                Record::new(Stage::Importing, origin.clone(), volume.size).store(&record_path)?;
                let image = self.import(&volume, &path)?;
                let record = Record::new(Stage::Imported, origin, volume.size);
                Record { image, ..record }.store(&record_path)?;
            }
        }
        Ok(Disk {
            record: record_path,
        })
    }

    fn import(&self, volume: &DataVolumeImport, path: &Path) -> Result<Option<Image>, Failure> {
        let job = Job {
            target: TargetSpec {
                path: path.to_owned(),
                preallocate: if volume.preallocation {
                    Preallocate::Falloc
                } else {
                    Preallocate::Off
                },
                size: Some(volume.size),
                sync: true,
                journal: Some(Journal::default()),
                ..TargetSpec::default()
            },
            options: Options::default(),
            deadline: self.deadline,
        };
        let display = Display::new(self.progress, volume.name.clone());
        match &volume.source {
            ImportSource::Blank => {
                let mut job = job;
                job.options.from = Some(Format::Raw);
                job.watch(|_| Ok(Box::new(Blank)), display, self.signals)?;
                Ok(None)
            }
            ImportSource::Http(http) => {
                let mut job = job;
                job.options.checksum = http
                    .checksum
                    .as_deref()
                    .map(str::parse::<Checksum>)
                    .transpose()
                    .map_err(|why| Failure::Field {
                        field: "source.http.checksum".to_owned(),
                        why,
                    })?;
                let options = self.source_options(&volume.name, http)?;
                let url = http.url.clone();
                let open = move |cancel: &Cancel| {
                    let options = SourceOptions {
                        cancel: cancel.clone(),
                        ..options
                    };
                    Ok(source_from(&url, &options)?)
                };
                let report = job.watch(open, display, self.signals)?;
                Ok(Some(Image {
                    format: report.info.format.name().to_owned(),
                    virtual_size: report.virtual_size,
                    bytes_read: report.bytes_read,
                }))
            }
        }
    }

    fn source_options(&self, name: &str, http: &HttpImport) -> Result<SourceOptions, Failure> {
        if !http.url.starts_with("http://") && !http.url.starts_with("https://") {
            // A file of this host must not get in by a manifest that says `http`.
            return Err(Failure::Field {
                field: "source.http.url".to_owned(),
                why: "it has to begin with http:// or https://".to_owned(),
            });
        }
        let mut options = SourceOptions::default();
        for header in &http.headers {
            options.headers.push(parse_header(header)?);
        }
        options.basic_auth = http
            .credentials
            .clone()
            .map(|(user, password)| BasicAuth { user, password });
        if !http.certificates.is_empty() {
            let path = self.directory.join(format!("{name}.ca.pem"));
            let mut text = String::new();
            for certificate in &http.certificates {
                text += &String::from_utf8_lossy(certificate);
                text.push('\n');
            }
            write_durably(&path, &text)?;
            options.ca.push(path);
        }
        Ok(options)
    }
}

fn origin(source: &ImportSource) -> Origin {
    match source {
        ImportSource::Blank => Origin::Blank,
        ImportSource::Http(http) => Origin::Http {
            url: without_user(&http.url),
            checksum: http.checksum.clone(),
        },
    }
}

fn length_of(path: &Path) -> Result<Option<u64>, StateError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(Some(found.len())),
        Ok(_) => {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            Err(StateError::io("use", path)(error))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateError::io("look at", path)(error)),
    }
}

/// Only ever longer, so it can be done again after a crash.
fn grow_to(path: &Path, size: u64) -> Result<(), StateError> {
    let grown = || {
        let file = fs::OpenOptions::new().write(true).open(path)?;
        file.set_len(size)?;
        file.sync_all()
    };
    grown().map_err(StateError::io("grow", path))
}

/// A source of nothing: the target's size makes a disk of it.
#[derive(Debug)]
struct Blank;

impl Source for Blank {
    fn name(&self) -> String {
        "nothing".to_owned()
    }

    fn len(&self) -> Option<u64> {
        Some(0)
    }

    fn random(&self) -> Option<Arc<dyn ReadAt>> {
        Some(Arc::new(Vec::<u8>::new()))
    }

    fn prefers_random(&self) -> bool {
        true
    }

    fn reopenable(&self) -> bool {
        true
    }

    fn stream(&mut self) -> longshore_transfer::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::empty()))
    }
}
