//! Disks of VMware machines: nbdkit and its plugin as they are in the importer's image, a stand-in for VMware's
//! library that an image brings, and govmomi's simulator with a fake of changed block tracking.

use std::net::SocketAddr;

use longshore_tests::data;
use longshore_tests::program::have;
use longshore_tests::stores::find;
use longshore_tests::vddk::{FOLDER, library};
use longshore_tests::vsphere::{PASSWORD, Simulator, USER};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::images::load;
use super::super::provisioned;
use super::super::rig::{Case, case, case_alone, data_volume, disk, holds, holds_sparse};
use super::{annotated, checkpoints, go_on, keys, storage, volume, warm};

/// A machine whose disk has two snapshots, and an image with a library that can read them.
pub(super) struct Farm {
    simulator: Simulator,
    address: SocketAddr,
    library: String,
    /// The disk in each of them. Nothing was written after the second.
    pub(super) states: [Vec<u8>; 2],
    _states: TempDir,
}

impl Farm {
    /// `None` where something is not installed.
    pub(super) fn new(case: &Case, seed: u64) -> Option<Self> {
        if !have("cc") {
            return None;
        }
        let busybox = find("LONGSHORE_BUSYBOX", "busybox")?;
        let first = disk(seed);
        let mut second = first.clone();
        // Data where there was none, none where there was, and a few bytes.
        second[7 << 20..8 << 20].copy_from_slice(&data::disk(1 << 20, seed + 50));
        second[2 << 20..3 << 20].fill(0);
        second[100..105].copy_from_slice(b"later");
        let folder = data::quick_dir();
        for (name, state) in [("1.raw", &first), ("2.raw", &second)] {
            std::fs::write(folder.path().join(name), state).unwrap();
        }
        let simulator = Simulator::start(folder.path())?;
        let made = folder.path().join(FOLDER);
        library(
            &made,
            &[
                (simulator.snapshot(1), &first),
                (simulator.snapshot(2), &second),
                ("now", &second),
            ],
        );
        let mut layer = tar::Builder::new(Vec::new());
        layer.append_dir_all(FOLDER, &made).unwrap();
        layer.append_path_with_name(busybox, "bin/busybox").unwrap();
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        layer.append_link(&mut link, "bin/cp", "busybox").unwrap();
        // What such images run: upstream's documentation has it.
        let config = json!({
            "Entrypoint": ["cp", "-r", format!("/{FOLDER}"), "/opt"], "Env": ["PATH=/bin"],
        });
        let reference = format!("longshore.test/vddk-stand-in:{seed}");
        load(case, &reference, &layer.into_inner().unwrap(), &config);
        keys(case, "vmware", USER, PASSWORD);
        Some(Self {
            address: simulator.at(case.address()),
            simulator,
            library: reference,
            states: [first, second],
            _states: folder,
        })
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(super) fn source(&self) -> Value {
        json!({"vddk": {
            "url": self.url(), "uuid": self.simulator.uuid(),
            "backingFile": self.simulator.file(), "thumbprint": self.simulator.thumbprint(),
            "secretRef": "vmware", "initImageURL": self.library,
        }})
    }

    /// What says where the library is.
    fn image(&self) -> (&'static str, &str) {
        ("pod.vddk.initimageurl", &self.library)
    }

    /// A claim that asks for the same.
    fn annotate(&self, case: &Case, name: &str, more: &[(&str, &str)]) {
        let url = self.url();
        let own = [
            ("import.source", "vddk"),
            ("import.endpoint", &url),
            ("import.uuid", self.simulator.uuid()),
            ("import.backingFile", self.simulator.file()),
            ("import.vddk.thumbprint", self.simulator.thumbprint()),
            ("import.secretName", "vmware"),
        ];
        annotated(case, name, &[&own[..], more].concat());
    }

    /// The two stages of a copy.
    fn checkpoints(&self) -> [Value; 2] {
        checkpoints(self.simulator.snapshot(1), self.simulator.snapshot(2))
    }

    /// Every session was ended.
    fn is_left(&self) {
        let count = |method| self.simulator.calls(method);
        assert_eq!(count("Login"), count("Logout"));
    }
}

#[test]
fn a_disk_of_vmware_is_copied_to_files_and_devices_with_the_library_of_an_image() {
    let Some(case) = case() else { return };
    let Some(farm) = Farm::new(&case, 91) else {
        return;
    };
    let disk = &farm.states[1];
    let (one, other) = (case.folder_for("volume"), case.folder_for("claim"));
    volume(&case, "volume", &farm.source());
    let mut device = data_volume("device", &farm.source());
    device["metadata"]["annotations"] = json!({"cdi.kubevirt.io/storage.usePopulator": "false"});
    device["spec"]["pvc"] = provisioned::claim_spec("csi", "Block");
    case.apply(&device);
    farm.annotate(&case, "claim", &[farm.image()]);
    case.succeeded("volume");
    holds_sparse(&one, disk);
    case.filled("claim");
    holds_sparse(&other, disk);
    case.succeeded("device");
    case.claim_holds("device", "Block", disk);
    farm.is_left();
    let told = case.get("pvc/volume")["metadata"]["annotations"].clone();
    let of = |name: &str| told[format!("cdi.kubevirt.io/storage.pod.vddk.{name}")].clone();
    assert_eq!(of("version"), "0.0.1", "{told}");
    assert_eq!(of("host"), case.address(), "{told}");
    let seen = case.ask(&["get", "dv,pvc,pods,events", "-o", "json"]);
    assert!(!seen.contains("sesame"));
}

#[test]
fn a_disk_of_vmware_in_use_is_copied_in_two_stages_of_which_the_second_has_what_changed() {
    let Some(case) = case() else { return };
    let Some(farm) = Farm::new(&case, 93) else {
        return;
    };
    let (one, other) = (case.folder_for("warm"), case.folder_for("claim"));
    case.apply(&warm(&farm.source(), &farm.checkpoints()));
    let (before, after) = (farm.simulator.snapshot(1), farm.simulator.snapshot(2));
    let stage = |current, previous, last| {
        [
            ("checkpoint.current", current),
            ("checkpoint.previous", previous),
            ("checkpoint.final", last),
        ]
    };
    let first_stage = stage(before, "", "false");
    farm.annotate(
        &case,
        "claim",
        &[&[farm.image()], &first_stage[..]].concat(),
    );
    case.wait("dv/warm", ".status.phase", "Paused");
    holds(&one.join("disk.img"), &farm.states[0], 0);
    let copied = format!("checkpoint.copied.{before}").replace('.', "\\.");
    let copied = format!("{{.metadata.annotations.cdi\\.kubevirt\\.io/storage\\.{copied}}}");
    case.wait_for("pvc/claim", &format!("jsonpath={copied}"));
    holds(&other.join("disk.img"), &farm.states[0], 0);
    assert_eq!(farm.simulator.calls("QueryChangedDiskAreas"), 0);
    go_on(&case, &farm.checkpoints());
    let next = storage(&stage(after, before, "true"));
    case.patch("pvc/claim", &json!({"metadata": {"annotations": next}}));
    case.succeeded("warm");
    holds(&one.join("disk.img"), &farm.states[1], 0);
    case.filled("claim");
    holds(&other.join("disk.img"), &farm.states[1], 0);
    assert!(farm.simulator.calls("QueryChangedDiskAreas") >= 2);
    farm.is_left();
}

#[test]
fn a_claim_whose_prime_is_filled_in_two_stages_gets_its_volume_after_the_second() {
    let Some(case) = case() else { return };
    let Some(farm) = Farm::new(&case, 95) else {
        return;
    };
    let mut volume = warm(&farm.source(), &farm.checkpoints());
    volume["spec"]["pvc"] = provisioned::claim_spec("csi", "Block");
    case.apply(&volume);
    case.wait("dv/warm", ".status.phase", "Paused");
    let claim = case.get("pvc/warm");
    assert_eq!(claim["status"]["phase"], "Pending", "{claim}");
    let prime = format!("prime-{}", claim["metadata"]["uid"].as_str().unwrap());
    case.claim_holds(&prime, "Block", &farm.states[0]);
    go_on(&case, &farm.checkpoints());
    case.succeeded("warm");
    case.claim_holds("warm", "Block", &farm.states[1]);
    case.wait_for(&format!("pvc/{prime}"), "delete");
    assert!(farm.simulator.calls("QueryChangedDiskAreas") >= 1);
    farm.is_left();
}

/// What says for the whole cluster where the library is, for as long as this is there.
struct ForAll<'a>(&'a Case);

impl Drop for ForAll<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "configmap", "v2v-vmware", "--ignore-not-found"];
        self.0
            .everywhere(&[&["--namespace", "cdi"], &delete[..]].concat());
    }
}

#[test]
fn a_claim_that_names_no_library_waits_for_the_one_that_is_for_all() {
    // Others test that there is none.
    let Some(case) = case_alone() else { return };
    let Some(farm) = Farm::new(&case, 97) else {
        return;
    };
    let folder = case.folder_for("claim");
    farm.annotate(&case, "claim", &[]);
    let why = ".metadata.annotations.cdi\\.kubevirt\\.io/storage\\.condition\\.running\\.reason";
    case.wait("pvc/claim", why, "AwaitingVDDK");
    let _for_all = ForAll(&case);
    case.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "v2v-vmware", "namespace": "cdi"},
        "data": {"vddk-init-image": farm.library},
    }));
    case.filled("claim");
    holds_sparse(&folder, &farm.states[1]);
}
