//! Who is measured, and with which flags.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::case::{Case, Road};
use super::measure::Files;
use super::shell;

mod import;

pub(super) const OURS: &str = "longshore";
/// How names begin of what is no peer but a bound: what the machine, or we without something, can do.
pub(super) const BOUND: &str = "bound: ";

/// A way of making a raw file of an image.
#[derive(Debug)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    program: Program,
    /// Upper-case words are put in: see [`Contender::args`]. A script finds them in its environment.
    args: &'static [&'static str],
    /// What a script runs, and what else has to be there.
    needs: &'static [&'static str],
    takes: fn(&Case) -> bool,
    /// What it leaves behind.
    leaves: Leaves,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Longshore,
    Qcow2Rs,
    /// This program itself.
    Benches,
    Installed(&'static str),
    /// `bash -c`, ending at the first failure.
    Script,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves {
    /// The disk.
    Disk,
    /// Bytes that are written out like those of the disk, and say nothing.
    Bytes,
    Nothing,
}

/// Where xtask put what it built.
#[derive(Debug, Clone)]
pub(super) struct Built {
    pub(super) longshore: PathBuf,
    pub(super) qcow2_rs: Option<PathBuf>,
    pub(super) nginx: Option<PathBuf>,
}

fn file(case: &Case) -> bool {
    case.road == Road::File
}

fn raw(case: &Case) -> bool {
    file(case) && case.image.format == "raw"
}

fn not_raw(case: &Case) -> bool {
    file(case) && case.image.format != "raw"
}

fn qcow2(case: &Case) -> bool {
    file(case) && case.image.format == "qcow2"
}

fn held(case: &Case) -> bool {
    case.limit.is_some_and(|limit| limit.beside_unlimited)
}

const FILES: &[Contender] = &[
    Contender {
        name: OURS,
        program: Program::Longshore,
        args: &[
            "convert",
            "--progress",
            "json",
            "--sync",
            "THREADS",
            "IN",
            "OUT",
        ],
        needs: &[],
        takes: file,
        leaves: Leaves::Disk,
    },
    Contender {
        name: UNLIMITED,
        program: Program::Longshore,
        args: &["convert", "--progress", "json", "--sync", "IN", "OUT"],
        needs: &[],
        takes: held,
        leaves: Leaves::Disk,
    },
    Contender {
        name: "qemu-img",
        program: Program::Installed("qemu-img"),
        args: &["convert", "-f", "FMT", "-O", "raw", "IN", "OUT"],
        needs: &[],
        takes: file,
        leaves: Leaves::Disk,
    },
    Contender {
        name: "qemu-img -m 16 -W",
        program: Program::Installed("qemu-img"),
        args: &[
            "convert", "-m", "16", "-W", "-f", "FMT", "-O", "raw", "IN", "OUT",
        ],
        needs: &[],
        takes: file,
        leaves: Leaves::Disk,
    },
    Contender {
        name: "nbdcopy (qemu-nbd)",
        program: Program::Installed("nbdcopy"),
        args: &[
            "--", "[", "qemu-nbd", "-r", "-e", "8", "-f", "FMT", "IN", "]", "OUT",
        ],
        needs: &["qemu-nbd"],
        takes: not_raw,
        leaves: Leaves::Disk,
    },
    Contender {
        name: "nbdcopy (nbdkit file)",
        program: Program::Installed("nbdcopy"),
        args: &["--", "[", "nbdkit", "-r", "file", "IN", "]", "OUT"],
        needs: &["nbdkit"],
        takes: raw,
        leaves: Leaves::Disk,
    },
    Contender {
        name: "cp --sparse=always",
        program: Program::Installed("cp"),
        args: &["--sparse=always", "IN", "OUT"],
        needs: &[],
        takes: raw,
        leaves: Leaves::Disk,
    },
    Contender {
        name: "qcow2-rs 0.1.6",
        program: Program::Qcow2Rs,
        args: &["IN", "OUT"],
        needs: &[],
        takes: qcow2,
        leaves: Leaves::Disk,
    },
];

/// The one contender that a case's limit does not hold.
const UNLIMITED: &str = "bound: longshore without a limit";

/// Everybody.
pub(super) fn all() -> impl Iterator<Item = &'static Contender> {
    FILES.iter().chain(import::ALL)
}

impl Contender {
    /// Whether it claims to do such work at all.
    pub(super) fn takes(&self, case: &Case) -> bool {
        (self.takes)(case)
    }

    pub(super) fn ours(&self) -> bool {
        self.name == OURS
    }

    pub(super) fn is_longshore(&self) -> bool {
        self.program == Program::Longshore
    }

    pub(super) fn is_limited(&self) -> bool {
        self.name != UNLIMITED
    }

    pub(super) fn leaves(&self) -> Leaves {
        self.leaves
    }

    /// The program's path, or why there is none.
    pub(super) fn find(&self, built: &Built) -> Result<PathBuf, String> {
        for needed in self.needs {
            if shell::program(needed).is_none() {
                return Err(format!("{needed} is not installed"));
            }
        }
        let installed =
            |name: &str| shell::program(name).ok_or_else(|| format!("{name} is not installed"));
        match self.program {
            Program::Longshore => Ok(built.longshore.clone()),
            Program::Qcow2Rs => built.qcow2_rs.clone().ok_or_else(|| "not built".into()),
            Program::Benches => std::env::current_exe().map_err(|error| error.to_string()),
            Program::Installed(name) => installed(name),
            Program::Script => installed("bash"),
        }
    }

