//! Where an object is: `s3://bucket/key`, or a URL of its endpoint as CDI has it.

use url::{Host, Url};

use crate::object::key;
use crate::{Error, ObjectOptions, Result, S3Style};

/// Where signatures are for if nothing tells.
const USUAL_REGION: &str = "us-east-1";

/// An object, and what is known about its bucket's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// `None` is Amazon's own.
    endpoint: Option<Url>,
    bucket: String,
    key: String,
    pub(crate) region: String,
    style: S3Style,
}

impl Address {
    /// Reads `s3://bucket/key`, where the key is as it is stored and not encoded, or the URL of an
    /// endpoint with bucket and key in its path, where it is.
    pub(crate) fn parse(spec: &str, options: &ObjectOptions) -> Result<Self> {
        let refuse = |why: String| Error::Object {
            shown: crate::http::location::shown_spec(spec),
            why,
        };
        let scheme_and_rest = spec.split_once("://");
        let address = match scheme_and_rest {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("s3") => {
                Self::of_bucket(rest, options)
            }
            _ => Self::of_endpoint(spec, options),
        };
        let address = address.map_err(refuse)?;
        // What cannot be asked for is found out before anything is asked.
        address.url().map_err(refuse)?;
        Ok(address)
    }

    fn of_bucket(rest: &str, options: &ObjectOptions) -> Result<Self, String> {
        let (bucket, key) = key::split(rest)?;
        let endpoint = options.endpoint.clone().or_else(|| {
            options
                .ambient
                .first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
        });
        let endpoint = endpoint
            .map(|text| key::base(&text, "https").map_err(|why| format!("endpoint {text}: {why}")))
            .transpose()?;
        let amazon = endpoint.as_ref().and_then(Amazon::of);
        let ambient = &options.ambient;
        let region = options
            .region
            .clone()
            .or_else(|| amazon.as_ref().and_then(|amazon| amazon.region.clone()))
            .or_else(|| ambient.first(&["AWS_REGION", "AWS_DEFAULT_REGION"]))
            .unwrap_or_else(|| USUAL_REGION.to_owned());
        Ok(Self {
            endpoint: endpoint.filter(|_| amazon.is_none()),
            bucket,
            key,
            region: region_name(&region)?,
            style: options.style,
        })
    }

    fn of_endpoint(spec: &str, options: &ObjectOptions) -> Result<Self, String> {
        let url = Url::parse(spec).map_err(|e| e.to_string())?;
        if url.query().is_some() {
            return Err("it has a query, which no object's URL has".to_owned());
        }
        let mut base = key::base(url.as_str(), "https")?;
        base.set_path("");
        let amazon = Amazon::of(&url);
        let in_host = amazon.as_ref().and_then(|amazon| amazon.bucket.as_deref());
        let (bucket, key) = key::in_url(&url, in_host)?;
        let told = amazon.as_ref().and_then(|amazon| amazon.region.clone());
        let region = match options.region.clone().or(told) {
            Some(region) => region_name(&region)?,
            // As upstream guesses: stores that are not Amazon's are named like their region, or don't care.
            None if amazon.is_none() => guess(&url),
            None => USUAL_REGION.to_owned(),
        };
        let style = match (options.style, in_host) {
            (S3Style::Auto, None) => S3Style::Path,
            (S3Style::Auto, Some(_)) => S3Style::VirtualHost,
            (style, _) => style,
        };
        // One over http stays over http.
        let endpoint = (amazon.is_none() || url.scheme() == "http").then_some(base);
        Ok(Self {
            endpoint,
            bucket,
            key,
            region,
            style,
        })
    }

