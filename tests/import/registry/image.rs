//! Our own writer of images: layers byte by byte, so that it can write what no tool would.

use std::collections::BTreeMap;
use std::path::Path;

use longshore_tests::data::packed;
use longshore_tests::http::Page;
use longshore_tests::registry::Registry;
use longshore_transfer::{Algorithm, Hasher};
use serde_json::{Value, json};

/// How a layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

pub(super) const EVERY_PACKING: [Packing; 3] = [Packing::Plain, Packing::Gzip, Packing::Zstd];

impl Packing {
    pub(super) fn pack(self, bytes: &[u8]) -> Vec<u8> {
        let tool = match self {
            Self::Plain => return bytes.to_vec(),
            Self::Gzip => "gzip -1",
            Self::Zstd => "zstd -1",
        };
        packed(tool, bytes)
    }

    pub(super) fn media_type(self) -> String {
        let suffix = match self {
            Self::Plain => "",
            Self::Gzip => "+gzip",
            Self::Zstd => "+zstd",
        };
        format!("application/vnd.oci.image.layer.v1.tar{suffix}")
    }
}

/// A tar in the making.
#[derive(Debug, Clone, Default)]
pub(super) struct Tar {
    bytes: Vec<u8>,
    owner: u32,
}

impl Tar {
    pub(super) fn file(self, path: &str, bytes: &[u8]) -> Self {
        self.entry(path, b'0', "", bytes)
    }

    pub(super) fn entry(mut self, path: &str, kind: u8, link: &str, bytes: &[u8]) -> Self {
        self.header(path, kind, link, bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// What follows belongs to this user and group.
    pub(super) fn owned(mut self, by: u32) -> Self {
        self.owner = by;
        self
    }

    /// A header for `size` bytes that need not follow.
    pub(super) fn header(&mut self, path: &str, kind: u8, link: &str, size: u64) {
        let mut block = [0; 512];
        let mut put = |at: usize, text: &str| {
            block[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        put(0, path);
        put(100, "0000644\0");
        put(108, &format!("{:07o}\0", self.owner));
        put(116, &format!("{:07o}\0", self.owner));
        put(124, &format!("{size:011o}\0"));
        put(136, "00000000000\0");
        put(148, "        ");
        put(157, link);
        put(257, "ustar\x0000");
        block[156] = kind;
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend(block);
    }

    /// Ended as it should be.
    pub(super) fn done(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }

    /// Not ended at all.
    pub(super) fn cut(self) -> Vec<u8> {
        self.bytes
    }
}

/// A layer with a disk.
pub(super) fn layer_with(disk: &[u8]) -> Vec<u8> {
    Tar::default()
        .entry("disk/", b'5', "", &[])
        .file("disk/disk.img", disk)
        .done()
}

pub(super) fn digest(bytes: &[u8]) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(bytes);
    format!("sha256:{}", hasher.hex())
}

/// Content by digest, and what tags name.
#[derive(Debug, Clone, Default)]
pub(super) struct Images {
    blobs: BTreeMap<String, (String, Vec<u8>)>,
    tags: Vec<(String, Value)>,
}

impl Images {
    /// Adds content; its descriptor.
    pub(super) fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let (digest, size) = (digest(&bytes), bytes.len());
        self.blobs
            .insert(digest.clone(), (media_type.to_owned(), bytes));
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    }

    pub(super) fn document(&mut self, document: &Value) -> Value {
        let media_type = document["mediaType"].as_str().unwrap_or("").to_owned();
        self.blob(&media_type, document.to_string().into_bytes())
    }

    /// Adds an image of these tars, from the bottom; its descriptor.
    pub(super) fn image(&mut self, layers: &[(&[u8], Packing)], settings: &Value) -> Value {
        let manifest = self.manifest(layers, settings);
        self.document(&manifest)
    }

    /// The manifest of such an image, to be changed.
    pub(super) fn manifest(&mut self, layers: &[(&[u8], Packing)], settings: &Value) -> Value {
        let diff_ids: Vec<_> = layers.iter().map(|(tar, _)| digest(tar)).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": settings,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let kind = "application/vnd.oci.image.config.v1+json";
        let config = self.blob(kind, config.to_string().into_bytes());
        let layers: Vec<_> = layers
            .iter()
            .map(|(tar, packing)| self.blob(&packing.media_type(), packing.pack(tar)))
            .collect();
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        })
    }

