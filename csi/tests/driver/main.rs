//! The driver as Kubernetes sees it: calls of its socket, real loop devices, real filesystems.
#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "helpers of tests fail by panicking too; errors are the driver's"
)]

mod rig;

use longshore_csi::grpc::Code;
use longshore_csi::proto::{
    Capabilities, CapacityRange, ContentSource, CreateSnapshotRequest, CreateSnapshotResponse,
    CreateVolumeResponse, Empty, ExpandRequest, ExpandResponse, GetCapacityRequest,
    GetCapacityResponse, Id, ListSnapshotsRequest, ListSnapshotsResponse, NodeExpandRequest,
    NodeInfo, Origin, PluginInfo, Registered, ValidateRequest, ValidateResponse,
};

use rig::{MIB, Refused, Rig, call, device, filesystem, volume};

impl Rig {
    /// Asks for a volume to be `bytes` large, first of the controller and then of the node.
    fn expand(&self, id: &str, bytes: i64) -> i64 {
        let capacity = Some(CapacityRange {
            required_bytes: bytes,
            limit_bytes: 0,
        });
        let request = ExpandRequest {
            id: id.to_owned(),
            capacity,
        };
        let expanded: ExpandResponse = self
            .call("Controller/ControllerExpandVolume", &request)
            .unwrap();
        assert!(expanded.node_has_to);
        let request = NodeExpandRequest {
            id: id.to_owned(),
            path: self.path(&format!("{id}-pod")).to_str().unwrap().to_owned(),
            capacity,
        };
        let done: ExpandResponse = self.call("Node/NodeExpandVolume", &request).unwrap();
        assert_eq!(done.capacity_bytes, expanded.capacity_bytes);
        done.capacity_bytes
    }

    fn snapshot(&self, name: &str, source: &str) -> CreateSnapshotResponse {
        let request = CreateSnapshotRequest {
            source: source.to_owned(),
            name: name.to_owned(),
        };
        self.call("Controller/CreateSnapshot", &request).unwrap()
    }
}

fn from(origin: Origin) -> ContentSource {
    ContentSource {
        origin: Some(origin),
    }
}

fn id(id: &str) -> Id {
    Id { id: id.to_owned() }
}

fn code(refused: &Refused) -> u16 {
    refused.0
}

#[test]
fn a_filesystem_has_its_capacity_and_not_more_and_grows_while_it_is_used() {
    let Some(rig) = Rig::new() else { return };
    rig.create(&volume("fs", 32 * MIB, filesystem())).unwrap();
    rig.use_it("fs", &filesystem());
    rig.shell("head -c 26M /dev/urandom > fs-pod/disk; sync -f fs-pod")
        .unwrap();
    let full = rig.shell("head -c 3M /dev/zero > fs-pod/more; sync -f fs-pod");
    assert!(full.unwrap_err().contains("No space left"));
    let sum = rig.shell("sha256sum < fs-pod/disk").unwrap();
    assert_eq!(rig.expand("fs", 48 * MIB), 48 * MIB);
    rig.shell("head -c 15M /dev/zero > fs-pod/more; sync -f fs-pod")
        .unwrap();
    rig.leave_it("fs");
    assert_eq!(rig.devices(), Vec::<std::path::PathBuf>::new());
    assert!(!rig.path("fs-pod").exists());
    rig.use_it("fs", &filesystem());
    assert_eq!(rig.shell("sha256sum < fs-pod/disk").unwrap(), sum);
    rig.leave_it("fs");
    rig.delete("fs").unwrap();
    rig.delete("fs").unwrap();
    assert_eq!(rig.kept(), Vec::<String>::new());
}

