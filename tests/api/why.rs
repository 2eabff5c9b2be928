//! What `longshore why` and `longshore get dv` tell of a cluster, with the rights of a namespace's user.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use longshore_tests::program::{Running, free_address, longshore, run, said};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::imports::{data_volume, running, started};
use super::rig::{Namespace, namespace};

/// A user who has the role `view` in a namespace and nothing else.
struct User {
    folder: TempDir,
}

impl User {
    fn who_may_look_into(namespace: &Namespace) -> Self {
        namespace.ask(&["create", "serviceaccount", "reader"]);
        let account = format!("--serviceaccount={}:reader", namespace.name);
        namespace.ask(&[
            "create",
            "rolebinding",
            "reader",
            "--clusterrole=view",
            &account,
        ]);
        let token = namespace.ask(&["create", "token", "reader"]);
        let view = ["config", "view", "--raw", "--minify", "-o", "json"];
        let mut config: Value =
            serde_json::from_slice(&run(namespace.everywhere().args(view))).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        config["contexts"][0]["context"]["namespace"] = json!(namespace.name);
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("config"), config.to_string()).unwrap();
        let user = Self { folder };
        // The roles that others add to are summed up by a controller.
        let until = Instant::now() + Duration::from_mins(1);
        let may = ["auth", "can-i", "list", "datavolumes.cdi.kubevirt.io"];
        loop {
            let mut ask = namespace.kubectl();
            let ask = ask.args(may).arg("--kubeconfig").arg(user.config());
            if ask.output().unwrap().status.success() {
                return user;
            }
            assert!(
                Instant::now() < until,
                "view does not hold for data volumes"
            );
        }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = longshore();
        command.args(args).arg("--kubeconfig").arg(self.config());
        command
    }

    fn why(&self, kind: &str, name: &str) -> Value {
        let output = self
            .command(&["why", kind, name, "--json"])
            .output()
            .unwrap();
        let verdict = serde_json::from_slice(&output.stdout);
        assert!(verdict.is_ok(), "{}", said(&output));
        verdict.unwrap()
    }

    /// Waits until the first cause is this one: the cluster takes its time to tell.
    fn waits_for(&self, name: &str, reason: &str) -> Value {
        let until = Instant::now() + Duration::from_mins(2);
        loop {
            let verdict = self.why("dv", name);
            if verdict["causes"][0]["reason"] == reason {
                return verdict;
            }
            assert!(Instant::now() < until, "{verdict:#}");
        }
    }
}

#[test]
fn why_tells_a_user_of_the_namespace_what_a_volume_waits_for_and_what_to_do() {
    let Some(namespace) = namespace() else { return };
    let user = User::who_may_look_into(&namespace);
    let mut odd = data_volume("odd");
    odd["spec"]["source"]["http"]["url"] = json!("ftp://h/disk");
    namespace.apply(&odd);
    namespace.apply(&data_volume("pending"));

    let verdict = user.waits_for("odd", "ErrClaimNotValid");
    assert_eq!(verdict["state"], "waiting");
    let next = format!("kubectl -n {} edit dv odd", namespace.name);
    assert_eq!(verdict["next"], next);

    // There is no such class, and this user may not know which ones there are.
    let verdict = user.waits_for("pending", "ProvisioningFailed");
    let cause = &verdict["causes"][0];
    assert!(
        cause["message"]
            .as_str()
            .unwrap()
            .contains("\"manual\" not found"),
        "{cause}"
    );
    let unread = verdict["unread"].to_string();
    assert!(unread.contains("StorageClasses"), "{unread}");
    assert!(unread.contains("lease"), "{unread}");
    let of_claim = user.why("pvc", "pending");
    assert_eq!(of_claim["causes"][0]["reason"], "ProvisioningFailed");
    // Who may look at the classes is told more.
    let mut why = longshore();
    why.args([
        "why",
        "dv",
        "pending",
        "-n",
        &namespace.name,
        "--kubeconfig",
    ]);
    let text = String::from_utf8(run(why.arg(namespace.config()))).unwrap();
    assert!(text.contains("NoSuchStorageClass"), "{text}");
    assert!(
        text.ends_with("\nnext: kubectl get storageclass\n"),
        "{text}"
    );
}

