//! Disks out of container images: from Debian's docker-registry, filled by skopeo; from layouts in
//! files; and from servers that only look like registries and do what a registry would not.

mod choice;
mod files;
mod foreign;
mod hostile;
mod image;
mod memory;
mod papers;
mod pod;
mod real;
mod resume;
mod tokens;

use std::path::Path;

use longshore_importer::{Error, RegistryError, RegistryImage, SourceOptions, registry_image};
use longshore_tests::http::{Page, Server};
use longshore_tests::program::have;
use longshore_tests::registry;
use longshore_transfer::Options;

use self::image::Images;
use super::{Import, chain, options};

/// The tools are there.
fn have_all() -> bool {
    registry::have_all() && ["gzip", "zstd"].into_iter().all(have)
}

/// A file in a temporary directory, for a command.
fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Options for registries on this machine, which speak plain HTTP.
fn insecure(hosts: &[&str]) -> SourceOptions {
    let mut options = options();
    options.registry.insecure = hosts.iter().map(|host| host.parse().unwrap()).collect();
    options
}

/// Opens an image, which must work.
#[track_caller]
fn pulled(spec: &str, options: &SourceOptions) -> RegistryImage {
    match registry_image(spec, options) {
        Ok(image) => image,
        Err(e) => panic!("{spec}: {}", chain(&e)),
    }
}

/// The disk of an image must be this.
#[track_caller]
fn gives(spec: &str, options: &SourceOptions, expected: &[u8]) {
    let mut image = pulled(spec, options);
    Import::of(image.source.as_mut()).made(expected);
}

/// Why an image does not open, or does not give its disk. Nothing may be left behind.
#[track_caller]
fn refusal(spec: &str, options: &SourceOptions) -> Refusal {
    match registry_image(spec, options) {
        Err(e) => {
            let exit_code = e.exit_code();
            Refusal {
                text: chain(&e),
                exit_code,
                at_once: match e {
                    Error::Image { source, .. } => Some(*source),
                    _ => None,
                },
            }
        }
        Ok(mut image) => {
            let import = Import::with(
                image.source.as_mut(),
                &Options::default(),
                &longshore_transfer::Cancel::default(),
            );
            let error = import.outcome.as_ref().unwrap_err();
            let left: Vec<_> = import.directory.path().read_dir().unwrap().collect();
            assert!(left.is_empty(), "{left:?}");
            Refusal {
                text: chain(error),
                exit_code: error.exit_code(),
                at_once: None,
            }
        }
    }
}

/// What came of what must not work.
#[derive(Debug)]
struct Refusal {
    text: String,
    exit_code: u8,
    /// Why, if it did not even open.
    at_once: Option<RegistryError>,
}

impl Refusal {
    #[track_caller]
    fn says(self, what: &str) -> Self {
        assert!(
            self.text.contains(what),
            "{what:?} is not in {:?}",
            self.text
        );
        self
    }
}

/// A fake registry with these images in its repository `r`.
fn fake(images: &Images) -> (Server, SourceOptions) {
    let server = Server::start([]);
    for (path, page) in images.pages("r") {
        server.set(&path, page);
    }
    server.set("/v2/", Page::of(*b"{}"));
    let options = insecure(&[&server.address().to_string()]);
    (server, options)
}

/// How that server's image with a tag is called.
fn name(server: &Server, tag: &str) -> String {
    format!("docker://{}/r:{tag}", server.address())
}
