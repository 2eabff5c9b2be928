use std::path::Path;

use longshore_crds::manifest::Override;

use super::*;

const BASE: &str = r"
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {name: demo}
spec:
  runStrategy: Always
  template:
    spec:
      domain:
        memory: {guest: 64Mi}
        devices:
          disks:
          - {name: root, disk: {bus: virtio}}
          - {name: seed, disk: {bus: virtio}}
          interfaces:
          - {name: default, masquerade: {}}
      networks:
      - {name: default, pod: {}}
      volumes:
      - {name: root, dataVolume: {name: demo-root}}
      - {name: seed, cloudInitNoCloud: {userData: hello}}
---
apiVersion: v1
kind: Secret
metadata: {name: seed}
data: {userdata: aGVsbG8=, networkData: '!'}
";

const SPEC: &str = "spec.template.spec.";

/// The base manifest with changes below the instance's spec, unless they start with a dot.
fn manifest(changes: &[&str]) -> Manifest {
    let overrides: Vec<Override> = changes
        .iter()
        .map(|change| match change.strip_prefix('.') {
            Some(change) => change.parse().unwrap(),
            None => format!("{SPEC}{change}").parse().unwrap(),
        })
        .collect();
    Manifest::parse(BASE.as_bytes(), &overrides).unwrap()
}

fn host() -> Host {
    let root = DiskPath {
        path: PathBuf::from("/images/root.raw"),
        kind: DiskKind::File,
    };
    Host {
        accelerator: Accelerator::Tcg,
        qemu: PathBuf::from("qemu"),
        state_dir: PathBuf::from("/state"),
        cpus: 4,
        disks: BTreeMap::from([("root".to_owned(), root)]),
        allow_host_disks: false,
        forwards: Vec::new(),
    }
}

fn planned(changes: &[&str]) -> Plan {
    plan(&manifest(changes), &host()).unwrap()
}

fn problems(changes: &[&str]) -> Vec<Problem> {
    match plan(&manifest(changes), &host()) {
        Err(PlanError::Refused { problems }) => problems,
        other => panic!("{changes:?}: {other:?}"),
    }
}

fn args(plan: &Plan) -> Vec<&str> {
    plan.args.iter().map(|arg| arg.to_str().unwrap()).collect()
}

/// Values of an option.
fn values<'a>(plan: &'a Plan, option: &str) -> Vec<&'a str> {
    let args = args(plan);
    args.windows(2)
        .filter(|pair| pair[0] == option)
        .map(|pair| pair[1])
        .collect()
}

/// The one problem that a change leads to: where it is, and its kind.
fn only_problem(changes: &[&str]) -> (String, ProblemKind) {
    let problems = problems(changes);
    let [problem] = problems.as_slice() else {
        panic!("{changes:?}: {problems:?}")
    };
    let path = problem.path.to_string();
    (
        path.strip_prefix(SPEC).unwrap_or(&path).to_owned(),
        problem.kind.clone(),
    )
}

macro_rules! refuses {
    ($($change:expr => $path:literal, $kind:pat,)*) => {$(
        let (path, kind) = only_problem($change);
        assert_eq!(path, $path, "{:?}", $change);
        assert!(matches!(kind, $kind), "{:?}: {kind:?}", $change);
    )*};
}

