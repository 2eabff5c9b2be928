//! Disks on servers, of which an import was cut short, are gone on with.

use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore_image::{Format, ReadAt};
use longshore_tests::nbd::Server;
use longshore_tests::program::{have, longshore, said};
use longshore_transfer::{
    Allowance, Cancel, Fingerprint, Journal, Options, Piece, Progress, Report, Result, Served,
    Source, TargetSpec, transfer,
};

use super::{MIB, Place, same};

/// A source whose server is gone after so many bytes of data.
struct Breaks {
    inner: Box<dyn Source>,
    after: u64,
}

struct Breaking {
    inner: Box<dyn Served>,
    left: u64,
}

impl Served for Breaking {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn only(&mut self, wanted: Vec<Range<u64>>) {
        self.inner.only(wanted);
    }

    fn next(&mut self) -> Result<Piece<'_>> {
        if self.left == 0 {
            return Err(longshore_transfer::Error::Source {
                name: "the server".into(),
                source: "it is gone".into(),
            });
        }
        let next = self.inner.next()?;
        if let Piece::Data(_, bytes) = &next {
            self.left = self.left.saturating_sub(bytes.len() as u64);
        }
        Ok(next)
    }
}

impl Source for Breaks {
    fn name(&self) -> String {
        self.inner.name()
    }
    fn len(&self) -> Option<u64> {
        self.inner.len()
    }
    fn random(&self) -> Option<Arc<dyn ReadAt>> {
        self.inner.random()
    }
    fn reopenable(&self) -> bool {
        self.inner.reopenable()
    }
    fn stream(&mut self) -> Result<Box<dyn Read + Send>> {
        self.inner.stream()
    }
    fn format(&self) -> Option<Format> {
        self.inner.format()
    }
    fn served(&mut self) -> Result<Option<Box<dyn Served>>> {
        let (inner, left) = (self.inner.served()?, self.after);
        Ok(inner.map(|inner| Box::new(Breaking { inner, left }) as Box<dyn Served>))
    }
    fn fingerprint(&self) -> Option<Fingerprint> {
        self.inner.fingerprint()
    }
    fn allowance(&self) -> Option<Allowance> {
        self.inner.allowance()
    }
}

fn import(source: &mut dyn Source, path: &Path) -> Result<Report> {
    let target = TargetSpec {
        path: path.to_owned(),
        journal: Some(Journal {
            step: Some(MIB),
            ..Journal::default()
        }),
        ..TargetSpec::default()
    };
    let (options, progress) = (Options::default(), Progress::default());
    transfer(source, &target, &options, &progress, &Cancel::default())
}

/// An import of what `open` opens that breaks at 4 of about 6 MiB of data, and the next one.
pub(super) fn cut_and_made(open: impl Fn() -> Box<dyn Source>, path: &Path) -> Report {
    let mut source = Breaks {
        inner: open(),
        after: 4 * MIB,
    };
    let error = import(&mut source, path).unwrap_err();
    assert_eq!(error.exit_code(), 1, "{error}");
    drop(source);
    import(open().as_mut(), path).unwrap()
}

fn last_event(stdout: &[u8]) -> serde_json::Value {
    let text = String::from_utf8_lossy(stdout);
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// An NBD server can't say whether its disk is what it was; the user can.
#[test]
fn a_disk_whose_state_has_a_name_is_gone_on_with_after_a_kill() {
    if !have("nbdkit") {
        return;
    }
    let place = Place::new();
    let disk = place.disk("in.raw", 61);
    // 4 MiB/s, of which a second comes at once.
    let path = disk.to_str().unwrap();
    let server = Server::nbdkit(&["--filter=rate", "file", path, "rate=32M"]);
    let out = place.path("out.raw");
    let command = |name: &[&str]| {
        let mut command = longshore();
        command.args(["import", "--journal-step", "1Mi", "--progress", "json"]);
        command.args(name).arg(server.url()).arg(&out);
        command
    };
    let journal = || {
        let journal = place.path(".out.raw.longshore-journal");
        std::fs::metadata(journal).map_or(0, |meta| meta.len())
    };
    let killed = |name: &[&str]| {
        let mut child = command(name)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_mins(1);
        let first = journal();
        let mut begun = 0;
        while begun == 0 || journal() < begun + 40 {
            assert!(child.try_wait().unwrap().is_none(), "it has ended");
            assert!(Instant::now() < until, "nothing is written down");
            if begun == 0 && journal() > first {
                begun = journal();
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let made = |name: &[&str]| {
        let output = command(name).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        same(&out, &disk);
        std::fs::remove_file(&out).unwrap();
        (last_event(&output.stdout), said(&output))
    };
    killed(&["--source-id", "monday"]);
    let (event, _) = made(&["--source-id", "monday"]);
    let (there, read) = (&event["resumed"], &event["read"]);
    let (there, read) = (there.as_u64().unwrap(), read.as_u64().unwrap());
    assert!(there >= MIB / 2, "{event}");
    assert!(read < 7 * MIB - there, "{event}");
    killed(&["--source-id", "monday"]);
    let (event, text) = made(&["--source-id", "tuesday"]);
    assert_eq!(event["resumed"], 0, "{event}");
    assert!(text.contains("was monday and is tuesday"), "{text}");
    // Nobody says anything.
    let mut child = command(&[]);
    let child = child.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.spawn().unwrap();
    let until = Instant::now() + Duration::from_mins(1);
    while !place.path(".out.raw.partial").exists() {
        assert!(Instant::now() < until, "it does not begin");
        std::thread::park_timeout(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(journal(), 0);
}
