//! Disks on servers, of which an import was cut short, are gone on with.

use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use longshore_image::{Format, ReadAt};
use longshore_importer::source_from;
use longshore_tests::nbd::Server;
use longshore_tests::program::have;
use longshore_transfer::{
    Allowance, Cancel, Fingerprint, Journal, Options, Piece, Progress, Report, Result, Served,
    Source, TargetSpec, transfer,
};

use super::{MIB, Place, options, same};

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

fn import(source: &mut dyn Source, path: &Path, name: Option<&str>) -> Result<Report> {
    let target = TargetSpec {
        path: path.to_owned(),
        journal: Some(Journal {
            step: Some(MIB),
            source_id: name.map(str::to_owned),
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
    let error = import(&mut source, path, None).unwrap_err();
    assert_eq!(error.exit_code(), 1, "{error}");
    drop(source);
    import(open().as_mut(), path, None).unwrap()
}

/// An NBD server can't say whether its disk is what it was; the user can. (Not nbdkit: it aborts when a client
/// leaves in the middle of answers.)
#[test]
fn a_disk_whose_state_has_a_name_is_gone_on_with() {
    if !have("qemu-nbd") {
        return;
    }
    let place = Place::new();
    let disk = place.disk("in.raw", 61);
    let server = Server::qemu("raw", &disk);
    let out = place.path("out.raw");
    let open = || source_from(&server.url(), &options()).unwrap();
    for (first, next, goes_on) in [
        (Some("monday"), Some("monday"), true),
        (Some("monday"), Some("tuesday"), false),
        (None, None, false),
    ] {
        let mut source = Breaks {
            inner: open(),
            after: 4 * MIB,
        };
        import(&mut source, &out, first).unwrap_err();
        drop(source);
        let report = import(open().as_mut(), &out, next).unwrap();
        same(&out, &disk);
        assert_eq!(report.bytes_resumed > 0, goes_on, "{report:?}");
    }
}
