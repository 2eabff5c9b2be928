//! Log lines on stderr, for people or for machines.

use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;

/// What programs log unless asked otherwise.
pub const DEFAULT_FILTER: &str = "info";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people; coloured and without the time of day on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Error::UnknownFormat {
                name: name.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// What [`init`] is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How lines look.
    pub format: Format,
    /// What is logged, in the syntax of `RUST_LOG`: `info`, `warn,longshore_transfer=debug`.
    pub filter: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            format: Format::default(),
            filter: DEFAULT_FILTER.to_owned(),
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[expect(
    clippy::error_impl_error,
    reason = "read as longshore_telemetry::Error everywhere"
)]
#[non_exhaustive]
pub enum Error {
    /// The name is of no [`Format`].
    #[error("unknown log format {name:?}, there are text and json")]
    UnknownFormat {
        /// What was asked for.
        name: String,
    },
    /// The filter can't be understood.
    #[error("bad log filter {filter:?}")]
    BadFilter {
        /// What was asked for.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Somebody set up logging before.
    #[error("logging is set up already")]
    AlreadySet,
}

/// Sends everything that this process logs to stderr. Call it once, from `main`.
pub fn init(options: &Options) -> Result<(), Error> {
    let look = Look {
        format: options.format,
        terminal: io::stderr().is_terminal(),
        colour: io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    };
    let filter = parse(&options.filter)?;
    let subscriber = subscriber(look, filter, io::stderr);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::AlreadySet)
}

fn parse(filter: &str) -> Result<EnvFilter, Error> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|source| Error::BadFilter {
            filter: filter.to_owned(),
            source,
        })
}

#[derive(Debug, Clone, Copy)]
struct Look {
    format: Format,
    terminal: bool,
    colour: bool,
}

fn subscriber<W>(look: Look, filter: EnvFilter, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let base = Registry::default().with(filter);
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(look.colour)
        .with_writer(writer);
    match (look.format, look.terminal) {
        (Format::Json, _) => Box::new(base.with(layer.json().flatten_event(true))),
        (Format::Text, false) => Box::new(base.with(layer)),
        // Whoever sits before a terminal knows what time it is.
        (Format::Text, true) => Box::new(base.with(layer.without_time().with_target(false))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut buffer = self.0.lock().map_err(|_| io::ErrorKind::Other)?;
            buffer.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(look: Look, filter: &str, body: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = subscriber(look, parse(filter).unwrap(), move || writer.clone());
        tracing::subscriber::with_default(subscriber, body);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const PIPE: Look = Look {
        format: Format::Text,
        terminal: false,
        colour: false,
    };

    #[test]
    fn the_filter_decides_by_level_and_target() {
        let text = logged(PIPE, "warn,chatty=debug", || {
            tracing::info!("not this");
            tracing::warn!(bytes = 7, "this");
            tracing::debug!(target: "chatty", "and this");
            tracing::trace!(target: "chatty", "not that");
        });
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(
            text.contains("WARN") && text.contains("this bytes=7"),
            "{text}"
        );
        assert!(text.contains("and this"), "{text}");
    }

    #[test]
    fn a_terminal_gets_no_time_and_a_pipe_no_colours() {
        let terminal = Look {
            terminal: true,
            ..PIPE
        };
        let body = || tracing::info!("hello");
        assert_eq!(logged(terminal, "info", body).trim(), "INFO hello");
        let piped = logged(PIPE, "info", body);
        assert!(piped.starts_with("20") && piped.contains('T'), "{piped}");
        assert!(!piped.contains('\x1b'), "{piped}");
        let coloured = Look {
            colour: true,
            ..terminal
        };
        assert!(logged(coloured, "info", body).contains('\x1b'));
    }

    #[test]
    fn json_is_one_object_a_line_with_fields_of_their_own() {
        let json = Look {
            format: Format::Json,
            terminal: true,
            colour: true,
        };
        let text = logged(json, "info", || {
            let span = tracing::info_span!("import", source = "x\ny");
            span.in_scope(|| tracing::error!(offset = 512, "two\nlines"));
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in [
            r#""level":"ERROR""#,
            r#""offset":512"#,
            r#""message":"two\nlines""#,
            r#""name":"import""#,
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn what_can_not_be_understood_is_named() {
        let e = parse("longshore=loud").unwrap_err();
        assert!(matches!(&e, Error::BadFilter { filter, .. } if filter == "longshore=loud"));
        let e = "xml".parse::<Format>().unwrap_err();
        assert!(matches!(&e, Error::UnknownFormat { name } if name == "xml"));
        for format in [Format::Text, Format::Json] {
            assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
        }
    }

    #[test]
    fn logging_is_set_up_once() {
        init(&Options::default()).unwrap();
        let e = init(&Options::default()).unwrap_err();
        assert!(matches!(e, Error::AlreadySet));
    }
}
