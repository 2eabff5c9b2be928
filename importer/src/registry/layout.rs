//! Images in files: an OCI layout in a tar (`oci-archive:`) or a directory (`oci:`), and what
//! `docker save` writes (`docker-archive:`).
//!
//! Sources: OCI image specification, "Image Layout"; Docker's image specification v1.2, "Combined image
//! JSON + filesystem changeset format".

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use longshore_image::{Probe, ReadAt, probe};
use longshore_transfer::{LocalFile, Source};
use serde::Deserialize;
use serde_json::json;

use super::digest::Digest;
use super::entries::Entries;
use super::error::RegistryError;
use super::hunt::short;
use super::manifest::{Config, Descriptor, MOST_TEXT, Manifest, json};
use super::resolve::{Store, Text};
use crate::archive::Part;

/// Most files in a tar with an image.
const MOST_FILES: usize = 100_000;
/// Bytes that tell what a file is.
const HEAD: u64 = 512;

/// The annotation with an image's tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An image in files.
pub(super) struct Layout {
    files: Files,
    root: Text,
    /// Content that does not lie under its digest.
    aliases: HashMap<String, String>,
}

enum Files {
    Tar {
        path: PathBuf,
        file: Arc<dyn ReadAt>,
        /// Offset and length.
        places: HashMap<String, (u64, u64)>,
    },
    Directory(PathBuf),
}

impl Layout {
    /// Opens `PATH[:TAG]`, a tar with an OCI layout.
    pub(super) fn oci_archive(spec: &str) -> Result<Self, RegistryError> {
        let (path, tag) = split(spec);
        Self::oci(Files::tar(path)?, tag)
    }

    /// Opens `PATH[:TAG]`, a directory with an OCI layout.
    pub(super) fn oci_directory(spec: &str) -> Result<Self, RegistryError> {
        let (path, tag) = split(spec);
        Self::oci(Files::Directory(path.to_owned()), tag)
    }

    fn oci(files: Files, tag: Option<&str>) -> Result<Self, RegistryError> {
        let what = "the layout's index.json";
        let bytes = files.text("index.json")?;
        let Manifest::Index(_, entries) = Manifest::parse(&bytes, "", what)? else {
            return Err(RegistryError::malformed(what, "it is no index of images"));
        };
        let name_of = |entry: &Descriptor| entry.annotations.get(REF_NAME).cloned();
        let chosen = match (tag, &entries[..]) {
            (Some(tag), _) => {
                let found = entries
                    .iter()
                    .find(|entry| name_of(entry).is_some_and(|name| is_named(&name, tag)));
                Some(found.ok_or_else(|| {
                    let has: Vec<_> = entries.iter().filter_map(name_of).take(20).collect();
                    RegistryError::malformed(
                        what,
                        format!("it has no image {tag:?}; it has {has:?}"),
                    )
                })?)
            }
            (None, [only]) => Some(only),
            (None, several) if several.iter().all(|entry| entry.platform.is_some()) => None,
            (None, several) => {
                let has: Vec<_> = several.iter().filter_map(name_of).take(20).collect();
                return Err(RegistryError::malformed(
                    what,
                    format!(
                        "it has {} images: choose one with :TAG, of {has:?}",
                        several.len()
                    ),
                ));
            }
        };
        let root = match chosen {
            Some(entry) => {
                let text = files.text(&blob(&entry.digest))?;
                Text {
                    bytes: text,
                    media_type: entry.media_type.clone(),
                    named: Some(entry.digest.clone()),
                }
            }
            // One image for several platforms.
            None => Text {
                bytes,
                media_type: String::new(),
                named: None,
            },
        };
        Ok(Self {
            files,
            root,
            aliases: HashMap::new(),
        })
    }

