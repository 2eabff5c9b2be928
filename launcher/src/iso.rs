//! Writes an ISO 9660 image with a handful of files at its top.
//!
//! Each file can be found by three names: an upper case 8.3 name (ECMA-119, level 1), its own
//! name in UCS-2 (Joliet, for Windows) and its own name with POSIX permissions (Rock Ridge, for
//! Linux and others). The same files give the same bytes: there is no time, host or random number
//! in the image. No directories, no boot records, and nothing reads images here.
//!
//! ```text
//! sector  0..16  system area, zero
//!            16  primary volume descriptor
//!            17  supplementary volume descriptor (Joliet)
//!            18  descriptor set terminator
//!        19, 20  path table of the primary tree, little and big endian
//!        21, 22  path table of the Joliet tree, likewise
//!        23 ...  root directory of the primary tree, then that of the Joliet tree
//!           ...  files, each from the start of a sector
//! ```

mod descriptor;
mod directory;
mod encode;
mod names;

use descriptor::{Tree, Volume};
use directory::{Entry, Extent};

/// Bytes of a sector, and of a logical block.
const SECTOR: usize = 2048;
/// Sectors before the first directory.
const FIRST_DIRECTORY: u32 = 23;
const PRIMARY_PATH_TABLE: u32 = 19;
const JOLIET_PATH_TABLE: u32 = 21;
/// The least an image has. Busybox's `findfs` and `blkid` read 68 KiB before they look for any file
/// system, and take a disk that is shorter for an unreadable one (measured with 1.35).
const LEAST_SECTORS: u32 = 64;
/// More than a configuration disk has, and few enough for short names to stay apart.
const MAX_FILES: usize = 64;

/// A file to be put on the image.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its content.
    pub bytes: &'a [u8],
}

/// Why there is no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IsoError {
    /// A name is not one that all three trees can carry.
    #[error("\"{name}\" cannot be the name of a file on an ISO image")]
    Name {
        /// The name.
        name: String,
    },
    /// A name is there twice.
    #[error("the name \"{name}\" is there twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// The label of the volume is not one that both trees can carry.
    #[error("\"{label}\" cannot be the label of an ISO image")]
    Label {
        /// The label.
        label: String,
    },
    /// There are too many files.
    #[error("{count} files are too many for one directory (the limit is {MAX_FILES})")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// The image has more sectors than can be numbered, or a file more bytes.
    #[error("{size} bytes are too large for an ISO image")]
    TooLarge {
        /// Bytes of the file, or of all files.
        size: usize,
    },
}

/// Makes an image with this label and these files.
pub fn image(label: &str, files: &[File<'_>]) -> Result<Vec<u8>, IsoError> {
    names::check_label(label)?;
    if files.len() > MAX_FILES {
        return Err(IsoError::TooMany { count: files.len() });
    }
    let short = names::short_names(files)?;

    // A directory's size depends on names alone, so dummies tell it before places are known.
    let nowhere = Extent::default();
    let entries = |extents: &[Extent]| -> Vec<Entry<'_>> {
        let places = extents.iter().copied().chain(std::iter::repeat(nowhere));
        let named = files.iter().zip(&short).zip(places);
        named
            .map(|((file, short), extent)| Entry {
                name: file.name,
                short,
                extent,
            })
            .collect()
    };
    let primary_size = directory::primary(nowhere, &entries(&[])).len();
    let joliet_size = directory::joliet(nowhere, &entries(&[])).len();

    let mut next = FIRST_DIRECTORY;
    let mut place = |size: usize| {
        let extent = Extent {
            sector: next,
            size: u32::try_from(size).ok()?,
        };
        next = next.checked_add(u32::try_from(size.div_ceil(SECTOR)).ok()?)?;
        // Nothing is read for an empty file; its place must only not be beyond the end.
        Some(if size == 0 { nowhere } else { extent })
    };
    let too_large = |size| IsoError::TooLarge { size };
    let primary_root = place(primary_size).ok_or_else(|| too_large(primary_size))?;
    let joliet_root = place(joliet_size).ok_or_else(|| too_large(joliet_size))?;
    let mut extents = Vec::with_capacity(files.len());
    for file in files {
        extents.push(place(file.bytes.len()).ok_or_else(|| too_large(file.bytes.len()))?);
    }
    let entries = entries(&extents);

    let volume = Volume {
        label,
        sectors: next.max(LEAST_SECTORS),
    };
    let primary = Tree {
        root: primary_root,
        path_table: PRIMARY_PATH_TABLE,
    };
    let joliet = Tree {
        root: joliet_root,
        path_table: JOLIET_PATH_TABLE,
    };
    let mut image = vec![0; 16 * SECTOR];
    let mut put = |bytes: &[u8]| {
        image.extend_from_slice(bytes);
        image.resize(image.len().next_multiple_of(SECTOR), 0);
    };
    put(&descriptor::primary(&volume, primary));
    put(&descriptor::joliet(&volume, joliet));
    put(&descriptor::terminator());
    for tree in [primary, joliet] {
        put(&directory::path_table(
            tree.root.sector.to_le_bytes(),
            1_u16.to_le_bytes(),
        ));
        put(&directory::path_table(
            tree.root.sector.to_be_bytes(),
            1_u16.to_be_bytes(),
        ));
    }
    put(&directory::primary(primary_root, &entries));
    put(&directory::joliet(joliet_root, &entries));
    for file in files {
        put(file.bytes);
    }
    image.resize(image.len().max(LEAST_SECTORS as usize * SECTOR), 0);
    Ok(image)
}

#[cfg(test)]
mod tests;
