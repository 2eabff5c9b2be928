//! What the benchmarks of single functions share: data to work on, and images whose tables are full.
//!
//! `cargo xtask bench micro` runs them; they say where time goes, and `versus` whether it matters.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use longshore_image::{DenyAll, Format, Image, Limits, open};
use longshore_transfer::LocalFile;

/// Bytes of a cluster, and of a VMDK's grain.
pub const CLUSTER: usize = 64 << 10;
/// Bytes of the data.
pub const DATA: usize = 8 << 20;

/// Real machine code, as disks have it: the beginning of this program.
///
/// # Errors
///
/// If the program's file cannot be read, or is too short.
pub fn data() -> io::Result<Vec<u8>> {
    let mut bytes = std::fs::read(std::env::current_exe()?)?;
    if bytes.len() < DATA {
        // Small programs are written more than once.
        let once = bytes.clone();
        while bytes.len() < DATA {
            bytes.extend_from_slice(&once);
        }
    }
    bytes.truncate(DATA);
    Ok(bytes)
}

/// What a program makes of its standard input.
///
/// # Errors
///
/// If it cannot be started, or fails.
pub fn piped(program: &str, args: &[&str], input: &[u8]) -> io::Result<Vec<u8>> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdin = child.stdin.take();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // One that ends early says so by its status.
            drop(stdin.map(|mut pipe| pipe.write_all(input)));
        });
        let output = child.wait_with_output()?;
        succeeded(program, output.status.success())?;
        Ok(output.stdout)
    })
}

/// Runs `qemu-img`.
///
/// # Errors
///
/// If it cannot be started, or fails.
pub fn qemu_img(args: &[&str]) -> io::Result<()> {
    let output = Command::new("qemu-img").args(args).output()?;
    succeeded("qemu-img", output.status.success())
}

fn succeeded(program: &str, success: bool) -> io::Result<()> {
    if success {
        Ok(())
    } else {
        Err(io::Error::other(format!("{program} failed")))
    }
}

/// An image as the engine opens it.
///
/// # Errors
///
/// If it is refused.
pub fn image(format: Format, path: &Path) -> Result<Arc<dyn Image>, Box<dyn std::error::Error>> {
    let file = Arc::new(LocalFile::open(path, true)?);
    Ok(open(format, file, &DenyAll, &Limits::default())?)
}
