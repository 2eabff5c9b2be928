//! Making images with `qemu-img`, and comparing what comes of them.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use longshore_tests::program::{longshore, run, said};

/// What is on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Empty,
    Sparse,
    Incompressible,
    Compressible,
    /// All of these, and a size that is a multiple of 512 only.
    Unaligned,
}

impl Content {
    pub(crate) const ALL: [Self; 5] = [
        Self::Empty,
        Self::Sparse,
        Self::Incompressible,
        Self::Compressible,
        Self::Unaligned,
    ];

    /// The bytes of a disk of about `len` bytes; the same every time.
    pub(crate) fn bytes(self, len: usize) -> Vec<u8> {
        let len = if self == Self::Unaligned {
            len - len / 3 / 512 * 512 + 512
        } else {
            len
        };
        let mut bytes = vec![0; len];
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut noise = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        for (n, block) in bytes.chunks_mut(12_288).enumerate() {
            let kind = match self {
                Self::Sparse if n % 40 == 7 => 1,
                Self::Empty | Self::Sparse => 0,
                Self::Incompressible => 1,
                Self::Compressible => 2,
                Self::Unaligned => n % 3,
            };
            for word in block.chunks_mut(8) {
                let value = match kind {
                    0 => [0; 8],
                    1 => noise(),
                    _ => {
                        let mut text = *b"virtual ";
                        text[0] = noise()[0] & 3;
                        text
                    }
                };
                word.copy_from_slice(&value[..word.len()]);
            }
        }
        bytes
    }
}

/// A directory of images.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file with these bytes.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Runs `qemu-img` here, with what these words say.
    pub(crate) fn qemu_img(&self, words: &str) {
        run(Command::new("qemu-img")
            .current_dir(self.dir.path())
            .args(words.split_whitespace()));
    }

    /// Runs `qemu-io` commands on an image here.
    pub(crate) fn qemu_io(&self, image: &str, commands: &[String]) {
        let mut io = Command::new("qemu-io");
        io.current_dir(self.dir.path()).arg(image);
        for command in commands {
            io.args(["-c", command]);
        }
        run(&mut io);
    }

    /// The disk that `qemu-img` reads from `image`.
    pub(crate) fn expected(&self, image: &str) -> PathBuf {
        self.qemu_img(&format!("convert -O raw {image} expected.raw"));
        self.path("expected.raw")
    }

    /// The disk that `qemu-img` reads from `image` when it is told the format.
    pub(crate) fn expected_as(&self, format: &str, image: &str) -> PathBuf {
        self.qemu_img(&format!("convert -f {format} -O raw {image} expected.raw"));
        self.path("expected.raw")
    }

    /// Converts `image` from its file and from a pipe, and demands the disk of `expected` from both.
    pub(crate) fn check(&self, image: &str, expected: &Path, case: &str) {
        let expected = std::fs::read(expected).unwrap();
        let image = self.path(image);
        let out = self.path("out.raw");
        let from_file = longshore()
            .arg("convert")
            .arg(&image)
            .arg(&out)
            .output()
            .unwrap();
        assert!(
            from_file.status.success(),
            "{case}, from a file: {}",
            said(&from_file)
        );
        compare(&out, &expected, &format!("{case}, from a file"));
        std::fs::remove_file(&out).unwrap();
        let mut piped = longshore()
            .args(["convert", "-"])
            .arg(&out)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = piped.stdin.take().unwrap();
        // A refusal closes the pipe before all is written; the status tells then.
        let written = std::fs::read(&image).map(|bytes| pipe.write_all(&bytes).is_ok());
        drop(pipe);
        let from_pipe = piped.wait_with_output().unwrap();
        assert!(
            from_pipe.status.success(),
            "{case}, from a pipe: {}",
            said(&from_pipe)
        );
        assert!(written.unwrap(), "{case}: the pipe was closed early");
        compare(&out, &expected, &format!("{case}, from a pipe"));
        std::fs::remove_file(&out).unwrap();
    }
}

/// The file holds `expected`, and hardly more blocks than data.
pub(crate) fn compare(out: &Path, expected: &[u8], case: &str) {
    let found = std::fs::read(out).unwrap();
    assert_eq!(found.len(), expected.len(), "{case}: size");
    if found != expected {
        let at = found.iter().zip(expected).position(|(a, b)| a != b);
        panic!("{case}: first difference at {at:#x?}");
    }
    let blocks = expected
        .chunks(4096)
        .filter(|c| c.iter().any(|b| *b != 0))
        .count() as u64;
    let allocated = File::open(out).unwrap().metadata().unwrap().blocks() * 512;
    // 0.1 %, and the filesystem's own blocks of the map of a fragmented file.
    let allowed = blocks * 4096 + blocks * 4096 / 1000 + (64 << 10);
    assert!(
        allocated <= allowed,
        "{case}: {allocated} bytes allocated, {allowed} allowed"
    );
}
