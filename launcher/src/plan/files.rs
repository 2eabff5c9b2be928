//! Files that have to be in the state directory before QEMU starts.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

/// A file to be made anew at each start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFile {
    /// Absolute path.
    pub path: PathBuf,
    /// What is in it.
    pub content: Content,
}

/// What is in a [`StateFile`]. `Debug` shows no bytes: there are passwords among them.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A hole of this many bytes: an empty disk.
    Sparse(u64),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Sparse(size) => write!(f, "Sparse({size})"),
        }
    }
}

impl StateFile {
    /// Makes the file, in place of one that may be there, readable by its owner alone.
    ///
    /// The old file is unlinked and not written to, so a process that still has it open keeps
    /// what it had.
    pub fn create(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)?;
        match &self.content {
            Content::Bytes(bytes) => file.write_all(bytes),
            Content::Sparse(size) => file.set_len(*size),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn a_file_replaces_the_one_before_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed.iso");
        fs::write(&path, b"a longer text from the last time").unwrap();
        let file = StateFile {
            path: path.clone(),
            content: Content::Bytes(b"new".to_vec()),
        };
        file.create().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn an_empty_disk_is_a_hole_and_forgets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty.raw");
        fs::write(&path, b"old data").unwrap();
        StateFile {
            path: path.clone(),
            content: Content::Sparse(1 << 30),
        }
        .create()
        .unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.len(), found.blocks()), (1 << 30, 0));
    }

    #[test]
    fn contents_are_not_shown() {
        let content = Content::Bytes(b"hunter2".to_vec());
        assert_eq!(format!("{content:?}"), "Bytes(7 bytes)");
    }
}
