//! Where an object is: `gs://bucket/object`, or a URL as people copy it, or an emulator's.

use url::Url;

use crate::object::key;
use crate::{Error, ObjectOptions, Result};

const GOOGLE: &str = "https://storage.googleapis.com";

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// For people.
    pub(super) name: String,
    pub(super) url: Url,
    /// It is in an emulator, which knows no credentials.
    pub(super) emulated: bool,
}

impl Address {
    pub(super) fn parse(spec: &str, options: &ObjectOptions) -> Result<Self> {
        Self::read(spec, options).map_err(|why| Error::Object {
            shown: crate::http::location::shown_spec(spec),
            why,
        })
    }

    fn read(spec: &str, options: &ObjectOptions) -> Result<Self, String> {
        let (base, bucket, object, emulated) = match spec.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("gs") => {
                let (bucket, object) = key::split(rest)?;
                let emulator = options.ambient.get("STORAGE_EMULATOR_HOST");
                let (base, emulated) = match (&options.endpoint, emulator) {
                    (Some(endpoint), _) => (key::base(endpoint, "https")?, false),
                    (None, Some(host)) => (key::base(&host, "http")?, true),
                    (None, None) => (key::base(GOOGLE, "https")?, false),
                };
                (base, bucket, object, emulated)
            }
            _ => {
                let (base, bucket, object) = by_url(spec)?;
                (base, bucket, object, false)
            }
        };
        Ok(Self {
            url: key::url(&base, Some(&bucket), &object)?,
            name: format!("gs://{bucket}/{object}"),
            emulated,
        })
    }
}

/// `https://storage.googleapis.com/bucket/object`, the same by `storage.cloud.google.com` (which wants a
/// browser, so it is asked for at the former), `https://bucket.storage.googleapis.com/object`, or any other
/// host with bucket and object in its path.
fn by_url(spec: &str) -> Result<(Url, String, String), String> {
    let url = Url::parse(spec).map_err(|e| e.to_string())?;
    if url.query().is_some() {
        return Err("it has a query, which no object's URL has".to_owned());
    }
    let mut base = key::base(url.as_str(), "https")?;
    base.set_path("");
    let host = url.host_str().unwrap_or_default();
    let in_host = host.strip_suffix(".storage.googleapis.com");
    if in_host.is_some() || host == "storage.cloud.google.com" {
        base.set_host(Some("storage.googleapis.com"))
            .map_err(|e| e.to_string())?;
    }
    let (bucket, object) = key::in_url(&url, in_host)?;
    Ok((base, bucket, object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ambient;

    fn parsed(spec: &str, variables: &[(&str, &str)]) -> Result<Address> {
        let options = ObjectOptions {
            ambient: Ambient::only(variables.iter().copied()),
            ..ObjectOptions::default()
        };
        Address::parse(spec, &options)
    }

    #[test]
    fn objects_are_found_by_all_their_addresses() {
        for spec in [
            "gs://buck/a b/c+d",
            "https://storage.googleapis.com/buck/a%20b/c+d",
            "https://storage.cloud.google.com/buck/a%20b/c%2Bd",
            "https://buck.storage.googleapis.com/a%20b/c+d",
        ] {
            let address = parsed(spec, &[]).unwrap();
            assert_eq!(
                address.url.as_str(),
                "https://storage.googleapis.com/buck/a%20b/c%2Bd"
            );
            assert_eq!(address.name, "gs://buck/a b/c+d");
            assert!(!address.emulated);
        }
        let other = parsed("http://127.0.0.1:4443/buck/k", &[]).unwrap();
        assert_eq!(other.url.as_str(), "http://127.0.0.1:4443/buck/k");
    }

    #[test]
    fn an_emulator_is_a_host_or_a_url() {
        for host in ["127.0.0.1:4443", "http://127.0.0.1:4443/"] {
            let address = parsed("gs://buck/k", &[("STORAGE_EMULATOR_HOST", host)]).unwrap();
            assert_eq!(address.url.as_str(), "http://127.0.0.1:4443/buck/k");
            assert!(address.emulated);
        }
    }

    #[test]
    fn what_names_no_object_is_refused_without_its_secrets() {
        for spec in [
            "gs://buck",
            "gs://id:s3cret@buck/k",
            "gs://buck/a/../k",
            "https://storage.googleapis.com/buck/k?X-Goog-Signature=s3cret",
        ] {
            let error = parsed(spec, &[]).unwrap_err();
            assert!(matches!(error, Error::Object { .. }), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
        }
    }
}
