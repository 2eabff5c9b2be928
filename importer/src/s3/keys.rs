//! Access keys, and where they are found: given, in the environment, in a profile, or by whatever the
//! machine has a role for.

mod container;
mod imds;
mod profile;
mod sts;

use std::fmt;

use crate::http::error::{HttpError, Retry};
use crate::http::passport::Pending;
use crate::object::clock;
use crate::object::desk::{Desk, refused};
use crate::object::lease::{Issued, Issuer, Lease};
use crate::object::secret::Secret;
use crate::{Error, ObjectOptions, Result, S3Keys, SourceOptions};

use self::container::Container;
use self::imds::Instance;
use self::sts::WebIdentity;

/// An access key, fit for headers. Its id is no secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) id: String,
    pub(super) secret: Secret,
    pub(super) token: Option<Secret>,
}

impl Keys {
    /// `None` if no header can carry them.
    pub(super) fn new(id: &str, secret: &str, token: Option<&str>) -> Option<Self> {
        let plain = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        let token = token.filter(|token| !token.is_empty());
        let fit = [id, secret].iter().all(plain) && token.iter().all(plain) && !id.contains('/');
        fit.then(|| Self {
            id: id.to_owned(),
            secret: Secret::new(secret),
            token: token.map(Secret::new),
        })
    }

    fn given(keys: &S3Keys) -> Option<Self> {
        Self::new(
            keys.access_key_id.trim(),
            keys.secret_access_key.trim(),
            keys.session_token.as_deref().map(str::trim),
        )
    }

    /// What is never to be shown.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        [&self.secret].into_iter().chain(&self.token)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Keys that somebody wrote down.
#[derive(Debug)]
struct Fixed(Keys);

impl Issuer for Fixed {
    type Papers = Keys;

    fn issue(&self) -> Pending<'_, Issued<Keys>> {
        Box::pin(async {
            Ok(Issued {
                papers: self.0.clone(),
                until: None,
            })
        })
    }
}

/// Where keys come from.
#[derive(Debug)]
pub(super) enum Chain {
    /// There are none, or none are wanted.
    Nobody,
    Keys(Lease<Keys>),
    /// The machine may have a role. It is asked only where the store refuses to do without: that saves
    /// a second on every machine that has none.
    Perhaps(Lease<Keys>),
}

impl Chain {
    /// The first of what there is. `amazon`: it is Amazon who is shown the keys. The role of a machine is
    /// not meant for other stores.
    pub(super) fn of(options: &SourceOptions, region: &str, amazon: bool) -> Result<Self> {
        let objects = &options.objects;
        let bad = |what: &str| Error::Credentials {
            why: format!("{what} cannot be an access key: it is incomplete, or has spaces in it"),
        };
        if objects.anonymous {
            return Ok(Self::Nobody);
        }
        let fixed = |keys: Keys, whence: &str| {
            tracing::debug!(id = keys.id, whence, "access key");
            Ok(Self::Keys(Lease::new(Fixed(keys))))
        };
        if let Some(keys) = &objects.s3_keys {
            let keys = Keys::given(keys).ok_or_else(|| bad("what is given"))?;
            return fixed(keys, "given");
        }
        if let Some(keys) = from_environment(objects) {
            let keys = Keys::given(&keys).ok_or_else(|| bad("AWS_ACCESS_KEY_ID"))?;
            return fixed(keys, "environment");
        }
        if let Some(keys) = profile::read(&objects.ambient)? {
            let keys = Keys::given(&keys).ok_or_else(|| bad("what is in the profile"))?;
            return fixed(keys, "profile");
        }
        let desk = Desk::new(options);
        if let Some(role) = WebIdentity::find(&objects.ambient, region, desk.clone())? {
            return Ok(Self::Keys(Lease::new(role)));
        }
        if let Some(container) = Container::find(&objects.ambient, desk.clone())? {
            return Ok(Self::Keys(Lease::new(container)));
        }
        match Instance::find(&objects.ambient, amazon, desk) {
            Some(instance) => Ok(Self::Perhaps(Lease::new(instance))),
            None => Ok(Self::Nobody),
        }
    }
}

