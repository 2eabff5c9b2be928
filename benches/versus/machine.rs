//! What a measurement was made on and with, without saying whose machine it is.

use std::fs;
use std::path::Path;
use std::thread;

use anyhow::Result;

use super::shell;

/// A short name of the processor and how many of it: `amd-epyc-2`.
pub(super) fn label() -> String {
    let model = model();
    let words = model
        .replace("(R)", " ")
        .replace("(TM)", " ")
        .to_lowercase();
    let words: Vec<&str> = words
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty() && !["cpu", "processor", "with"].contains(word))
        .take(4)
        .collect();
    format!("{}-{}", words.join("-"), processors())
}

fn model() -> String {
    field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned())
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The first line of such a name in a file of `name: value`.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// Memory that could be had now, in bytes.
pub(super) fn available() -> u64 {
    let kib: Option<u64> = field("/proc/meminfo", "MemAvailable")
        .and_then(|text| text.split(' ').next()?.parse().ok());
    kib.map_or(0, |kib| kib * 1024)
}

/// Lines about the machine.
pub(crate) fn describe() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    format!(
        "processor: {} x {}\nmemory: {memory}\nkernel: Linux {}\n",
        processors(),
        model(),
        kernel.trim()
    )
}

/// Lines about the programs: what is not there says so.
pub(super) fn versions(longshore: &Path, nginx: Option<&Path>) -> String {
    let mut text = String::new();
    let ours = shell::run(longshore, &["--version".as_ref()]);
    let mut add = |name: &str, found: Result<String>| {
        let found = found.unwrap_or_else(|_| "missing".to_owned());
        let first = found.lines().next().unwrap_or_default();
        text.extend([format!("{name}: {first}\n")]);
    };
    add("longshore", ours);
    for name in [
        "qemu-img", "qemu-nbd", "nbdcopy", "nbdkit", "cp", "curl", "gzip", "pigz", "xz", "zstd",
        "bzip2", "time", "mke2fs",
    ] {
        // These have an option of their own, and an answer on the other channel.
        let found = match (name, shell::program(name)) {
            (_, None) => Ok("missing".to_owned()),
            ("mke2fs" | "bzip2", Some(path)) => {
                let line = "\"$0\" -V 2>&1".as_ref();
                shell::run("sh", &["-c".as_ref(), line, path.as_os_str()])
            }
            (_, Some(path)) => shell::run(path, &["--version".as_ref()]),
        };
        add(name, found);
    }
    // It says so on the other channel.
    let said = nginx.map(|nginx| {
        let line = "\"$0\" -v 2>&1".as_ref();
        shell::run("sh", &["-c".as_ref(), line, nginx.as_os_str()])
    });
    add("nginx", said.unwrap_or_else(|| Ok("missing".to_owned())));
    text
}

/// Which state of the checkout the command was built from, as far as git knows.
pub(super) fn commit() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let Some(root) = root else {
        return "unknown".to_owned();
    };
    let git = |args: &[&str]| {
        let folder = ["-C".as_ref(), root.as_os_str()];
        let args = args.iter().map(AsRef::as_ref);
        shell::run("git", &folder.into_iter().chain(args).collect::<Vec<_>>())
    };
    let Ok(head) = git(&["rev-parse", "HEAD"]) else {
        return "unknown".to_owned();
    };
    // Only what the command is made of counts.
    let parts = [
        "cli",
        "crds",
        "image",
        "importer",
        "launcher",
        "telemetry",
        "transfer",
        "Cargo.lock",
    ];
    let status = [&["status", "--porcelain", "--"][..], &parts[..]].concat();
    let changed = git(&status).is_ok_and(|text| !text.is_empty());
    let note = if changed { " with changes" } else { "" };
    format!("{}{note}", head.trim())
}

/// Today, as the folder of results is called.
pub(super) fn today() -> Result<String> {
    let date = shell::run("date", &["--utc".as_ref(), "+%Y-%m-%d".as_ref()])?;
    Ok(date.trim().to_owned())
}