#[test]
fn each_rule_of_validation_names_the_field() {
    use ProblemKind as K;
    refuses! {
        &[".metadata.name=null"] => "metadata.name", K::Required,
        &[".metadata.name=../x"] => "metadata.name", K::Invalid { .. },
        &[".metadata.name=a,file=/etc/passwd"] => "metadata.name", K::Invalid { .. },
        &[".metadata.namespace=a/b"] => "metadata.namespace", K::Invalid { .. },
        &[".spec.running=true"] => "spec.running", K::Contradicts { .. },
        &[".spec.instancetype.name=u1.small"] => "spec.instancetype", K::Unsupported { .. },
        &[".spec.preference.name=linux"] => "spec.preference", K::Unsupported { .. },
        &["hostname=Not_A_Label"] => "hostname", K::Invalid { .. },
        &["architecture=arm64"] => "architecture", K::Invalid { .. },
        &["terminationGracePeriodSeconds=99999999999"] => "terminationGracePeriodSeconds", K::Invalid { .. },
        &["domain.memory=null"] => "domain.memory.guest", K::NoMemory,
        &["domain.memory.guest=999999"] => "domain.memory.guest", K::Invalid { .. },
        &["domain.memory.guest=-1Gi"] => "domain.memory.guest", K::Invalid { .. },
        &["domain.resources.limits.memory=32Mi"] => "domain.memory.guest", K::AboveLimit { .. },
        &["domain.resources={\"requests\":{\"cpu\":2},\"limits\":{\"cpu\":1}}"] => "domain.resources.requests.cpu", K::AboveLimit { .. },
        &["domain.cpu.cores=0"] => "domain.cpu", K::Invalid { .. },
        &["domain.cpu.cores=4294967295", "domain.cpu.sockets=4294967295", "domain.cpu.threads=4294967295"] => "domain.cpu", K::Invalid { .. },
        &["domain.cpu.model=host,foo=bar"] => "domain.cpu.model", K::Invalid { .. },
        &["domain.cpu.features[0].name=a=b"] => "domain.cpu.features[0].name", K::Invalid { .. },
        &["domain.cpu.dedicatedCpuPlacement=true"] => "domain.cpu.dedicatedCpuPlacement", K::Unsupported { .. },
        &["domain.launchSecurity.sev={}"] => "domain.launchSecurity", K::Unsupported { .. },
        &["domain.machine.type=pc"] => "domain.machine.type", K::Invalid { .. },
        &["domain.machine.type=q35,accel=kvm"] => "domain.machine.type", K::Invalid { .. },
        &["domain.machine.type=pc-q35-"] => "domain.machine.type", K::Invalid { .. },
        &["domain.firmware.uuid=x1234"] => "domain.firmware.uuid", K::Invalid { .. },
        &["domain.firmware.serial=\"a\\nb\""] => "domain.firmware.serial", K::Invalid { .. },
        &["domain.firmware.bootloader.efi={}"] => "domain.firmware.bootloader.efi", K::Unsupported { .. },
        &["domain.firmware.kernelBoot.kernelArgs=x"] => "domain.firmware.kernelBoot", K::Unsupported { .. },
        &["domain.devices.filesystems[0].name=seed"] => "domain.devices.filesystems", K::Unsupported { .. },
    }
}

