//! Manifests, indexes and configurations: the fields that lead to a disk.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::digest::Digest;
use super::error::RegistryError;
use super::platform::Offered;

/// Most bytes of a manifest, an index or a configuration. Registries refuse larger ones.
pub(super) const MOST_TEXT: u64 = 4 << 20;
/// Most layers of an image: what filesystems can mount is a quarter of it.
const MOST_LAYERS: usize = 512;
/// Most images in an index.
const MOST_IMAGES: usize = 4096;

/// What may be answered when a manifest is asked for. Schema 1 is not among them: a registry converts
/// for who does not ask for more.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// Content by its digest.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) platform: Option<Offered>,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// What buildkit puts beside an image: who built it, and of what.
    pub(super) fn is_about_another(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.digest")
    }
}

/// What a manifest is.
#[derive(Debug)]
pub(super) enum Manifest {
    /// One image.
    Image(ImageManifest),
    /// Several, and how upstream calls their list.
    Index(&'static str, Vec<Descriptor>),
}

#[derive(Debug)]
pub(super) struct ImageManifest {
    pub(super) config: Descriptor,
    /// From the bottom.
    pub(super) layers: Vec<Descriptor>,
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Manifest {
    /// Reads one; `media_type` is what came with it.
    pub(super) fn parse(bytes: &[u8], media_type: &str, what: &str) -> Result<Self, RegistryError> {
        let old = |kind: &str| kind.contains("docker.distribution.manifest.v1+");
        let document: Document = json(bytes, what)?;
        let kind = document.media_type.as_deref().unwrap_or(media_type);
        if document.schema_version == Some(1) || old(kind) || old(media_type) {
            return Err(RegistryError::Unsupported {
                what: format!("{what}, of Docker's schema 1,"),
                next: "push the image again with a tool of this decade; it then has a manifest of schema 2",
            });
        }
        let list = match kind {
            kind if kind.contains("manifest.list") => "manifest list",
            _ => "image index",
        };
        match document {
            // One document must not be two things to two readers.
            Document {
                layers: Some(_),
                manifests: Some(_),
                ..
            } => Err(RegistryError::malformed(
                what,
                "it is an image and an index at the same time",
            )),
            Document {
                manifests: Some(manifests),
                ..
            } if manifests.len() > MOST_IMAGES => Err(RegistryError::malformed(
                what,
                format!(
                    "it lists {} images, more than {MOST_IMAGES}",
                    manifests.len()
                ),
            )),
            Document {
                manifests: Some(manifests),
                ..
            } => Ok(Self::Index(list, manifests)),
            Document {
                layers: Some(layers),
                ..
            } if layers.len() > MOST_LAYERS => Err(RegistryError::malformed(
                what,
                format!("it has {} layers, more than {MOST_LAYERS}", layers.len()),
            )),
            Document {
                config: Some(config),
                layers: Some(layers),
                annotations,
                ..
            } => Ok(Self::Image(ImageManifest {
                config,
                layers,
                annotations: annotations.unwrap_or_default(),
            })),
            _ => Err(RegistryError::malformed(
                what,
                "it is neither an image nor an index of images",
            )),
        }
    }
}

/// What an image says of itself.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default, rename = "config")]
    settings: Option<Settings>,
    /// Of the layers once unpacked.
    #[serde(default)]
    rootfs: Option<RootFs>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

impl Config {
    pub(super) fn parse(bytes: &[u8], what: &str) -> Result<Self, RegistryError> {
        json(bytes, what)
    }

    pub(super) fn env(&self) -> &[String] {
        let env = self.settings.as_ref().and_then(|c| c.env.as_deref());
        env.unwrap_or_default()
    }

    pub(super) fn label(&self, name: &str) -> Option<&str> {
        let labels = self.settings.as_ref()?.labels.as_ref()?;
        labels.get(name).map(String::as_str)
    }

    pub(super) fn labels(&self) -> impl Iterator<Item = (&String, &String)> {
        let labels = self.settings.as_ref().and_then(|c| c.labels.as_ref());
        labels.into_iter().flatten()
    }

    /// Digests of the unpacked layers, from the bottom.
    pub(super) fn diff_ids(&self) -> &[Digest] {
        let ids = self.rootfs.as_ref().and_then(|r| r.diff_ids.as_deref());
        ids.unwrap_or_default()
    }
}

pub(super) fn json<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    what: &str,
) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes).map_err(|e| RegistryError::malformed(what, e.to_string()))
}

#[cfg(test)]
impl Descriptor {
    /// Some descriptor of that size.
    pub(super) fn test(size: u64) -> Self {
        Self {
            media_type: String::new(),
            digest: Digest::of(b""),
            size,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor() -> String {
        format!(r#"{{"digest":"sha256:{}","size":1}}"#, "0".repeat(64))
    }

    fn parsed(text: &str, media_type: &str) -> Result<Manifest, RegistryError> {
        Manifest::parse(text.as_bytes(), media_type, "the manifest")
    }

    #[test]
    fn images_and_indexes_are_told_by_their_content() {
        let d = descriptor();
        let image = format!(r#"{{"schemaVersion":2,"config":{d},"layers":[{d},{d}]}}"#);
        assert!(matches!(parsed(&image, ""), Ok(Manifest::Image(i)) if i.layers.len() == 2));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{d}]}}"#);
        assert!(matches!(
            parsed(&index, ""),
            Ok(Manifest::Index("image index", _))
        ));
        let list = "application/vnd.docker.distribution.manifest.list.v2+json";
        assert!(matches!(
            parsed(&index, list),
            Ok(Manifest::Index("manifest list", _))
        ));
    }

    #[test]
    fn schema_1_is_refused_by_name() {
        let old = r#"{"schemaVersion":1,"fsLayers":[{"blobSum":"sha256:00"}]}"#;
        let refused = parsed(old, "").unwrap_err();
        assert!(refused.to_string().contains("schema 1"), "{refused}");
        assert!(matches!(refused, RegistryError::Unsupported { .. }));
    }

    #[test]
    fn ambiguous_oversized_and_empty_documents_are_refused() {
        let d = descriptor();
        let many = vec![d.as_str(); MOST_LAYERS + 1].join(",");
        for text in [
            String::new(),
            "[]".to_owned(),
            "{}".to_owned(),
            "[".repeat(100_000),
            format!(r#"{{"layers":[{d}]}}"#),
            format!(r#"{{"config":{d},"layers":[{d}],"manifests":[{d}]}}"#),
            format!(r#"{{"config":{d},"layers":[{many}]}}"#),
            r#"{"manifests":[{"digest":"sha256:../../x","size":1}]}"#.to_owned(),
            format!(r#"{{"config":{d},"layers":[{{"digest":"x","size":-1}}]}}"#),
        ] {
            let refused = parsed(&text, "");
            assert!(matches!(refused, Err(RegistryError::Malformed { .. })));
        }
    }
}
