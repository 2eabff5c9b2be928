//! What an object store may need besides a bucket and a key.

use std::fmt;
use std::path::PathBuf;

use super::ambient::Ambient;

/// How to reach an object. What is not given is found in the environment, as the stores' own tools do.
#[derive(Debug, Clone, Default)]
pub struct ObjectOptions {
    /// Host, host and port, or URL of a store that is not Amazon's or Google's own.
    pub endpoint: Option<String>,
    /// Region that S3 signatures are for.
    pub region: Option<String>,
    /// Where S3's bucket goes.
    pub style: S3Style,
    /// Ask without credentials, whatever there are.
    pub anonymous: bool,
    /// Keys for S3.
    pub s3_keys: Option<S3Keys>,
    /// File with the key of a Google service account.
    pub google_key: Option<PathBuf>,
    /// The environment.
    pub ambient: Ambient,
}

/// Where the name of an S3 bucket goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum S3Style {
    /// Into the host's name at Amazon, else into the path.
    #[default]
    Auto,
    /// `https://host/bucket/key`
    Path,
    /// `https://bucket.host/key`
    VirtualHost,
}

/// An access key. Only its id is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Keys {
    /// Id of the access key.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: String,
    /// What temporary keys come with.
    pub session_token: Option<String>,
}

impl fmt::Debug for S3Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Keys")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_shown_without_their_secrets() {
        let options = ObjectOptions {
            s3_keys: Some(S3Keys {
                access_key_id: "AKID".to_owned(),
                secret_access_key: "hush".to_owned(),
                session_token: Some("hush".to_owned()),
            }),
            ambient: Ambient::only([("AWS_SECRET_ACCESS_KEY", "hush")]),
            ..ObjectOptions::default()
        };
        let shown = format!("{options:?}");
        assert!(shown.contains("AKID") && !shown.contains("hush"), "{shown}");
    }
}
