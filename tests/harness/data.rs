//! Bytes to import, and where to.

use std::process::Command;

use tempfile::TempDir;

use crate::program::{fed, said, shell};

/// A disk of `len` bytes: noise, zeros and text in turns, with turns that are aligned to nothing.
/// Different seeds give disks that differ everywhere but in the zeros.
pub fn disk(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes = Vec::with_capacity(len + 40_000);
    let mut turn = 0;
    while bytes.len() < len {
        let span = usize::try_from(5_000 + next() % 30_000).unwrap();
        match turn % 3 {
            0 => bytes.extend((0..span / 8).flat_map(|_| next().to_le_bytes())),
            1 => bytes.resize(bytes.len() + span, 0),
            _ => {
                let word = format!("block {} of disk {seed}. ", bytes.len());
                bytes.extend(word.bytes().cycle().take(span));
            }
        }
        turn += 1;
    }
    bytes.truncate(len);
    bytes
}

/// A disk as the image that a shell's script makes of the file `disk.raw`, as the file `image`.
pub fn image(disk: &[u8], script: &str) -> Vec<u8> {
    let folder = quick_dir();
    std::fs::write(folder.path().join("disk.raw"), disk).unwrap();
    shell(folder.path(), script);
    std::fs::read(folder.path().join("image")).unwrap()
}

/// It as a compressed qcow2 image.
pub fn qcow2(disk: &[u8]) -> Vec<u8> {
    image(disk, "qemu-img convert -c -f raw -O qcow2 disk.raw image")
}

/// What a compressor makes of bytes; with options, if there are words behind its name.
pub fn packed(tool: &str, bytes: &[u8]) -> Vec<u8> {
    let mut words = tool.split(' ');
    let mut tool = Command::new(words.next().unwrap());
    let output = fed(tool.args(words).arg("-c"), bytes);
    assert!(output.status.success(), "{}", said(&output));
    output.stdout
}

/// A directory in memory, where there is one: what is made durable there waits for no disk, on which others
/// may be busy. For tests of what is done, and not of how it is stored.
pub fn quick_dir() -> TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.unwrap()
}