    /// What is asked for.
    pub(crate) fn url(&self) -> Result<Url, String> {
        let base = match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => amazon_endpoint(&self.region)?,
        };
        if !self.in_host() {
            return key::url(&base, Some(&self.bucket), &self.key);
        }
        let mut base = base;
        let host = match base.host() {
            Some(Host::Domain(name)) if !name.starts_with(&format!("{}.", self.bucket)) => {
                format!("{}.{name}", self.bucket)
            }
            Some(Host::Domain(name)) => name.to_owned(),
            _ => {
                return Err(
                    "an endpoint without a name cannot have the bucket in front of it: use the path style"
                        .to_owned(),
                );
            }
        };
        base.set_host(Some(&host))
            .map_err(|e| format!("its bucket cannot be part of a host's name ({e})"))?;
        key::url(&base, None, &self.key)
    }

    fn in_host(&self) -> bool {
        match self.style {
            S3Style::Path => false,
            S3Style::VirtualHost => true,
            // A dot more, and Amazon's certificate does not cover it.
            S3Style::Auto => {
                self.endpoint.is_none()
                    && self
                        .bucket
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            }
        }
    }

    /// The same object in a bucket that turned out to be elsewhere. `None` if that makes no sense.
    pub(crate) fn moved(&self, region: &str) -> Option<Self> {
        let region = region_name(region).ok()?;
        let moved = (region != self.region).then_some(region)?;
        Some(Self {
            region: moved,
            ..self.clone()
        })
    }

    /// True if it is Amazon who gets to see our keys.
    pub(crate) fn is_amazon(&self) -> bool {
        self.endpoint.is_none()
    }

    /// For people.
    pub(crate) fn name(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }
}

fn amazon_endpoint(region: &str) -> Result<Url, String> {
    let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
    key::base(&format!("s3.{region}.amazonaws.com{suffix}"), "https")
}

