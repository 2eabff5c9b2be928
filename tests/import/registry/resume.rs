//! A layer that came in part is read again, for its digest and what is packed in it take all of it; what is
//! there of the disk is not written again.

use std::path::Path;

use longshore_tests::data::disk;
use longshore_tests::http::{Fault, Page};
use longshore_transfer::{Cancel, Error, Journal, Options, Progress, Report, TargetSpec, transfer};

use super::image::{EVERY_PACKING, Images};
use super::{fake, name, pulled};

const MIB: usize = 1 << 20;

/// Imports the image `spec` to `path`.
fn import(
    spec: &str,
    options: &longshore_importer::SourceOptions,
    path: &Path,
) -> (Result<Report, Error>, Progress) {
    let target = TargetSpec {
        path: path.to_owned(),
        journal: Some(Journal {
            step: Some(MIB as u64),
            ..Journal::default()
        }),
        ..TargetSpec::default()
    };
    let progress = Progress::default();
    let mut image = pulled(spec, options);
    let outcome = transfer(
        image.source.as_mut(),
        &target,
        &Options::default(),
        &progress,
        &Cancel::default(),
    );
    (outcome, progress)
}

#[test]
fn a_layer_is_read_again_and_the_disk_not_written_again() {
    let bytes = disk(12 * MIB, 71);
    let other = disk(12 * MIB, 72);
    for packing in EVERY_PACKING {
        let images = Images::of_disk("v1", &bytes, packing);
        let layer = images.top_layer("v1");
        let (server, mut options) = fake(&images);
        options.retries = 1;
        let blob = format!("/v2/r/blobs/{layer}");
        let body = images.bytes(&layer).to_vec();
        let page = Page::of(body.clone()).etag(Some(&format!("\"{layer}\"")));
        let half = body.len() as u64 / 2;
        let cut = || {
            page.clone()
                .fault(Fault::Cut(half))
                .faults(&Fault::Status(403), 50)
        };
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("disk.raw");
        server.set(&blob, cut());
        let (outcome, progress) = import(&name(&server, "v1"), &options, &out);
        assert!(matches!(outcome, Err(Error::Source { .. })), "{outcome:?}");
        assert!(progress.snapshot().kept);
        server.set(&blob, page.clone());
        let before = server.log().sent;
        let (outcome, progress) = import(&name(&server, "v1"), &options, &out);
        let report = outcome.unwrap();
        assert!(std::fs::read(&out).unwrap() == bytes);
        assert!(report.bytes_resumed >= MIB as u64 / 4, "{report:?}");
        assert!(progress.snapshot().rereads);
        let rest = bytes.len() as u64 - report.bytes_resumed;
        assert!(report.bytes_written <= rest, "{report:?}");
        assert!(server.log().sent - before >= body.len() as u64);
        // The tag has moved on meanwhile.
        std::fs::remove_file(&out).unwrap();
        server.set(&blob, cut());
        import(&name(&server, "v1"), &options, &out).0.unwrap_err();
        let newer = Images::of_disk("v1", &other, packing);
        for (path, page) in newer.pages("r") {
            server.set(&path, page);
        }
        let report = import(&name(&server, "v1"), &options, &out).0.unwrap();
        assert_eq!(report.bytes_resumed, 0);
        assert!(std::fs::read(&out).unwrap() == other);
        assert_eq!(directory.path().read_dir().unwrap().count(), 1);
    }
}
