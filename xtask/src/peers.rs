//! Peers that are crates: built in workspaces of their own, measured against and compared with, never
//! shipped.
//!
//! As an oracle qcow2-rs tells what qemu-img cannot: that readers who share no code with QEMU agree
//! with us about images that QEMU wrote.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::Run;
use crate::{cargo, paths, say};

/// Builds the qcow2-rs peer; gives its path.
pub(crate) fn build() -> Result<PathBuf> {
    let folder = paths::target().join("peers");
    cargo::locked("build")
        .args(["--release", "--manifest-path"])
        .arg(paths::root().join("benches/peers/qcow2-rs/Cargo.toml"))
        .arg("--target-dir")
        .arg(&folder)
        .check()?;
    Ok(folder.join("release/peer-qcow2-rs"))
}

/// What qcow2-rs reads of what qemu-img writes: no zstd, no extended L2 entries, no clusters below
/// 4 KiB.
const IMAGES: &[(&str, &[&str])] = &[
    ("plain", &[]),
    ("zlib", &["-c"]),
    ("version 2, zlib", &["-c", "-o", "compat=0.10"]),
    ("small clusters", &["-o", "cluster_size=4k"]),
    ("large clusters, zlib", &["-c", "-o", "cluster_size=2M"]),
];

/// Compares what qcow2-rs and we make of the same images. Gives how many agreed.
pub(crate) fn compare() -> Result<u64> {
    let peer = build()?;
    let ours = cargo::programs()?.join("longshore");
    let folder = paths::target().join("peers/oracle");
    paths::make_dir(&folder)?;
    let [source, image, theirs, mine] =
        ["source.raw", "image.qcow2", "theirs.raw", "ours.raw"].map(|name| folder.join(name));
    fill(&source)?;
    let mut agreed = 0;
    for (name, options) in IMAGES {
        for result in [&theirs, &mine] {
            drop(fs::remove_file(result));
        }
        Run::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", "qcow2"])
            .args(*options)
            .args([&source, &image])
            .check()?;
        Run::new(&peer).args([&image, &theirs]).check()?;
        Run::new(&ours)
            .args(["convert", "--progress", "off"])
            .args([&image, &mine])
            .check()?;
        for result in [&theirs, &mine] {
            equal(result, &source).with_context(|| format!("the image `{name}`"))?;
        }
        agreed += 1;
        say::line(&format!("{name}: qcow2-rs, longshore and the source agree"));
    }
    fs::remove_dir_all(&folder).context("removing the images")?;
    Ok(agreed)
}

/// Text that compresses, bytes that do not, zeros that were written and holes that were not, at
/// offsets of every alignment.
fn fill(path: &Path) -> Result<()> {
    const SIZE: u64 = 48 << 20;
    let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
    file.set_len(SIZE).context("sizing the source")?;
    let text = paths::read(&paths::root().join("Cargo.lock"))?;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(40_000)
    .flatten()
    .collect();
    let zeros = vec![0; 1 << 20];
    for (index, at) in (0..SIZE - (2 << 20)).step_by(2_345_678).enumerate() {
        let piece: &[u8] = match index % 3 {
            0 => text.as_bytes(),
            1 => &noise,
            _ => &zeros,
        };
        file.write_all_at(piece, at).context("filling the source")?;
    }
    file.write_all_at(b"the end", SIZE - 7)
        .context("filling the source")
}

fn equal(one: &Path, other: &Path) -> Result<()> {
    let read = |path: &Path| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let (one_bytes, other_bytes) = (read(one)?, read(other)?);
    if one_bytes == other_bytes {
        return Ok(());
    }
    let pairs = one_bytes.iter().zip(&other_bytes);
    let at = pairs.take_while(|(one, other)| one == other).count();
    bail!(
        "{} and {} differ at {at} (sizes {} and {})",
        one.display(),
        other.display(),
        one_bytes.len(),
        other_bytes.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_differ_are_told_apart_and_where() {
        let folder = std::env::temp_dir().join(format!("longshore-peers-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let [one, other] = ["one", "other"].map(|name| folder.join(name));
        fs::write(&one, b"same and more").unwrap();
        fs::write(&other, b"same and else").unwrap();
        equal(&one, &one).unwrap();
        let text = equal(&one, &other).unwrap_err().to_string();
        fs::remove_dir_all(&folder).unwrap();
        assert!(text.contains("differ at 9 "), "{text}");
    }
}