    /// Adds an index of images and their platforms (`linux/arm/v7`); its descriptor.
    pub(super) fn index(&mut self, entries: &[(&Value, &str)]) -> Value {
        let entries: Vec<_> = entries
            .iter()
            .map(|(descriptor, platform)| {
                let mut entry = (*descriptor).clone();
                let mut parts = platform.split('/');
                let mut platform = json!({ "os": parts.next(), "architecture": parts.next() });
                if let Some(variant) = parts.next() {
                    platform["variant"] = variant.into();
                }
                entry["platform"] = platform;
                entry
            })
            .collect();
        self.document(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": entries,
        }))
    }

    pub(super) fn tag(&mut self, tag: &str, descriptor: Value) {
        self.tags.push((tag.to_owned(), descriptor));
    }

    /// One image of one layer with a disk, under `tag`.
    pub(super) fn of_disk(tag: &str, disk: &[u8], packing: Packing) -> Self {
        let mut images = Self::default();
        let image = images.image(&[(&layer_with(disk), packing)], &json!({}));
        images.tag(tag, image);
        images
    }

    /// The digest of the only layer, or of the topmost.
    pub(super) fn top_layer(&self, tag: &str) -> String {
        let (_, root) = self.tags.iter().find(|(name, _)| name == tag).unwrap();
        let (_, bytes) = &self.blobs[root["digest"].as_str().unwrap()];
        let manifest: Value = serde_json::from_slice(bytes).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        layers.last().unwrap()["digest"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(super) fn bytes(&self, digest: &str) -> &[u8] {
        &self.blobs[digest].1
    }

    /// Writes an OCI layout.
    pub(super) fn write(&self, directory: &Path) {
        let blobs = directory.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        for (digest, (_, bytes)) in &self.blobs {
            let hex = digest.strip_prefix("sha256:").unwrap();
            std::fs::write(blobs.join(hex), bytes).unwrap();
        }
        let manifests: Vec<_> = self
            .tags
            .iter()
            .map(|(tag, descriptor)| {
                let mut entry = descriptor.clone();
                entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
                entry
            })
            .collect();
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        std::fs::write(directory.join("index.json"), index.to_string()).unwrap();
        let layout = r#"{"imageLayoutVersion":"1.0.0"}"#;
        std::fs::write(directory.join("oci-layout"), layout).unwrap();
    }

    /// Copies what is under a tag to `image` of a registry.
    pub(super) fn push(&self, registry: &Registry, tag: &str, image: &str) {
        let layout = tempfile::tempdir().unwrap();
        self.write(layout.path());
        let from = format!("oci:{}:{tag}", layout.path().display());
        registry.copy(&["--all", "--preserve-digests"], &from, image);
    }

    /// What a registry serves of it.
    pub(super) fn pages(&self, repository: &str) -> Vec<(String, Page)> {
        let mut pages = Vec::new();
        let page = |digest: &str| {
            let (media_type, bytes) = &self.blobs[digest];
            Page::of(bytes.clone())
                .etag(Some(&format!("\"{digest}\"")))
                .header("Content-Type", media_type)
        };
        for digest in self.blobs.keys() {
            for kind in ["blobs", "manifests"] {
                pages.push((format!("/v2/{repository}/{kind}/{digest}"), page(digest)));
            }
        }
        for (tag, descriptor) in &self.tags {
            let digest = descriptor["digest"].as_str().unwrap();
            pages.push((format!("/v2/{repository}/manifests/{tag}"), page(digest)));
        }
        pages
    }
}
