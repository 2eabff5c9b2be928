//! Every source by the populator: a `VolumeImportSource`, and a claim on the CSI storage that names it. No data
//! volume has a part in it.

use std::any::Any;
use std::path::Path;

use longshore_tests::data::{self, qcow2};
use longshore_tests::gate::{Gate, transparent};
use longshore_tests::http::Page;
use longshore_tests::nbd::Server;
use longshore_tests::stores::{ACCESS_KEY, Gcs, SECRET_KEY, Versity};
use serde_json::{Value, json};

use super::super::images::{load, tar};
use super::super::provisioned::claim_spec;
use super::super::pulls::by_node;
use super::super::rig::{Case, case, disk};
use super::imageio::Disks;
use super::registry::registry_with;
use super::vddk::Farm;
use super::{archives, imageio, keys};

/// One of them: what it is, and what comes of it.
struct Way {
    name: &'static str,
    mode: &'static str,
    spec: Value,
    disk: Vec<u8>,
    /// What has to be there meanwhile.
    _served: Box<dyn Any>,
}

impl Way {
    fn new(
        name: &'static str,
        mode: &'static str,
        source: &Value,
        disk: Vec<u8>,
        served: impl Any,
    ) -> Self {
        Self {
            name,
            mode,
            spec: json!({"source": source}),
            disk,
            _served: Box::new(served),
        }
    }

    /// Asks for it.
    fn apply(&self, case: &Case) {
        case.apply(&json!({
            "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "VolumeImportSource",
            "metadata": {"name": self.name}, "spec": self.spec,
        }));
        let mut spec = claim_spec("csi", self.mode);
        spec["dataSourceRef"] = json!({
            "apiGroup": "cdi.kubevirt.io", "kind": "VolumeImportSource", "name": self.name,
        });
        case.apply(&json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": self.name},
            "spec": spec,
        }));
    }

    /// Waits until the claim has its volume.
    fn is_filled(&self, case: &Case) {
        case.filled(self.name);
        let phase = &case.get(&format!("pvc/{}", self.name))["status"]["phase"];
        assert_eq!(*phase, "Bound", "{}", self.name);
    }
}

fn s3(case: &Case, mode: &'static str) -> Option<Way> {
    let store = Versity::start()?;
    let disk = disk(71);
    store.put_bytes("/disks/disk.qcow2", &qcow2(&disk));
    let gate = Gate::listen_on(case.address(), Some(store.upstream()), None, transparent);
    keys(case, "s3", ACCESS_KEY, SECRET_KEY);
    let source = json!({"s3": {"url": gate.url("/disks/disk.qcow2"), "secretRef": "s3"}});
    Some(Way::new("s3", mode, &source, disk, (store, gate)))
}

fn gcs(case: &Case, mode: &'static str) -> Option<Way> {
    let gate = Gate::listen_on(case.address(), None, None, transparent);
    let store = Gcs::behind(&gate)?;
    let disk = disk(72);
    store.put("disk.raw", &disk);
    let source = json!({"gcs": {"url": gate.url("/disks/disk.raw")}});
    Some(Way::new("gcs", mode, &source, disk, (store, gate)))
}

fn pulled_by_pod(case: &Case, mode: &'static str) -> Option<Way> {
    let disk = disk(73);
    let registry = registry_with(&qcow2(&disk))?;
    let authority = longshore_tests::http::Authority::new();
    let upstream = Some(registry.upstream());
    let gate = Gate::listen_on(case.address(), upstream, Some(&authority), transparent);
    keys(case, "ann", "ann", "s3cret");
    super::authorities(case, "registry", &authority);
    let source = json!({"registry": {
        "url": format!("docker://{}/disks/disk:1", gate.address()), "secretRef": "ann",
        "certConfigMap": "registry",
    }});
    Some(Way::new(
        "registry-pod",
        mode,
        &source,
        disk,
        (registry, gate),
    ))
}

fn pulled_by_node(case: &Case, mode: &'static str) -> Way {
    let disk = disk(74);
    let reference = "longshore.test/populated:1";
    let layer = tar(&[("disk/disk.qcow2", &qcow2(&disk))]);
    load(case, reference, &layer, &json!({}));
    Way::new("registry-node", mode, &by_node(reference), disk, ())
}

fn ovirt(case: &Case, mode: &'static str) -> Option<Way> {
    if !imageio::have_all() {
        return None;
    }
    let disks = Disks::new(75);
    let server = Server::qemu("raw", &disks.path("base.raw"));
    let engine = imageio::engine(case, &server, disks.base.len())?;
    imageio::keys(case);
    let source = imageio::source(&engine, "keys");
    let disk = disks.base.clone();
    Some(Way::new(
        "imageio",
        mode,
        &source,
        disk,
        (disks, server, engine),
    ))
}

fn vmware(case: &Case, mode: &'static str) -> Option<Way> {
    let farm = Farm::new(case, 76)?;
    let disk = farm.states[1].clone();
    Some(Way::new("vddk", mode, &farm.source(), disk, farm))
}

/// Each on one kind of volume, in turns: what differs between the two is the importer's business, not the source's.
#[test]
fn claims_come_filled_from_every_source() {
    let Some(case) = case() else { return };
    let blank = Way::new("blank", "Filesystem", &json!({"blank": {}}), Vec::new(), ());
    let ways = [
        s3(&case, "Filesystem"),
        gcs(&case, "Block"),
        pulled_by_pod(&case, "Filesystem"),
        Some(pulled_by_node(&case, "Block")),
        ovirt(&case, "Filesystem"),
        vmware(&case, "Block"),
        Some(blank),
    ];
    // What is not installed said so, and in CI that is a failure.
    let ways: Vec<Way> = ways.into_iter().flatten().collect();
    for way in &ways {
        way.apply(&case);
    }
    for way in &ways {
        way.is_filled(&case);
        case.claim_holds(way.name, way.mode, &way.disk);
    }
    assert!(!case.exists("dv"));
}

#[test]
fn a_claim_comes_filled_with_the_files_of_an_archive() {
    let Some(case) = case() else { return };
    let folder = data::quick_dir();
    let (files, archive) = archives::made(folder.path(), 77);
    let server = case.serve(Page::of(std::fs::read(archive).unwrap()));
    let source = json!({"http": {"url": server.url("/disk")}});
    let mut way = Way::new("archive", "Filesystem", &source, Vec::new(), server);
    way.spec["contentType"] = json!("archive");
    way.apply(&case);
    way.is_filled(&case);
    case.claim_has("archive", |found: &Path| archives::has(found, &files));
}