    /// Opens `PATH[:TAG]`, what `docker save` writes. Newer ones are OCI layouts besides.
    pub(super) fn docker_archive(spec: &str) -> Result<Self, RegistryError> {
        let (path, tag) = split(spec);
        let files = Files::tar(path)?;
        if files.has("index.json") {
            return Self::oci(files, tag);
        }
        let what = "the archive's manifest.json";
        let text = files.text("manifest.json")?;
        let images: Vec<Saved> = json(&text, what)?;
        let mut wanted = images.into_iter().filter(|image| match tag {
            Some(tag) => {
                let tags = image.repo_tags.iter().flatten();
                tags.into_iter().any(|name| is_named(name, tag))
            }
            None => true,
        });
        let (image, more) = (wanted.next(), wanted.next());
        let image = match (image, more) {
            (Some(image), None) => image,
            (Some(_), Some(_)) => {
                return Err(RegistryError::malformed(
                    what,
                    "it has several images: choose one with :REPOSITORY:TAG",
                ));
            }
            (None, _) => return Err(RegistryError::malformed(what, "it has no such image")),
        };
        let config = files.text(&image.config)?;
        let ids = Config::parse(&config, "the image's configuration")?;
        if ids.diff_ids().len() != image.layers.len() {
            return Err(RegistryError::malformed(
                "the image's configuration",
                "it has digests for more or fewer layers than there are",
            ));
        }
        let config_digest = Digest::of(&config).to_string();
        let mut aliases = HashMap::from([(config_digest.clone(), image.config)]);
        let mut layers = Vec::new();
        for (digest, file) in ids.diff_ids().iter().zip(image.layers) {
            let part = files.open(&file)?;
            refuse_packed(part.as_ref(), &file)?;
            layers.push(json!({ "digest": digest.to_string(), "size": part.len() }));
            aliases.insert(digest.to_string(), file);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "config": { "digest": config_digest, "size": config.len() },
            "layers": layers,
        });
        Ok(Self {
            files,
            root: Text {
                bytes: Bytes::from(manifest.to_string()),
                media_type: String::new(),
                named: None,
            },
            aliases,
        })
    }

    fn place(&self, digest: &Digest) -> String {
        let alias = self.aliases.get(&digest.to_string());
        alias.cloned().unwrap_or_else(|| blob(digest))
    }

    fn text(&self, descriptor: &Descriptor) -> Result<Text, RegistryError> {
        Ok(Text {
            bytes: self.files.text(&self.place(&descriptor.digest))?,
            media_type: descriptor.media_type.clone(),
            named: None,
        })
    }
}

/// An entry of `docker save`'s manifest.json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

impl Store for Layout {
    fn root(&self) -> Result<Text, RegistryError> {
        Ok(Text {
            bytes: self.root.bytes.clone(),
            media_type: self.root.media_type.clone(),
            named: self.root.named.clone(),
        })
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Text, RegistryError> {
        self.text(descriptor)
    }

    fn config(&self, descriptor: &Descriptor) -> Result<Text, RegistryError> {
        self.text(descriptor)
    }

    fn layer(&self, descriptor: &Descriptor) -> Result<Box<dyn Source>, RegistryError> {
        let name = self.place(&descriptor.digest);
        Ok(Box::new(Blob {
            part: self.files.open(&name)?,
            name,
        }))
    }

    fn wanted(&self) -> Option<&Digest> {
        None
    }
}

impl Files {
    fn tar(path: &Path) -> Result<Self, RegistryError> {
        let what = || path.display().to_string();
        let file = local(path)?;
        let head = head(file.as_ref()).map_err(|source| RegistryError::Read {
            path: path.to_owned(),
            source,
        })?;
        if let Probe::Wrapper(wrapper) = probe(&head) {
            return Err(RegistryError::Unsupported {
                what: format!("the compressed archive {} ({})", what(), wrapper.name()),
                next: "decompress it first: it is read in no order",
            });
        }
        let mut entries = Entries::file(Arc::clone(&file));
        let mut places = HashMap::new();
        let damaged = |source| RegistryError::Tar {
            what: what(),
            source,
        };
        while let Some(entry) = entries.next().map_err(damaged)? {
            if !entry.kind.is_file() || entry.sparse {
                continue;
            }
            if places.len() >= MOST_FILES {
                return Err(RegistryError::malformed(
                    what(),
                    format!("it has more than {MOST_FILES} files"),
                ));
            }
            let name = entry.path.trim_start_matches("./").to_owned();
            // Readers disagree which of two counts; digests show what became of it.
            places.insert(name, (entry.at, entry.size));
        }
        Ok(Self::Tar {
            path: path.to_owned(),
            file,
            places,
        })
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::Tar { places, .. } => places.contains_key(name),
            Self::Directory(path) => path.join(name).is_file(),
        }
    }

    /// A file. Of a directory, names are only ever digests and constants.
    fn open(&self, name: &str) -> Result<Arc<dyn ReadAt>, RegistryError> {
        match self {
            Self::Tar { path, file, places } => {
                let place = places.get(name).copied();
                let whole = |(at, size): &(u64, u64)| {
                    at.checked_add(*size).is_some_and(|end| end <= file.len())
                };
                let Some((at, size)) = place.filter(whole) else {
                    return Err(RegistryError::malformed(
                        path.display().to_string(),
                        format!("{:?} is not in it, or not all of it", short(name)),
                    ));
                };
                Ok(Arc::new(Part::new(Arc::clone(file), at..at + size)))
            }
            Self::Directory(path) => local(&path.join(name)),
        }
    }

