//! Keys from the agent beside a container: Amazon's ECS, and the pod identities of EKS.

use std::net::IpAddr;
use std::path::PathBuf;

use url::{Host, Url};

use super::{Keys, from_json};
use crate::http::error::{HttpError, Retry};
use crate::http::passport::Pending;
use crate::object::desk::{Desk, Form, is_safe, refused, unanswered};
use crate::object::lease::{Issued, Issuer};
use crate::object::secret::Secret;
use crate::{Ambient, Error, Result};

/// Where ECS has its agent, and where EKS has: the only addresses besides loopback that may be asked without
/// TLS.
const AGENTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// An agent that knows who we are.
#[derive(Debug)]
pub(super) struct Container {
    url: Url,
    token: Token,
    desk: Desk,
}

#[derive(Debug)]
enum Token {
    None,
    Given(Secret),
    /// Written anew from time to time.
    File(PathBuf),
}

impl Container {
    pub(super) fn find(ambient: &Ambient, desk: Desk) -> Result<Option<Self>> {
        let relative = ambient.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let address = match relative {
            Some(path) => format!("http://{}{path}", AGENTS[0]),
            None => match ambient.get("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
                Some(address) => address,
                None => return Ok(None),
            },
        };
        let bad = |why: &str| Error::Credentials {
            why: format!("the address of the container's credentials {why}"),
        };
        let url = Url::parse(&address).map_err(|_| bad("is no URL"))?;
        if !is_safe(&url) && !is_agent(&url) {
            return Err(bad("is neither https nor one of this machine"));
        }
        let file = ambient.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
        let token = match (file, ambient.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")) {
            (Some(file), _) => Token::File(file.into()),
            (None, Some(token)) => Token::Given(Secret::new(token)),
            (None, None) => Token::None,
        };
        Ok(Some(Self { url, token, desk }))
    }

    async fn fetch(&self) -> Result<Issued<Keys>, HttpError> {
        let what = format!("keys from {}", crate::http::location::host(&self.url));
        let mut form = Form::get(self.url.clone());
        let token = match &self.token {
            Token::None => None,
            Token::Given(token) => Some(token.expose().to_owned()),
            Token::File(path) => {
                let text = tokio::fs::read_to_string(path).await.map_err(|e| {
                    let why = format!("could not read {}: {e}", path.display());
                    refused(&what, why, Retry::Permanent)
                })?;
                Some(text.trim().to_owned())
            }
        };
        if let Some(token) = token {
            form = form.header("authorization", token);
        }
        let reply = self.desk.ask_nearby(&form).await;
        let reply = reply.map_err(|e| unanswered(&what, e))?;
        if reply.status != 200 {
            let why = format!("it answered {}", reply.status);
            return Err(refused(&what, why, Retry::after(reply.status)));
        }
        from_json(&reply.body, &what)
    }
}

fn is_agent(url: &Url) -> bool {
    let ip = match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
        _ => return false,
    };
    AGENTS.contains(&ip.to_string().as_str())
}

impl Issuer for Container {
    type Papers = Keys;

    fn issue(&self) -> Pending<'_, Issued<Keys>> {
        Box::pin(self.fetch())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SourceOptions;

    fn find(name: &str, value: &str) -> Result<Option<Container>> {
        let desk = Desk::new(&SourceOptions::default());
        Container::find(&Ambient::only([(name, value)]), desk)
    }

    #[test]
    fn agents_are_on_this_machine_or_behind_tls() {
        let full = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
        for good in [
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://127.0.0.1:9/x",
            "https://agent.lan/x",
        ] {
            assert!(find(full, good).unwrap().is_some(), "{good}");
        }
        for bad in ["http://169.254.170.24/", "http://agent.lan/", "nothing"] {
            assert!(find(full, bad).is_err(), "{bad}");
        }
        let relative = find("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x").unwrap();
        assert_eq!(relative.unwrap().url.as_str(), "http://169.254.170.2/v2/x");
    }
}