#[test]
fn a_device_has_its_capacity_and_grows_while_it_is_used() {
    let Some(rig) = Rig::new() else { return };
    rig.create(&volume("dev", 4 * MIB, device())).unwrap();
    rig.use_it("dev", &device());
    rig.shell("test -b dev-pod").unwrap();
    let size = || rig.shell("blockdev --getsize64 dev-pod").unwrap();
    assert_eq!(size(), (4 * MIB).to_string());
    let write = "dd if=/dev/urandom of=dev-pod bs=1M count=5 conv=fsync,notrunc";
    let full = rig.shell(write);
    assert!(full.unwrap_err().contains("No space left"));
    let sum = rig.shell("head -c 4M dev-pod | sha256sum").unwrap();
    assert_eq!(rig.expand("dev", 6 * MIB), 6 * MIB);
    assert_eq!(size(), (6 * MIB).to_string());
    assert_eq!(rig.shell("head -c 4M dev-pod | sha256sum").unwrap(), sum);
    // What is in use is not removed.
    let refused = rig.delete("dev").unwrap_err();
    assert_eq!(code(&refused), Code::FailedPrecondition as u16);
    rig.leave_it("dev");
    assert_eq!(rig.devices(), Vec::<std::path::PathBuf>::new());
    rig.delete("dev").unwrap();
    assert_eq!(rig.kept(), Vec::<String>::new());
}

#[test]
fn copies_are_of_one_moment_and_may_be_larger() {
    let Some(rig) = Rig::new() else { return };
    rig.create(&volume("fs", 16 * MIB, filesystem())).unwrap();
    rig.use_it("fs", &filesystem());
    // Not on the disk yet, as far as anybody knows.
    rig.shell("echo before > fs-pod/a").unwrap();
    let made = rig.snapshot("snap", "fs").snapshot.unwrap();
    assert!(made.ready && made.size_bytes == 16 * MIB && made.source == "fs");
    assert_eq!(rig.snapshot("snap", "fs").snapshot.unwrap(), made);
    rig.shell("echo after > fs-pod/a").unwrap();
    let mut restored = volume("restored", 32 * MIB, filesystem());
    restored.source = Some(from(Origin::Snapshot(id("snap"))));
    let answer = rig.create(&restored).unwrap().volume.unwrap();
    assert_eq!(answer.source, restored.source);
    let mut clone = volume("clone", 16 * MIB, filesystem());
    clone.source = Some(from(Origin::Volume(id("fs"))));
    rig.create(&clone).unwrap();
    // The source goes on, and may go.
    rig.shell("echo later > fs-pod/a").unwrap();
    rig.leave_it("fs");
    rig.delete("fs").unwrap();
    for (name, text) in [("restored", "before"), ("clone", "after")] {
        rig.use_it(name, &filesystem());
        assert_eq!(rig.shell(&format!("cat {name}-pod/a")).unwrap(), text);
    }
    rig.shell("head -c 24M /dev/zero > restored-pod/b; sync -f restored-pod")
        .unwrap();
    for name in ["restored", "clone"] {
        rig.leave_it(name);
        rig.delete(name).unwrap();
    }
    let smaller = {
        let mut smaller = restored;
        smaller.name = "smaller".to_owned();
        smaller.capacity = Some(CapacityRange {
            required_bytes: MIB,
            limit_bytes: 2 * MIB,
        });
        rig.create(&smaller).unwrap_err()
    };
    assert_eq!(code(&smaller), Code::OutOfRange as u16);
    let gone = clone;
    assert_eq!(code(&rig.create(&gone).unwrap_err()), Code::NotFound as u16);
    let _: Empty = rig.call("Controller/DeleteSnapshot", &id("snap")).unwrap();
    assert_eq!(rig.kept(), Vec::<String>::new());
}

#[test]
fn a_device_is_copied_with_what_was_just_written() {
    let Some(rig) = Rig::new() else { return };
    rig.create(&volume("dev", 2 * MIB, device())).unwrap();
    rig.use_it("dev", &device());
    let write = "dd if=/dev/urandom of=dev-pod bs=1M count=2 conv=notrunc 2>/dev/null";
    rig.shell(write).unwrap();
    let sum = rig.shell("sha256sum < dev-pod").unwrap();
    rig.snapshot("snap", "dev");
    rig.shell(write).unwrap();
    let mut copy = volume("copy", 2 * MIB, device());
    copy.source = Some(from(Origin::Snapshot(id("snap"))));
    rig.create(&copy).unwrap();
    rig.use_it("copy", &device());
    assert_eq!(rig.shell("sha256sum < copy-pod").unwrap(), sum);
}

