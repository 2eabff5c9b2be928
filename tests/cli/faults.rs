//! Every system call on the source and the target fails, one by one.
//!
//! strace finds out which calls a copy makes on them, and then makes the first, second, ... of each kind
//! fail. Whatever it is, one of two things must come of it: a whole copy, or an error that says what
//! failed, on what, and with which error of the system, and nothing behind that looks complete.

mod short;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use longshore_tests::device::Loop;
use longshore_tests::program::{have, longshore, said};

use crate::rig::{MIB, Rig, error_of};

/// Calls whose failure can't be made up for: a copy that goes on without them is not to be trusted.
const ESSENTIAL: [&str; 9] = [
    "pread64",
    "pwrite64",
    "ftruncate",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "rename",
    "open",
    "openat",
];

/// All that is done with files, but for letting go of them and advice.
const CALLS: &str = "trace=open,openat,statx,fstat,newfstatat,fcntl,ioctl,lseek,read,write,pread64,pwrite64,\
    preadv,pwritev,ftruncate,fallocate,copy_file_range,sendfile,splice,sync_file_range,fsync,fdatasync,syncfs,\
    rename,renameat,renameat2,link,linkat";

/// A copy: the words of the command, and the disk that must come out.
struct Copy<'a> {
    rig: &'a Rig,
    words: &'a [&'a str],
    source: &'a str,
    target: &'a str,
}

impl Copy<'_> {
    /// The command under strace, which looks at calls on source and target only.
    fn traced(&self, options: &[String]) -> Output {
        let under = longshore();
        let mut strace = Command::new("strace");
        strace.current_dir(self.rig.dir());
        strace.args(["-f", "-qq", "-o", "trace", "-e", CALLS]);
        // Quicker, but signals get lost in it.
        if !options.iter().any(|option| option.contains("signal=")) {
            strace.arg("--seccomp-bpf");
        }
        let partial = format!(".{}.partial", self.target);
        for name in [self.source, self.target, &partial, ""] {
            let path = self.rig.path(name);
            let path = path.to_str().unwrap().trim_end_matches('/');
            strace.args(["-P", path]);
        }
        strace.args(options);
        strace.arg(under.get_program()).args(under.get_args());
        strace.args(self.words.iter().map(|word| {
            // Absolute, so that messages and the filter name the same.
            let path = self.rig.path(word);
            let is_file = [self.source, self.target].contains(word);
            if is_file {
                path.into_os_string()
            } else {
                word.into()
            }
        }));
        strace.stdin(std::process::Stdio::null());
        strace.output().unwrap()
    }

    /// The calls it makes: how many of each kind one thread makes at most.
    fn calls(&self) -> BTreeMap<String, usize> {
        let output = self.traced(&[]);
        assert!(output.status.success(), "{}", said(&output));
        let mut counts = BTreeMap::<(String, String), usize>::new();
        for line in String::from_utf8(self.rig.read("trace")).unwrap().lines() {
            let mut words = line.split_whitespace();
            let (Some(thread), Some(call)) = (words.next(), words.next()) else {
                continue;
            };
            if let Some((name, _)) = call.split_once('(') {
                let key = (name.to_owned(), thread.to_owned());
                *counts.entry(key).or_default() += 1;
            }
        }
        let mut most = BTreeMap::new();
        for ((name, _), count) in counts {
            let entry = most.entry(name).or_insert(0);
            *entry = count.max(*entry);
        }
        assert!(most.len() > 3, "{most:?}");
        most
    }

    /// Fails the `nth` call of a kind; true if one failed.
    fn with_fault(&self, call: &str, error: &str, when: &str) -> (Output, bool) {
        let inject = format!("inject={call}:error={error}:when={when}");
        let output = self.traced(&["-e".to_owned(), inject]);
        let trace = String::from_utf8_lossy(&self.rig.read("trace")).into_owned();
        (output, trace.contains("(INJECTED)"))
    }
}

