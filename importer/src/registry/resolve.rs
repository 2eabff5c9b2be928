//! From a name to the layer with the disk.

use std::collections::BTreeMap;
use std::{panic, thread};

use bytes::Bytes;
use longshore_transfer::Source;

use super::digest::Digest;
use super::error::RegistryError;
use super::hunt::Hidden;
use super::labels;
use super::layer::DiskLayer;
use super::manifest::{Config, Descriptor, ImageManifest, MOST_TEXT, Manifest};
use super::platform::Platform;
use super::scan::{Seen, scan};
use crate::SourceOptions;

/// Indexes within indexes are followed this deep.
const MOST_NESTED: usize = 4;

/// A small text, and what whoever gave it says of it.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) bytes: Bytes,
    pub(super) media_type: String,
    /// The digest that it is said to have.
    pub(super) named: Option<Digest>,
}

/// Where content is. What it gives is checked here.
pub(super) trait Store: Sync {
    /// The manifest that the name means.
    fn root(&self) -> Result<Text, RegistryError>;

    /// A manifest by its digest.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Text, RegistryError>;

    /// A configuration.
    fn config(&self, descriptor: &Descriptor) -> Result<Text, RegistryError>;

    /// A layer, as it is stored.
    fn layer(&self, descriptor: &Descriptor) -> Result<Box<dyn Source>, RegistryError>;

    /// The digest that the root must have, if the name says so.
    fn wanted(&self) -> Option<&Digest>;
}

/// An image of which the disk's layer is known.
pub(super) struct Image {
    pub(super) disk: DiskLayer,
    pub(super) digest: Digest,
    pub(super) labels: BTreeMap<String, String>,
}

impl Image {
    /// Reads down to the configuration of the image for the platform, and finds its disk. `name` is for
    /// people.
    pub(super) fn choose(
        name: &str,
        store: &dyn Store,
        options: &SourceOptions,
    ) -> Result<Self, RegistryError> {
        let asked = options.registry.platform.as_ref();
        let platform = asked.cloned().unwrap_or_default();
        let (digest, manifest) = manifest_of(store, &platform)?;
        let (text, top) = config_and_top(store, &manifest);
        let text = text?;
        check(&manifest.config, "the image's configuration", &text)?;
        let config = Config::parse(&text.bytes, "the image's configuration")?;
        refuse_bootc(&config)?;
        if asked.is_some_and(|asked| {
            !config.architecture.is_empty() && config.architecture != asked.architecture()
        }) {
            tracing::warn!(
                architecture = config.architecture,
                "the image is for another architecture than was asked for, and there is no other"
            );
        }
        let labels = labels::of(&manifest, &config);
        let disk = disk(name, store, &manifest.layers, top)?;
        Ok(Self {
            disk,
            digest,
            labels,
        })
    }
}

/// What opening a layer came to.
type Opened = Result<Box<dyn Source>, RegistryError>;

/// The configuration and the uppermost layer, at the same time: far from a registry each of them takes
/// some round trips, and nearly always both are needed.
fn config_and_top(
    store: &dyn Store,
    manifest: &ImageManifest,
) -> (Result<Text, RegistryError>, Option<Opened>) {
    thread::scope(|scope| {
        let config = scope.spawn(|| store.config(&manifest.config));
        let top = manifest.layers.last();
        // What is refused for its kind is not asked for.
        let top = top.filter(|layer| refuse_kind(layer).is_ok());
        let top = top.map(|layer| store.layer(layer));
        let config = config.join();
        (config.unwrap_or_else(|e| panic::resume_unwind(e)), top)
    })
}