#[test]
fn a_driver_that_was_killed_goes_on_where_it_was() {
    let Some(mut rig) = Rig::new() else { return };
    for (name, capability) in [("fs", filesystem()), ("dev", device())] {
        rig.create(&volume(name, 16 * MIB, capability.clone()))
            .unwrap();
        rig.use_it(name, &capability);
    }
    rig.shell("echo text > fs-pod/a; echo text > dev-pod")
        .unwrap();
    // It was in the middle of things: a copy of a filesystem that it held up, and a volume half made.
    rig.shell("fsfreeze --freeze fs-staging; echo > state/volumes/.half.img")
        .unwrap();
    rig.restart(&[]);
    rig.shell("echo more >> fs-pod/a; sync -f fs-pod").unwrap();
    assert_eq!(rig.devices().len(), 2);
    assert_eq!(rig.expand("fs", 20 * MIB), 20 * MIB);
    for (name, capability) in [("fs", filesystem()), ("dev", device())] {
        rig.use_it(name, &capability);
        rig.leave_it(name);
        rig.delete(name).unwrap();
    }
    assert_eq!(rig.kept(), Vec::<String>::new());
}

#[test]
fn calls_can_be_repeated_and_other_things_of_the_same_name_are_refused() {
    let Some(rig) = Rig::new() else { return };
    let request = volume("v", 2 * MIB, device());
    let first: CreateVolumeResponse = rig.create(&request).unwrap();
    assert_eq!(rig.create(&request), Ok(first.clone()));
    let made = first.volume.unwrap();
    assert_eq!((&*made.id, made.capacity_bytes), ("v", 2 * MIB));
    for other in [
        volume("v", 3 * MIB, device()),
        volume("v", 2 * MIB, filesystem()),
    ] {
        let refused = rig.create(&other).unwrap_err();
        assert_eq!(code(&refused), Code::AlreadyExists as u16);
    }
    for wrong in [volume("../v", MIB, device()), volume("", MIB, device())] {
        let refused = rig.create(&wrong).unwrap_err();
        assert_eq!(code(&refused), Code::InvalidArgument as u16);
    }
    rig.snapshot("s", "v");
    let other = CreateSnapshotRequest {
        source: "w".to_owned(),
        name: "s".to_owned(),
    };
    let refused = rig.call::<_, CreateSnapshotResponse>("Controller/CreateSnapshot", &other);
    assert_eq!(code(&refused.unwrap_err()), Code::AlreadyExists as u16);
    let validate = |id: &str, capability| ValidateRequest {
        id: id.to_owned(),
        capabilities: vec![capability],
        ..ValidateRequest::default()
    };
    let method = "Controller/ValidateVolumeCapabilities";
    let fits: ValidateResponse = rig.call(method, &validate("v", device())).unwrap();
    assert!(fits.confirmed.is_some());
    let not: ValidateResponse = rig.call(method, &validate("v", filesystem())).unwrap();
    assert!(not.confirmed.is_none() && !not.message.is_empty());
    let nothing = rig.call::<_, ValidateResponse>(method, &validate("w", device()));
    assert_eq!(code(&nothing.unwrap_err()), Code::NotFound as u16);
    let refused = rig.call::<_, Empty>("Controller/ListVolumes", &Empty {});
    assert_eq!(code(&refused.unwrap_err()), Code::Unimplemented as u16);
}

