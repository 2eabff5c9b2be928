//! Images in files.

use std::path::Path;
use std::process::Command;

use longshore_tests::data::{disk, qcow2};
use longshore_tests::program::{have, run};
use longshore_tests::registry::skopeo;
use longshore_transfer::{Options, inspect};
use serde_json::json;

use super::image::{EVERY_PACKING, Images, Packing, layer_with};
use super::{gives, have_all, refusal, shown};
use crate::options;

/// Writes a layout, and the tars that skopeo makes of it.
fn everywhere(images: &Images, directory: &Path, packing: Packing, check: impl Fn(&str)) {
    let layout = directory.join("layout");
    images.write(&layout);
    let from = format!("oci:{}:t", shown(&layout));
    check(&from);
    let archive = format!("oci-archive:{}", shown(&directory.join("oci.tar")));
    run(skopeo().args([&from, &format!("{archive}:t")]));
    check(&archive);
    check(&format!("{archive}:t"));
    if packing == Packing::Zstd {
        // Docker's format has none: skopeo refuses to write it.
        return;
    }
    let saved = format!("docker-archive:{}", shown(&directory.join("docker.tar")));
    run(skopeo().args([&from, &format!("{saved}:repo/x:t")]));
    check(&saved);
    check(&format!("{saved}:repo/x:t"));
}

#[test]
fn disks_come_out_of_layouts_and_archives() {
    if !have_all() {
        return;
    }
    for packing in EVERY_PACKING {
        let expected = disk(900_000, 1);
        let directory = tempfile::tempdir().unwrap();
        let images = Images::of_disk("t", &expected, packing);
        everywhere(&images, directory.path(), packing, |spec| {
            println!("{packing:?} {spec}");
            gives(spec, &options(), &expected);
        });
    }
}

#[test]
fn an_unpacked_layer_is_looked_at_without_reading_it() {
    if !have("qemu-img") {
        return;
    }
    let expected = disk(3 << 20, 5);
    let image = qcow2(&expected);
    for packing in [Packing::Plain, Packing::Zstd] {
        let images = Images::of_disk("t", &image, packing);
        let (server, mut options) = super::fake(&images);
        options.connections = 1;
        let spec = super::name(&server, "t");
        let mut source = super::pulled(&spec, &options).source;
        let seen = inspect(source.as_mut(), &Options::default()).unwrap();
        assert_eq!(seen.info.format.name(), "qcow2");
        assert_eq!(seen.virtual_size, Some(3 << 20));
        assert_eq!(seen.chain.is_some(), packing == Packing::Plain);
        // What was looked at is imported from its beginning all the same.
        crate::Import::of(source.as_mut()).made(&expected);
        // A raw disk may look like anything, even like a layer.
        let tar = layer_with(b"x");
        let images = Images::of_disk("t", &tar, packing);
        let (server, options) = super::fake(&images);
        let mut source = super::pulled(&super::name(&server, "t"), &options).source;
        let seen = inspect(source.as_mut(), &Options::default()).unwrap();
        assert_eq!(seen.info.format.name(), "raw");
        crate::Import::of(source.as_mut()).made(&tar);
    }
}

#[test]
fn one_of_several_images_is_named_by_its_tag() {
    let (first, second) = (disk(70_000, 2), disk(80_000, 3));
    let mut images = Images::of_disk("one", &first, Packing::Plain);
    let image = images.image(&[(&layer_with(&second), Packing::Plain)], &json!({}));
    images.tag("two", image);
    let directory = tempfile::tempdir().unwrap();
    images.write(directory.path());
    let at = |tag: &str| format!("oci:{}{tag}", shown(directory.path()));
    gives(&at(":one"), &options(), &first);
    gives(&at(":two"), &options(), &second);
    refusal(&at(""), &options()).says("\"two\"");
    refusal(&at(":three"), &options()).says("no image \"three\"");
}

#[test]
fn files_that_are_no_images_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.tar");
    let at = |scheme: &str| format!("{scheme}:{}", shown(&file));
    std::fs::write(&file, "no tar".repeat(1000)).unwrap();
    refusal(&at("oci-archive"), &options()).says("no whole tar");
    refusal(&at("oci"), &options());
    std::fs::write(&file, super::image::Tar::default().file("a", b"b").done()).unwrap();
    refusal(&at("oci-archive"), &options()).says("\"index.json\" is not in it");
    refusal(&at("docker-archive"), &options()).says("\"manifest.json\" is not in it");
    if have("gzip") {
        std::fs::write(&file, Packing::Gzip.pack(b"x")).unwrap();
        refusal(&at("oci-archive"), &options()).says("decompress it first");
    }
    let missing = format!("oci-archive:{}", shown(&directory.path().join("none")));
    assert_eq!(refusal(&missing, &options()).exit_code, 1);
}

#[test]
fn an_archive_that_was_cut_off_or_changed_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let images = Images::of_disk("t", &disk(300_000, 4), Packing::Plain);
    let layout = directory.path().join("l");
    images.write(&layout);
    let tar = run(Command::new("tar").args(["-C", shown(&layout), "-cf", "-", "."]));
    let file = directory.path().join("x.tar");
    let spec = format!("oci-archive:{}", shown(&file));
    std::fs::write(&file, &tar).unwrap();
    gives(&spec, &options(), &disk(300_000, 4));
    std::fs::write(&file, &tar[..tar.len() - 200_000]).unwrap();
    refusal(&spec, &options());
    // One bit in the middle of the layer, which is by far the largest of the files.
    let layer = images.bytes(&images.top_layer("t")).to_vec();
    let at = tar.windows(512).position(|w| *w == layer[100_352..100_864]);
    let mut changed = tar.clone();
    changed[at.unwrap()] ^= 1;
    std::fs::write(&file, changed).unwrap();
    refusal(&spec, &options()).says("checksum mismatch");
}
