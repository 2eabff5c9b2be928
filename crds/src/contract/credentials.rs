//! What lets an importer in.

use std::ffi::OsString;
use std::path::PathBuf;

use super::vars::Vars;
use super::{EnvError, Secret, variables};

/// Secrets of a source. They come from the environment (`secretKeyRef`) or as mounted files, and never
/// go into an argument, a message or a log.
///
/// There is no way to write them out: the controller refers to the Secret by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// User name, or access key.
    pub access_key_id: Option<Secret>,
    /// Password, or secret key.
    pub secret_key: Option<Secret>,
    /// Token that goes with temporary keys.
    pub session_token: Option<Secret>,
    /// File with the key of a Google service account.
    pub google: Option<PathBuf>,
    /// Mounted Secret, whose files are named as its keys.
    pub directory: Option<PathBuf>,
}

impl Credentials {
    /// Keys of a mounted Secret: [`Credentials::access_key_id`].
    pub const ACCESS_KEY_ID_FILE: &str = "accessKeyId";
    /// Keys of a mounted Secret: [`Credentials::secret_key`].
    pub const SECRET_KEY_FILE: &str = "secretKey";
    /// Keys of a mounted Secret: [`Credentials::session_token`].
    pub const SESSION_TOKEN_FILE: &str = "sessionToken";
    /// Keys of a mounted Secret: logins of registries, as kubectl makes them.
    pub const DOCKER_CONFIG_FILE: &str = ".dockerconfigjson";

    /// What the environment holds; `get` reads one variable of it.
    pub fn from_env(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, EnvError> {
        let vars = Vars(&get);
        let secret = |variable| Ok(vars.text(variable)?.map(Secret::from));
        Ok(Self {
            access_key_id: secret(variables::ACCESS_KEY_ID)?,
            secret_key: secret(variables::SECRET_KEY)?,
            session_token: secret(variables::SESSION_TOKEN)?,
            google: vars.path(variables::GOOGLE_CREDENTIALS),
            directory: vars.path(variables::CREDENTIALS_DIR),
        })
    }
}
