//! What is done of an import, written down beside its target, so that a worker that was killed goes on
//! where it was. See `docs/decisions/` for the rules and the format of the file.
//!
//! ```text
//! settled by the writer ─▶ book ─▶ fdatasync of the target ─▶ record ─▶ fdatasync of the journal
//! ```
//!
//! The journal is a claim about bytes that are on storage. It is believed only if everything it depends
//! on is as it was ([`Facts`]: target, source, options); whatever else is found is no journal, and the
//! import starts over. A target without one is never taken for anything but unknown bytes.

mod facts;
mod file;
mod record;
mod recorder;

use std::path::{Path, PathBuf};

pub(crate) use self::facts::Facts;
pub(crate) use self::file::{Found, Place, discard, look};
pub(crate) use self::record::{Around, HashMark, Image, Parsed, Point};
pub(crate) use self::recorder::{Kept, Order, Recorder};
use crate::engine::digest_of;
use crate::{Fingerprint, Options, Source, TargetFormat, TargetSpec};

/// That a journal is kept, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Journal {
    /// Where the journal of a block device is. Without it none is kept for one; that of a file is always
    /// beside it, as `.NAME.longshore-journal`.
    pub directory: Option<PathBuf>,
    /// What else tells this target from others, such as the uid of its claim.
    pub target_id: Option<String>,
    /// What the caller calls the state that the source is in. With it a source has a journal that can't
    /// tell its states apart, such as a device.
    pub source_id: Option<String>,
    /// Write down what is done whenever this many more bytes of the disk are, whatever it costs. Without
    /// it, after 16 MiB or a second, but for 2 % of the time at the most.
    pub step: Option<u64>,
}

/// What a journal of this import would have to say, short of the target itself.
#[derive(Debug)]
pub(crate) struct Plan {
    facts: Facts,
    directory: Option<PathBuf>,
    /// The caller has an id for the target.
    knows_target: bool,
}

impl Plan {
    /// `None` if no journal is wanted, or none could be relied on: of a source that can't say which of
    /// its states this is, and for an image, whose tables are in memory until its end.
    pub(crate) fn of(source: &dyn Source, target: &TargetSpec, options: &Options) -> Option<Self> {
        let journal = target.journal.as_ref()?;
        if target.format != TargetFormat::Raw {
            return None;
        }
        let named = || {
            journal.source_id.as_ref().map(|_| Fingerprint {
                place: source.name(),
                state: "as it was named".to_owned(),
                len: source.len(),
            })
        };
        let Some(fingerprint) = source.fingerprint().or_else(named) else {
            tracing::debug!(
                "the source can't be told from a later state of it: no journal is kept"
            );
            return None;
        };
        let checksum = digest_of(source, options);
        if source.digest().is_some() && source.digest() != checksum {
            tracing::debug!("there are two digests: no journal is kept");
            return None;
        }
        let known = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
        let mut facts = Facts::default();
        facts.add("version of longshore", env!("CARGO_PKG_VERSION").to_owned());
        facts.add("source", fingerprint.place);
        facts.add("state of the source", fingerprint.state);
        facts.add(
            "length of the source",
            known(fingerprint.len.map(|len| len.to_string())),
        );
        facts.add(
            "format asked for",
            known(
                options
                    .from
                    .map(|format| record::format_name(format).to_owned()),
            ),
        );
        facts.add(
            "checksum asked for",
            known(checksum.map(|c| format!("{}:{}", c.algorithm.name(), c.hex))),
        );
        facts.add("preallocation", format!("{:?}", target.preallocate));
        if let Some(name) = &journal.source_id {
            facts.add("name of the source's state", name.clone());
        }
        facts.add("id of the target", known(journal.target_id.clone()));
        Some(Self {
            facts,
            directory: journal.directory.clone(),
            knows_target: journal.target_id.is_some(),
        })
    }

    /// Whether something else tells this target's filesystem from others.
    pub(crate) fn knows_target(&self) -> bool {
        self.knows_target
    }

    /// What a journal for this target has to say.
    pub(crate) fn facts(&self, target: String) -> Facts {
        let mut facts = self.facts.clone();
        facts.add("target", target);
        facts
    }

    /// Where the journal of the device at `path` is.
    pub(crate) fn of_device(&self, path: &Path) -> Option<Place> {
        self.directory
            .as_ref()
            .map(|directory| Place::in_directory(directory, path))
    }
}
