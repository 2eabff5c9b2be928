//! References from an image to other files open only through a gate, and the default gate is shut.

use std::sync::Arc;

use crate::{Error, ErrorKind, ReadAt, Result};

/// What an image wants another file for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReferenceKind {
    /// A backing file, or parent: what the image does not hold is read from there.
    Backing,
    /// A qcow2 external data file.
    DataFile,
    /// A VMDK extent: part of the disk.
    Extent,
}

/// A file named inside an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The name as the image spells it. It is hostile until proven otherwise.
    pub name: String,
    /// The format the image says it has, if it says.
    pub format: Option<String>,
    /// What it is wanted for.
    pub kind: ReferenceKind,
}

/// Decides whether a file named inside an image may be opened, and opens it.
pub trait OpenGate: Send + Sync + std::fmt::Debug {
    /// Opens what `reference` names, or refuses with [`ErrorKind::Denied`].
    fn open(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>>;

    /// The gate for references inside the file that `reference` names (relative names change base).
    fn nested(&self, reference: &Reference) -> Arc<dyn OpenGate>;

    /// True to do without the parent or extent that `reference` names: what it holds reads as zeros. Only for
    /// those who look at the image itself and never at the disk's bytes.
    fn leaves_out(&self, _reference: &Reference) -> bool {
        false
    }
}

/// The default gate: nothing gets in.
#[derive(Debug, Clone, Copy, Default)]
pub struct DenyAll;

impl OpenGate for DenyAll {
    fn open(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        let role = match reference.kind {
            ReferenceKind::Backing => "backing file",
            ReferenceKind::DataFile => "external data file",
            ReferenceKind::Extent => "extent file",
        };
        // The name is quoted with escapes: it may hold anything, terminal codes included.
        Err(Error::new(
            ErrorKind::Denied,
            format!(
                "the image refers to the {role} {:?}, which may not be opened",
                reference.name
            ),
        ))
    }

    fn nested(&self, _reference: &Reference) -> Arc<dyn OpenGate> {
        Arc::new(Self)
    }
}