fn from_environment(objects: &ObjectOptions) -> Option<S3Keys> {
    let ambient = &objects.ambient;
    let id = ambient.get("AWS_ACCESS_KEY_ID");
    let secret = ambient.get("AWS_SECRET_ACCESS_KEY");
    if id.is_none() && secret.is_none() {
        return None;
    }
    Some(S3Keys {
        access_key_id: id.unwrap_or_default(),
        secret_access_key: secret.unwrap_or_default(),
        session_token: ambient.get("AWS_SESSION_TOKEN"),
    })
}

/// Keys as a service of the machine gives them, in JSON.
fn from_json(body: &[u8], what: &str) -> Result<Issued<Keys>, HttpError> {
    let nonsense = |why: &str| refused(what, why, Retry::Permanent);
    let answer: serde_json::Value =
        serde_json::from_slice(body).map_err(|_| nonsense("the answer is no JSON"))?;
    let text = |name: &str| answer.get(name).and_then(serde_json::Value::as_str);
    issued(
        text("AccessKeyId"),
        text("SecretAccessKey"),
        text("Token"),
        text("Expiration"),
    )
    .ok_or_else(|| nonsense("the answer has no keys"))
}

fn issued(
    id: Option<&str>,
    secret: Option<&str>,
    token: Option<&str>,
    expiration: Option<&str>,
) -> Option<Issued<Keys>> {
    Some(Issued {
        papers: Keys::new(id?, secret?, token)?,
        until: expiration.and_then(clock::parse),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ambient;

    fn chain(variables: &[(&str, &str)], amazon: bool) -> Result<Chain> {
        let mut options = SourceOptions::default();
        options.objects.ambient = Ambient::only(variables.iter().copied());
        Chain::of(&options, "r", amazon)
    }

    #[test]
    fn the_first_of_what_there_is_counts() {
        let role = [
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
        ];
        let container = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/x");
        let shown = |variables: &[(&str, &str)]| format!("{:?}", chain(variables, true).unwrap());
        let environment = [
            ("AWS_ACCESS_KEY_ID", "AKID"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ];
        let all = [&environment[..], &role, &[container]].concat();
        assert!(shown(&all).contains("AKID"));
        assert!(shown(&[&role[..], &[container]].concat()).contains("WebIdentity"));
        assert!(shown(&[container]).contains("Container"));
        assert!(shown(&[]).contains("Perhaps"));
    }

    #[test]
    fn half_a_key_is_an_error_and_none_is_none() {
        for half in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            let error = chain(&[(half, "s3cret")], true).unwrap_err();
            assert!(matches!(error, Error::Credentials { .. }), "{error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
        let spaced = [("AWS_ACCESS_KEY_ID", "a b"), ("AWS_SECRET_ACCESS_KEY", "s")];
        assert!(chain(&spaced, true).is_err());
        // The machine's role is for Amazon.
        assert!(matches!(chain(&[], false), Ok(Chain::Nobody)));
        let off = [("AWS_EC2_METADATA_DISABLED", "true")];
        assert!(matches!(chain(&off, true), Ok(Chain::Nobody)));
    }

    #[test]
    fn keys_in_json_are_read_with_the_time_they_run_out() {
        let body = br#"{"AccessKeyId":"a","SecretAccessKey":"s","Token":"t","Expiration":"2026-11-21T20:00:00Z"}"#;
        let issued = from_json(body, "x").unwrap();
        assert_eq!(issued.papers, Keys::new("a", "s", Some("t")).unwrap());
        assert_eq!(issued.until, clock::parse("2026-11-21T20:00:00Z"));
        for bad in [&b"{}"[..], b"no", b"[]", br#"{"AccessKeyId":"a"}"#] {
            assert!(from_json(bad, "x").is_err());
        }
    }
}
