//! Tokens, and where they come from: a service account's key, a login, or the machine we run on.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use url::Url;

use super::account::Account;
use super::address::Address;
use crate::http::error::{HttpError, Retry};
use crate::http::passport::Pending;
use crate::object::desk::{Desk, Form, refused, unanswered};
use crate::object::key;
use crate::object::lease::{Issued, Issuer, Lease};
use crate::object::refusal::presentable;
use crate::object::secret::Secret;
use crate::{Error, Result, SourceOptions};

/// A key has two kilobytes.
const MOST: u64 = 1 << 20;
const METADATA: &str = "metadata.google.internal";
const TOKEN: &str = "/computeMetadata/v1/instance/service-accounts/default/token";

/// Where tokens come from.
#[derive(Debug)]
pub(super) enum Chain {
    /// There are none, or none are wanted.
    Nobody,
    Tokens(Lease<Secret>),
    /// The machine may have a service account. It is asked only where the store refuses to do without.
    Perhaps(Lease<Secret>),
}

impl Chain {
    /// The first of what there is.
    pub(super) fn of(options: &SourceOptions, address: &Address) -> Result<Self> {
        let objects = &options.objects;
        if objects.anonymous {
            return Ok(Self::Nobody);
        }
        let desk = Desk::new(options);
        if let Some(path) = &objects.google_key {
            return Ok(Self::Tokens(Lease::new(Holder::read(path, desk)?)));
        }
        if address.emulated {
            return Ok(Self::Nobody);
        }
        if let Some(path) = objects.ambient.get("GOOGLE_APPLICATION_CREDENTIALS") {
            let holder = Holder::read(Path::new(&path), desk)?;
            return Ok(Self::Tokens(Lease::new(holder)));
        }
        let login = ".config/gcloud/application_default_credentials.json";
        if let Some(path) = objects.ambient.home(login).filter(|path| path.exists()) {
            return Ok(Self::Tokens(Lease::new(Holder::read(&path, desk)?)));
        }
        // The machine's token is for Google, unless somebody said where it comes from.
        let named = objects.ambient.get("GCE_METADATA_HOST");
        let at_google = address.url.host_str() == Some("storage.googleapis.com");
        if named.is_none() && !at_google {
            return Ok(Self::Nobody);
        }
        let base = key::base(named.as_deref().unwrap_or(METADATA), "http");
        let mut url = base.map_err(|why| Error::Credentials {
            why: format!("GCE_METADATA_HOST: {why}"),
        })?;
        url.set_path(TOKEN);
        Ok(Self::Perhaps(Lease::new(Machine { url, desk })))
    }
}

/// What a token server answers, or why not.
fn token(body: &[u8], what: &str) -> Result<Issued<Secret>, HttpError> {
    let nonsense = |why: &str| refused(what, why, Retry::Permanent);
    let answer: serde_json::Value =
        serde_json::from_slice(body).map_err(|_| nonsense("the answer is no JSON"))?;
    let token = answer.get("access_token").and_then(|token| token.as_str());
    let token =
        token.filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()));
    let token = token.ok_or_else(|| nonsense("the answer has no token"))?;
    // Some send it as text.
    let life = answer.get("expires_in");
    let life = life.and_then(|life| life.as_u64().or_else(|| life.as_str()?.parse().ok()));
    Ok(Issued {
        papers: Secret::new(token),
        until: life.and_then(|life| SystemTime::now().checked_add(Duration::from_secs(life))),
    })
}

/// Whoever a file says we are.
#[derive(Debug)]
struct Holder {
    path: PathBuf,
    account: Account,
    desk: Desk,
}

impl Holder {
    fn read(path: &Path, desk: Desk) -> Result<Self> {
        let bad = |why: String| Error::Credentials {
            why: format!("{}: {why}", path.display()),
        };
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MOST).read_to_string(&mut text))
            .map_err(|e| bad(e.to_string()))?;
        Ok(Self {
            path: path.to_owned(),
            account: Account::parse(&text).map_err(bad)?,
            desk,
        })
    }

    async fn fetch(&self) -> Result<Issued<Secret>, HttpError> {
        let uri = self.account.token_uri();
        let host = crate::http::location::host(uri);
        let what = format!("a token for {} from {host}", self.path.display());
        let fields = self.account.fields(SystemTime::now());
        let fields = fields.map_err(|why| refused(&what, why, Retry::Permanent))?;
        let fields: Vec<_> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let reply = self.desk.ask(&Form::post(uri.clone(), &fields)).await;
        let reply = reply.map_err(|e| unanswered(&what, e))?;
        if reply.status == 200 {
            return token(&reply.body, &what);
        }
        let said: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let word = |name: &str| said.get(name).and_then(|v| v.as_str()).unwrap_or_default();
        let words = format!("{} ({})", word("error"), word("error_description"));
        let secrets: Vec<Secret> = fields
            .iter()
            .skip(1)
            .map(|(_, v)| Secret::new(*v))
            .collect();
        let secrets: Vec<&Secret> = secrets.iter().collect();
        let why = format!(
            "it answered {} {}",
            reply.status,
            presentable(&words, &secrets)
        );
        Err(refused(&what, why, Retry::Unauthorized))
    }
}

impl Issuer for Holder {
    type Papers = Secret;

    fn issue(&self) -> Pending<'_, Issued<Secret>> {
        Box::pin(self.fetch())
    }
}

/// The machine's metadata service.
#[derive(Debug)]
struct Machine {
    url: Url,
    desk: Desk,
}

impl Machine {
    async fn fetch(&self) -> Result<Issued<Secret>, HttpError> {
        let what = "a token from this machine's metadata service";
        let form = Form::get(self.url.clone()).header("metadata-flavor", "Google");
        let reply = self.desk.ask_nearby(&form).await;
        let reply = reply.map_err(|e| unanswered(what, e))?;
        // Anything else may be whoever has that name here.
        let is_google = reply
            .headers
            .get("metadata-flavor")
            .is_some_and(|flavor| flavor == "Google");
        match reply.status {
            200 if is_google => token(&reply.body, what),
            status => {
                let why = format!("it answered {status}");
                Err(refused(what, why, Retry::Unauthorized))
            }
        }
    }
}

impl Issuer for Machine {
    type Papers = Secret;

    fn issue(&self) -> Pending<'_, Issued<Secret>> {
        Box::pin(self.fetch())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_with_the_time_they_run_out() {
        let issued = token(br#"{"access_token":"ya29.x","expires_in":3599}"#, "t").unwrap();
        assert_eq!(issued.papers.expose(), "ya29.x");
        let left = issued
            .until
            .unwrap()
            .duration_since(SystemTime::now())
            .unwrap();
        assert!((3590..3600).contains(&left.as_secs()), "{left:?}");
        let text = token(br#"{"access_token":"x","expires_in":"60"}"#, "t").unwrap();
        assert!(text.until.is_some());
        assert!(
            token(br#"{"access_token":"x"}"#, "t")
                .unwrap()
                .until
                .is_none()
        );
        for bad in [
            &b"no"[..],
            b"{}",
            br#"{"access_token":""}"#,
            br#"{"access_token":"a\nb"}"#,
        ] {
            assert!(token(bad, "t").is_err());
        }
    }
}
