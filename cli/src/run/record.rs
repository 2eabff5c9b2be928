//! What is known of a disk: a small JSON file beside it.
//!
//! ```text
//! (none) ──import begins──▶ importing ──disk complete──▶ imported ──machine starts──▶ used
//!                               ▲                            │ source changed           │
//!                               └────────────────────────────┴──────── --reimport ──────┘
//! ```
//!
//! Each step is durable before what it announces happens, so a record never promises too much:
//! `importing` may have any disk beside it, `imported` has a complete one that nobody wrote to.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::state::{StateError, write_durably};

/// Changes when an old record would be misread.
const VERSION: u32 = 1;
/// Far more than a record can be.
const MAX_LENGTH: u64 = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) version: u32,
    pub(super) stage: Stage,
    pub(super) origin: Origin,
    /// Bytes the disk was made with.
    pub(super) size: u64,
    /// What came out of the import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<Image>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Stage {
    Importing,
    Imported,
    Used,
}

/// What makes a disk the one that the manifest asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Origin {
    Blank,
    #[serde(rename_all = "camelCase")]
    Http {
        /// Without user and password.
        url: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        checksum: Option<String>,
    },
}

/// For people who look into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Image {
    pub(super) format: String,
    pub(super) virtual_size: u64,
    pub(super) bytes_read: u64,
}

impl Record {
    pub(super) fn new(stage: Stage, origin: Origin, size: u64) -> Self {
        Self {
            version: VERSION,
            stage,
            origin,
            size,
            image: None,
        }
    }

    /// The record at `path`; one that can't be understood is an error, never none.
    pub(super) fn load(path: &Path) -> Result<Option<Self>, StateError> {
        use std::io::Read as _;
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StateError::io("open", path)(error)),
        };
        let mut text = String::new();
        file.take(MAX_LENGTH)
            .read_to_string(&mut text)
            .map_err(StateError::io("read", path))?;
        let record: Self = serde_json::from_str(&text)
            .map_err(|error| StateError::io("understand", path)(error.into()))?;
        if record.version != VERSION {
            let error = io::Error::other(format!("it has version {}", record.version));
            return Err(StateError::io("understand", path)(error));
        }
        Ok(Some(record))
    }

    /// Durable when it returns.
    pub(super) fn store(&self, path: &Path) -> Result<(), StateError> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| StateError::io("write", path)(error.into()))?;
        write_durably(path, &text)
    }
}

/// `NAME.json`.
pub(super) fn path_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_damage_is_never_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(dir.path(), "root");
        assert_eq!(Record::load(&path).unwrap(), None);
        let origin = Origin::Http {
            url: "http://h/d".to_owned(),
            checksum: None,
        };
        let record = Record::new(Stage::Imported, origin, 1 << 30);
        record.store(&path).unwrap();
        assert_eq!(Record::load(&path).unwrap(), Some(record));
        let text = std::fs::read_to_string(&path).unwrap();
        for damaged in ["", "{", &text.replace("\"version\": 1", "\"version\": 9")] {
            std::fs::write(&path, damaged).unwrap();
            assert!(Record::load(&path).is_err(), "{damaged:?}");
        }
    }
}