#[test]
fn why_follows_a_pod_from_its_scheduling_to_its_end() {
    let Some(namespace) = namespace() else { return };
    let user = User::who_may_look_into(&namespace);
    started(&namespace, "disk");
    let message = "0/3 nodes are available: too small";
    namespace.pod_status(
        "importer-disk",
        &json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": message}]}),
    );
    let verdict = user.waits_for("disk", "Unschedulable");
    assert_eq!(
        verdict["causes"].as_array().map(Vec::len),
        Some(1),
        "{verdict:#}"
    );
    assert_eq!(verdict["causes"][0]["message"], message);

    namespace.pod_status("importer-disk", &json!({"conditions": []}));
    namespace.pod_status("importer-disk", &running());
    namespace.wait("dv/disk", ".status.phase", "ImportInProgress");
    assert_eq!(user.why("dv", "disk")["state"], "working");

    namespace.pod_status(
        "importer-disk",
        &json!({"phase": "Succeeded", "containerStatuses": null}),
    );
    namespace.wait("dv/disk", ".status.phase", "Succeeded");
    let verdict = user.why("dv", "disk");
    assert_eq!(verdict["state"], "done");
    assert_eq!(verdict["causes"], json!([]));
    assert_eq!(user.why("pvc", "disk")["state"], "done");
}

#[test]
fn why_tells_what_cannot_be_read_at_all() {
    let Some(namespace) = namespace() else { return };
    let user = User::who_may_look_into(&namespace);
    let absent = user.command(&["why", "dv", "nothing"]).output().unwrap();
    assert_eq!(absent.status.code(), Some(1));
    let text = String::from_utf8_lossy(&absent.stdout);
    assert!(text.contains("there is no DataVolume"), "{text}");
    let mut elsewhere = user.command(&["why", "dv", "disk", "-n", "kube-system", "--json"]);
    let elsewhere = elsewhere.output().unwrap();
    let verdict: Value = serde_json::from_slice(&elsewhere.stdout).unwrap();
    assert_eq!(verdict["causes"][0]["reason"], "Forbidden");
    assert_eq!(verdict["state"], "unknown");

    let config = std::fs::read_to_string(user.config()).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["clusters"][0]["cluster"]["server"] = json!(format!("https://{}", free_address()));
    std::fs::write(user.config(), config.to_string()).unwrap();
    let verdict = user.why("dv", "disk");
    assert_eq!(verdict["causes"][0]["reason"], "Unreachable", "{verdict:#}");
    let get = user.command(&["get", "dv"]).output().unwrap();
    assert_eq!(get.status.code(), Some(1));
    assert!(said(&get).contains("could not list"), "{}", said(&get));
}

#[test]
fn get_shows_bytes_rate_and_time_left_and_follows_changes() {
    let Some(namespace) = namespace() else { return };
    let user = User::who_may_look_into(&namespace);
    started(&namespace, "moving");
    namespace.apply(&data_volume("waiting"));
    let progress = json!({"percent": 12.5, "read": 1 << 20, "written": 0, "rate": 2048,
        "etaSeconds": 90});
    let progress = format!("longshore.dev/progress={progress}");
    namespace.ask(&["annotate", "pvc", "moving", &progress]);
    namespace.pod_status("importer-moving", &running());
    namespace.wait("dv/moving", ".status.phase", "ImportInProgress");

    let list = run(&mut user.command(&["get", "dv", "--json"]));
    let list: Value = serde_json::from_slice(&list).unwrap();
    assert_eq!(list["items"][0]["name"], "moving");
    assert_eq!(list["items"][0]["transfer"]["rate"], 2048);
    assert_eq!(list["items"][1]["name"], "waiting");
    let table = String::from_utf8(run(&mut user.command(&["get", "dv", "moving"]))).unwrap();
    assert!(table.contains("1 MiB   2 KiB/s   1 min 30 s"), "{table}");
    let missing = user.command(&["get", "dv", "none"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));

    let child = user
        .command(&["get", "dv", "moving", "-w", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = Running(child.unwrap());
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let mut phases = lines.map(|line| {
        let row: Value = serde_json::from_str(&line.unwrap()).unwrap();
        row["phase"].as_str().unwrap().to_owned()
    });
    assert_eq!(phases.next().as_deref(), Some("ImportInProgress"));
    namespace.pod_status(
        "importer-moving",
        &json!({"phase": "Succeeded", "containerStatuses": null}),
    );
    assert!(phases.any(|phase| phase == "Succeeded"));
}
