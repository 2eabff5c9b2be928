//! Sources on this machine.

use std::path::Path;

use longshore_transfer::{FileSource, Source, StdinSource};

use crate::{Result, SourceOptions};

/// A file, block device or pipe by its path, or standard input as `-`.
pub(crate) fn open(spec: &str, options: &SourceOptions) -> Result<Box<dyn Source>> {
    if spec == "-" {
        return Ok(StdinSource::open(options.force_share)?);
    }
    file_source(Path::new(spec), options)
}

/// A file, block device or pipe, whatever its name looks like.
pub(crate) fn file_source(path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>> {
    Ok(Box::new(FileSource::open(path, options.force_share)?))
}
