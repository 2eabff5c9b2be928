//! Keys of the role that an instance at Amazon has, by its metadata service (version 2 only).

use reqwest::Method;
use url::Url;

use super::{Keys, from_json};
use crate::Ambient;
use crate::http::call::Reply;
use crate::http::error::{HttpError, Retry};
use crate::http::passport::Pending;
use crate::object::desk::{Desk, Form, refused, unanswered};
use crate::object::key;
use crate::object::lease::{Issued, Issuer};

const USUAL: &str = "http://169.254.169.254";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// The instance we may be on.
#[derive(Debug)]
pub(super) struct Instance {
    base: Url,
    desk: Desk,
}

impl Instance {
    /// `None` if it is not to be asked. Its keys are meant for Amazon; for another store somebody must have
    /// said where they come from.
    pub(super) fn find(ambient: &Ambient, amazon: bool, desk: Desk) -> Option<Self> {
        let named = ambient.get("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        if ambient.says("AWS_EC2_METADATA_DISABLED") || (named.is_none() && !amazon) {
            return None;
        }
        let base = key::base(named.as_deref().unwrap_or(USUAL), "http");
        base.ok().map(|base| Self { base, desk })
    }

    fn form(&self, method: Method, path: &str) -> Form {
        let mut url = self.base.clone();
        url.set_path(path);
        Form {
            method,
            ..Form::get(url)
        }
    }

    async fn ask(&self, form: Form, what: &str) -> Result<Reply, HttpError> {
        let reply = self.desk.ask_nearby(&form).await;
        let reply = reply.map_err(|e| unanswered(what, e))?;
        match reply.status {
            200 => Ok(reply),
            404 => Err(refused(what, "it has no role", Retry::Unauthorized)),
            status => {
                let why = format!("it answered {status}");
                Err(refused(what, why, Retry::after(status)))
            }
        }
    }

    async fn fetch(&self) -> Result<Issued<Keys>, HttpError> {
        let what = "keys from this instance's metadata service";
        let form = self
            .form(Method::PUT, "/latest/api/token")
            .header("x-aws-ec2-metadata-token-ttl-seconds", "21600");
        let token = self.ask(form, what).await?;
        let token = String::from_utf8_lossy(&token.body).trim().to_owned();
        let get = |path: &str| {
            let form = self.form(Method::GET, path);
            form.header("x-aws-ec2-metadata-token", token.clone())
        };
        let roles = self.ask(get(ROLES), what).await?;
        let roles = String::from_utf8_lossy(&roles.body);
        let role = roles.lines().next().unwrap_or_default().trim();
        if role.is_empty() {
            return Err(refused(what, "it has no role", Retry::Unauthorized));
        }
        let keys = self.ask(get(&format!("{ROLES}{role}")), what).await?;
        from_json(&keys.body, what)
    }
}

impl Issuer for Instance {
    type Papers = Keys;

    fn issue(&self) -> Pending<'_, Issued<Keys>> {
        Box::pin(self.fetch())
    }
}