/// Makes each call of a copy to a file fail with each of `errors`, and checks what comes of it.
fn every_call_fails(
    copy: &Copy,
    only: &[&str],
    errors: &[(&str, i32)],
    expected: &[u8],
    old: Option<&[u8]>,
) {
    let Copy { rig, target, .. } = copy;
    let restore = || match old {
        Some(old) => rig.write(target, old),
        None => drop(std::fs::remove_file(rig.path(target))),
    };
    restore();
    let calls = copy.calls();
    for wanted in only {
        assert!(calls.contains_key(*wanted), "no {wanted} in {calls:?}");
    }
    let chosen = |call: &str| only.is_empty() || only.contains(&call);
    for (call, count) in calls.iter().filter(|(call, _)| chosen(call)) {
        for (when, (error, number)) in
            some_of(*count).flat_map(|n| errors.iter().map(move |e| (n, e)))
        {
            restore();
            let case = format!("{call} {when}: {error}, {:?}", copy.words);
            let (output, failed) = copy.with_fault(call, error, &when.to_string());
            assert!(failed, "{case}: it did not fail");
            if output.status.success() {
                assert!(
                    !ESSENTIAL.contains(&call.as_str()),
                    "{case}: nobody noticed"
                );
                assert!(rig.read(target) == expected, "{case}: the copy differs");
                continue;
            }
            let code = output.status.code();
            assert!(matches!(code, Some(1 | 4)), "{case}: {}", said(&output));
            let text = error_of(&output);
            assert!(
                text.contains(&format!("(os error {number})")),
                "{case}: {text}"
            );
            let dir = rig.dir().to_str().unwrap();
            assert!(text.contains(dir), "{case}: no path in {text}");
            let partial = rig.path(&format!(".{target}.partial"));
            // Until it is locked it may be another's, so it is left alone.
            let locking = call == "fcntl" && partial.metadata().is_ok_and(|meta| meta.len() == 0);
            assert!(
                locking || !partial.exists(),
                "{case}: the partial file stays"
            );
            let left = std::fs::read(rig.path(target)).ok();
            // Its name was given after all was durable: only that the name lasts is not certain.
            let whole = call == "fsync" && left.as_deref() == Some(expected);
            assert!(whole || left.as_deref() == old, "{case}: {text}");
        }
    }
}

/// All of them, unless they are many: then the first, where headers and tables are read, and the last.
fn some_of(count: usize) -> impl Iterator<Item = usize> {
    (1..=count).filter(move |n| *n <= 14 || n + 6 > count)
}

const EIO: (&str, i32) = ("EIO", 5);
const ENOSPC: (&str, i32) = ("ENOSPC", 28);

fn ready() -> bool {
    have("strace") && have("qemu-img")
}

#[test]
fn a_raw_copy_is_whole_or_gone_whatever_call_fails() {
    if !ready() {
        return;
    }
    let rig = Rig::new();
    let bytes = rig.image("in.raw", 2 * MIB + 512);
    let copy = Copy {
        rig: &rig,
        words: &["convert", "--sync", "--threads", "1", "in.raw", "out.raw"],
        source: "in.raw",
        target: "out.raw",
    };
    every_call_fails(&copy, &[], &[EIO], &bytes, None);
    every_call_fails(
        &copy,
        &["pwrite64", "fsync", "ftruncate"],
        &[ENOSPC],
        &bytes,
        None,
    );
}

#[test]
fn what_a_copy_would_replace_stays_until_it_is_whole() {
    if !ready() {
        return;
    }
    let rig = Rig::new();
    let bytes = rig.image("in.raw", MIB + 512);
    let copy = Copy {
        rig: &rig,
        words: &[
            "import",
            "--no-resume",
            "--preallocate",
            "falloc",
            "--threads",
            "1",
            "in.raw",
            "out.raw",
        ],
        source: "in.raw",
        target: "out.raw",
    };
    let calls = [
        "open",
        "openat",
        "fallocate",
        "ftruncate",
        "pwrite64",
        "rename",
    ];
    every_call_fails(&copy, &calls, &[EIO], &bytes, Some(b"what was there"));
}

