//! The disk from which cloud-init in the guest takes its configuration, in `NoCloud` form.
//!
//! A `NoCloud` disk is any file system labelled `cidata` with `user-data`, `meta-data` and, if
//! there is one, `network-config` at its top. What is in them is the user's business; where they
//! come from is the plan's.

use std::fmt;

use serde_json::json;

use crate::iso::{self, IsoError};

/// Label by which cloud-init finds the disk.
pub const LABEL: &str = "cidata";

/// What is handed to the guest. `Debug` shows no content: there are passwords among it.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed {
    /// A new one makes cloud-init run its once-per-instance steps again.
    pub instance_id: String,
    /// Host name of the guest.
    pub hostname: String,
    /// A cloud-config, a script, or whatever else cloud-init takes; may be empty.
    pub user_data: Vec<u8>,
    /// Network configuration; the guest's own default where there is none.
    pub network_config: Option<Vec<u8>>,
}

impl Seed {
    /// The image of the disk, the same bytes for the same seed.
    pub fn image(&self) -> Result<Vec<u8>, IsoError> {
        let meta_data = json!({
            "instance-id": self.instance_id,
            "local-hostname": self.hostname,
        })
        .to_string();
        let mut files = vec![
            iso::File {
                name: "meta-data",
                bytes: meta_data.as_bytes(),
            },
            // cloud-init passes over a disk without user data, be it empty.
            iso::File {
                name: "user-data",
                bytes: &self.user_data,
            },
        ];
        if let Some(bytes) = &self.network_config {
            files.push(iso::File {
                name: "network-config",
                bytes,
            });
        }
        iso::image(LABEL, &files)
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seed")
            .field("instance_id", &self.instance_id)
            .field("hostname", &self.hostname)
            .field("user_data_len", &self.user_data.len())
            .field(
                "network_config_len",
                &self.network_config.as_ref().map(Vec::len),
            )
            .finish()
    }
}
