//! The node, as chaos sees it: its objects, by `kubectl` that may find nobody, and its power.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;

use anyhow::{Context, Result, bail, ensure};
use longshore_tests::node;
use longshore_tests::program::{fed, said};
use serde_json::Value;

/// Where all volumes are.
pub(crate) const NAMESPACE: &str = "chaos";
/// Where Longshore is.
const INSTALLED: &str = "cdi";

pub(crate) struct Node(node::Node);

impl Deref for Node {
    type Target = node::Node;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// All objects of the namespace at one moment, by kind and name.
#[derive(Default)]
pub(crate) struct Snapshot(BTreeMap<(String, String), Value>);

impl Snapshot {
    pub(crate) fn get(&self, kind: &str, name: &str) -> Option<&Value> {
        self.0.get(&(kind.to_owned(), name.to_owned()))
    }

    /// Names and objects of a kind.
    pub(crate) fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let of_kind = self.0.iter().filter(move |((its, _), _)| its == kind);
        of_kind.map(|((_, name), object)| (name.as_str(), object))
    }

    /// Everything, as `Kind/name`.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.0.keys();
        names.map(|(kind, name)| format!("{kind}/{name}")).collect()
    }
}

/// What the namespace is looked through for.
const KINDS: &str = "datavolumes,persistentvolumeclaims,pods,volumeimportsources";

impl Node {
    pub(crate) fn given() -> Result<Self> {
        let node = node::Node::given().context("`cargo xtask soak chaos` starts a cluster")?;
        Ok(Self(node))
    }

    /// `kubectl` with these arguments, in no namespace.
    pub(crate) fn everywhere(&self, args: &[&str]) -> Result<String> {
        let mut command = self.cluster.kubectl();
        let output = command.arg("--request-timeout=10s").args(args).output()?;
        ensure!(
            output.status.success(),
            "kubectl {args:?}: {}",
            said(&output)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same in that of the volumes.
    pub(crate) fn ask(&self, args: &[&str]) -> Result<String> {
        self.everywhere(&[&["--namespace", NAMESPACE], args].concat())
    }

    pub(crate) fn list(&self, args: &[&str]) -> Result<Vec<Value>> {
        let text = self.everywhere(&[args, &["--output=json"]].concat())?;
        let list: Value = serde_json::from_str(&text)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    pub(crate) fn apply(&self, object: &Value) -> Result<()> {
        let mut apply = self.cluster.kubectl();
        apply.args(["--request-timeout=10s", "--namespace", NAMESPACE]);
        let output = fed(
            apply.args(["apply", "-f", "-"]),
            object.to_string().as_bytes(),
        );
        ensure!(output.status.success(), "applying: {}", said(&output));
        Ok(())
    }

    /// Asks for objects to be deleted. It is no error if there are none.
    pub(crate) fn delete(&self, args: &[&str]) -> Result<()> {
        let how = ["delete", "--ignore-not-found", "--wait=false"];
        self.ask(&[&how[..], args].concat()).map(drop)
    }

    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        let all = self.list(&["--namespace", NAMESPACE, "get", KINDS])?;
        let named = all.into_iter().map(|object| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let name = text(&object["metadata"]["name"]);
            ((text(&object["kind"]), name), object)
        });
        Ok(Snapshot(named.collect()))
    }

    /// The controller's pods.
    pub(crate) fn controllers(&self) -> Result<Vec<Value>> {
        let selector = "cdi.kubevirt.io=cdi-deployment";
        self.list(&[
            "--namespace",
            INSTALLED,
            "get",
            "pods",
            "--selector",
            selector,
        ])
    }

    /// Has the controller end, by the book.
    pub(crate) fn delete_controller(&self) -> Result<()> {
        let selector = "--selector=cdi.kubevirt.io=cdi-deployment";
        let args = [
            "--namespace",
            INSTALLED,
            "delete",
            "pods",
            "--wait=false",
            selector,
        ];
        self.everywhere(&args).map(drop)
    }

    /// Cuts the node's power, and waits until it is back.
    pub(crate) fn cut_power(&self) -> Result<()> {
        let asked = self.folder.join("reboot");
        fs::write(&asked, "")?;
        for _ in 0..600 {
            if !asked.exists() {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        bail!("the node's power does not come back")
    }

    /// What a claim's volume is.
    pub(crate) fn volume(&self, claim: &Value) -> Result<Value> {
        let name = claim["spec"]["volumeName"].as_str();
        let name = name.context("the claim has no volume")?;
        let text = self.everywhere(&["get", "pv", name, "--output=json"])?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// KiB of memory that a process has.
pub(crate) fn resident(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
