use super::*;
use std::collections::HashMap;

use crate::contract::Credentials;
use proptest::prelude::*;

fn read(vars: &[(&str, &str)]) -> Result<Import, EnvError> {
    let vars: HashMap<_, _> = vars.iter().copied().collect();
    Import::from_env(|name| vars.get(name).map(Into::into))
}

const HTTP: [(&str, &str); 2] = [
    ("IMPORTER_SOURCE", "http"),
    ("IMPORTER_ENDPOINT", "http://h/d"),
];

fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    HTTP.iter().chain(more).copied().collect()
}

#[test]
fn source_and_endpoint_are_all_that_is_needed() {
    let import = read(&HTTP).unwrap();
    assert_eq!(
        import,
        Import {
            source: Source::Http {
                endpoint: "http://h/d".into()
            },
            content: ContentType::Kubevirt,
            image_size: None,
            filesystem_overhead: Overhead::default(),
            preallocation: false,
            checksum: None,
            owner_uid: String::new(),
            resume: Resume::default(),
            cache: CacheMode::Writeback,
            tls: Tls::default(),
            proxy: Proxy::default(),
            headers: Headers::default(),
        }
    );
    let blank = read(&[("IMPORTER_SOURCE", "none")]).unwrap();
    assert_eq!(blank.source, Source::Blank);
}

#[test]
fn what_is_wrong_is_named_by_its_variable() {
    let sha = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde";
    for (more, variable) in [
        (("IMPORTER_IMAGE_SIZE", "10 Gi"), "IMPORTER_IMAGE_SIZE"),
        (("IMPORTER_IMAGE_SIZE", "0"), "IMPORTER_IMAGE_SIZE"),
        (("IMPORTER_IMAGE_SIZE", "-1Gi"), "IMPORTER_IMAGE_SIZE"),
        (("FILESYSTEM_OVERHEAD", "6%"), "FILESYSTEM_OVERHEAD"),
        (("FILESYSTEM_OVERHEAD", "1.5"), "FILESYSTEM_OVERHEAD"),
        (("PREALLOCATION", "yes"), "PREALLOCATION"),
        (("INSECURE_TLS", "on"), "INSECURE_TLS"),
        (("CACHE_MODE", "none"), "CACHE_MODE"),
        (("IMPORTER_CONTENTTYPE", "tar"), "IMPORTER_CONTENTTYPE"),
        (("IMPORTER_CHECKSUM", sha), "IMPORTER_CHECKSUM"),
        (("IMPORTER_CHECKSUM", "crc:00"), "IMPORTER_CHECKSUM"),
        (("IMPORTER_CHECKSUM", "md5"), "IMPORTER_CHECKSUM"),
    ] {
        let error = read(&with(&[more])).unwrap_err();
        assert!(
            matches!(&error, EnvError::Invalid { variable: named, value: Some(value), .. }
                if named == variable && *value == more.1),
            "{more:?}: {error}"
        );
        assert!(error.to_string().starts_with(variable), "{error}");
    }
    for (vars, variable) in [
        (vec![], "IMPORTER_SOURCE"),
        (vec![("IMPORTER_SOURCE", "http")], "IMPORTER_ENDPOINT"),
        (
            vec![("IMPORTER_SOURCE", "http"), ("IMPORTER_ENDPOINT", "")],
            "IMPORTER_ENDPOINT",
        ),
        (
            vec![("IMPORTER_SOURCE", "imageio"), HTTP[1]],
            "IMPORTER_DISK_ID",
        ),
        (vec![("IMPORTER_SOURCE", "vddk"), HTTP[1]], "IMPORTER_UUID"),
        (
            vec![
                ("IMPORTER_SOURCE", "registry"),
                HTTP[1],
                ("IMPORTER_PULL_METHOD", "node"),
            ],
            "IMPORTER_READY_FILE",
        ),
        (
            vec![
                ("IMPORTER_SOURCE", "imageio"),
                HTTP[1],
                ("IMPORTER_DISK_ID", "d"),
                ("IMPORTER_PREVIOUS_CHECKPOINT", "c"),
            ],
            "IMPORTER_CURRENT_CHECKPOINT",
        ),
    ] {
        let error = read(&vars).unwrap_err();
        assert!(
            matches!(error, EnvError::Missing { variable: named, .. } if named == variable),
            "{vars:?}: {error}"
        );
    }
    let error = read(&[("IMPORTER_SOURCE", "ftp")]).unwrap_err();
    assert_eq!(error.to_string(), "unknown data source \"ftp\"");
}