#[test]
fn snapshots_are_listed_page_by_page() {
    let Some(rig) = Rig::new() else { return };
    for name in ["v", "w"] {
        rig.create(&volume(name, MIB, device())).unwrap();
    }
    for (name, source) in [("a", "v"), ("b", "w"), ("c", "v")] {
        rig.snapshot(name, source);
    }
    let list = |request: ListSnapshotsRequest| {
        let list: ListSnapshotsResponse = rig.call("Controller/ListSnapshots", &request).unwrap();
        let names = list.entries.into_iter().map(|e| e.snapshot.unwrap().id);
        (names.collect::<Vec<_>>(), list.next_token)
    };
    let all = ListSnapshotsRequest::default();
    assert_eq!(list(all.clone()).0, ["a", "b", "c"]);
    let mut page = all.clone();
    page.max_entries = 2;
    let (first, token) = list(page.clone());
    assert_eq!(first, ["a", "b"]);
    page.starting_token = token;
    assert_eq!(list(page), (vec!["c".to_owned()], String::new()));
    let mut some = all.clone();
    some.source = "v".to_owned();
    assert_eq!(list(some).0, ["a", "c"]);
    let mut one = all;
    one.id = "nothing".to_owned();
    assert_eq!(list(one).0, Vec::<String>::new());
}

#[test]
fn there_is_no_more_room_than_it_was_given() {
    let Some(mut rig) = Rig::new() else { return };
    rig.restart(&["--capacity", "4194304"]);
    rig.create(&volume("v", 3 * MIB, device())).unwrap();
    let left = || {
        let request = GetCapacityRequest::default();
        let left: GetCapacityResponse = rig.call("Controller/GetCapacity", &request).unwrap();
        left.available
    };
    assert_eq!(left(), MIB);
    let refused = rig.create(&volume("w", 2 * MIB, device())).unwrap_err();
    assert_eq!(code(&refused), Code::ResourceExhausted as u16);
    rig.create(&volume("w", MIB, device())).unwrap();
    assert_eq!(left(), 0);
    rig.delete("v").unwrap();
    assert_eq!(left(), 3 * MIB);
}

#[test]
fn a_class_may_ask_for_failures() {
    let Some(rig) = Rig::new() else { return };
    let mut request = volume("v", MIB, device());
    request.parameters = [("fail", "UNAVAILABLE"), ("failures", "1")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let refused = rig.create(&request).unwrap_err();
    assert_eq!(code(&refused), Code::Unavailable as u16);
    assert_eq!(rig.kept(), Vec::<String>::new());
    rig.create(&request).unwrap();
}

#[test]
fn it_says_who_it_is_and_what_it_can_do() {
    let Some(rig) = Rig::new() else { return };
    let info: PluginInfo = rig.call("Identity/GetPluginInfo", &Empty {}).unwrap();
    assert_eq!(info.name, longshore_csi::NAME);
    for (method, count) in [
        ("Identity/GetPluginCapabilities", 3),
        ("Controller/ControllerGetCapabilities", 7),
        ("Node/NodeGetCapabilities", 3),
    ] {
        let can: Capabilities = rig.call(method, &Empty {}).unwrap();
        assert_eq!(can.capabilities.len(), count, "{method}");
    }
    let node: NodeInfo = rig.call("Node/NodeGetInfo", &Empty {}).unwrap();
    assert_eq!(node.id, "node-1");
    let segments = node.topology.unwrap().segments;
    assert_eq!(segments["csi.longshore.test/node"], "node-1");
}

#[test]
fn the_kubelet_finds_it_though_it_takes_the_path_for_an_authority() {
    let Some(rig) = Rig::new() else { return };
    let socket = rig.path("csi@reg.sock");
    let authority = socket.to_str().unwrap().replace('/', "%2F");
    let url = format!("http://{authority}/pluginregistration.Registration/GetInfo");
    let told: Registered = call(&socket, &url, &Empty {}).unwrap();
    assert_eq!(told.kind, "CSIPlugin");
    assert_eq!(told.endpoint, rig.path("csi.sock").to_str().unwrap());
    assert_eq!(told.versions, ["1.0.0"]);
}
