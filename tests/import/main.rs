//! Imports over HTTP, from servers that do what servers do, and from object stores.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking too"
)]

mod archives;
mod broken;
mod credentials;
mod fleet;
mod gcs;
mod http;
mod pod;
mod proxy;
mod qcow2;
mod random;
mod registry;
mod s3;
mod tls;
mod unpack;

use std::error::Error as StdError;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use longshore_importer::{HttpError, SourceOptions, source_from};
use longshore_tests::chain;
use longshore_tests::http::{Page, Server};
use longshore_transfer::{Cancel, Options, Progress, Report, Source, TargetSpec, transfer};
use tempfile::TempDir;

/// Options for servers on this machine: no long pauses. Nothing here depends on how long they are.
fn options() -> SourceOptions {
    SourceOptions {
        backoff: Duration::from_millis(1),
        retries: 4,
        ..SourceOptions::default()
    }
}

fn one_connection(options: SourceOptions) -> SourceOptions {
    SourceOptions {
        connections: 1,
        ..options
    }
}

/// The source, which must open.
fn open(url: &str, options: &SourceOptions) -> Box<dyn Source> {
    source_from(url, options).unwrap_or_else(|e| panic!("{url}: {e}: {:?}", e.source()))
}

/// A transfer to a file in a directory of its own, and what was left there.
struct Import {
    outcome: longshore_transfer::Result<Report>,
    directory: TempDir,
}

impl Import {
    fn of(source: &mut dyn Source) -> Self {
        Self::with(source, &Options::default(), &Cancel::default())
    }

    fn with(source: &mut dyn Source, options: &Options, cancel: &Cancel) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let target = TargetSpec {
            path: directory.path().join("disk.raw"),
            ..TargetSpec::default()
        };
        let outcome = transfer(source, &target, options, &Progress::default(), cancel);
        Self { outcome, directory }
    }

    fn from_url(url: &str) -> Self {
        Self::of(open(url, &options()).as_mut())
    }

    /// The same over one connection: several, which a busy machine asks for, have more under way than is needed.
    fn over_one_connection(url: &str) -> Self {
        Self::of(open(url, &one_connection(options())).as_mut())
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join("disk.raw")
    }

    /// It worked, and made this disk.
    #[track_caller]
    fn made(&self, expected: &[u8]) -> &Report {
        let report = match &self.outcome {
            Ok(report) => report,
            Err(e) => panic!("{}", chain(e)),
        };
        let made = std::fs::read(self.target()).unwrap();
        assert_eq!(made.len(), expected.len());
        assert!(made == expected, "other bytes");
        report
    }

    /// It failed, and left nothing that looks complete. What the server did to it.
    #[track_caller]
    fn failed(&self) -> &HttpError {
        let error = self.outcome.as_ref().unwrap_err();
        let left: Vec<_> = self.directory.path().read_dir().unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        http_error(error).unwrap_or_else(|| panic!("{}", chain(error)))
    }

    /// It failed, for what it read was replaced.
    #[track_caller]
    fn changed(&self) {
        let error = self.failed();
        let is_so = matches!(error, HttpError::Changed { .. });
        assert!(is_so, "{}", chain(error));
    }
}

/// All of a source, as a stream.
fn read_all(source: &mut dyn Source) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut stream = source.stream().map_err(std::io::Error::other)?;
    stream.read_to_end(&mut all)?;
    Ok(all)
}

/// What is wrong with a server that cannot be opened.
#[track_caller]
fn refused(url: &str, options: &SourceOptions) -> HttpError {
    match source_from(url, options) {
        Ok(_) => panic!("{url} opened"),
        Err(longshore_importer::Error::Open { source, .. }) => source,
        Err(e) => panic!("{}", chain(&e)),
    }
}

/// The importer's error in a chain of causes.
fn http_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a HttpError> {
    if let Some(found) = error.downcast_ref::<HttpError>() {
        return Some(found);
    }
    // An io::Error hides the error it was made of behind that one's cause.
    if let Some(io) = error.downcast_ref::<std::io::Error>()
        && let Some(inner) = io.get_ref()
    {
        return http_error(inner);
    }
    error.source().and_then(http_error)
}

/// The same of an `io::Error`.
#[track_caller]
fn of_io(error: &std::io::Error) -> &HttpError {
    http_error(error).unwrap_or_else(|| panic!("{}", chain(error)))
}

/// The last cause of giving up.
fn last_cause(error: &HttpError) -> &HttpError {
    match error {
        HttpError::GaveUp { source, .. } => source,
        other => other,
    }
}

/// A server with one page.
fn serving(path: &str, page: Page) -> (Server, String) {
    let server = Server::start([(path, page)]);
    let url = server.url(path);
    (server, url)
}
