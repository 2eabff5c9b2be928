//! Large qcow2 images out of small ones: `qemu-img` writes the clusters, we write tables over them that
//! use each several times.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::shell::Run;

/// How often each cluster is used. Longshore reads no image that uses its bytes more than 16 times over.
pub(super) const SHARED: u64 = 8;
/// The usual size of a cluster, and of an L2 table.
const CLUSTER: u64 = 64 << 10;
/// Entries of an L2 table.
const ENTRIES: u64 = CLUSTER / 8;
/// Guest clusters in a row that have data, before as many that have none.
const RUN: u64 = 16;
/// A page of the seed: all of one word, so that memory that knows such pages keeps the word alone.
const PAGE: usize = 4096;

/// How the clusters are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Zlib,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Zlib => "zlib",
        }
    }
}

/// Makes an image of a disk of `size` bytes, `data` of which are not zero, spread over all of it.
pub(super) fn make(kind: Kind, size: u64, data: u64, to: &Path) -> Result<()> {
    let seed = to.with_extension("seed");
    write_seed(&seed, data / SHARED)?;
    let mut convert = Run::new("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]);
    if kind == Kind::Zlib {
        convert = convert.arg("-c");
    }
    convert.arg(&seed).arg(to).check()?;
    std::fs::remove_file(&seed).with_context(|| format!("removing {}", seed.display()))?;
    let file = File::options()
        .read(true)
        .write(true)
        .open(to)
        .with_context(|| format!("opening {}", to.display()))?;
    spread(&file, size, data).with_context(|| format!("writing tables of {}", to.display()))
}

fn write_seed(to: &Path, bytes: u64) -> Result<()> {
    let file = File::create(to).with_context(|| format!("making {}", to.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    for page in 1..=bytes / PAGE as u64 {
        let word = (page.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1).to_le_bytes();
        out.write_all(&word.repeat(PAGE / 8))
            .with_context(|| format!("writing {}", to.display()))?;
    }
    out.flush()
        .with_context(|| format!("writing {}", to.display()))
}

/// Gives the image new tables, behind everything, for a disk of `size` bytes.
fn spread(file: &File, size: u64, data: u64) -> Result<()> {
    let used = entries(file)?;
    let tables = size / (ENTRIES * CLUSTER);
    let per_table = data / CLUSTER / tables;
    if used.is_empty() || per_table == 0 || per_table > ENTRIES / 2 {
        bail!("{data} bytes can't be spread over {tables} tables");
    }
    let l1 = file.metadata()?.len().next_multiple_of(CLUSTER);
    let l1_len = (tables * 8).next_multiple_of(CLUSTER);
    let mut l1_table = Vec::with_capacity(usize::try_from(l1_len)?);
    let mut next = used.iter().cycle();
    for table in 0..tables {
        let at = l1 + l1_len + table * CLUSTER;
        let mut l2 = vec![0; usize::try_from(CLUSTER)?];
        for n in 0..per_table {
            let place = usize::try_from((n / RUN * 2 * RUN + n % RUN) * 8)?;
            let entry = next.next().context("a cycle has no end")?;
            let field = l2.get_mut(place..place + 8).context("the table is full")?;
            field.copy_from_slice(&entry.to_be_bytes());
        }
        file.write_all_at(&l2, at)?;
        // The flag says that nobody else uses the table.
        l1_table.extend((at | 1 << 63).to_be_bytes());
    }
    l1_table.resize(usize::try_from(l1_len)?, 0);
    file.write_all_at(&l1_table, l1)?;
    // Size of the disk, of the L1 table, and where that is: at 24, 36 and 40 of the header.
    file.write_all_at(&size.to_be_bytes(), 24)?;
    file.write_all_at(&u32::try_from(tables)?.to_be_bytes(), 36)?;
    file.write_all_at(&l1.to_be_bytes(), 40)?;
    Ok(())
}

/// The entries of all L2 tables that have data, in the order of the disk.
fn entries(file: &File) -> Result<Vec<u64>> {
    let mut header = [0; 48];
    file.read_exact_at(&mut header, 0)?;
    let l1_size = u32::from_be_bytes(header[36..40].try_into()?);
    let l1_at = u64::from_be_bytes(header[40..48].try_into()?);
    let mut l1 = vec![0; l1_size as usize * 8];
    file.read_exact_at(&mut l1, l1_at)?;
    let mut found = Vec::new();
    let mut l2 = vec![0; usize::try_from(CLUSTER)?];
    for at in words(&l1) {
        // The highest bit is a flag.
        let at = at & !(1 << 63);
        if at == 0 {
            continue;
        }
        file.read_exact_at(&mut l2, at)?;
        found.extend(words(&l2).filter(|&entry| entry != 0));
    }
    Ok(found)
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes
        .chunks_exact(8)
        .map(|word| word.iter().fold(0, |n, &byte| n << 8 | u64::from(byte)))
}
