//! An import that was killed and is started again by the same command goes on where it was.

mod decisions;
mod digests;
mod targets;

use std::process::{Child, Command, Output};

use longshore_tests::data::{self, packed};
use longshore_tests::eventually;
use longshore_tests::http::{Length, Page, Ranges, Rate, Server};
use longshore_tests::journal::Steps;
use longshore_tests::program::{have, said, silent};

use crate::rig::{MIB, Rig};

/// What an import is interrupted in costs: what is under way, what was settled and not written down, and
/// what the server sends before it hears that nobody wants it. In bytes.
const COST: u64 = 12 << 20;

/// A line slow enough that an import is seen at work; a twentieth of it comes at once.
const SLOW: u64 = 16 << 20;

/// What comes quickly of a run that is killed: enough for a step of the journal, and little of a disk.
const DOSE: u64 = 3 << 20;

/// An import to `out.raw` with a journal written every MiB.
struct Import<'a> {
    rig: &'a Rig,
    url: String,
    rate: Option<Rate>,
    dose: u64,
    words: Vec<&'a str>,
}

impl<'a> Import<'a> {
    /// Of what `server` has at `path`.
    fn of(rig: &'a Rig, server: &Server, path: &str) -> Self {
        Self {
            rate: server.rate(path),
            ..Self::local(rig, &server.url(path))
        }
    }

    fn local(rig: &'a Rig, path: &str) -> Self {
        Self {
            rig,
            url: path.to_owned(),
            rate: None,
            dose: DOSE,
            words: Vec::new(),
        }
    }

