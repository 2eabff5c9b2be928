//! The console on disk: a file of bounded size, and the one before it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::ring::Reader;

#[derive(Debug)]
pub(super) struct RotatingLog {
    path: PathBuf,
    file: File,
    length: u64,
    limit: u64,
}

impl RotatingLog {
    /// Appends to what an earlier run left.
    pub(super) fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = open(path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            length,
            limit,
        })
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        let added = data.len() as u64;
        if self.length > 0 && self.length + added > self.limit {
            self.rotate()?;
        }
        self.file.write_all(data)?;
        self.length += added;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut before = self.path.clone().into_os_string();
        before.push(".1");
        std::fs::rename(&self.path, before)?;
        self.file = open(&self.path)?;
        self.length = 0;
        Ok(())
    }
}

/// For the owner alone: guests print passwords.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Writes the log until the console ends. A disk that fails costs output, never the guest.
pub(super) async fn keep(mut log: RotatingLog, mut reader: Reader) {
    let mut failing = false;
    while let Some(output) = reader.next().await {
        let written = tokio::task::spawn_blocking(move || {
            let mark = output.mark().unwrap_or_default();
            let result = log
                .write(mark.as_bytes())
                .and_then(|()| log.write(&output.data));
            (log, result)
        });
        let Ok((kept, result)) = written.await else {
            return;
        };
        log = kept;
        if let Err(error) = &result
            && !failing
        {
            tracing::warn!(file = %log.path.display(), %error, "console output is not logged");
        }
        failing = result.is_err();
    }
}