/// Header, tables, data and tail, as each format has them.
#[test]
fn an_image_that_can_not_be_read_at_any_place_makes_no_disk() {
    if !ready() {
        return;
    }
    let rig = Rig::new();
    let bytes = rig.image("in.raw", MIB + MIB / 2);
    for (format, options) in [
        ("qcow2", "cluster_size=4k"),
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=streamOptimized"),
        ("vpc", "subformat=dynamic,force_size=on"),
        ("vpc", "subformat=fixed,force_size=on"),
        ("vhdx", "block_size=1M"),
        ("vdi", "static=off"),
        ("parallels", "cluster_size=64k"),
    ] {
        rig.shell(&format!(
            "qemu-img convert -O {format} -o {options} in.raw in.img"
        ));
        let copy = Copy {
            rig: &rig,
            words: &["convert", "--threads", "1", "in.img", "out.raw"],
            source: "in.img",
            target: "out.raw",
        };
        every_call_fails(&copy, &["pread64"], &[EIO], &bytes, None);
    }
}

#[test]
fn a_qcow2_image_is_whole_or_gone_whatever_write_fails() {
    if !ready() {
        return;
    }
    let rig = Rig::new();
    rig.image("in.raw", MIB + 512);
    let words = [
        "convert",
        "-O",
        "qcow2",
        "--sync",
        "--threads",
        "1",
        "in.raw",
        "out.qcow2",
    ];
    rig.ends(&words, 0);
    let expected = rig.read("out.qcow2");
    let copy = Copy {
        rig: &rig,
        words: &words,
        source: "in.raw",
        target: "out.qcow2",
    };
    let writing = ["pwrite64", "ftruncate", "fsync", "rename"];
    every_call_fails(&copy, &writing, &[ENOSPC, EIO], &expected, None);
}

/// The kernel tells of a write that failed once for each open file: whoever hears of it, be it the call that
/// only meant to start early, must not keep it to himself.
#[test]
fn an_error_of_early_write_out_is_an_error_of_the_copy() {
    if !ready() {
        return;
    }
    let rig = Rig::new();
    let noise: Vec<u8> = (1..=251).cycle().take(40 * MIB).collect();
    rig.write("in.raw", &noise);
    let copy = Copy {
        rig: &rig,
        words: &["convert", "--sync", "--threads", "1", "in.raw", "out.raw"],
        source: "in.raw",
        target: "out.raw",
    };
    every_call_fails(&copy, &["sync_file_range"], &[EIO], &noise, None);
}

#[test]
fn interrupted_calls_are_made_again() {
    if !ready() {
        return;
    }
    let rig = Rig::new();
    let bytes = rig.image("in.raw", 2 * MIB);
    for words in [
        &["convert", "--sync", "--threads", "1", "in.raw", "out.raw"][..],
        &["convert", "--preallocate", "falloc", "in.raw", "out.raw"],
        &["convert", "--cache", "none", "in.raw", "out.raw"],
    ] {
        let copy = Copy {
            rig: &rig,
            words,
            source: "in.raw",
            target: "out.raw",
        };
        for call in copy.calls().keys() {
            let _ = std::fs::remove_file(rig.path("out.raw"));
            // The first, the third, ...: each is interrupted once.
            let (output, failed) = copy.with_fault(call, "EINTR", "1+2");
            assert!(failed, "{call}");
            assert!(
                output.status.success(),
                "{call}, {words:?}: {}",
                said(&output)
            );
            assert!(rig.read("out.raw") == bytes, "{call}, {words:?}");
        }
    }
}

/// A file that ends before the end it had says so by a read of nothing.
#[test]
fn a_source_that_shrinks_is_an_error() {
    if !ready() {
        return;
    }
    let rig = Rig::new();
    rig.image("in.raw", MIB);
    let copy = Copy {
        rig: &rig,
        words: &["convert", "--threads", "1", "in.raw", "out.raw"],
        source: "in.raw",
        target: "out.raw",
    };
    for when in 1..=copy.calls()["pread64"] {
        let _ = std::fs::remove_file(rig.path("out.raw"));
        let inject = format!("inject=pread64:retval=0:when={when}");
        let output = copy.traced(&["-e".to_owned(), inject]);
        assert_eq!(output.status.code(), Some(1), "{when}: {}", said(&output));
        assert!(error_of(&output).contains("in.raw"), "{}", said(&output));
        assert_eq!(rig.names(), ["in.raw", "trace"], "{when}");
    }
}

