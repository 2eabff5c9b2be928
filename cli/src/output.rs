//! Standard output for data, standard error for talk.

use std::io::{self, BufWriter, StdoutLock, Write};

use clap::CommandFactory as _;

use crate::args::Args;
use crate::failure::Failure;

/// A line on standard error.
pub(crate) fn say(line: &str) {
    // Nobody is left to hear that nobody hears.
    drop(writeln!(anstream::stderr().lock(), "{line}"));
}

/// Buffered standard output. What was not flushed by [`Data::finish`] may be lost.
pub(crate) struct Data(BufWriter<StdoutLock<'static>>);

impl Data {
    pub(crate) fn open() -> Self {
        Self(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    pub(crate) fn write(&mut self, text: &str) -> Result<(), Failure> {
        self.0.write_all(text.as_bytes()).map_err(failed)
    }

    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.write(text)?;
        self.write("\n")
    }

    /// Compact JSON, without a line end.
    pub(crate) fn json(&mut self, value: &impl serde::Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.0, value).map_err(|error| failed(error.into()))
    }

    /// JSON for people to read too.
    pub(crate) fn json_document(&mut self, value: &impl serde::Serialize) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut self.0, value).map_err(|error| failed(error.into()))?;
        self.write("\n")
    }

    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.0.flush().map_err(failed)
    }
}

fn failed(source: io::Error) -> Failure {
    if source.kind() == io::ErrorKind::BrokenPipe {
        Failure::ReaderGone
    } else {
        Failure::Output { source }
    }
}

/// Prints a shell's completions.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "longshore", &mut text);
    let mut data = Data::open();
    data.0.write_all(&text).map_err(failed)?;
    data.finish()
}
