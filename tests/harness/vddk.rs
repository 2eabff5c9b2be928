//! What VMware's archive with its library (VDDK) unpacks to. The library in it is a stand-in: the real one is
//! proprietary. nbdkit's own plugin loads it and knows no difference.

use std::path::Path;
use std::process::Command;

use crate::program::run;
use crate::vsphere::{PASSWORD, USER};

/// The folder's name in the archive, and in images with it.
pub const FOLDER: &str = "vmware-vix-disklib-distrib";

/// Makes `folder`, with a library that has these disks: in snapshots, by their references, and `now`. They can be
/// read by who may log in to the [`simulator`](crate::vsphere).
pub fn library(folder: &Path, disks: &[(&str, &[u8])]) {
    let libraries = folder.join("lib64");
    let place = folder.join("stand-in/disks");
    for made in [&libraries, &place] {
        std::fs::create_dir_all(made).unwrap();
    }
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/harness/vddk/library.c");
    let mut compile = Command::new("cc");
    compile.args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]);
    run(compile
        .arg("-o")
        .arg(libraries.join("libvixDiskLib.so.8"))
        .arg(source));
    let account = format!("{USER}\n{PASSWORD}\n");
    std::fs::write(folder.join("stand-in/account"), account).unwrap();
    for (name, disk) in disks {
        std::fs::write(place.join(name), disk).unwrap();
    }
}