#[test]
fn a_device_shows_no_disk_whatever_call_fails() {
    if !ready() {
        return;
    }
    let rig = Rig::new();
    rig.write("backing", &vec![0xff; 8 * MIB]);
    let Some(device) = Loop::over(&rig.path("backing")) else {
        return;
    };
    let bytes = rig.image("in.raw", 3 * MIB);
    let name = device.name();
    // Joining an absolute path to the directory gives the path.
    let copy = Copy {
        rig: &rig,
        words: &["convert", "--sync", "--threads", "1", "in.raw", name],
        source: "in.raw",
        target: name,
    };
    // Locks are the same as a file's.
    for (call, count) in copy.calls().into_iter().filter(|(call, _)| call != "fcntl") {
        for when in 1..=count {
            // Not the head only: what is old must not show through a disk that is said to be whole.
            refill(Path::new(name), &vec![0xff; 4 * MIB]);
            let case = format!("{call} {when}");
            let (output, failed) = copy.with_fault(&call, "EIO", &when.to_string());
            assert!(failed, "{case}: it did not fail");
            let disk = std::fs::read(name).unwrap();
            if output.status.success() {
                assert!(
                    !ESSENTIAL.contains(&call.as_str()),
                    "{case}: nobody noticed"
                );
                assert!(disk[..bytes.len()] == bytes, "{case}: the copy differs");
                continue;
            }
            let text = error_of(&output);
            assert!(text.contains("(os error 5)"), "{case}: {text}");
            // Its first page comes last, by itself.
            let head = &disk[..4096];
            let untouched = disk[..MIB].iter().all(|&b| b == 0xff);
            let blank = head.iter().all(|&b| b == 0);
            // All else is durable when the head is written, so a disk that has it is whole, but for what
            // may be lost of the head itself.
            let whole =
                ["fsync", "pwrite64"].contains(&call.as_str()) && disk[..bytes.len()] == bytes;
            assert!(untouched || blank || whole, "{case}: {text}");
        }
    }
}

/// Between any two calls, where `kills.rs` tries moments by the clock.
#[test]
fn killed_before_any_call_nothing_looks_complete() {
    if !ready() {
        return;
    }
    let rig = Rig::new();
    let bytes = rig.image("in.raw", 2 * MIB);
    let old = b"what was there";
    rig.write("backing", &vec![0xff; 4 * MIB]);
    let device = Loop::over(&rig.path("backing"));
    let names = ["out.raw"]
        .into_iter()
        .chain(device.as_ref().map(Loop::name));
    for name in names {
        let copy = Copy {
            rig: &rig,
            words: &["convert", "--sync", "--threads", "1", "in.raw", name],
            source: "in.raw",
            target: name,
        };
        let calls = copy.calls();
        for call in [
            "pwrite64",
            "ftruncate",
            "fsync",
            "fdatasync",
            "rename",
            "ioctl",
        ] {
            for when in 1..=calls.get(call).copied().unwrap_or(0) {
                let target = rig.path(name);
                if name == "out.raw" {
                    rig.write(name, old);
                } else {
                    refill(&target, &vec![0xff; 4 * MIB]);
                }
                let kill = format!("inject={call}:signal=KILL:when={when}");
                let output = copy.traced(&["-e".to_owned(), kill]);
                assert!(!output.status.success(), "{name}: {call} {when}");
                let left = rig.read(name);
                // A call that gives a name or flushes comes after all that makes the disk whole; for a file
                // the name itself is still to be given.
                let whole = left.starts_with(&bytes) && call == "fsync";
                let nothing = left == old
                    || left[..MIB].iter().all(|&b| b == 0xff)
                    || left[..4096].iter().all(|&b| b == 0);
                assert!(whole || nothing, "{name}: killed in {call} {when}");
            }
        }
    }
}

fn refill(device: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(device).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync_all().unwrap();
}
