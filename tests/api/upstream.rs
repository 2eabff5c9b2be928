//! Manifests as upstream's documentation has them, applied unchanged.
//!
//! They name no class, so there is a default one, which binds at once: what becomes of them does not depend on
//! a feature gate. Nothing else runs beside this test, for all claims without a class would be of that one.

use longshore_crds::Quantity;
use longshore_tests::program::{fed, run, said};
use serde_json::{Value, json};

use super::rig::{Namespace, alone};

/// A default class that nobody provisions, by the name of a provisioner whose capabilities are known. It goes
/// with this.
struct DefaultClass<'a>(&'a Namespace, String);

impl<'a> DefaultClass<'a> {
    fn new(namespace: &'a Namespace) -> Self {
        Self::of(namespace, "storageclass.kubernetes.io/is-default-class")
    }

    /// A default one of those that this annotation tells of.
    fn of(namespace: &'a Namespace, mark: &str) -> Self {
        let name = format!("{}-{}", namespace.name, mark.rsplit('/').next().unwrap());
        namespace.apply(&json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": name, "annotations": {mark: "true"}},
            "provisioner": "rancher.io/local-path", "volumeBindingMode": "Immediate",
        }));
        Self(namespace, name)
    }

    /// A volume for a claim, as a provisioner would have made it.
    fn volume_for(&self, claim: &str, mode: &str) {
        self.0.apply(&json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": format!("{}-{claim}", self.0.name)},
            "spec": {
                "capacity": {"storage": "100Gi"}, "accessModes": ["ReadWriteOnce"],
                "storageClassName": self.1, "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": "/nonexistent"}, "volumeMode": mode,
                "claimRef": {"namespace": self.0.name, "name": claim},
            },
        }));
    }
}

impl Drop for DefaultClass<'_> {
    fn drop(&mut self) {
        let mut delete = self.0.everywhere();
        drop(delete.args(["delete", "storageclass", &self.1]).output());
    }
}

/// What becomes of a manifest.
struct Expected {
    name: &'static str,
    /// Of the claim; 6 % more than what a `storage` asks for, if it is a filesystem.
    request: u64,
    mode: &'static str,
    /// Of the importer.
    source: &'static str,
    endpoint: Option<&'static str>,
    /// Some more of its variables.
    variables: &'static [(&'static str, &'static str)],
    /// Secrets and `ConfigMap`s that it mounts.
    mounts: &'static [&'static str],
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What a filesystem takes besides.
const fn inflated(bytes: u64) -> u64 {
    (bytes * 106).div_ceil(100)
}

const SHA: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const FEDORA: &str = "docker://kubevirt/fedora-cloud-registry-disk-demo";
const DISK: &str = "https://images.example.org/disk.img";

const ALL: &[Expected] = &[
    Expected {
        name: "example-import-dv",
        request: inflated(64 * MIB),
        mode: "Filesystem",
        source: "http",
        endpoint: Some("https://images.example.org/0.4.0/cirros-0.4.0-x86_64-disk.img"),
        variables: &[("IMPORTER_CONTENTTYPE", "kubevirt")],
        mounts: &[],
    },
    Expected {
        name: "example-import-headers-dv",
        request: inflated(GIB),
        mode: "Filesystem",
        source: "http",
        endpoint: Some(DISK),
        variables: &[
            ("IMPORTER_CHECKSUM", SHA),
            ("IMPORTER_EXTRA_HEADER_0", "X-First-Header: 12345"),
            ("IMPORTER_EXTRA_HEADER_1", "X-Another-Header: abcde"),
            ("IMPORTER_CERT_DIR", "/certs"),
        ],
        mounts: &["tls-certs", "first-secret", "second-secret"],
    },
    Expected {
        name: "example-import-archive-dv",
        request: inflated(64 * MIB),
        mode: "Filesystem",
        source: "http",
        endpoint: Some("http://server/archive.tar"),
        variables: &[("IMPORTER_CONTENTTYPE", "archive")],
        mounts: &[],
    },
    Expected {
        name: "example-preallocated-dv",
        request: GIB,
        mode: "Filesystem",
        source: "http",
        endpoint: Some(DISK),
        variables: &[("PREALLOCATION", "true")],
        mounts: &[],
    },
    Expected {
        name: "example-block-dv",
        request: 64 * MIB,
        mode: "Block",
        source: "http",
        endpoint: Some(DISK),
        variables: &[],
        mounts: &[],
    },
    Expected {
        name: "registry-image-datavolume",
        request: 5 * GIB,
        mode: "Filesystem",
        source: "registry",
        endpoint: Some(FEDORA),
        variables: &[],
        mounts: &[],
    },
    Expected {
        name: "registry-node-datavolume",
        request: inflated(5 * GIB),
        mode: "Filesystem",
        source: "registry",
        endpoint: Some(FEDORA),
        variables: &[("IMPORTER_PULL_METHOD", "node")],
        mounts: &[],
    },
    Expected {
        name: "blank-image-datavolume",
        request: 500 * MIB,
        mode: "Filesystem",
        source: "none",
        endpoint: None,
        variables: &[],
        mounts: &[],
    },
    Expected {
        name: "example-import-s3-dv",
        request: inflated(64 * MIB),
        mode: "Filesystem",
        source: "s3",
        endpoint: Some("https://s3.us-west-2.amazonaws.com/bucket/tinyCore.iso"),
        variables: &[],
        mounts: &["s3-secret", "tls-certs"],
    },
    Expected {
        name: "example-import-gcs-dv",
        request: 500 * MIB,
        mode: "Filesystem",
        source: "gcs",
        endpoint: Some("gs://bucket/tinyCore.iso"),
        variables: &[("GOOGLE_APPLICATION_CREDENTIALS", "/google/credentials.json")],
        mounts: &["gcs-secret"],
    },
    Expected {
        name: "imageio-dv",
        request: inflated(500 * MIB),
        mode: "Filesystem",
        source: "imageio",
        endpoint: Some("https://ovirt-engine.example.org/ovirt-engine/api"),
        variables: &[("IMPORTER_DISK_ID", "1")],
        mounts: &["endpoint-secret", "tls-certs"],
    },
    Expected {
        name: "vddk-dv",
        request: inflated(32 * GIB),
        mode: "Filesystem",
        source: "vddk",
        endpoint: Some("https://vcenter.corp.com"),
        variables: &[
            ("IMPORTER_UUID", "52260566-b032-36cb-55b1-79bf29e30490"),
            ("IMPORTER_BACKING_FILE", "[iSCSI_Datastore] vm/vm_1.vmdk"),
        ],
        mounts: &["vddk-credentials"],
    },
    Expected {
        name: "example-endpoint-pvc",
        request: 2 * GIB,
        mode: "Filesystem",
        source: "http",
        endpoint: Some("https://www.source.example/path/of/data.img"),
        variables: &[],
        mounts: &["endpoint-secret"],
    },
    Expected {
        name: "registry-image-pvc",
        request: 5 * GIB,
        mode: "Filesystem",
        source: "registry",
        endpoint: Some("docker://docker.io/kubevirt/cirros-registry-disk-demo"),
        variables: &[],
        mounts: &[],
    },
];