/// The manifest of the one image, by way of indexes.
fn manifest_of(
    store: &dyn Store,
    platform: &Platform,
) -> Result<(Digest, ImageManifest), RegistryError> {
    let what = "the manifest";
    let mut text = store.root()?;
    if let Some(wanted) = store.wanted().or(text.named.as_ref()) {
        wanted.check(what, &text.bytes)?;
    }
    for _ in 0..=MOST_NESTED {
        let (list, entries) = match Manifest::parse(&text.bytes, &text.media_type, what)? {
            Manifest::Image(manifest) => return Ok((Digest::of(&text.bytes), manifest)),
            Manifest::Index(list, entries) => (list, entries),
        };
        let Some(entry) = platform.choose(&entries) else {
            let has = entries.iter().filter_map(|entry| entry.platform.as_ref());
            let mut has: Vec<String> = has.map(ToString::to_string).take(20).collect();
            has.dedup();
            return Err(RegistryError::NoPlatform {
                list,
                architecture: platform.architecture().to_owned(),
                variant: platform.variant().to_owned(),
                os: platform.os().to_owned(),
                has,
            });
        };
        text = store.manifest(entry)?;
        check(entry, what, &text)?;
    }
    Err(RegistryError::malformed(
        what,
        format!("indexes lie in each other more than {MOST_NESTED} deep"),
    ))
}

/// Size and digest are as they were announced.
fn check(descriptor: &Descriptor, what: &str, text: &Text) -> Result<(), RegistryError> {
    if descriptor.size > MOST_TEXT || descriptor.size != text.bytes.len() as u64 {
        return Err(RegistryError::malformed(
            what,
            format!(
                "it has {} bytes where {} were announced, and at most {MOST_TEXT} are read",
                text.bytes.len(),
                descriptor.size
            ),
        ));
    }
    descriptor.digest.check(what, &text.bytes)
}

/// An operating system in a container has no disk, whatever lies in its directory `disk`.
fn refuse_bootc(config: &Config) -> Result<(), RegistryError> {
    for label in ["containers.bootc", "ostree.bootable"] {
        if matches!(config.label(label), Some("1" | "true")) {
            return Err(RegistryError::Bootc {
                label: label.to_owned(),
            });
        }
    }
    Ok(())
}

/// The layer with the disk, from the top, which may be open already. The lowest one is not looked into: it
/// has the disk, or nobody has, and that shows when it is read.
fn disk(
    name: &str,
    store: &dyn Store,
    layers: &[Descriptor],
    mut top: Option<Opened>,
) -> Result<DiskLayer, RegistryError> {
    let none = |why: String| RegistryError::NoDisk { why };
    let mut hidden = Hidden::default();
    for (at, descriptor) in layers.iter().enumerate().rev() {
        if hidden.all() {
            break;
        }
        refuse_kind(descriptor)?;
        let opened = top.take().unwrap_or_else(|| store.layer(descriptor));
        let layer = match opened {
            // Whoever pushed the image may have been allowed to push these, too.
            Err(error) if is_foreign(descriptor) => {
                tracing::debug!(%error, "a foreign layer is not there");
                return Err(RegistryError::Unsupported {
                    what: format!(
                        "the foreign layer {}, which the registry does not have,",
                        descriptor.digest
                    ),
                    next: "its bytes are at addresses that the image names, and images are not followed elsewhere: push it again with --allow-nondistributable-artifacts",
                });
            }
            layer => layer?,
        };
        let layer = DiskLayer::new(name, layer, descriptor, hidden.clone())?;
        if at == 0 {
            return Ok(layer);
        }
        tracing::info!(
            layer = %descriptor.digest,
            bytes = descriptor.size,
            "looking for a disk in one of several layers"
        );
        match scan(layer)? {
            Seen::Disk(layer) => return Ok(layer),
            Seen::Nothing(now) => hidden = now,
        }
    }
    if hidden.all() {
        return Err(none(
            "an upper layer takes its directory disk away".to_owned(),
        ));
    }
    Err(none("it has no layers".to_owned()))
}

/// Layers that may not be given away by everybody.
fn is_foreign(descriptor: &Descriptor) -> bool {
    let kind = &descriptor.media_type;
    kind.contains(".foreign.") || kind.contains(".nondistributable.")
}

/// Layers that are no tar, by what they say they are.
fn refuse_kind(descriptor: &Descriptor) -> Result<(), RegistryError> {
    if descriptor.media_type.contains("+encrypted") {
        return Err(RegistryError::Unsupported {
            what: format!("the encrypted layer {}", descriptor.digest),
            next: "decrypt the image with skopeo copy --decryption-key, and import the copy",
        });
    }
    Ok(())
}
