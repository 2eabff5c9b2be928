//! The kubelet's registration: it finds a socket in its folder, asks who is there, and tells what became of
//! it (`pluginregistration` v1).

use std::path::{Path, PathBuf};

use crate::grpc::{Service, Status, answer};
use crate::proto::{Empty, Registered, RegistrationStatus};
use crate::unknown;

/// The socket in the kubelet's folder of plugins.
///
/// The kubelet (1.34) dials its path without saying which authority it means, so that gRPC takes the whole
/// path for one, with its slashes as `%2F`. An authority like this is malformed, and h2 refuses it, unless
/// what is escaped comes before an `@`: then it is somebody's name at the host `reg.sock`.
#[must_use]
pub fn socket(folder: &Path) -> PathBuf {
    folder.join("csi@reg.sock")
}

/// What answers there.
#[derive(Debug)]
pub struct Registration {
    /// The driver's name.
    pub name: String,
    /// Where its calls are answered.
    pub endpoint: PathBuf,
}

impl Registration {
    fn info(&self) -> Registered {
        Registered {
            kind: "CSIPlugin".to_owned(),
            name: self.name.clone(),
            endpoint: self.endpoint.display().to_string(),
            versions: vec!["1.0.0".to_owned()],
        }
    }
}

impl Service for Registration {
    fn call(&self, method: &str, message: &[u8]) -> Result<Vec<u8>, Status> {
        match method {
            "/pluginregistration.Registration/GetInfo" => {
                answer(message, |_: Empty| Ok(self.info()))
            }
            "/pluginregistration.Registration/NotifyRegistrationStatus" => {
                answer(message, |status: RegistrationStatus| {
                    if status.registered {
                        tracing::info!("the kubelet knows the driver");
                    } else {
                        tracing::error!(error = status.error, "the kubelet refuses the driver");
                    }
                    Ok(Empty {})
                })
            }
            _ => Err(unknown(method)),
        }
    }
}