#[test]
fn manifests_of_upstreams_documentation_do_what_they_say() {
    let Some(namespace) = alone() else { return };
    let class = DefaultClass::new(&namespace);
    let _controller = namespace.controller(&[]);
    for expected in ALL {
        class.volume_for(expected.name, expected.mode);
    }
    let text = include_str!("upstream.yaml");
    let mut apply = namespace.kubectl();
    let output = fed(apply.args(["apply", "-f", "-"]), text.as_bytes());
    assert!(output.status.success(), "{}", said(&output));
    for expected in ALL {
        check(&namespace, &class.1, expected);
    }
    let applied = run(namespace.kubectl().args(["get", "dv,pvc", "-o", "name"]));
    let claims = String::from_utf8_lossy(&applied)
        .lines()
        .filter(|line| line.starts_with("persistentvolumeclaim/"))
        .count();
    assert_eq!(claims, ALL.len(), "each manifest has its line above");
}

#[test]
fn disks_of_machines_have_a_default_class_of_their_own_and_other_claims_do_not() {
    let Some(namespace) = alone() else { return };
    let usual = DefaultClass::new(&namespace);
    let virt = DefaultClass::of(&namespace, "storageclass.kubevirt.io/is-default-virt-class");
    let _controller = namespace.controller(&[]);
    let size = json!({"requests": {"storage": "1Gi"}});
    let pvc = json!({"pvc": {"accessModes": ["ReadWriteOnce"], "resources": size}});
    let storage = json!({"storage": {"resources": size}});
    let mut files = storage.clone();
    files["contentType"] = json!("archive");
    for (name, spec, class) in [
        ("pvc", pvc, &usual),
        ("disk", storage, &virt),
        ("files", files, &usual),
    ] {
        let mut spec = spec;
        spec["source"] = json!({"http": {"url": DISK}});
        namespace.apply(&json!({
            "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume",
            "metadata": {"name": name}, "spec": spec,
        }));
        let claim = format!("pvc/{name}");
        namespace.wait_for(&claim, "create");
        let named = &namespace.get(&claim)["spec"]["storageClassName"];
        assert_eq!(*named, class.1, "{name}");
    }
}

fn check(namespace: &Namespace, class: &str, expected: &Expected) {
    let name = expected.name;
    namespace.wait_for(&format!("pod/importer-{name}"), "create");
    let claim = namespace.get(&format!("pvc/{name}"));
    let spec = &claim["spec"];
    assert_eq!(spec["storageClassName"], class, "{name}");
    assert_eq!(spec["accessModes"], json!(["ReadWriteOnce"]), "{name}");
    assert_eq!(spec["volumeMode"], expected.mode, "{name}");
    let request = spec["resources"]["requests"]["storage"].as_str().unwrap();
    let request = request.parse::<Quantity>().unwrap().to_u64();
    assert_eq!(request, Some(expected.request), "{name}");

    let pod = namespace.get(&format!("pod/importer-{name}"));
    let containers = pod["spec"]["containers"].as_array().unwrap();
    let importer = containers.iter().find(|it| it["name"] == "importer");
    let environment = importer.unwrap()["env"].as_array().unwrap();
    let variable = |wanted: &str| -> &Value {
        let found = environment.iter().find(|it| it["name"] == wanted);
        found.map_or(&Value::Null, |it| &it["value"])
    };
    assert_eq!(variable("IMPORTER_SOURCE"), expected.source, "{name}");
    let endpoint = variable("IMPORTER_ENDPOINT").as_str();
    assert_eq!(endpoint.filter(|it| !it.is_empty()), expected.endpoint);
    for (wanted, value) in expected.variables {
        assert_eq!(variable(wanted), value, "{name}: {wanted}");
    }
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    for wanted in expected.mounts {
        let mounted = volumes.iter().any(|volume| {
            volume["secret"]["secretName"] == *wanted || volume["configMap"]["name"] == *wanted
        });
        assert!(mounted, "{name} does not mount {wanted}");
    }
}
