//! What can be wrong with an archive.

use std::io;

/// Why a disk does not come out of an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The archive could not be read, or is no tar.
    #[error("could not read the archive")]
    Read {
        /// The cause.
        #[from]
        source: io::Error,
    },
    /// The archive's structure is damaged or hostile.
    #[error("the archive is damaged: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// An entry would reach beyond where the archive is unpacked to, or is more than a file.
    #[error("the archive has {what} ({entry}): nothing of it was unpacked")]
    Unsafe {
        /// Its name, quoted.
        entry: String,
        /// What it is.
        what: &'static str,
    },
    /// It uses something that is not read.
    #[error("{what} is not supported: {next}")]
    Unsupported {
        /// What.
        what: String,
        /// What to do instead.
        next: &'static str,
    },
    /// A disk has to be chosen.
    #[error("the archive holds {} disks: choose one with #ID, of {}", disks.len(), disks.join(", "))]
    Choose {
        /// Their ids.
        disks: Vec<String>,
    },
    /// There is no disk of that name.
    #[error("the archive has no disk {wanted:?}; it has {}", if disks.is_empty() { "none".to_owned() } else { disks.join(", ") })]
    NoSuchDisk {
        /// What was asked for.
        wanted: String,
        /// Ids of those there are.
        disks: Vec<String>,
    },
    /// The descriptor names a file that is not in the archive.
    #[error("the file {file:?} of disk {disk} is not in the archive: it is incomplete")]
    Missing {
        /// The disk's id.
        disk: String,
        /// The file.
        file: String,
    },
}

impl ArchiveError {
    /// The word that conditions, events and metrics use.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Read { .. } => "SourceUnreadable",
            Self::Malformed { .. } => "ArchiveMalformed",
            Self::Unsafe { .. } => "ArchiveUnsafe",
            Self::Unsupported { .. } => "ArchiveNotSupported",
            Self::Choose { .. } => "DiskNotChosen",
            Self::NoSuchDisk { .. } => "NoSuchDisk",
            Self::Missing { .. } => "DiskMissing",
        }
    }

    pub(crate) fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed { what: what.into() }
    }
}
