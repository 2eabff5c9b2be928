use std::fmt::Write as _;

use super::*;

const TYPICAL: &str = r"
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: demo
  labels: {kubevirt.io/os: linux}
spec:
  runStrategy: Always
  dataVolumeTemplates:
  - metadata: {name: demo-root}
    spec:
      source:
        http: {url: http://127.0.0.1/disk.qcow2}
      storage:
        resources: {requests: {storage: 2Gi}}
  template:
    spec:
      terminationGracePeriodSeconds: 0
      nodeSelector: {disk: ssd}
      domain:
        cpu: {cores: 2}
        memory: {guest: 512Mi}
        devices:
          tpm: {}
          disks:
          - {name: root, disk: {bus: virtio}, dedicatedIOThread: true}
          - {name: seed, disk: {bus: virtio}}
          interfaces:
          - {name: default, masquerade: {}, slirp: {}}
          sound: []
      networks:
      - {name: default, pod: {}}
      volumes:
      - {name: root, dataVolume: {name: demo-root}}
      - name: seed
        cloudInitNoCloud: {secretRef: {name: seed}}
---
---
apiVersion: v1
kind: Secret
metadata: {name: seed}
stringData:
  userdata: |
    #cloud-config
    password: hunter2
---
apiVersion: v1
kind: Service
metadata: {name: ssh}
spec: {}
";

fn parse(text: &str) -> Result<Manifest, ManifestError> {
    Manifest::parse(text.as_bytes(), &[])
}

#[test]
fn a_typical_manifest_is_read_and_what_is_not_modelled_is_listed() {
    let manifest = parse(TYPICAL).unwrap();
    assert_eq!(manifest.vm.name(), "demo");
    let domain = &manifest.vm.spec.template.spec.domain;
    assert_eq!(domain.cpu.as_ref().unwrap().cores, Some(2));
    assert_eq!(
        manifest
            .secret("seed")
            .unwrap()
            .value("userdata")
            .unwrap()
            .len(),
        32
    );
    assert_eq!(manifest.others.len(), 1);
    assert_eq!(manifest.others[0].to_string(), "Service \"ssh\"");
    let mut unknown: Vec<String> = manifest
        .unknown
        .iter()
        .map(|field| field.path.to_string())
        .collect();
    unknown.sort();
    assert_eq!(
        unknown,
        [
            "spec.template.spec.domain.devices.disks[0].dedicatedIOThread",
            "spec.template.spec.domain.devices.interfaces[0].slirp",
            "spec.template.spec.domain.devices.tpm",
            "spec.template.spec.nodeSelector",
        ]
    );
}

#[test]
fn debug_output_of_a_manifest_holds_no_secret() {
    let inline = TYPICAL.replace("{secretRef: {name: seed}}", "{userData: hunter3}");
    let shown = format!("{:?}", parse(&inline).unwrap());
    assert!(!shown.contains("hunter"), "{shown}");
}

#[test]
fn an_error_in_a_secret_does_not_quote_it() {
    let number = TYPICAL.replace(
        "  userdata: |\n    #cloud-config\n    password: hunter2\n",
        "  userdata: 471147\n",
    );
    let error = parse(&number).unwrap_err();
    assert!(
        !format!("{error} {error:?}").contains("471147"),
        "{error:?}"
    );
    let ManifestError::Field { path, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(path.to_string(), "stringData.userdata");
}

#[test]
fn a_lone_instance_becomes_a_machine_that_runs_once() {
    let manifest = parse(
        "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\nmetadata: {name: i}\nspec:\n  domain: {memory: {guest: 1Gi}}\n",
    )
    .unwrap();
    assert_eq!(manifest.vm.name(), "i");
    assert_eq!(manifest.vm.spec.run_strategy, Some(RunStrategy::Once));
    assert!(manifest.vm.spec.template.spec.domain.memory.is_some());
    assert_eq!(manifest.unknown, []);
}

#[test]
fn overrides_reach_the_machine_and_only_it() {
    let overrides = [
        "spec.template.spec.domain.cpu.cores=4".parse().unwrap(),
        "spec.dataVolumeTemplates[0].spec.source.http.url=http://[::1]/x"
            .parse()
            .unwrap(),
    ];
    let manifest = Manifest::parse(TYPICAL.as_bytes(), &overrides).unwrap();
    assert_eq!(
        manifest.vm.spec.template.spec.domain.cpu.unwrap().cores,
        Some(4)
    );
    let source = manifest.vm.spec.data_volume_templates[0]
        .spec
        .source
        .as_ref()
        .unwrap();
    assert_eq!(source.http.as_ref().unwrap().url, "http://[::1]/x");

    let overrides = ["spec.dataVolumeTemplates.x=1".parse().unwrap()];
    let error = Manifest::parse(TYPICAL.as_bytes(), &overrides).unwrap_err();
    let ManifestError::Override { source, .. } = error else {
        panic!("{error:?}")
    };
    assert!(matches!(*source, OverrideError::NotAMap { .. }));
}

#[test]
fn a_field_of_the_wrong_type_is_named_by_its_path() {
    let error = parse(&TYPICAL.replace("cores: 2", "cores: two")).unwrap_err();
    let ManifestError::Field { path, object, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(path.to_string(), "spec.template.spec.domain.cpu.cores");
    assert_eq!(object.name, "demo");
    let error = parse(&TYPICAL.replacen("bus: virtio", "bus: nvme", 1)).unwrap_err();
    let ManifestError::Field { path, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(
        path.to_string(),
        "spec.template.spec.domain.devices.disks[0].disk.bus"
    );
    let error = parse(&TYPICAL.replace("guest: 512Mi", "guest: 512MB")).unwrap_err();
    let ManifestError::Field { path, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(path.to_string(), "spec.template.spec.domain.memory.guest");
}

#[test]
fn files_without_one_machine_are_refused() {
    assert!(matches!(parse(""), Err(ManifestError::NoMachine)));
    assert!(matches!(
        parse("- 1\n"),
        Err(ManifestError::NotAnObject { document: 1 })
    ));
    assert!(matches!(
        parse("kind: VirtualMachine\n"),
        Err(ManifestError::NotAnObject { document: 1 })
    ));
    assert!(matches!(
        parse("a: b: c\n"),
        Err(ManifestError::Yaml { .. })
    ));
    assert!(matches!(
        parse(&TYPICAL.replace("kubevirt.io/v1\n", "kubevirt.io/v1alpha3\n")),
        Err(ManifestError::NoMachine)
    ));
    let twice = format!(
        "{TYPICAL}---\n{}",
        TYPICAL.replace("name: demo\n", "name: other\n")
    );
    assert!(matches!(
        parse(&twice),
        Err(ManifestError::SeveralMachines { .. } | ManifestError::Duplicate { .. })
    ));
    let secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: seed}\n";
    assert!(matches!(
        parse(&format!("{TYPICAL}{secret}")),
        Err(ManifestError::Duplicate { .. })
    ));
    assert!(matches!(
        Manifest::parse(b"\xff", &[]),
        Err(ManifestError::NotText { .. })
    ));
}

#[test]
fn a_key_given_twice_is_refused() {
    let text = TYPICAL.replace(
        "  runStrategy: Always\n",
        "  runStrategy: Always\n  runStrategy: Halted\n",
    );
    assert!(matches!(parse(&text), Err(ManifestError::Yaml { .. })));
}

#[test]
fn size_is_limited_to_the_byte() {
    let mut text = TYPICAL.as_bytes().to_vec();
    text.resize(MAX_BYTES, b'\n');
    assert!(Manifest::parse(&text, &[]).is_ok());
    text.push(b'\n');
    assert!(matches!(
        Manifest::parse(&text, &[]),
        Err(ManifestError::TooLarge { .. })
    ));
}

#[test]
fn alias_bombs_are_refused() {
    // Nine levels of nine: 387 million strings out of one.
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..9 {
        let items = vec![format!("*a{}", level - 1); 9].join(",");
        writeln!(bomb, "a{level}: &a{level} [{items}]").unwrap();
    }
    assert!(matches!(
        parse(&format!("{bomb}{TYPICAL}")),
        Err(ManifestError::Yaml { .. })
    ));
    // One long text, repeated: few nodes, many bytes.
    let long = "x".repeat(MAX_BYTES / 2);
    let wide = format!("a: &a {long}\nb: [{}]\n", vec!["*a"; 200].join(","));
    assert!(matches!(parse(&wide), Err(ManifestError::Yaml { .. })));
    let nested = format!("a: {}1{}\n", "[".repeat(2000), "]".repeat(2000));
    assert!(matches!(parse(&nested), Err(ManifestError::Yaml { .. })));
}

#[test]
fn a_few_anchors_are_ordinary() {
    let text = TYPICAL
        .replace(
            "- {name: root, disk: {bus: virtio}, ",
            "- {name: root, disk: &bus {bus: virtio}, ",
        )
        .replace(
            "{name: seed, disk: {bus: virtio}}",
            "{name: seed, disk: *bus}",
        );
    let manifest = parse(&text).unwrap();
    let disks = &manifest.vm.spec.template.spec.domain.devices.disks;
    assert_eq!(disks[0].disk, disks[1].disk);
}