#[test]
fn only_sources_of_files_give_archives() {
    for (kind, may) in [
        ("http", true),
        ("s3", true),
        ("gcs", true),
        ("glance", true),
        ("registry", false),
        ("none", false),
    ] {
        let vars = [
            ("IMPORTER_SOURCE", kind),
            HTTP[1],
            ("IMPORTER_CONTENTTYPE", "archive"),
        ];
        match read(&vars) {
            Ok(import) => assert!(may && import.content == ContentType::Archive, "{kind}"),
            Err(EnvError::Excluded { source_kind, .. }) => assert!(!may && source_kind == kind),
            Err(e) => panic!("{kind}: {e}"),
        }
    }
}

#[test]
fn values_are_read_as_they_are_meant() {
    let import = read(&with(&[
        ("IMPORTER_IMAGE_SIZE", "1Gi"),
        ("FILESYSTEM_OVERHEAD", "0.055"),
        ("PREALLOCATION", "True"),
        ("CACHE_MODE", "TRYNONE"),
        ("IMPORTER_CHECKSUM", "MD5:00112233445566778899AABBCCDDEEFF"),
        ("OWNER_UID", "uid"),
        ("IMPORTER_CERT_DIR", "/certs"),
        ("IMPORTER_EXTRA_HEADER_0", "A: b"),
        ("IMPORTER_EXTRA_HEADER_1", "C: d"),
        ("IMPORTER_EXTRA_HEADER_3", "E: not reached"),
        ("no_proxy", "a,b"),
    ]))
    .unwrap();
    assert_eq!(import.image_size.unwrap().to_u64(), Some(1 << 30));
    assert_eq!(import.filesystem_overhead.to_string(), "0.055");
    assert!(import.preallocation);
    assert_eq!(import.cache, CacheMode::TryNone);
    let checksum = import.checksum.unwrap();
    assert_eq!(checksum, "md5:00112233445566778899aabbccddeeff");
    assert_eq!(import.owner_uid, "uid");
    assert_eq!(import.tls.cert_dir, Some("/certs".into()));
    assert_eq!(import.headers.extra, ["A: b".into(), "C: d".into()]);
    assert_eq!(import.proxy.none_for.as_deref(), Some("a,b"));
}

#[test]
fn secrets_are_in_no_debug_output_and_in_no_error() {
    let vars = [
        ("IMPORTER_SOURCE", "http"),
        ("IMPORTER_ENDPOINT", "http://u:hush@h/d?sig=hush"),
        ("IMPORTER_ACCESS_KEY_ID", "hush"),
        ("IMPORTER_SECRET_KEY", "hush"),
        ("IMPORTER_SESSION_TOKEN", "hush"),
        ("IMPORTER_EXTRA_HEADER_0", "Authorization: hush"),
        ("http_proxy", "http://u:hush@proxy"),
    ];
    let map: HashMap<_, _> = vars.iter().copied().collect();
    let get = |name: &str| map.get(name).map(Into::into);
    let import = Import::from_env(get).unwrap();
    let credentials = Credentials::from_env(get).unwrap();
    let shown = format!("{import:?} {credentials:?}");
    assert!(!shown.contains("hush"), "{shown}");
    assert_eq!(credentials.secret_key.unwrap().reveal(), "hush");
}

#[test]
fn what_is_no_text_is_refused_unless_it_is_a_path() {
    use std::os::unix::ffi::OsStringExt;
    let odd = || OsString::from_vec(vec![b'/', 0xff]);
    let get = |name: &str| match name {
        "IMPORTER_SOURCE" => Some("none".into()),
        "IMPORTER_CERT_DIR" => Some(odd()),
        _ => None,
    };
    let import = Import::from_env(get).unwrap();
    assert_eq!(import.tls.cert_dir, Some(odd().into()));
    let error = Credentials::from_env(|_| Some(odd())).unwrap_err();
    assert!(
        matches!(&error, EnvError::Invalid { variable, value: None, .. }
            if variable == "IMPORTER_ACCESS_KEY_ID"),
        "{error}"
    );
}