    fn with(mut self, words: &[&'a str]) -> Self {
        self.words.extend(words);
        self
    }

    fn command(&self) -> Command {
        let mut words = vec!["import", "--journal-step", "1Mi", "--progress", "json"];
        words.extend(&self.words);
        words.extend([self.url.as_str(), "out.raw"]);
        self.rig.command(&words)
    }

    /// What the journal has so far.
    fn journal(&self) -> Vec<u8> {
        std::fs::read(self.rig.path(".out.raw.longshore-journal")).unwrap_or_default()
    }

    /// How much of the source comes quickly from now on; the rest drips.
    fn doles(&self, bytes: u64) {
        if let Some(rate) = &self.rate {
            rate.dose(bytes);
        }
    }

    /// Waits until a run of it has written more down. False if it was done before.
    fn steps(&self, run: &mut Child) -> bool {
        let mut steps = Steps::from(1);
        let ended = eventually("a step of the journal", || {
            if let Some(status) = run.try_wait().unwrap() {
                return Some(Some(status));
            }
            steps.one_more(self.journal().len()).then_some(None)
        });
        if let Some(status) = ended {
            assert!(status.success(), "{status}");
        }
        ended.is_none()
    }

    /// Runs it until more was written down, and kills it then. False if it was done before.
    fn killed(&self) -> bool {
        self.killed_within(self.dose)
    }

    /// The same where so many bytes come quickly.
    fn killed_within(&self, dose: u64) -> bool {
        self.doles(dose);
        let mut child = silent(&mut self.command());
        let is_at_work = self.steps(&mut child);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        self.doles(u64::MAX);
        // On a busy machine it may have come to its end meanwhile.
        is_at_work && !status.success()
    }

    /// Kills two runs of what has to be read from its start each time.
    fn killed_twice(&self) -> bool {
        self.killed() && self.killed_within(2 * self.dose)
    }

    /// Runs it to its end, which must be this one.
    fn ends(&self, code: i32) -> Output {
        let output = self.command().output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        output
    }

    /// It works, and makes this of it. The last event.
    fn makes(&self, bytes: &[u8]) -> serde_json::Value {
        let output = self.ends(0);
        self.made(bytes);
        last_event(&output)
    }

    fn made(&self, bytes: &[u8]) {
        assert!(self.rig.read("out.raw") == bytes, "other bytes");
        let left = self.rig.names();
        assert!(
            !left.iter().any(|name| name.starts_with(".out")),
            "{left:?}"
        );
    }
}

fn last_event(output: &Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// What of the disk was there from an earlier run, in bytes.
fn resumed(event: &serde_json::Value) -> u64 {
    event["resumed"].as_u64().unwrap()
}

/// `bytes` as an image that qemu-img makes with these options.
fn image(bytes: &[u8], options: &str) -> Vec<u8> {
    data::image(bytes, &format!("qemu-img convert {options} disk.raw image"))
}

fn disk(len: usize) -> Vec<u8> {
    data::disk(len, 11)
}

/// Kills an import of `page` `kills` times, and lets it end. The bytes that the server sent.
fn with_kills(
    rig: &Rig,
    page: Page,
    name: &str,
    (kills, dose): (usize, u64),
    bytes: &[u8],
) -> (usize, u64) {
    let server = Server::start([(name, page.throttle_all(SLOW))]);
    let import = Import {
        dose,
        ..Import::of(rig, &server, name)
    };
    let mut killed = 0;
    while killed < kills && import.killed() {
        killed += 1;
    }
    if rig.path("out.raw").exists() {
        import.made(bytes);
    } else {
        let event = import.makes(bytes);
        assert!(killed == 0 || resumed(&event) > 0, "{event}");
    }
    (killed, server.log().sent)
}

#[test]
fn twenty_kills_cost_twenty_small_parts_of_a_raw_disk() {
    let rig = Rig::quick();
    let bytes = disk(32 * MIB);
    let (killed, sent) = with_kills(&rig, Page::of(bytes.clone()), "/disk", (20, DOSE), &bytes);
    eprintln!("{killed} kills, {sent} of {} bytes sent", bytes.len());
    assert!(killed >= 10, "{killed}");
    let most = bytes.len() as u64 + killed as u64 * COST;
    assert!(sent <= most, "{sent} bytes were sent, {most} at the most");
}

#[test]
fn kills_cost_small_parts_of_images_with_tables() {
    if !have("qemu-img") {
        return;
    }
    let bytes = disk(16 * MIB);
    for options in [
        "-O qcow2",
        "-O qcow2 -c",
        "-O vmdk",
        "-O vpc -o force_size=on",
        "-O vhdx",
    ] {
        let rig = Rig::quick();
        let image = image(&bytes, options);
        let len = image.len() as u64;
        // The tables of a VHDX are a few MiB, and each run looks at them.
        let tables = if options == "-O vhdx" { len / 2 } else { 0 };
        let each = (4, DOSE + tables);
        let (killed, sent) = with_kills(&rig, Page::of(image), "/disk", each, &bytes);
        eprintln!("{options}: {killed} kills, {sent} of {len} bytes sent");
        assert!(killed >= 2, "{options}: {killed}");
        let most = len + killed as u64 * (COST + tables);
        assert!(
            sent <= most,
            "{options}: {sent} bytes were sent, {most} at the most"
        );
    }
}

#[test]
fn what_only_streams_is_read_again_and_not_written_again() {
    let bytes = disk(12 * MIB);
    let whole = bytes.len() as u64;
    for ranges in [Ranges::None, Ranges::AnnouncedOnly] {
        let rig = Rig::quick();
        let page = Page::of(bytes.clone())
            .ranges(ranges)
            .length(Length::Chunked);
        let server = Server::start([("/disk", page.throttle_all(SLOW))]);
        let import = Import::of(&rig, &server, "/disk");
        assert!(import.killed_twice());
        let event = import.makes(&bytes);
        let there = resumed(&event);
        assert!(there > 0, "{event}");
        // The last of three runs has read it from its start, whoever skipped what was there.
        assert!(server.log().sent >= whole, "{event}");
        assert!(event["written"].as_u64() <= Some(whole - there), "{event}");
    }
}

#[test]
fn a_compressed_disk_survives_kills() {
    let rig = Rig::quick();
    let bytes = disk(24 * MIB);
    for (tool, suffix) in [
        ("gzip", "gz"),
        ("xz", "xz"),
        ("zstd", "zst"),
        ("bzip2", "bz2"),
    ] {
        if !have(tool) {
            continue;
        }
        let rig = &rig;
        let packed = packed(&format!("{tool} -1"), &bytes);
        let name = format!("/disk.raw.{suffix}");
        let (killed, _) = with_kills(rig, Page::of(packed), &name, (3, 2 * DOSE), &bytes);
        assert!(killed > 0, "{tool}");
        std::fs::remove_file(rig.path("out.raw")).unwrap();
    }
}

#[test]
fn a_stream_of_grains_survives_kills() {
    if !have("qemu-img") {
        return;
    }
    let rig = Rig::quick();
    let bytes = disk(32 * MIB);
    let image = image(&bytes, "-O vmdk -o subformat=streamOptimized");
    let len = image.len() as u64;
    let (killed, sent) = with_kills(&rig, Page::of(image), "/disk.vmdk", (4, DOSE), &bytes);
    eprintln!("{killed} kills, {sent} of {len} bytes sent");
    assert!(killed > 0, "{killed}");
}

#[test]
fn a_local_file_goes_on_too() {
    let rig = Rig::quick();
    let bytes = rig.image("in.raw", 256 * MIB);
    let import = Import::local(&rig, "in.raw").with(&["--threads", "1"]);
    // It is quick: whether the kill comes in time is not for us to say.
    let killed = import.killed();
    let event = if killed {
        Some(import.makes(&bytes))
    } else {
        None
    };
    import.made(&bytes);
    if let Some(event) = event {
        let there = resumed(&event);
        assert!(
            there > 0 && event["read"].as_u64() <= Some(bytes.len() as u64 - there),
            "{event}"
        );
    }
}
