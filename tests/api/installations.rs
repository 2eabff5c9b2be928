//! The whole installation: created, deleted, beside somebody else's, and asked how it goes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use longshore_tests::program::{free_address, longshore, run, said};
use longshore_tests::promtool::check_metrics;
use serde_json::{Value, json};

use super::rig::{Namespace, alone};

const LEASE: &str = "lease/cdi-controller-leader-election-helper";
/// The reason of the condition that says that we do nothing.
const PASSIVE: &str = ".status.conditions[?(@.type==\"LongshorePassive\")].reason";

fn volume(name: &str) -> Value {
    json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume", "metadata": {"name": name},
        "spec": {
            "source": {"blank": {}},
            "pvc": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "manual",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
    })
}

fn operator(namespace: &Namespace) -> Value {
    let labels = json!({"operator": "cdi"});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "cdi-operator", "namespace": namespace.name},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "operator", "image": "operator"}]},
            },
        },
    })
}

/// `kubectl` that says who has the lease.
fn lease_to(namespace: &Namespace, holder: &str) -> Command {
    let holder = json!({"spec": {"holderIdentity": holder}}).to_string();
    let mut patch = namespace.kubectl();
    patch.args(["patch", LEASE, "--namespace=cdi", "--type=merge", "-p"]);
    patch.arg(holder);
    patch
}

/// Whoever had the lease before was killed and does not come back.
fn free_the_lease(namespace: &Namespace) {
    // There is none before the first controller.
    drop(lease_to(namespace, "").output());
}

#[test]
fn beside_the_operator_of_somebody_else_nothing_is_done_and_it_is_said_so() {
    let Some(namespace) = alone() else { return };
    let mut controller = namespace.controller(&[]);
    namespace.wait("cdi/cdi", ".status.phase", "Deployed");
    namespace.apply(&operator(&namespace));
    // It ends at once; a kubelet starts it again.
    assert!(!controller.0.wait().unwrap().success());
    let lease = [
        "get",
        LEASE,
        "--namespace=cdi",
        "-o",
        "jsonpath={.spec.holderIdentity}",
    ];
    assert_eq!(run(namespace.kubectl().args(lease)), b"");
    let controller = namespace.controller(&[]);
    namespace.wait("cdi/cdi", PASSIVE, "ForeignOperator");
    namespace.apply(&volume("disk"));
    // Said again once somebody took it away, and by then the volume has been there for a while.
    namespace.patch("cdi/cdi", &json!({"status": {"conditions": []}}));
    namespace.wait("cdi/cdi", PASSIVE, "ForeignOperator");
    assert!(!namespace.exists("pvc/disk"));
    // An operator that was put to sleep is none.
    let scale = ["scale", "deployment/cdi-operator", "--replicas=0"];
    run(namespace.kubectl().args(scale));
    namespace.wait_for("pvc/disk", "create");
    namespace.wait("cdi/cdi", ".status.conditions[-1:].type", "Degraded");
    drop(controller);
    run(namespace
        .kubectl()
        .args(["delete", "deployment/cdi-operator"]));
    free_the_lease(&namespace);
}

#[test]
fn beside_somebody_who_holds_the_lease_nothing_is_done_and_it_is_said_so() {
    let Some(namespace) = alone() else { return };
    let controller = namespace.controller(&[]);
    namespace.wait("cdi/cdi", ".status.phase", "Deployed");
    drop(controller);
    run(&mut lease_to(&namespace, "cdi-deployment-1_upstream"));
    let controller = namespace.controller(&[]);
    namespace.wait("cdi/cdi", PASSIVE, "ForeignLease");
    free_the_lease(&namespace);
    namespace.wait("cdi/cdi", ".status.conditions[-1:].type", "Degraded");
    drop(controller);
}

#[test]
fn deleting_an_installation_takes_no_data_with_it() {
    let Some(namespace) = alone() else { return };
    free_the_lease(&namespace);
    let controller = namespace.controller(&[]);
    namespace.wait("cdi/cdi", ".status.phase", "Deployed");
    namespace.apply(&volume("disk"));
    namespace.wait_for("pvc/disk", "create");
    let claim = namespace.get("pvc/disk")["metadata"]["uid"].clone();
    let old = namespace.get("cdi/cdi")["metadata"]["uid"].clone();
    run(namespace.kubectl().args(["delete", "cdi", "cdi"]));
    // Another one comes, with the usual settings.
    namespace.wait_for("cdi/cdi", "create");
    namespace.wait("cdi/cdi", ".status.phase", "Deployed");
    assert_ne!(namespace.get("cdi/cdi")["metadata"]["uid"], old);

    let strategy = json!({"spec": {"uninstallStrategy": "BlockUninstallIfWorkloadsExist"}});
    namespace.patch("cdi/cdi", &strategy);
    namespace.wait(
        "cdi/cdi",
        ".metadata.finalizers[0]",
        "operator.cdi.kubevirt.io",
    );
    run(namespace
        .kubectl()
        .args(["delete", "cdi", "cdi", "--wait=false"]));
    let why = ".status.conditions[?(@.type==\"Degraded\")].reason";
    namespace.wait("cdi/cdi", why, "DataVolumesExist");
    namespace.patch(
        "cdi/cdi",
        &json!({"spec": {"uninstallStrategy": "RemoveWorkloads"}}),
    );
    namespace.wait("cdi/cdi", ".status.phase", "Deployed");
    assert_eq!(namespace.get("pvc/disk")["metadata"]["uid"], claim);
    drop(controller);
}