    /// All of a small file.
    fn text(&self, name: &str) -> Result<Bytes, RegistryError> {
        let file = self.open(name)?;
        if file.len() > MOST_TEXT {
            return Err(RegistryError::malformed(
                short(name),
                format!("it has {} bytes, more than {MOST_TEXT}", file.len()),
            ));
        }
        let mut bytes = vec![0; usize::try_from(file.len()).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0)
            .map_err(|source| RegistryError::Read {
                path: PathBuf::from(short(name)),
                source,
            })?;
        Ok(bytes.into())
    }
}

fn local(path: &Path) -> Result<Arc<dyn ReadAt>, RegistryError> {
    // The lock that images are taken under is no use here: nobody writes to an archive in place.
    let file = LocalFile::open(path, true).map_err(|e| RegistryError::Layer {
        source: Box::new(e.into()),
    })?;
    Ok(Arc::new(file))
}

fn head(file: &dyn ReadAt) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len().min(HEAD)).unwrap_or(0);
    let mut head = vec![0; len];
    file.read_exact_at(&mut head, 0)?;
    Ok(head)
}

/// `docker save` knows digests of unpacked layers only.
fn refuse_packed(file: &dyn ReadAt, name: &str) -> Result<(), RegistryError> {
    let head = head(file).map_err(|source| RegistryError::Read {
        path: PathBuf::from(short(name)),
        source,
    })?;
    match probe(&head) {
        Probe::Wrapper(_) => Err(RegistryError::Unsupported {
            what: format!("the compressed layer {:?} of a docker-archive", short(name)),
            next: "copy the image to an oci-archive with skopeo, and import that",
        }),
        _ => Ok(()),
    }
}

fn blob(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// A path, and what follows its last colon. A file whose name has a colon is a file.
fn split(spec: &str) -> (&Path, Option<&str>) {
    if let Some((path, tag)) = spec.split_once(':')
        && !tag.is_empty()
        && !Path::new(spec).exists()
    {
        return (Path::new(path), Some(tag));
    }
    (Path::new(spec), None)
}

/// Tags come alone, or with the name of their repository.
fn is_named(name: &str, wanted: &str) -> bool {
    let end = |separator: char| {
        name.strip_suffix(wanted)
            .is_some_and(|front| front.ends_with(separator))
    };
    name == wanted || end(':') || end('/')
}

/// A layer in a file.
struct Blob {
    name: String,
    part: Arc<dyn ReadAt>,
}

impl Source for Blob {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn len(&self) -> Option<u64> {
        Some(self.part.len())
    }

    fn random(&self) -> Option<Arc<dyn ReadAt>> {
        Some(Arc::clone(&self.part))
    }

    fn reopenable(&self) -> bool {
        true
    }

    fn stream(&mut self) -> longshore_transfer::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor {
            part: Arc::clone(&self.part),
            at: 0,
        }))
    }
}

/// Reads from front to back.
struct Cursor {
    part: Arc<dyn ReadAt>,
    at: u64,
}

impl Read for Cursor {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let there = self.part.len().saturating_sub(self.at);
        let n = buf.len().min(usize::try_from(there).unwrap_or(usize::MAX));
        self.part.read_exact_at(&mut buf[..n], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_follows_the_path_unless_it_is_part_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let odd = directory.path().join("a:b");
        std::fs::write(&odd, "").unwrap();
        let odd = odd.to_str().unwrap();
        assert_eq!(split(odd), (Path::new(odd), None));
        assert_eq!(split("/x/y.tar:v1"), (Path::new("/x/y.tar"), Some("v1")));
        assert_eq!(
            split("y.tar:repo/x:v1"),
            (Path::new("y.tar"), Some("repo/x:v1"))
        );
        assert_eq!(split("y.tar"), (Path::new("y.tar"), None));
    }

    #[test]
    fn images_are_named_by_their_tag_or_all_of_their_name() {
        assert!(is_named("v1", "v1"));
        assert!(is_named("h.io/a/b:v1", "v1"));
        assert!(is_named("h.io/a/b:v1", "b:v1"));
        assert!(!is_named("h.io/a/b:xv1", "v1"));
    }
}
