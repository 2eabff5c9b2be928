//! `peer-qcow2-rs IN OUT`: makes a sparse raw file of a qcow2 image with the qcow2-rs crate.
//!
//! Owns the fairest use of that crate we know: one device for each processor (its devices cannot be
//! shared between threads), plain `pread`, 8 MiB at a time, and zeros skipped in 4 KiB steps as
//! everybody else here does. It is a peer in `cargo xtask bench versus` and an oracle in
//! `cargo xtask test`, and is never shipped.

use std::env;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::executor::block_on;
use qcow2_rs::dev::{Qcow2Dev, Qcow2DevParams};
use qcow2_rs::helpers::Qcow2IoBuf;
use qcow2_rs::sync_io::Qcow2IoSync;
use qcow2_rs::utils::qcow2_setup_dev_sync;

/// What the crate's own converter reads at once.
const PIECE: u64 = 8 << 20;
/// The step in which zeros are looked for.
const BLOCK: usize = 4096;
/// The unit that the crate reads in.
const SECTOR_BITS: u8 = 9;

fn main() -> Result<()> {
    let names: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [input, output] = names.as_slice() else {
        bail!("usage: peer-qcow2-rs IN OUT");
    };
    // The crate panics on a file it cannot open; this error is a readable one.
    File::open(input).with_context(|| format!("opening {}", input.display()))?;
    let file = File::create(output).with_context(|| format!("creating {}", output.display()))?;
    let size = open(input)?.info.virtual_size();
    file.set_len(size).context("setting the size")?;
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| copy(input, &file, size, &next)))
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow!("qcow2-rs panicked"))?)
    })
}

fn open(input: &Path) -> Result<Qcow2Dev<Qcow2IoSync>> {
    let params = Qcow2DevParams::new(SECTOR_BITS, None, None, true, false);
    let device = qcow2_setup_dev_sync(input, &params).map_err(foreign)?;
    block_on(device.qcow2_prep_io()).map_err(foreign)?;
    Ok(device)
}

/// Takes one piece after the other until none is left.
fn copy(input: &Path, output: &File, size: u64, next: &AtomicU64) -> Result<()> {
    let device = open(input)?;
    let mut buffer = Qcow2IoBuf::<u8>::new(usize::try_from(PIECE)?);
    loop {
        let start = next.fetch_add(PIECE, Ordering::Relaxed);
        if start >= size {
            return Ok(());
        }
        let length = usize::try_from(PIECE.min(size - start))?;
        let piece = &mut buffer[..length];
        let count = block_on(device.read_at(piece, start)).map_err(foreign)?;
        ensure!(
            count == length,
            "a short read at {start}: {count} of {length}"
        );
        write(output, piece, start)?;
    }
}

/// Writes runs of blocks that are not zero.
fn write(output: &File, piece: &[u8], start: u64) -> Result<()> {
    let zero = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    let mut run = 0..0;
    for block in piece.chunks(BLOCK) {
        if zero(block) {
            output.write_all_at(&piece[run.clone()], start + run.start as u64)?;
            run = run.end + block.len()..run.end + block.len();
        } else {
            run.end += block.len();
        }
    }
    output.write_all_at(&piece[run.clone()], start + run.start as u64)?;
    Ok(())
}

/// The crate's errors are text.
fn foreign(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("qcow2-rs: {error}")
}
