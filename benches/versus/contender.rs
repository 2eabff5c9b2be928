//! Who is measured, and with which flags.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::fixture::Image;
use super::shell;

pub(super) const OURS: &str = "longshore";

/// A way of making a raw file of an image.
#[derive(Debug)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    program: Program,
    /// `IN`, `OUT` and `FMT` are put in.
    args: &'static [&'static str],
    takes: fn(&Image) -> bool,
}

#[derive(Debug)]
enum Program {
    /// Built by xtask, which says where.
    Built(Peer),
    Installed(&'static str),
}

#[derive(Debug, Clone, Copy)]
enum Peer {
    Longshore,
    Qcow2Rs,
}

/// Where xtask put what it built.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) longshore: PathBuf,
    pub(super) qcow2_rs: Option<PathBuf>,
}

const fn any(_: &Image) -> bool {
    true
}

fn raw(image: &Image) -> bool {
    image.format == "raw"
}

fn not_raw(image: &Image) -> bool {
    !raw(image)
}

fn qcow2(image: &Image) -> bool {
    image.format == "qcow2"
}

pub(super) const ALL: &[Contender] = &[
    Contender {
        name: OURS,
        program: Program::Built(Peer::Longshore),
        args: &["convert", "--progress", "off", "--sync", "IN", "OUT"],
        takes: any,
    },
    Contender {
        name: "qemu-img",
        program: Program::Installed("qemu-img"),
        args: &["convert", "-f", "FMT", "-O", "raw", "IN", "OUT"],
        takes: any,
    },
    Contender {
        name: "qemu-img -m 16 -W",
        program: Program::Installed("qemu-img"),
        args: &[
            "convert", "-m", "16", "-W", "-f", "FMT", "-O", "raw", "IN", "OUT",
        ],
        takes: any,
    },
    Contender {
        name: "nbdcopy (qemu-nbd)",
        program: Program::Installed("nbdcopy"),
        args: &[
            "--", "[", "qemu-nbd", "-r", "-e", "8", "-f", "FMT", "IN", "]", "OUT",
        ],
        takes: not_raw,
    },
    Contender {
        name: "nbdcopy (nbdkit file)",
        program: Program::Installed("nbdcopy"),
        args: &["--", "[", "nbdkit", "-r", "file", "IN", "]", "OUT"],
        takes: raw,
    },
    Contender {
        name: "cp --sparse=always",
        program: Program::Installed("cp"),
        args: &["--sparse=always", "IN", "OUT"],
        takes: raw,
    },
    Contender {
        name: "qcow2-rs 0.1.6",
        program: Program::Built(Peer::Qcow2Rs),
        args: &["IN", "OUT"],
        takes: qcow2,
    },
];

impl Contender {
    /// Whether it claims to read such images at all.
    pub(super) fn takes(&self, image: &Image) -> bool {
        (self.takes)(image)
    }

    pub(super) fn ours(&self) -> bool {
        self.name == OURS
    }

    /// The program's path, or why there is none.
    pub(super) fn find(&self, built: &Built) -> Result<PathBuf, String> {
        match self.program {
            Program::Built(Peer::Longshore) => Ok(built.longshore.clone()),
            Program::Built(Peer::Qcow2Rs) => {
                built.qcow2_rs.clone().ok_or_else(|| "not built".into())
            }
            Program::Installed(name) => {
                let helper = self.args.iter().skip_while(|arg| **arg != "[").nth(1);
                for needed in std::iter::once(&name).chain(helper) {
                    if shell::program(needed).is_none() {
                        return Err(format!("{needed} is not installed"));
                    }
                }
                shell::program(name).ok_or_else(|| format!("{name} is not installed"))
            }
        }
    }

    pub(super) fn args(&self, image: &Image, input: &Path, output: &Path) -> Vec<OsString> {
        let put = |arg: &&str| match *arg {
            "IN" => input.as_os_str().to_owned(),
            "OUT" => output.as_os_str().to_owned(),
            "FMT" => image.format.into(),
            other => other.into(),
        };
        self.args.iter().map(put).collect()
    }

    /// The command as it is recorded.
    pub(super) fn template(&self) -> String {
        let name = match self.program {
            Program::Built(Peer::Longshore) => OURS,
            Program::Built(Peer::Qcow2Rs) => "peer-qcow2-rs",
            Program::Installed(name) => name,
        };
        format!("{name} {}", self.args.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::fixture::IMAGES;

    #[test]
    fn everybody_gets_the_same_two_files() {
        for contender in ALL {
            for image in IMAGES.iter().filter(|image| contender.takes(image)) {
                let args = contender.args(image, Path::new("/in put"), Path::new("/out"));
                let count = |name: &str| args.iter().filter(|arg| *arg == name).count();
                assert_eq!(
                    (count("/in put"), count("/out")),
                    (1, 1),
                    "{}",
                    contender.name
                );
                assert_eq!(count("FMT") + count("IN") + count("OUT"), 0);
            }
        }
    }

    #[test]
    fn every_format_has_us_and_peers() {
        for image in IMAGES {
            let names: Vec<_> = ALL
                .iter()
                .filter(|contender| contender.takes(image))
                .map(|contender| contender.name)
                .collect();
            assert_eq!(names[0], OURS);
            assert!(names.len() >= 4, "{}: {names:?}", image.name);
        }
    }

    #[test]
    fn what_was_not_built_is_said_to_be_missing() {
        let built = Built {
            longshore: "/longshore".into(),
            qcow2_rs: None,
        };
        let peer = ALL
            .iter()
            .find(|peer| peer.name.starts_with("qcow2-rs"))
            .unwrap();
        assert_eq!(peer.find(&built).unwrap_err(), "not built");
    }
}