#[test]
fn each_rule_of_disks_and_volumes_names_the_field() {
    use ProblemKind as K;
    let seed = "volumes[1].cloudInitNoCloud";
    let set = |below: &str| format!("{seed}{below}");
    refuses! {
        &["domain.devices.disks[2]={\"name\":\"other\"}"] => "domain.devices.disks[2].name", K::NoCounterpart { what: "volume", .. },
        &["domain.devices.disks[2]={\"name\":\"root\"}"] => "domain.devices.disks[2].name", K::Duplicate { .. },
        &["domain.devices.disks[0].cdrom.bus=sata"] => "domain.devices.disks[0]", K::ExactlyOne { .. },
        &["domain.devices.disks[0]={\"name\":\"root\",\"lun\":{}}"] => "domain.devices.disks[0].lun", K::Unsupported { .. },
        &["domain.devices.disks[0]={\"name\":\"root\",\"cdrom\":{\"bus\":\"virtio\"}}"] => "domain.devices.disks[0].cdrom.bus", K::Invalid { .. },
        &["domain.devices.disks[0].disk.bus=usb"] => "domain.devices.disks[0].disk.bus", K::Unsupported { .. },
        &["domain.devices.disks[0].disk={\"readonly\":true}"] => "domain.devices.disks[0].disk", K::Unsupported { .. },
        &["domain.devices.disks[0].bootOrder=0"] => "domain.devices.disks[0].bootOrder", K::Invalid { .. },
        &["domain.devices.disks[0].bootOrder=1", "domain.devices.interfaces[0].bootOrder=1"] => "domain.devices.interfaces[0].bootOrder", K::Duplicate { .. },
        &["domain.devices.disks[0].serial=a,b"] => "domain.devices.disks[0].serial", K::Invalid { .. },
        &["domain.devices.disks[0].serial=x23456789012345678901"] => "domain.devices.disks[0].serial", K::Invalid { .. },
        &["domain.devices.disks[0].io=native", "domain.devices.disks[0].cache=writeback"] => "domain.devices.disks[0].io", K::Contradicts { .. },
        &["domain.devices.disks[0].blockSize.custom={\"logical\":1000,\"physical\":4096}"] => "domain.devices.disks[0].blockSize.custom.logical", K::Invalid { .. },
        &["domain.devices.disks[0].blockSize.custom={\"logical\":4096,\"physical\":512}"] => "domain.devices.disks[0].blockSize.custom.logical", K::Contradicts { .. },
        &["volumes[0].emptyDisk.capacity=1Gi"] => "volumes[0]", K::ExactlyOne { .. },
        &["volumes[0]={\"name\":\"root\"}"] => "volumes[0]", K::ExactlyOne { .. },
        &["volumes[2]={\"name\":\"a.b\",\"emptyDisk\":{\"capacity\":\"1Gi\"}}"] => "volumes[2].name", K::Invalid { .. },
        &["volumes[2]={\"name\":\"e\",\"emptyDisk\":{}}"] => "volumes[2].emptyDisk.capacity", K::Required,
        &["volumes[2]={\"name\":\"e\",\"emptyDisk\":{\"capacity\":0}}"] => "volumes[2].emptyDisk.capacity", K::Invalid { .. },
        &["volumes[2]={\"name\":\"e\",\"dataVolume\":{\"name\":\"x\"}}"] => "volumes[2].dataVolume", K::NotProvided { .. },
        &["volumes[2]={\"name\":\"e\",\"hostDisk\":{\"path\":\"/etc/shadow\",\"type\":\"Disk\"}}"] => "volumes[2].hostDisk", K::HostDiskDenied { .. },
        &["volumes[2]={\"name\":\"e\",\"hostDisk\":{\"path\":\"/x\",\"type\":\"DiskOrCreate\"}}"] => "volumes[2].hostDisk.type", K::Unsupported { .. },
        &["volumes[2]={\"name\":\"e\",\"containerDisk\":{\"image\":\"x\"}}"] => "volumes[2].containerDisk", K::Unsupported { .. },
        &["volumes[2]={\"name\":\"e\",\"cloudInitConfigDrive\":{}}"] => "volumes[2].cloudInitConfigDrive", K::Unsupported { .. },
        &["volumes[2]={\"name\":\"e\",\"configMap\":{\"name\":\"x\"}}"] => "volumes[2].configMap", K::Unsupported { .. },
        &[&set("={}")] => "volumes[1].cloudInitNoCloud", K::ExactlyOne { .. },
        &[&set(".userDataBase64=aGk=")] => "volumes[1].cloudInitNoCloud", K::ExactlyOne { .. },
        &[&set("={\"userDataBase64\":\"!\"}")] => "volumes[1].cloudInitNoCloud.userDataBase64", K::NotBase64,
        &[&set("={\"secretRef\":{\"name\":\"none\"}}")] => "volumes[1].cloudInitNoCloud.secretRef", K::NoSecret { .. },
        &[&set(".networkDataSecretRef.name=seed")] => "volumes[1].cloudInitNoCloud.networkDataSecretRef", K::SecretValue(_),
        &[&set(&format!(".userData={}", "x".repeat(2049)))] => "volumes[1].cloudInitNoCloud.userData", K::InlineTooLong { length: 2049, .. },
    }
    let read_only = problems(&[
        "volumes[0]={\"name\":\"root\",\"persistentVolumeClaim\":{\"claimName\":\"x\",\"readOnly\":true}}",
        "domain.devices.disks[0].disk.bus=sata",
    ]);
    assert!(
        matches!(
            read_only.as_slice(),
            [Problem {
                kind: K::Unsupported { .. },
                ..
            }]
        ),
        "{read_only:?}"
    );
}

