//! Finds what a `cloudInitNoCloud` volume hands to the guest.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use longshore_crds::{
    FieldPath, Manifest, meta::LocalObjectReference,
    virtual_machine_instance::volume::CloudInitVolume,
};

use super::{identity::Identity, problem::ProblemKind, report::Report};
use crate::cloud_init::Seed;

/// Most bytes of inline data that a cluster takes.
const MAX_INLINE: usize = 2048;

/// One of the three ways to write user data, or network data.
struct Given<'a> {
    names: [&'static str; 3],
    choices: &'static str,
    plain: Option<&'a String>,
    base64: Option<&'a String>,
    secret: Option<&'a LocalObjectReference>,
    /// Spellings of the key in the secret.
    keys: [&'static str; 2],
}

/// The image of the disk with the data; `None` after a problem was reported.
pub(super) fn image(
    source: &CloudInitVolume,
    manifest: &Manifest,
    identity: &Identity,
    at: &FieldPath,
    report: &mut Report,
) -> Option<Vec<u8>> {
    let user = Given {
        names: ["userData", "userDataBase64", "secretRef"],
        choices: "userData, userDataBase64 or secretRef",
        plain: source.user_data.as_ref(),
        base64: source.user_data_base64.as_ref(),
        secret: source.secret_ref.as_ref(),
        keys: ["userdata", "userData"],
    };
    let network = Given {
        names: ["networkData", "networkDataBase64", "networkDataSecretRef"],
        choices: "networkData, networkDataBase64 or networkDataSecretRef",
        plain: source.network_data.as_ref(),
        base64: source.network_data_base64.as_ref(),
        secret: source.network_data_secret_ref.as_ref(),
        keys: ["networkdata", "networkData"],
    };
    if user.set().is_empty() && network.set().is_empty() {
        report.problem(
            at,
            ProblemKind::ExactlyOne {
                choices: user.choices,
                found: Vec::new(),
            },
        );
        return None;
    }
    let user_data = user.bytes(manifest, at, report);
    let network_config = network.bytes(manifest, at, report);
    let seed = Seed {
        instance_id: identity.uuid.clone(),
        hostname: identity.hostname.clone(),
        user_data: user_data.ok()?.unwrap_or_default(),
        network_config: network_config.ok()?,
    };
    match seed.image() {
        Ok(image) => Some(image),
        Err(source) => {
            report.problem(at, ProblemKind::CloudInit { source });
            None
        }
    }
}

/// A problem was reported.
struct Reported;

impl Given<'_> {
    fn set(&self) -> Vec<&'static str> {
        let set = [
            self.plain.is_some(),
            self.base64.is_some(),
            self.secret.is_some(),
        ];
        let named = self.names.into_iter().zip(set);
        named
            .filter_map(|(name, is_set)| is_set.then_some(name))
            .collect()
    }

    fn bytes(
        &self,
        manifest: &Manifest,
        at: &FieldPath,
        report: &mut Report,
    ) -> Result<Option<Vec<u8>>, Reported> {
        let found = self.set();
        if found.len() > 1 {
            report.problem(
                at,
                ProblemKind::ExactlyOne {
                    choices: self.choices,
                    found,
                },
            );
            return Err(Reported);
        }
        let Some(name) = found.first() else {
            return Ok(None);
        };
        let path = at.key(*name);
        self.read(manifest).map(Some).map_err(|kind| {
            report.problem(&path, kind);
            Reported
        })
    }

    fn read(&self, manifest: &Manifest) -> Result<Vec<u8>, ProblemKind> {
        if let Some(reference) = self.secret {
            let name = &reference.name;
            let secret = manifest
                .secret(name)
                .ok_or_else(|| ProblemKind::NoSecret { name: name.clone() })?;
            let [first, second] = self.keys;
            let key = if secret.keys().contains(&second) {
                second
            } else {
                first
            };
            return Ok(secret.value(key)?);
        }
        let inline = self.plain.or(self.base64).map_or("", String::as_str);
        let bytes = if self.plain.is_some() {
            inline.as_bytes().to_vec()
        } else {
            // Long values are often broken into lines.
            let compact: String = inline.split_ascii_whitespace().collect();
            STANDARD
                .decode(compact)
                .map_err(|_| ProblemKind::NotBase64)?
        };
        if bytes.len() > MAX_INLINE {
            return Err(ProblemKind::InlineTooLong {
                length: bytes.len(),
                limit: MAX_INLINE,
            });
        }
        Ok(bytes)
    }
}
