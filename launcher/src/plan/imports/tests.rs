use longshore_crds::manifest::Override;

use super::*;
use crate::plan::Problem;

const BASE: &str = r"
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {name: demo}
spec:
  runStrategy: Always
  dataVolumeTemplates:
  - metadata: {name: root}
    spec:
      source:
        http:
          url: https://example.org/disk.qcow2
          secretRef: login
          certConfigMap: ca
          extraHeaders: ['X-One: 1']
          secretExtraHeaders: [headers]
          checksum: sha256:00
      storage: {resources: {requests: {storage: 1000001}}}
  - metadata: {name: unused}
    spec: {source: {upload: {}}}
  template:
    spec:
      domain: {memory: {guest: 64Mi}}
      volumes:
      - {name: a, dataVolume: {name: root}}
      - {name: b, persistentVolumeClaim: {claimName: data}}
      - {name: c, dataVolume: {name: data}}
      - {name: d, emptyDisk: {capacity: 1Gi}}
---
apiVersion: cdi.kubevirt.io/v1beta1
kind: DataVolume
metadata: {name: data}
spec:
  source: {blank: {}}
  preallocation: true
  pvc: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {accessKeyId: me, secretKey: hunter2}
---
apiVersion: v1
kind: Secret
metadata: {name: headers}
stringData: {b: 'X-B: hunter3', a: 'X-A: 2', odd: ''}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ca}
data: {one.crt: ONE, two.pem: TWO}
";

fn manifest(changes: &[&str]) -> Manifest {
    let overrides: Vec<Override> = changes
        .iter()
        .map(|change| change.parse().unwrap())
        .collect();
    Manifest::parse(BASE.as_bytes(), &overrides).unwrap()
}

fn problem(change: &str) -> (String, ProblemKind) {
    let result = imports(&manifest(&[change]));
    let Err(PlanError::Refused { problems }) = result else {
        panic!("{change}: {result:?}")
    };
    let [Problem { path, kind }] = &problems[..] else {
        panic!("{change}: {problems:?}")
    };
    (path.to_string(), kind.clone())
}

#[test]
fn each_data_volume_in_use_is_listed_with_what_its_source_needs() {
    let Imports {
        data_volumes,
        notices,
    } = imports(&manifest(&[])).unwrap();
    let http = HttpImport {
        url: "https://example.org/disk.qcow2".to_owned(),
        credentials: Some(("me".to_owned(), "hunter2".to_owned())),
        headers: ["X-One: 1", "X-A: 2", "X-B: hunter3", ""]
            .map(str::to_owned)
            .to_vec(),
        checksum: Some("sha256:00".to_owned()),
        certificates: vec![b"ONE".to_vec(), b"TWO".to_vec()],
    };
    let wanted = [
        DataVolumeImport {
            name: "root".to_owned(),
            source: ImportSource::Http(http),
            size: 1_000_448,
            preallocation: false,
            volumes: vec!["a".to_owned()],
        },
        DataVolumeImport {
            name: "data".to_owned(),
            source: ImportSource::Blank,
            size: 1 << 30,
            preallocation: true,
            volumes: vec!["b".to_owned(), "c".to_owned()],
        },
    ];
    assert_eq!(data_volumes, wanted);
    let [notice] = &notices[..] else {
        panic!("{notices:?}")
    };
    assert_eq!(notice.path.to_string(), "spec.dataVolumeTemplates[1]");
    let shown = format!("{data_volumes:?}");
    assert!(!shown.contains("hunter"), "{shown}");
}

/// A change, the path of the problem it leads to, and whether it is that problem.
type Case = (&'static str, &'static str, fn(&ProblemKind) -> bool);

#[test]
fn what_cannot_be_imported_is_named() {
    use ProblemKind as K;
    let at = "spec.dataVolumeTemplates[0]";
    let cases: &[Case] = &[
        (".metadata.name=../x", ".metadata.name", |k| {
            matches!(k, K::Invalid { .. })
        }),
        (
            ".metadata.name=data",
            "DataVolume.data.metadata.name",
            |k| matches!(k, K::Duplicate { .. }),
        ),
        (".spec.contentType=archive", ".spec.contentType", |k| {
            matches!(k, K::Unsupported { .. })
        }),
        (".spec.checkpoints[0].current=x", ".spec.checkpoints", |k| {
            matches!(k, K::Unsupported { .. })
        }),
        (
            ".spec.storage=null",
            ".spec.storage.resources.requests.storage",
            |k| matches!(k, K::Required),
        ),
        (
            ".spec.storage.resources.requests.storage=0",
            ".spec.storage.resources.requests.storage",
            |k| matches!(k, K::Invalid { .. }),
        ),
        (
            ".spec.storage.resources.requests.storage=-1",
            ".spec.storage.resources.requests.storage",
            |k| matches!(k, K::Invalid { .. }),
        ),
        (".spec.pvc={}", ".spec.pvc", |k| {
            matches!(k, K::Contradicts { .. })
        }),
        (".spec.source=null", ".spec.source", |k| {
            matches!(k, K::ExactlyOne { .. })
        }),
        (".spec.source.blank={}", ".spec.source", |k| {
            matches!(k, K::ExactlyOne { .. })
        }),
        (
            ".spec.source={\"s3\":{\"url\":\"x\"}}",
            ".spec.source.s3",
            |k| matches!(k, K::Unsupported { .. }),
        ),
        (".spec.source={\"upload\":{}}", ".spec.source.upload", |k| {
            matches!(k, K::Unsupported { .. })
        }),
        (
            ".spec.sourceRef={\"kind\":\"DataSource\",\"name\":\"x\"}",
            ".spec.sourceRef",
            |k| matches!(k, K::Unsupported { .. }),
        ),
        (".spec.source.http.url=\"\"", ".spec.source.http.url", |k| {
            matches!(k, K::Required)
        }),
        (
            ".spec.source.http.insecureSkipVerify=true",
            ".spec.source.http.insecureSkipVerify",
            |k| matches!(k, K::Unsupported { .. }),
        ),
        (
            ".spec.source.http.secretRef=none",
            ".spec.source.http.secretRef",
            |k| matches!(k, K::NoSecret { .. }),
        ),
        (
            ".spec.source.http.secretRef=headers",
            ".spec.source.http.secretRef",
            |k| matches!(k, K::SecretValue(_)),
        ),
        (
            ".spec.source.http.secretExtraHeaders[1]=none",
            ".spec.source.http.secretExtraHeaders[1]",
            |k| matches!(k, K::NoSecret { .. }),
        ),
        (
            ".spec.source.http.certConfigMap=none",
            ".spec.source.http.certConfigMap",
            |k| matches!(k, K::NoConfigMap { .. }),
        ),
    ];
    for (change, path, is) in cases {
        // A changed name would leave the volume without its content, and the template unused.
        let (found, kind) = problem(&format!("{at}{change}"));
        let path = if path.starts_with('.') {
            format!("{at}{path}")
        } else {
            (*path).to_owned()
        };
        assert_eq!(found, path, "{change}");
        assert!(is(&kind), "{change}: {kind:?}");
    }
}