fn texts() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9:/?=. -]{1,20}"
}

fn checkpoints() -> impl Strategy<Value = Option<Checkpoint>> {
    let checkpoint = (texts(), proptest::option::of(texts()), any::<bool>());
    proptest::option::of(checkpoint.prop_map(|(current, previous, last)| Checkpoint {
        current,
        previous,
        last,
    }))
}

fn sources() -> impl Strategy<Value = Source> {
    let secret = || texts().prop_map(Secret::from);
    let path = || texts().prop_map(PathBuf::from);
    let pull = prop_oneof![
        Just(Pull::Pod),
        (path(), path()).prop_map(|(ready_file, done_file)| Pull::Node {
            ready_file,
            done_file
        }),
    ];
    let vmware = (
        texts(),
        texts(),
        texts(),
        proptest::option::of(path()),
        proptest::option::of(path()),
    );
    let vmware = vmware.prop_map(
        |(uuid, backing_file, thumbprint, library, arguments)| Vmware {
            uuid,
            backing_file,
            thumbprint,
            library,
            arguments,
        },
    );
    prop_oneof![
        secret().prop_map(|endpoint| Source::Http { endpoint }),
        secret().prop_map(|endpoint| Source::S3 { endpoint }),
        secret().prop_map(|endpoint| Source::Gcs { endpoint }),
        secret().prop_map(|endpoint| Source::Glance { endpoint }),
        (secret(), proptest::option::of(texts()), pull).prop_map(
            |(endpoint, architecture, pull)| Source::Registry {
                endpoint,
                architecture,
                pull,
            }
        ),
        (secret(), texts(), checkpoints()).prop_map(|(endpoint, disk_id, checkpoint)| {
            Source::Imageio {
                endpoint,
                disk_id,
                checkpoint,
            }
        }),
        (secret(), vmware, checkpoints()).prop_map(|(endpoint, disk, checkpoint)| Source::Vddk {
            endpoint,
            disk,
            checkpoint,
        }),
        Just(Source::Blank),
    ]
}

prop_compose! {
    fn imports()(
        source in sources(),
        size in proptest::option::of(1u32..),
        overhead in 0u16..1000,
        flags in any::<[bool; 3]>(),
        checksum in proptest::option::of("sha1:[0-9a-f]{40}"),
        owner_uid in "[a-f0-9-]{0,36}",
        texts in proptest::collection::vec(proptest::option::of(texts()), 7),
        extra in proptest::collection::vec(texts().prop_map(Secret::from), 0..4),
    ) -> Import {
        let text = |n: usize| texts.get(n).cloned().flatten();
        Import {
            source,
            content: ContentType::Kubevirt,
            image_size: size.map(Quantity::from_units),
            filesystem_overhead: format!("0.{overhead:03}").parse().unwrap(),
            preallocation: flags[0],
            checksum,
            owner_uid,
            resume: Resume { claim_uid: text(5), journal_dir: text(6).map(Into::into) },
            cache: if flags[1] { CacheMode::TryNone } else { CacheMode::Writeback },
            tls: Tls { insecure: flags[2], cert_dir: text(0).map(Into::into) },
            proxy: Proxy {
                http: text(1).map(Into::into),
                https: text(2).map(Into::into),
                none_for: text(3),
                cert_dir: None,
            },
            headers: Headers { extra, secret_dir: text(4).map(Into::into) },
        }
    }
}

proptest! {
    #[test]
    fn what_the_controller_writes_the_pod_reads(import in imports()) {
        let env: HashMap<_, _> = import.to_env().into_iter().collect();
        let read = Import::from_env(|name| env.get(name).map(Into::into)).unwrap();
        prop_assert_eq!(&read, &import);
        let json = serde_json::to_string(&import).unwrap();
        prop_assert_eq!(serde_json::from_str::<Import>(&json).unwrap(), import);
    }
}
