//! Whom we believe to be who they say they are.

use std::path::PathBuf;

use longshore_importer::{Error, HttpError, SourceOptions, source_from};
use longshore_tests::data::disk;
use longshore_tests::http::{Authority, Fault, Page, Server};

use super::{Import, chain, open, options, refused};

fn trusting(paths: &[PathBuf]) -> SourceOptions {
    SourceOptions {
        ca: paths.to_vec(),
        ..options()
    }
}

#[test]
fn an_unknown_authority_is_refused_at_once_and_the_option_is_named() {
    let server = Server::start_tls(&Authority::new(), [("/x", Page::of(disk(1000, 1)))]);
    let error = refused(&server.url("/x"), &options());
    assert!(matches!(error, HttpError::Tls { .. }), "{}", chain(&error));
    assert!(error.to_string().contains("--ca"), "{error}");
    assert_eq!(error.reason(), "CertificateRefused");
    assert!(server.log().requests.is_empty());
}

#[test]
fn an_authority_comes_from_a_file_or_a_directory() {
    let expected = disk(2_000_000, 2);
    let authority = Authority::new();
    let server = Server::start_tls(&authority, []);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("any-name");
    authority.write(&file);
    // As a mounted ConfigMap looks: links, and the hidden directory that they lead to.
    let mounted = directory.path().join("mounted");
    std::fs::create_dir_all(mounted.join("..data")).unwrap();
    authority.write(&mounted.join("..data/ca.crt"));
    std::os::unix::fs::symlink("..data/ca.crt", mounted.join("ca.crt")).unwrap();
    std::fs::write(mounted.join("README"), "not a certificate").unwrap();
    let other = directory.path().join("other.pem");
    Authority::new().write(&other);
    for paths in [vec![file.clone()], vec![mounted], vec![other.clone(), file]] {
        server.set("/x", Page::of(expected.clone()).fault(Fault::Cut(700_000)));
        let mut source = open(&server.url("/x"), &trusting(&paths));
        Import::of(source.as_mut()).made(&expected);
    }
    let error = refused(&server.url("/x"), &trusting(&[other]));
    assert!(matches!(error, HttpError::Tls { .. }), "{}", chain(&error));
}

#[test]
fn a_certificate_must_be_for_the_host() {
    let authority = Authority::new();
    let pages = [("/x", Page::of(disk(1000, 3)))];
    let server = Server::start_tls_as(&authority, &["localhost"], pages);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    authority.write(&file);
    let trusting = trusting(&[file]);
    drop(open(&server.url_by_name("/x"), &trusting));
    let error = refused(&server.url("/x"), &trusting);
    assert!(matches!(error, HttpError::Tls { .. }), "{}", chain(&error));
}

#[test]
fn insecure_means_any_certificate() {
    let expected = disk(100_000, 4);
    let server = Server::start_tls(&Authority::new(), [("/x", Page::of(expected.clone()))]);
    let insecure = SourceOptions {
        insecure: true,
        ..options()
    };
    Import::of(open(&server.url("/x"), &insecure).as_mut()).made(&expected);
}

#[test]
fn a_file_without_certificates_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("empty.pem");
    std::fs::write(&file, "").unwrap();
    for path in [file, directory.path().join("missing")] {
        let error = source_from(
            "https://127.0.0.1:1/x",
            &trusting(std::slice::from_ref(&path)),
        );
        match error.err() {
            Some(Error::Ca { path: named, .. }) => assert_eq!(named, path),
            other => panic!("{other:?}"),
        }
    }
}
