//! A disk of nothing but zeros.

use crate::target::Target;
use crate::{Cancel, Error, Preallocate, Progress, Result, TargetFormat, TargetSpec};

/// Zeros are written in steps of this, between which there is time to stop.
const STEP: u64 = 64 << 20;

/// What [`blank`] made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blank {
    /// Size of the disk in bytes.
    pub size: u64,
    /// Bytes written, where no faster way of zeroing was taken.
    pub written: u64,
    /// A device that keeps what it holds: see [`blank`].
    pub untouched: bool,
}

/// Makes the raw file that `target` names, all of it zeros, sparse or with blocks of its own.
///
/// A block device is as large as it is. Without preallocation nothing is written to it, as a blank
/// claim is exactly what its provisioner gave: `docs/decisions/0018-blank-block-devices.md`. With it all
/// of the disk is zeroed, by the device where it can.
pub fn blank(target: &TargetSpec, progress: &Progress, cancel: &Cancel) -> Result<Blank> {
    let invalid = |text| {
        let e = std::io::Error::new(std::io::ErrorKind::InvalidInput, text);
        Error::target("make a blank disk of", &target.path, e)
    };
    if target.format != TargetFormat::Raw {
        return Err(invalid("a blank disk is raw"));
    }
    let (mut opened, _) = Target::open(target, None, None)?;
    let Some(size) = target.size.or_else(|| opened.device_size()) else {
        return Err(invalid("how large it is to be was not said"));
    };
    progress.set_size(size);
    if opened.device_size().is_some() && target.preallocate == Preallocate::Off {
        opened.fits(size)?;
        progress.set_done();
        return Ok(Blank {
            size,
            written: 0,
            untouched: true,
        });
    }
    opened.begin(Some(size))?;
    let mut at = 0;
    while at < size && opened.is_zeroed_at_the_end() {
        if cancel.is_cancelled() {
            return Err(Error::Interrupted);
        }
        let end = size.min(at.saturating_add(STEP));
        opened.zero_gaps(at..end)?;
        progress.add_resolved(end - at);
        at = end;
    }
    opened.finish(size)?;
    progress.set_done();
    Ok(Blank {
        size,
        written: opened.bytes_written(),
        untouched: false,
    })
}

/// Leaves nothing of a disk that must not be used on the block device `target` names: all of it is
/// zeroed, `size` bytes or as many as there are. A file needs no such thing: it is removed.
pub fn wipe(target: &TargetSpec, cancel: &Cancel) -> Result<()> {
    let zeroed = TargetSpec {
        preallocate: Preallocate::Full,
        ..target.clone()
    };
    blank(&zeroed, &Progress::default(), cancel).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    fn spec(path: &Path, preallocate: Preallocate) -> TargetSpec {
        TargetSpec {
            path: path.to_owned(),
            preallocate,
            size: Some(8 << 20),
            sync: true,
            ..TargetSpec::default()
        }
    }

    #[test]
    fn a_blank_file_is_sparse_or_has_its_blocks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        for (how, has_blocks) in [
            (Preallocate::Off, false),
            (Preallocate::Falloc, true),
            (Preallocate::Full, true),
        ] {
            let progress = Progress::default();
            let made = blank(&spec(&path, how), &progress, &Cancel::default()).unwrap();
            assert_eq!((made.size, made.untouched), (8 << 20, false));
            let meta = std::fs::metadata(&path).unwrap();
            assert_eq!(meta.len(), 8 << 20);
            assert_eq!(meta.blocks() * 512 >= 8 << 20, has_blocks, "{how:?}");
            assert!(std::fs::read(&path).unwrap().iter().all(|byte| *byte == 0));
            assert_eq!(progress.snapshot().fraction, Some(1.0));
        }
    }

    #[test]
    fn a_blank_file_needs_a_size_and_can_be_interrupted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        let sizeless = TargetSpec {
            size: None,
            ..spec(&path, Preallocate::Off)
        };
        let made = blank(&sizeless, &Progress::default(), &Cancel::default());
        assert!(matches!(made, Err(Error::Target { .. })), "{made:?}");
        let cancel = Cancel::default();
        cancel.cancel();
        let made = blank(
            &spec(&path, Preallocate::Full),
            &Progress::default(),
            &cancel,
        );
        assert!(matches!(made, Err(Error::Interrupted)), "{made:?}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
