//! One measured run, and the CSV file of all of them: the raw data that everything else is made from.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};

const COLUMNS: &str = "case,round,position,contender,wall_s,fsync_s,user_s,sys_s,rss_kib,\
                       outblock,inblock,allocated_kib,load1,note";

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Record {
    pub(super) case: String,
    /// From 1; 0 says that the contender was not measured, and the note why.
    pub(super) round: usize,
    /// The place in the round's order, from 1.
    pub(super) position: usize,
    pub(super) contender: String,
    /// From start to the end of fsync.
    pub(super) wall: f64,
    /// How much of that was our fsync after the program's end.
    pub(super) fsync: f64,
    pub(super) user: f64,
    pub(super) sys: f64,
    /// Of the largest process.
    pub(super) rss_kib: u64,
    /// `ru_oublock` and `ru_inblock`: units of 512 bytes.
    pub(super) outblock: u64,
    pub(super) inblock: u64,
    /// Blocks of the result.
    pub(super) allocated_kib: u64,
    /// The machine's load average just before.
    pub(super) load: f64,
    pub(super) note: String,
}

impl Record {
    pub(super) fn missing(case: &str, contender: &str, why: &str) -> Self {
        Self {
            case: case.to_owned(),
            contender: contender.to_owned(),
            note: why.to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn cpu(&self) -> f64 {
        self.user + self.sys
    }

    fn line(&self) -> String {
        let plain = |text: &str| text.replace(['\n', '\r'], " ").replace(',', ";");
        format!(
            "{},{},{},{},{:.3},{:.3},{:.2},{:.2},{},{},{},{},{:.2},{}",
            plain(&self.case),
            self.round,
            self.position,
            plain(&self.contender),
            self.wall,
            self.fsync,
            self.user,
            self.sys,
            self.rss_kib,
            self.outblock,
            self.inblock,
            self.allocated_kib,
            self.load,
            plain(&self.note)
        )
    }

    fn parse(line: &str) -> Result<Self> {
        let cells: Vec<&str> = line.split(',').collect();
        let &[
            case,
            round,
            position,
            contender,
            wall,
            fsync,
            user,
            sys,
            rss,
            outblock,
            inblock,
            allocated,
            load,
            note,
        ] = cells.as_slice()
        else {
            bail!("{} cells in the line: {line}", cells.len());
        };
        let whole = |cell: &str| cell.parse().with_context(|| format!("reading: {line}"));
        let real = |cell: &str| cell.parse().with_context(|| format!("reading: {line}"));
        let count = |cell: &str| cell.parse().with_context(|| format!("reading: {line}"));
        Ok(Self {
            case: case.to_owned(),
            round: count(round)?,
            position: count(position)?,
            contender: contender.to_owned(),
            wall: real(wall)?,
            fsync: real(fsync)?,
            user: real(user)?,
            sys: real(sys)?,
            rss_kib: whole(rss)?,
            outblock: whole(outblock)?,
            inblock: whole(inblock)?,
            allocated_kib: whole(allocated)?,
            load: real(load)?,
            note: note.to_owned(),
        })
    }
}

/// The file while it grows: each run is in it as soon as it is measured.
#[derive(Debug)]
pub(super) struct Raw {
    file: File,
}

impl Raw {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).with_context(|| format!("making {}", path.display()))?;
        let mut raw = Self { file };
        raw.put(COLUMNS)?;
        Ok(raw)
    }

    pub(super) fn add(&mut self, record: &Record) -> Result<()> {
        self.put(&record.line())
    }

    fn put(&mut self, line: &str) -> Result<()> {
        writeln!(self.file, "{line}").context("writing the raw data")
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<Record>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut lines = text.lines();
    if lines.next() != Some(COLUMNS) {
        bail!("{} has other columns than ours", path.display());
    }
    lines.map(Record::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("raw.csv");
        let record = Record {
            case: "qcow2-zlib-tmpfs".into(),
            round: 3,
            position: 2,
            contender: "qemu-img".into(),
            wall: 12.345,
            fsync: 0.001,
            user: 10.25,
            sys: 1.5,
            rss_kib: 30_000,
            outblock: 5_600_000,
            inblock: 8,
            allocated_kib: 2_800_000,
            load: 0.25,
            note: String::new(),
        };
        let missing = Record::missing("raw-disk", "nbdcopy", "not installed,\nsorry");
        let mut raw = Raw::create(&path).unwrap();
        raw.add(&record).unwrap();
        raw.add(&missing).unwrap();
        let found = read(&path).unwrap();
        assert_eq!(found[0], record);
        assert_eq!(found[1].note, "not installed; sorry");
        assert_eq!(found[1].round, 0);
    }

    #[test]
    fn results_are_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("raw.csv");
        Raw::create(&path).unwrap();
        assert!(Raw::create(&path).is_err());
    }

    #[test]
    fn a_file_of_other_columns_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("raw.csv");
        fs::write(&path, "a,b\n1,2\n").unwrap();
        assert!(read(&path).is_err());
    }
}
