//! A control plane on which thousands of pods seem to run: kwok says what kubelets would.
//!
//! All but the kubelets and the binder of volumes is real: the scheduler places pods, the controller manager
//! looks after the rest. That binds one claim after the other, so whoever measures says which claim has which
//! volume. Their clients' limits (20 requests a second, by default) are lifted: a cluster's own pace is not
//! what is measured. What our controller asks of the API server is in its audit log.

use std::path::PathBuf;

use anyhow::Result;

use super::control::{self, More, Programs, free_port, kubectl};
use super::place::Place;
use super::{Running, begin, definitions};
use crate::gotools::{self, KUBERNETES, KWOK};
use crate::paths;
use crate::shell::Run;

const STAGES: &str = include_str!("crowd.yaml");

/// What an importer leaves behind, in the terms of `longshore_crds::contract`.
const TERMINATION: &str = r#"'{"preallocationApplied":false,"message":"Import Complete","reason":"Complete","format":"qcow2","virtualSize":1073741824}'"#;

/// Of whom requests are kept, and which of them with what they say.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Request
  users: [system:serviceaccount:cdi:cdi-sa]
  verbs: [patch]
  resources:
  - group: cdi.kubevirt.io
    resources: [datavolumes/status]
- level: Metadata
  users: [system:serviceaccount:cdi:cdi-sa]
# What kwok says.
- level: Request
  users: [longshore-admin]
  verbs: [patch, update]
  resources:
  - group: \"\"
    resources: [pods/status]
- level: None
";

/// What lifts the limits of a component's client.
const UNLIMITED: [&str; 2] = ["--kube-api-qps=5000", "--kube-api-burst=10000"];

/// Such a cluster, which goes with this.
#[derive(Debug)]
pub(crate) struct Crowd {
    running: Running,
    audit: PathBuf,
}

impl Crowd {
    /// Starts one with so many nodes, and Longshore installed but for its controller.
    pub(crate) fn start(name: &str, nodes: usize) -> Result<Self> {
        let programs = Programs::build()?;
        let [scheduler] = gotools::build(&KUBERNETES, ["kube-scheduler"])?;
        let [kwok] = gotools::build(&KWOK, ["kwok"])?;
        let place = Place::of(name)?;
        super::down(&place)?;
        paths::make_dir(&place.folder)?;
        let crowd = Self {
            audit: place.file("audit.log"),
            running: Running {
                place,
                kubectl: programs.kubectl.clone(),
            },
        };
        let place = &crowd.running.place;
        let policy = place.file("audit.yaml");
        paths::write(&policy, AUDIT)?;
        let more = More {
            // Every version of every object is kept for five to ten minutes; it refuses to write past 2 GiB, by default.
            etcd: vec!["--quota-backend-bytes=8589934592".to_owned()],
            api_server: vec![
                format!("--audit-policy-file={}", policy.display()),
                format!("--audit-log-path={}", crowd.audit.display()),
                // In MiB. After 100, by default, it would go on in another file.
                "--audit-log-maxsize=1048576".to_owned(),
            ],
            controller_manager: UNLIMITED
                .into_iter()
                .chain(["--controllers=*,-persistentvolume-binder-controller"])
                .map(str::to_owned)
                .collect(),
        };
        let (pki, api) = begin(place, &programs, more)?;
        definitions(place, &programs)?;
        install(place, &programs)?;
        let config = place.file("scheduler.kubeconfig");
        pki.kubeconfig("scheduler", &api.url(), &config)?;
        let run = control::component(&scheduler, &config)
            .args(UNLIMITED)
            .arg(format!("--secure-port={}", free_port()?));
        let scheduler = place.start("kube-scheduler", run)?;
        let stages = place.file("kwok.yaml");
        paths::write(&stages, STAGES.replace("TERMINATION", TERMINATION))?;
        let run = Run::new(kwok)
            .arg(format!("--kubeconfig={}", place.kubeconfig().display()))
            .arg(format!("--config={}", stages.display()))
            .arg(format!("--server-address=127.0.0.1:{}", free_port()?));
        let kwok = place.start("kwok", run.quiet())?;
        let names: Vec<String> = (0..nodes).map(|n| format!("node-{n}")).collect();
        let objects: String = names.iter().map(|name| node(name)).collect();
        let file = place.file("nodes.yaml");
        paths::write(&file, objects)?;
        let kubectl = || kubectl(&programs, place);
        kubectl().args(["apply", "-f"]).arg(&file).capture()?;
        let ready = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}";
        control::wait(place, "the nodes", &[scheduler, kwok], || {
            let said = kubectl().args(["get", "nodes", "-o", ready]).capture();
            said.is_ok_and(|said| said.matches("True").count() == nodes)
        })?;
        Ok(crowd)
    }

    /// How its administrator reaches it.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.running.kubeconfig()
    }

    pub(crate) fn kubectl(&self) -> PathBuf {
        self.running.kubectl.clone()
    }

    /// Where requests of the controller's account are written down.
    pub(crate) fn audit(&self) -> PathBuf {
        self.audit.clone()
    }
}

/// What a user installs; the controller is started by whoever measures it.
fn install(place: &Place, programs: &Programs) -> Result<()> {
    let kubectl = || kubectl(programs, place);
    kubectl()
        .args(["apply", "-f"])
        .arg(paths::root().join("deploy/longshore.yaml"))
        .capture()?;
    kubectl()
        .args(["-n", "cdi", "scale", "--replicas=0"])
        .arg("deployment/cdi-deployment")
        .capture()
        .map(drop)
}

fn node(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Node
metadata:
  name: {name}
  labels:
    kubernetes.io/hostname: {name}
    kubernetes.io/os: linux
---
"
    )
}
