//! Keys for a service account of Kubernetes: its token, shown to Amazon's STS, becomes a role's keys.

use std::path::PathBuf;

use url::Url;

use super::{Keys, issued};
use crate::http::error::{HttpError, Retry};
use crate::http::passport::Pending;
use crate::object::desk::{Desk, Form, is_safe, refused, unanswered};
use crate::object::key;
use crate::object::lease::{Issued, Issuer};
use crate::object::refusal::presentable;
use crate::object::secret::Secret;
use crate::object::xml;
use crate::{Ambient, Error, Result};

/// A role that a file with a token gives a right to.
#[derive(Debug)]
pub(super) struct WebIdentity {
    /// Written anew from time to time, so it is read for each request.
    token_file: PathBuf,
    role: String,
    session: String,
    endpoint: Url,
    desk: Desk,
}

impl WebIdentity {
    pub(super) fn find(ambient: &Ambient, region: &str, desk: Desk) -> Result<Option<Self>> {
        let (Some(file), Some(role)) = (
            ambient.get("AWS_WEB_IDENTITY_TOKEN_FILE"),
            ambient.get("AWS_ROLE_ARN"),
        ) else {
            return Ok(None);
        };
        let bad = |why: String| Error::Credentials {
            why: format!("the address of STS makes no sense: {why}"),
        };
        let endpoint = ambient.first(&["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"]);
        let endpoint = endpoint.unwrap_or_else(|| {
            // Roles are of the region they are used from, where that is known.
            let region = ambient
                .first(&["AWS_REGION", "AWS_DEFAULT_REGION"])
                .unwrap_or_else(|| region.to_owned());
            let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
            format!("https://sts.{region}.amazonaws.com{suffix}")
        });
        let endpoint = key::base(&endpoint, "https").map_err(bad)?;
        if !is_safe(&endpoint) {
            return Err(bad("a token is not sent over http".to_owned()));
        }
        Ok(Some(Self {
            token_file: file.into(),
            role,
            session: ambient
                .get("AWS_ROLE_SESSION_NAME")
                .unwrap_or_else(|| "longshore".to_owned()),
            endpoint,
            desk,
        }))
    }

    async fn assume(&self) -> Result<Issued<Keys>, HttpError> {
        let host = crate::http::location::host(&self.endpoint);
        let what = format!("keys for {} from {host}", self.role);
        let token = tokio::fs::read_to_string(&self.token_file).await;
        let token = token.map_err(|e| {
            let file = self.token_file.display();
            refused(
                &what,
                format!("could not read {file}: {e}"),
                Retry::Permanent,
            )
        })?;
        let token = Secret::new(token.trim());
        let fields = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", &self.role),
            ("RoleSessionName", &self.session),
            ("WebIdentityToken", token.expose()),
        ];
        let form = Form::post(self.endpoint.clone(), &fields);
        let reply = self
            .desk
            .ask(&form)
            .await
            .map_err(|e| unanswered(&what, e))?;
        let found = xml::texts(
            &reply.body,
            &[
                "AccessKeyId",
                "SecretAccessKey",
                "SessionToken",
                "Expiration",
                "Code",
                "Message",
            ],
        );
        let text = |name: &str| found.get(name).map(String::as_str);
        if reply.status != 200 {
            let said = match (text("Code"), text("Message")) {
                (Some(code), Some(message)) => format!("{} {code} ({message})", reply.status),
                _ => reply.status.to_string(),
            };
            let why = format!("it answered {}", presentable(&said, &[&token]));
            return Err(refused(&what, why, Retry::Unauthorized));
        }
        issued(
            text("AccessKeyId"),
            text("SecretAccessKey"),
            text("SessionToken"),
            text("Expiration"),
        )
        .ok_or_else(|| refused(&what, "the answer has no keys", Retry::Permanent))
    }
}

impl Issuer for WebIdentity {
    type Papers = Keys;

    fn issue(&self) -> Pending<'_, Issued<Keys>> {
        Box::pin(self.assume())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SourceOptions;

    fn find(variables: &[(&str, &str)]) -> Result<Option<WebIdentity>> {
        let mut all = vec![
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
        ];
        all.extend(variables);
        let desk = Desk::new(&SourceOptions::default());
        WebIdentity::find(&Ambient::only(all), "eu-west-1", desk)
    }

    #[test]
    fn sts_is_that_of_the_region_or_the_one_that_is_named() {
        let endpoint = |variables| find(variables).unwrap().unwrap().endpoint.to_string();
        assert_eq!(endpoint(&[]), "https://sts.eu-west-1.amazonaws.com/");
        let china = [("AWS_REGION", "cn-north-1")];
        assert_eq!(endpoint(&china), "https://sts.cn-north-1.amazonaws.com.cn/");
        let own = [("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")];
        assert_eq!(endpoint(&own), "http://127.0.0.1:1/");
        assert!(find(&[("AWS_ENDPOINT_URL_STS", "http://sts.lan")]).is_err());
    }
}