/// Asks a controller, as a kubelet does.
fn ask(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: probe\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_controller_is_ready_at_work_as_well_as_standing_by() {
    let Some(namespace) = alone() else { return };
    free_the_lease(&namespace);
    let [first, second, metrics] = [(); 3].map(|()| free_address().to_string());
    let working = namespace.controller(&[
        ("HEALTH_ADDRESS", first.as_str()),
        ("METRICS_ADDRESS", metrics.as_str()),
    ]);
    namespace.volume_for("disk");
    namespace.apply(&volume("disk"));
    // By then it has seen claims and volumes.
    namespace.wait_for("pod/importer-disk", "create");
    assert!(ask(&first, "/readyz").ends_with("at work\n"));
    assert!(ask(&first, "/healthz").starts_with("HTTP/1.1 200"));
    let url = format!("https://{metrics}/metrics");
    // Nobody signed the certificate.
    let page = run(Command::new("curl").args(["--silent", "--insecure", "--fail", &url]));
    let page = String::from_utf8(page).unwrap();
    for part in [
        "cdi_controller_leader 1\n",
        "cdi_controller_reconcile_seconds_count{controller=\"datavolume\"} ",
        "cdi_controller_reconcile_seconds_count{controller=\"import\"} ",
        "cdi_controller_data_volumes{phase=",
        "kubevirt_cdi_cr_ready ",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    check_metrics(&page);
    let other = [("HEALTH_ADDRESS", second.as_str()), ("POD_NAME", "another")];
    let standing_by = namespace.controller(&other);
    // One of ours is nothing to tell anybody.
    drop(working);
    run(&mut lease_to(&namespace, ""));
    let wait = ["wait", "--timeout=60s", "--namespace=cdi", LEASE];
    let holder = "--for=jsonpath={.spec.holderIdentity}=another";
    run(namespace.kubectl().args(wait).arg(holder));
    assert!(ask(&second, "/healthz").starts_with("HTTP/1.1 200"));
    let conditions = namespace.get("cdi/cdi")["status"]["conditions"].to_string();
    assert!(!conditions.contains("LongshorePassive"), "{conditions}");
    drop(standing_by);
    free_the_lease(&namespace);
}

/// What `longshore purge` says, and whether it did what it was asked for.
fn purge(namespace: &Namespace, more: &[&str]) -> (bool, String) {
    let output = longshore()
        .arg("purge")
        .arg("--kubeconfig")
        .arg(namespace.config())
        .args(more)
        .output()
        .unwrap();
    (output.status.success(), said(&output))
}

#[test]
fn nothing_is_purged_while_there_is_a_data_volume_or_somebody_at_work() {
    let Some(namespace) = alone() else { return };
    let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
    let (crds, rest) = (
        format!("{deploy}/crds.yaml"),
        format!("{deploy}/longshore.yaml"),
    );
    let (done, text) = purge(&namespace, &["--yes"]);
    assert!(
        !done && text.contains("cdi/cdi-deployment is there"),
        "{text}"
    );

    namespace.ask(&["delete", "deployment/cdi-deployment", "--namespace=cdi"]);
    namespace.apply(&volume("disk"));
    let (done, text) = purge(&namespace, &["--yes"]);
    let name = format!("{}/disk", namespace.name);
    assert!(!done && text.contains("DataVolumes present"), "{text}");
    assert!(text.contains(&name) || text.contains("..."), "{text}");
    assert!(namespace.exists("dv/disk"));

    // An installation that somebody deletes with nobody there to let it go must hold nothing up.
    namespace.apply(&json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "CDI",
        "metadata": {"name": "cdi", "finalizers": ["operator.cdi.kubevirt.io"]}, "spec": {},
    }));
    let all = ["delete", "dv", "--all", "--all-namespaces"];
    run(namespace.everywhere().args(all));
    let (done, text) = purge(&namespace, &[]);
    assert!(done && text.contains("--yes"), "{text}");
    assert!(namespace.exists("crd/datavolumes.cdi.kubevirt.io"));
    let (done, text) = purge(&namespace, &["--yes"]);
    assert!(done, "{text}");
    namespace.ask(&["wait", "--for=delete", "--timeout=60s", "-f", &crds]);
    let (done, text) = purge(&namespace, &["--yes"]);
    assert!(done && text.contains("nothing to purge"), "{text}");
    // For the tests that follow.
    namespace.ask(&["apply", "-f", &crds]);
    namespace.ask(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "-f",
        &crds,
    ]);
    run(namespace.everywhere().args(["apply", "-f", &rest]));
}
