//! A service account's key, and the assertion it signs: RFC 7523, RS256.

use std::fmt;
use std::time::SystemTime;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use url::Url;

use crate::object::clock;
use crate::object::desk::is_safe;

/// Reading is all we do.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_only";
const GOOGLE: &str = "https://oauth2.googleapis.com/token";
/// As long as is allowed.
const LIFE: u64 = 3600;

/// Who a file says we are.
pub(super) enum Account {
    /// A service account, by its private key.
    Service {
        email: String,
        key_id: Option<String>,
        key: Box<KeyPair>,
        token_uri: Url,
    },
    /// A person who has logged in with `gcloud`.
    User {
        fields: [(&'static str, String); 3],
        token_uri: Url,
    },
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Account");
        if let Self::Service { email, .. } = self {
            shown.field("email", email);
        }
        shown.finish_non_exhaustive()
    }
}

impl Account {
    /// Reads a file of credentials. The error never has any of it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let file: Value = serde_json::from_str(text).map_err(|_| "it is no JSON".to_owned())?;
        let field = |name: &str| file.get(name).and_then(Value::as_str).map(str::to_owned);
        let needed = |name: &str| field(name).ok_or_else(|| format!("it has no `{name}`"));
        let token_uri = field("token_uri").unwrap_or_else(|| GOOGLE.to_owned());
        let token_uri = Url::parse(&token_uri).map_err(|e| format!("its `token_uri`: {e}"))?;
        if !is_safe(&token_uri) {
            return Err("its `token_uri` is not https".to_owned());
        }
        match field("type").as_deref() {
            Some("service_account") => Ok(Self::Service {
                email: needed("client_email")?,
                key_id: field("private_key_id"),
                key: Box::new(private_key(&needed("private_key")?)?),
                token_uri,
            }),
            Some("authorized_user") => Ok(Self::User {
                fields: [
                    ("client_id", needed("client_id")?),
                    ("client_secret", needed("client_secret")?),
                    ("refresh_token", needed("refresh_token")?),
                ],
                token_uri,
            }),
            Some(other) => Err(format!(
                "it is of the type `{other}`, and only service_account and authorized_user are known"
            )),
            None => Err("it has no `type`: is it the key of a service account?".to_owned()),
        }
    }

    pub(super) fn token_uri(&self) -> &Url {
        match self {
            Self::Service { token_uri, .. } | Self::User { token_uri, .. } => token_uri,
        }
    }

    /// What is sent to the token server.
    pub(super) fn fields(&self, now: SystemTime) -> Result<Vec<(&'static str, String)>, String> {
        match self {
            Self::Service {
                email,
                key_id,
                key,
                token_uri,
            } => {
                let assertion = assertion(email, key_id.as_deref(), key, token_uri, now)?;
                Ok(vec![
                    (
                        "grant_type",
                        "urn:ietf:params:oauth:grant-type:jwt-bearer".to_owned(),
                    ),
                    ("assertion", assertion),
                ])
            }
            Self::User { fields, .. } => {
                let grant = ("grant_type", "refresh_token".to_owned());
                Ok([&[grant], &fields[..]].concat())
            }
        }
    }
}

fn private_key(pem: &str) -> Result<KeyPair, String> {
    let unusable = || "its `private_key` is no RSA key in PEM".to_owned();
    match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
        Ok(PrivateKeyDer::Pkcs8(der)) => KeyPair::from_pkcs8(der.secret_pkcs8_der()),
        Ok(PrivateKeyDer::Pkcs1(der)) => KeyPair::from_der(der.secret_pkcs1_der()),
        _ => return Err(unusable()),
    }
    .map_err(|_| unusable())
}

fn assertion(
    email: &str,
    key_id: Option<&str>,
    key: &KeyPair,
    token_uri: &Url,
    now: SystemTime,
) -> Result<String, String> {
    let mut header = json!({"alg": "RS256", "typ": "JWT"});
    if let (Some(id), Some(header)) = (key_id, header.as_object_mut()) {
        header.insert("kid".to_owned(), id.into());
    }
    let now = clock::seconds(now);
    let claims = json!({
        "iss": email,
        "scope": SCOPE,
        "aud": token_uri.as_str(),
        "iat": now,
        "exp": now.saturating_add(LIFE),
    });
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let text = format!(
        "{}.{}",
        encode(header.to_string().as_bytes()),
        encode(claims.to_string().as_bytes())
    );
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        text.as_bytes(),
        &mut signature,
    )
    .map_err(|_| "its key cannot sign".to_owned())?;
    Ok(format!("{text}.{}", encode(&signature)))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn file(key: &KeyPair, token_uri: &str) -> String {
        let der = key.as_der().unwrap();
        let body = STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        json!({
            "type": "service_account",
            "client_email": "me@project",
            "private_key_id": "k1",
            "private_key": pem,
            "token_uri": token_uri,
        })
        .to_string()
    }

    #[test]
    fn an_assertion_is_what_the_specification_wants_and_verifies() {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let account = Account::parse(&file(&pair, "https://t.lan/token")).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let fields = account.fields(now).unwrap();
        assert_eq!(fields[0].1, "urn:ietf:params:oauth:grant-type:jwt-bearer");
        let (text, signature) = fields[1].1.rsplit_once('.').unwrap();
        let (header, claims) = text.split_once('.').unwrap();
        let read = |part: &str| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        assert_eq!(
            read(header),
            json!({"alg": "RS256", "typ": "JWT", "kid": "k1"})
        );
        assert_eq!(
            read(claims),
            json!({"iss": "me@project", "scope": SCOPE, "aud": "https://t.lan/token", "iat": 1_000_000, "exp": 1_003_600})
        );
        let public =
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref());
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        public.verify(text.as_bytes(), &signature).unwrap();
        let shown = format!("{account:?}");
        assert!(
            shown.contains("me@project") && !shown.contains("key"),
            "{shown}"
        );
    }

    #[test]
    fn files_that_are_no_use_say_why_and_show_nothing() {
        let service =
            json!({"type": "service_account", "client_email": "e", "private_key": "hush"});
        let plain = json!({"type": "service_account", "token_uri": "http://t.lan/hush"});
        for (text, why) in [
            ("hush".to_owned(), "JSON"),
            ("{\"private_key\": \"hush\"}".to_owned(), "`type`"),
            (
                json!({"type": "external_account", "x": "hush"}).to_string(),
                "external_account",
            ),
            (
                json!({"type": "service_account", "x": "hush"}).to_string(),
                "client_email",
            ),
            (service.to_string(), "private_key"),
            (plain.to_string(), "https"),
        ] {
            let error = Account::parse(&text).unwrap_err();
            assert!(error.contains(why) && !error.contains("hush"), "{error}");
        }
    }
}