    pub(super) fn args(&self, case: &Case, files: &Files) -> Vec<OsString> {
        let put = |arg: &&str| -> Vec<OsString> {
            let path = |path: &Path| vec![path.as_os_str().to_owned()];
            match *arg {
                "IN" => path(&files.input),
                "OUT" => path(&files.output),
                "URL" => vec![files.url.clone().unwrap_or_default().into()],
                "FMT" => vec![case.image.format.into()],
                "THREADS" => option("--threads", case.threads.map(|count| count.to_string())),
                "CHECKSUM" => option(
                    "--checksum",
                    files.sha256.as_ref().map(|hex| format!("sha256:{hex}")),
                ),
                other => vec![other.into()],
            }
        };
        let args = self.args.iter().flat_map(put);
        if self.program == Program::Script {
            let options = ["-euo", "pipefail", "-c"].map(OsString::from);
            options.into_iter().chain(args).collect()
        } else {
            args.collect()
        }
    }

    /// The command as it is recorded.
    pub(super) fn template(&self) -> String {
        let name = match self.program {
            Program::Longshore => OURS,
            Program::Qcow2Rs => "peer-qcow2-rs",
            Program::Benches => "longshore-benches",
            Program::Installed(name) => name,
            Program::Script => return self.args.join(" "),
        };
        format!("{name} {}", self.args.join(" "))
    }
}

fn option(name: &str, value: Option<String>) -> Vec<OsString> {
    value.map_or_else(Vec::new, |value| vec![name.into(), value.into()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::case;

    fn files() -> Files {
        Files {
            input: "/in put".into(),
            output: "/out".into(),
            scratch: "/scratch".into(),
            url: Some("http://127.0.0.1:1/in".to_owned()),
            sha256: None,
            dense: "/dense".into(),
        }
    }

    #[test]
    fn everybody_gets_the_same_source_and_target() {
        for case in case::all(2) {
            for contender in all().filter(|contender| contender.takes(&case)) {
                let files = files();
                let args = contender.args(&case, &files);
                let text: Vec<String> = args
                    .iter()
                    .map(|arg| arg.to_string_lossy().into_owned())
                    .collect();
                let has = |word: &str| text.iter().any(|arg| arg == word);
                let (name, all) = (contender.name, text.join(" "));
                if contender.program == Program::Script {
                    assert!(
                        all.contains("$URL") || all.contains("$DENSE"),
                        "{name}: {all}"
                    );
                    assert_eq!(
                        all.contains("$OUT"),
                        contender.leaves != Leaves::Nothing,
                        "{name}: {all}"
                    );
                } else if case.is_http() {
                    assert!(
                        has("/in put") || has("http://127.0.0.1:1/in"),
                        "{name}: {all}"
                    );
                } else {
                    assert!(has("/in put") && has("/out"), "{name}: {all}");
                }
                for word in ["IN", "OUT", "URL", "FMT", "THREADS", "CHECKSUM"] {
                    assert!(!has(word), "{name}: {all}");
                }
            }
        }
    }

    #[test]
    fn every_case_has_us_first_and_peers() {
        for case in case::all(2) {
            let names: Vec<_> = all()
                .filter(|contender| contender.takes(&case))
                .map(|contender| contender.name)
                .collect();
            let peers = names.iter().filter(|name| !name.starts_with(BOUND)).count();
            assert_eq!(names.first(), Some(&OURS), "{}: {names:?}", case.name());
            assert!(peers >= 2, "{}: {names:?}", case.name());
            assert_eq!(names.contains(&UNLIMITED), case.name().ends_with("128M"));
        }
    }

    #[test]
    fn threads_and_digests_are_options_only_where_they_are_asked_for() {
        let wanted = ["qcow2-zlib@tmpfs+t2".to_owned()];
        let case = case::chosen(&wanted, 2).unwrap().remove(0);
        let ours = all().find(|contender| contender.takes(&case)).unwrap();
        let args = ours.args(&case, &files());
        assert!(
            args.windows(2).any(|pair| pair == ["--threads", "2"]),
            "{args:?}"
        );
        let case = case::chosen(&["qcow2@tmpfs".to_owned()], 2)
            .unwrap()
            .remove(0);
        let args = ours.args(&case, &files());
        assert!(!args.contains(&"--threads".into()), "{args:?}");
    }

    #[test]
    fn names_survive_the_raw_data_and_tables_of_markdown() {
        let mut names: Vec<_> = all().map(|contender| contender.name).collect();
        for name in &names {
            assert!(!name.contains([',', '|', '\n']), "{name}");
        }
        names.retain(|name| *name != OURS);
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_was_not_built_is_said_to_be_missing() {
        let built = Built {
            longshore: "/longshore".into(),
            qcow2_rs: None,
            nginx: None,
        };
        let peer = all()
            .find(|peer| peer.name.starts_with("qcow2-rs"))
            .unwrap();
        assert_eq!(peer.find(&built).unwrap_err(), "not built");
    }
}