#[test]
fn each_rule_of_the_network_names_the_field() {
    use ProblemKind as K;
    refuses! {
        &["domain.devices.interfaces[0].sriov={}"] => "domain.devices.interfaces[0]", K::ExactlyOne { .. },
        &["domain.devices.interfaces[0].masquerade=null"] => "domain.devices.interfaces[0]", K::ExactlyOne { .. },
        &["domain.devices.interfaces[0]={\"name\":\"default\",\"sriov\":{}}"] => "domain.devices.interfaces[0].sriov", K::Unsupported { .. },
        &["domain.devices.interfaces[0].model=virtio,romfile=/etc/passwd"] => "domain.devices.interfaces[0].model", K::Invalid { .. },
        &["domain.devices.interfaces[0].macAddress=01:00:00:00:00:00"] => "domain.devices.interfaces[0].macAddress", K::Invalid { .. },
        &["domain.devices.interfaces[0].macAddress=02:00:00:00:00"] => "domain.devices.interfaces[0].macAddress", K::Invalid { .. },
        &["domain.devices.interfaces[0].macAddress=+2:00:00:00:00:00"] => "domain.devices.interfaces[0].macAddress", K::Invalid { .. },
        &["domain.devices.interfaces[1]={\"name\":\"b\",\"bridge\":{}}"] => "domain.devices.interfaces[1].name", K::NoCounterpart { what: "network", .. },
        &["networks[1]={\"name\":\"b\",\"multus\":{}}"] => "networks[1].name", K::NoCounterpart { what: "interface", .. },
        &["networks[0]={\"name\":\"default\"}"] => "networks[0]", K::ExactlyOne { .. },
        &["networks[0].pod.vmNetworkCIDR=10.0.2.0/31"] => "networks[0].pod.vmNetworkCIDR", K::Invalid { .. },
        &["networks[1]={\"name\":\"b\",\"pod\":{}}", "domain.devices.interfaces[1]={\"name\":\"b\",\"bridge\":{}}"] => "networks", K::TooMany { .. },
    }
}