/// A region goes into host names and signatures: from wherever it comes, it is one label.
fn region_name(text: &str) -> Result<String, String> {
    let fits = (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-');
    if fits {
        return Ok(text.to_owned());
    }
    Err("its region is no name: letters, digits and dashes".to_owned())
}

/// The first label of a host's name.
fn guess(url: &Url) -> String {
    match url.host() {
        Some(Host::Domain(name)) => {
            let label = name.split('.').next().unwrap_or_default();
            region_name(label).unwrap_or_else(|_| USUAL_REGION.to_owned())
        }
        _ => USUAL_REGION.to_owned(),
    }
}

/// What is in a host's name at Amazon: `s3.eu-west-1.amazonaws.com`, `bucket.s3.amazonaws.com`, or the
/// older `s3-eu-west-1.amazonaws.com`.
#[derive(Debug, PartialEq, Eq)]
struct Amazon {
    bucket: Option<String>,
    region: Option<String>,
}

impl Amazon {
    fn of(url: &Url) -> Option<Self> {
        let Some(Host::Domain(host)) = url.host() else {
            return None;
        };
        let plain = host
            .strip_suffix(".amazonaws.com")
            .or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
        let labels: Vec<&str> = plain.split('.').collect();
        let s3 = labels
            .iter()
            .rposition(|label| *label == "s3" || label.starts_with("s3-"))?;
        let (bucket, rest) = labels.split_at(s3);
        let old = rest.first().and_then(|label| label.strip_prefix("s3-"));
        let region = rest
            .get(1..)?
            .iter()
            .copied()
            .find(|label| *label != "dualstack")
            .or_else(|| old.filter(|name| *name != "external-1"));
        Some(Self {
            bucket: (!bucket.is_empty()).then(|| bucket.join(".")),
            region: region.map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ambient;

    fn bare() -> ObjectOptions {
        ObjectOptions {
            ambient: Ambient::only::<&str, &str>([]),
            ..ObjectOptions::default()
        }
    }

    fn url(spec: &str, options: &ObjectOptions) -> (String, String) {
        let address = Address::parse(spec, options).unwrap();
        (address.url().unwrap().into(), address.region)
    }

    #[track_caller]
    fn assert_url(spec: &str, options: &ObjectOptions, expected: &str, region: &str) {
        let expected = (expected.to_owned(), region.to_owned());
        assert_eq!(url(spec, options), expected, "{spec}");
    }

    #[test]
    fn buckets_are_at_amazon_unless_an_endpoint_is_given() {
        let plain = bare();
        assert_url(
            "s3://buck/a b",
            &plain,
            "https://buck.s3.us-east-1.amazonaws.com/a%20b",
            "us-east-1",
        );
        assert_url(
            "S3://dotted.buck/k",
            &plain,
            "https://s3.us-east-1.amazonaws.com/dotted.buck/k",
            "us-east-1",
        );
        let china = ObjectOptions {
            region: Some("cn-north-1".to_owned()),
            style: S3Style::Path,
            ..bare()
        };
        assert_url(
            "s3://buck/k",
            &china,
            "https://s3.cn-north-1.amazonaws.com.cn/buck/k",
            "cn-north-1",
        );
        let own = ObjectOptions {
            endpoint: Some("http://minio.lan:9000".to_owned()),
            ..bare()
        };
        assert_url(
            "s3://buck/k",
            &own,
            "http://minio.lan:9000/buck/k",
            "us-east-1",
        );
        let hosted = ObjectOptions {
            style: S3Style::VirtualHost,
            ..own
        };
        assert_url(
            "s3://buck/k",
            &hosted,
            "http://buck.minio.lan:9000/k",
            "us-east-1",
        );
    }

    #[test]
    fn the_environment_has_endpoint_and_region() {
        let options = ObjectOptions {
            ambient: Ambient::only([
                ("AWS_ENDPOINT_URL", "https://other"),
                ("AWS_ENDPOINT_URL_S3", "https://h:1/base"),
                ("AWS_DEFAULT_REGION", "d-1"),
                ("AWS_REGION", "r-1"),
            ]),
            ..ObjectOptions::default()
        };
        assert_url("s3://buck/k", &options, "https://h:1/base/buck/k", "r-1");
        let given = ObjectOptions {
            endpoint: Some("g".to_owned()),
            region: Some("g-1".to_owned()),
            ..options
        };
        assert_url("s3://buck/k", &given, "https://g/buck/k", "g-1");
    }

    #[test]
    fn endpoints_with_bucket_and_key_are_read_as_upstream_reads_them() {
        for (spec, expected, region) in [
            (
                "http://minio:9000/buck/k",
                "http://minio:9000/buck/k",
                "minio",
            ),
            (
                "https://store.lan/buck/a%20b/c",
                "https://store.lan/buck/a%20b/c",
                "store",
            ),
            (
                "http://10.0.0.1:9000/buck/k+",
                "http://10.0.0.1:9000/buck/k%2B",
                "us-east-1",
            ),
            (
                "http://[::1]:9000/buck/k",
                "http://[::1]:9000/buck/k",
                "us-east-1",
            ),
            (
                "https://s3.eu-west-1.amazonaws.com/buck/k",
                "https://s3.eu-west-1.amazonaws.com/buck/k",
                "eu-west-1",
            ),
            (
                "https://s3.amazonaws.com/buck/k",
                "https://s3.us-east-1.amazonaws.com/buck/k",
                "us-east-1",
            ),
            (
                "https://buck.s3-eu-west-1.amazonaws.com/k",
                "https://buck.s3.eu-west-1.amazonaws.com/k",
                "eu-west-1",
            ),
            (
                "https://a.b.s3.dualstack.eu-west-1.amazonaws.com/k",
                "https://a.b.s3.eu-west-1.amazonaws.com/k",
                "eu-west-1",
            ),
        ] {
            assert_url(spec, &bare(), expected, region);
        }
    }

    #[test]
    fn a_bucket_elsewhere_takes_the_host_along_at_amazon_only() {
        let here = Address::parse("s3://buck/k", &bare()).unwrap();
        let there = here.moved("eu-west-1").unwrap();
        assert_eq!(
            there.url().unwrap().as_str(),
            "https://buck.s3.eu-west-1.amazonaws.com/k"
        );
        assert!(here.moved("us-east-1").is_none());
        assert!(here.moved("evil.example/").is_none());
        let own = Address::parse("http://h/buck/k", &bare()).unwrap();
        let signed_otherwise = own.moved("eu-west-1").unwrap();
        assert_eq!(signed_otherwise.url().unwrap().as_str(), "http://h/buck/k");
    }

    #[test]
    fn what_names_no_object_is_refused_without_its_secrets() {
        for spec in [
            "s3://",
            "s3://buck",
            "s3://buck/",
            "s3://id:s3cret@buck/k",
            "s3://buck/../k",
            "http://h/buck/k?sig=s3cret",
            "http://id:s3cret@h/buck/k",
            "ftp://h/buck/k",
        ] {
            let error = Address::parse(spec, &bare()).unwrap_err();
            assert!(matches!(error, Error::Object { .. }), "{error:?}");
            assert_eq!(error.exit_code(), 2);
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
        }
        let nameless = ObjectOptions {
            endpoint: Some("http://127.0.0.1:1".to_owned()),
            style: S3Style::VirtualHost,
            ..bare()
        };
        assert!(Address::parse("s3://buck/k", &nameless).is_err());
    }
}
