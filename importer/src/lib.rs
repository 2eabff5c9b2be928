//! Where disk images come from: files, standard input and web servers.
//!
//! Everything here ends as a [`longshore_transfer::Source`]; what the bytes mean is the business of
//! `longshore-image`, and where they go that of `longshore-transfer`.

mod error;
mod http;
mod local;
mod options;

pub use crate::error::{Error, Result};
pub use crate::http::error::{Cause, HttpError, Retry};
pub use crate::options::{BasicAuth, SourceOptions, parse_header};

use longshore_transfer::Source;

use crate::http::HttpSource;

/// The source that `spec` names: `http(s)://...`, the path of a file, or `-` for standard input.
///
/// A web server is asked at once, so whoever gets a source knows that it answers.
pub fn source_from(spec: &str, options: &SourceOptions) -> Result<Box<dyn Source>> {
    match scheme(spec) {
        Some(scheme) if matches!(scheme.as_str(), "http" | "https") => {
            Ok(Box::new(HttpSource::open(spec, options)?))
        }
        Some(scheme) => Err(Error::NotYet { scheme }),
        None => local::open(spec, options),
    }
}

/// The scheme in front of `spec`, in lower case, if it is not a path.
fn scheme(spec: &str) -> Option<String> {
    let (scheme, rest) = spec.split_once(':')?;
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let is_scheme =
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(named);
    // `a:b` may well be the name of a file; these two have no `//`.
    let is_reference = rest.starts_with("//") || matches!(scheme, "oci-archive" | "docker-archive");
    (is_scheme && is_reference).then(|| scheme.to_ascii_lowercase())
}