#[test]
fn more_devices_than_fit_are_refused() {
    let volumes = |bus: &str, count: usize| -> Vec<String> {
        let volume = |n: usize| {
            format!(
                "volumes[{}]={{\"name\":\"e{n}\",\"emptyDisk\":{{\"capacity\":1024}}}}",
                n + 2
            )
        };
        let disk = |n: usize| {
            format!(
                "domain.devices.disks[{}]={{\"name\":\"e{n}\",\"disk\":{{\"bus\":\"{bus}\"}}}}",
                n + 2
            )
        };
        (0..count).flat_map(|n| [volume(n), disk(n)]).collect()
    };
    // The base has two virtio disks already.
    for (bus, fits) in [("virtio", pci::VIRTIO_DISKS - 2), ("sata", 6), ("scsi", 30)] {
        let changes = volumes(bus, fits);
        let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
        assert_eq!(planned(&changes).disks.len(), fits + 2, "{bus}");
        if bus != "scsi" {
            let changes = volumes(bus, fits + 1);
            let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
            let (path, kind) = only_problem(&changes);
            assert_eq!(path, "domain.devices.disks");
            assert!(matches!(kind, ProblemKind::TooMany { .. }), "{kind:?}");
        }
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let problems = problems(&[
        "domain.memory=null",
        "domain.machine.type=pc",
        "volumes[0].dataVolume=null",
    ]);
    assert_eq!(problems.len(), 3, "{problems:?}");
    let text = PlanError::Refused { problems }.to_string();
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[test]
fn a_machine_that_shall_not_run_is_no_mistake() {
    for change in [
        ".spec.runStrategy=Halted",
        ".spec.runStrategy=WaitAsReceiver",
    ] {
        let result = plan(&manifest(&[change]), &host());
        assert!(
            matches!(result, Err(PlanError::NotToRun { .. })),
            "{result:?}"
        );
    }
    let stopped = manifest(&[".spec={\"running\":false,\"template\":{}}"]);
    assert!(matches!(
        plan(&stopped, &host()),
        Err(PlanError::NotToRun { .. })
    ));
    for change in [
        ".spec.runStrategy=Manual",
        ".spec.runStrategy=Once",
        ".spec.runStrategy=RerunOnFailure",
    ] {
        assert_eq!(planned(&[change]).notices, []);
    }
    assert_eq!(planned(&[".spec.runStrategy=null"]).notices.len(), 1);
}

/// Everything that is text in a manifest, with what would end an option or a JSON string.
#[test]
fn no_text_of_the_manifest_or_path_adds_an_option() {
    let hostile = "x,readonly=on,file=/etc/shadow\\\",\\\"k\\\":{\\\"";
    let serial = format!("domain.firmware.serial=\"{hostile}\"");
    let mut host = host();
    host.state_dir = PathBuf::from("/state,a=b\"}/'");
    host.disks.insert(
        "root".to_owned(),
        DiskPath {
            path: PathBuf::from("/images/a\",\"b\":1,c\n-x"),
            kind: DiskKind::File,
        },
    );
    let plan = plan(&manifest(&[&serial]), &host).unwrap();
    let usual = planned(&[]);
    // As many arguments, of the same options, as without.
    let options = |plan: &Plan| -> Vec<String> {
        args(plan)
            .into_iter()
            .filter(|arg| arg.starts_with('-'))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(options(&plan), options(&usual));
    assert_eq!(plan.args.len(), usual.args.len());
    let [smbios] = values(&plan, "-smbios")[..] else {
        panic!()
    };
    let single_commas = smbios.replace(",,", "").matches(',').count();
    assert_eq!(single_commas, 3, "{smbios}");
    let nodes = values(&plan, "-blockdev");
    let file = |node: &str| {
        let node: serde_json::Value = serde_json::from_str(node).unwrap();
        assert_eq!(node.as_object().unwrap().len(), 7, "{node}");
        assert_eq!(node["file"].as_object().unwrap().len(), 4, "{node}");
        node["file"]["filename"].as_str().unwrap().to_owned()
    };
    assert_eq!(file(nodes[0]), "/images/a\",\"b\":1,c\n-x");
    assert_eq!(file(nodes[1]), "/state,a=b\"}/'/cloudinit_seed.iso");
}

#[test]
fn paths_that_qemu_cannot_be_told_are_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let odd = Path::new(std::ffi::OsStr::from_bytes(b"/images/\xff"));
    for path in [odd, Path::new("relative/root.raw")] {
        let mut host = host();
        host.disks.insert(
            "root".to_owned(),
            DiskPath {
                path: path.to_owned(),
                kind: DiskKind::File,
            },
        );
        let Err(PlanError::Refused { problems }) = plan(&manifest(&[]), &host) else {
            panic!()
        };
        assert!(matches!(
            &problems[..],
            [Problem {
                kind: ProblemKind::UnusablePath { .. },
                ..
            }]
        ));
    }
}

#[test]
fn a_disk_added_at_the_end_moves_no_device() {
    let before = planned(&[]);
    let after = planned(&["volumes[2]={\"name\":\"e\",\"emptyDisk\":{\"capacity\":1024}}"]);
    let devices = values(&before, "-device");
    assert_eq!(values(&after, "-device")[..devices.len()], devices[..]);
    let mut addresses: Vec<_> = values(&after, "-device")
        .into_iter()
        .filter_map(|device| {
            serde_json::from_str::<serde_json::Value>(device).unwrap()["addr"]
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    addresses.sort();
    let count = addresses.len();
    addresses.dedup();
    assert_eq!(addresses.len(), count, "{addresses:?}");
}

#[test]
fn boot_order_is_that_of_the_manifest_or_of_the_disks() {
    let boot = |plan: &Plan| -> Vec<Option<u64>> {
        let device = |text: &&str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let all = values(plan, "-device");
        let disks = all.iter().filter(|text| text.contains("virtio-blk"));
        disks
            .map(|text| device(text)["bootindex"].as_u64())
            .collect()
    };
    assert_eq!(boot(&planned(&[])), [Some(1), None]);
    assert_eq!(
        boot(&planned(&["domain.devices.disks[0].bootOrder=7"])),
        [Some(7), None]
    );
    assert_eq!(
        boot(&planned(&["domain.devices.interfaces[0].bootOrder=2"])),
        [None, None]
    );
}

#[test]
fn processors_follow_from_resources_only_without_a_topology() {
    let smp = |changes: &[&str]| values(&planned(changes), "-smp")[0].to_owned();
    assert_eq!(smp(&[]), "cpus=1,sockets=1,cores=1,threads=1");
    assert_eq!(
        smp(&["domain.resources.requests.cpu=1500m"]),
        "cpus=2,sockets=2,cores=1,threads=1"
    );
    assert_eq!(
        smp(&["domain.resources.requests.cpu=4", "domain.cpu.threads=2"]),
        "cpus=2,sockets=1,cores=1,threads=2"
    );
}

#[test]
fn memory_rounds_up_to_whole_mebibytes() {
    let size = |changes: &[&str]| values(&planned(changes), "-m")[0].to_owned();
    assert_eq!(size(&["domain.memory.guest=1000001"]), "size=1M");
    assert_eq!(size(&["domain.memory.guest=64.5Mi"]), "size=65M");
    assert_eq!(
        size(&[
            "domain.memory=null",
            "domain.resources.requests.memory=128Mi"
        ]),
        "size=128M"
    );
    assert_eq!(
        size(&["domain.memory=null", "domain.resources.limits.memory=128Mi"]),
        "size=128M"
    );
}

#[test]
fn seed_data_come_from_each_of_the_three_places() {
    let image = |change: &str| match &planned(&[change]).files[..] {
        [
            StateFile {
                content: Content::Bytes(bytes),
                ..
            },
        ] => bytes.clone(),
        other => panic!("{other:?}"),
    };
    let inline = image("volumes[1].cloudInitNoCloud={\"userData\":\"hello\"}");
    assert!(image("volumes[1].cloudInitNoCloud={\"userDataBase64\":\"aGVs\\nbG8=\"}") == inline);
    assert!(image("volumes[1].cloudInitNoCloud={\"secretRef\":{\"name\":\"seed\"}}") == inline);
    assert!(inline.windows(5).any(|window| window == b"hello"));
    assert!(
        inline
            .windows(16)
            .any(|window| window == b"\"local-hostname\"")
    );
}

#[test]
fn a_seed_on_sata_is_writable_since_ata_disks_are() {
    let read_only = |bus: &str| {
        let plan = planned(&[&format!("domain.devices.disks[1].disk.bus={bus}")]);
        values(&plan, "-blockdev")[1].contains("\"read-only\":true")
    };
    assert!(read_only("virtio") && read_only("scsi") && !read_only("sata"));
}

#[test]
fn a_machine_without_devices_has_none() {
    let plan = planned(&[
        "domain.devices={\"autoattachPodInterface\":false,\"autoattachGraphicsDevice\":false,\"autoattachSerialConsole\":false}",
        "networks=[]",
        "volumes=[]",
    ]);
    assert_eq!(values(&plan, "-device"), [""; 0]);
    assert_eq!(
        (plan.sockets.serial, plan.sockets.vnc, plan.serial_log),
        (None, None, None)
    );
    let unlogged = planned(&["domain.devices.logSerialConsole=false"]);
    assert!(unlogged.sockets.serial.is_some() && unlogged.serial_log.is_none());
}
