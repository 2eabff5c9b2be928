//! The one error type of this crate: a small stable kind to match on, text for people.

use std::borrow::Cow;
use std::fmt;
use std::io;

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault it is. Match on this, never on text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The world failed: reading or writing underneath.
    Io,
    /// The bytes are not of the format they were opened as.
    NotThisFormat,
    /// The image contradicts its own format, or itself.
    Malformed,
    /// The image is of a kind or has a feature that is not read here.
    Unsupported,
    /// Reading on would take more than [`crate::Limits`] allow; [`Error::needed`] may say how much.
    LimitExceeded,
    /// The image names another file and the gate did not let it in.
    Denied,
    /// Tables come after the data they map and the source can't be read at random or again.
    TablesFollowData,
    /// The caller asked for something that makes no sense.
    Misuse,
}

impl ErrorKind {
    /// The word that conditions, events and metrics use for this kind.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Io => "ImageReadFailed",
            Self::NotThisFormat => "ImageNotThisFormat",
            Self::Malformed => "ImageMalformed",
            Self::Unsupported => "ImageUnsupported",
            Self::LimitExceeded => "ImageLimitExceeded",
            Self::Denied => "ImageReferenceDenied",
            Self::TablesFollowData => "ImageTablesFollowData",
            Self::Misuse => "ImageMisuse",
        }
    }
}

/// What went wrong, where in the image, and why.
#[expect(
    clippy::error_impl_error,
    reason = "read as longshore_image::Error everywhere"
)]
pub struct Error {
    kind: ErrorKind,
    text: Cow<'static, str>,
    at: Option<u64>,
    needed: Option<u64>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`. `text` says what was found or attempted, lower case, no full stop.
    pub fn new(kind: ErrorKind, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            text: text.into(),
            at: None,
            needed: None,
            source: None,
        }
    }

    /// [`ErrorKind::Malformed`].
    pub fn malformed(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Malformed, text)
    }

    /// [`ErrorKind::Unsupported`].
    pub fn unsupported(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unsupported, text)
    }

    /// [`ErrorKind::LimitExceeded`], with the bytes it would have taken.
    pub fn limit(text: impl Into<Cow<'static, str>>, needed: u64) -> Self {
        Self {
            needed: Some(needed),
            ..Self::new(ErrorKind::LimitExceeded, text)
        }
    }

    /// [`ErrorKind::Io`]: `text` says what was attempted.
    pub fn io(text: impl Into<Cow<'static, str>>, source: io::Error) -> Self {
        Self::new(ErrorKind::Io, text).with_source(source)
    }

    /// Adds the offset in the image file, in bytes, at which this was found.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.at = Some(offset);
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Offset in the image file, in bytes, if one place is to blame.
    pub fn offset(&self) -> Option<u64> {
        self.at
    }

    /// For [`ErrorKind::LimitExceeded`]: how many bytes of memory would have been enough.
    pub fn needed(&self) -> Option<u64> {
        self.needed
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if let Some(at) = self.at {
            write!(f, " (at offset {at:#x} of the image)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}
