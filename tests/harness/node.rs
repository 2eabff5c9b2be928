//! The node that somebody else started with its cluster, as whoever shares its machine sees it: the processes of
//! its pods and services, and the loop devices that its volumes are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cluster::Cluster;

/// The only node of a cluster.
#[derive(Debug)]
pub struct Node {
    /// How to reach its API server.
    pub cluster: Cluster,
    /// The folder of the cluster, with the volumes.
    pub folder: PathBuf,
    /// Where pods find servers.
    pub address: String,
}

impl Node {
    /// The one that `LONGSHORE_NODE` and `LONGSHORE_NODE_ADDRESS` tell of besides what [`Cluster::given`] reads.
    pub fn given() -> Option<Self> {
        let cluster = Cluster::given("node")?;
        let variable = |name| std::env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        Some(Self {
            cluster,
            folder: variable("LONGSHORE_NODE").into(),
            address: variable("LONGSHORE_NODE_ADDRESS"),
        })
    }

    /// The process of a service of the node, if it was ever started.
    pub fn service(&self, name: &str) -> Option<u32> {
        let list = fs::read_to_string(self.folder.join("processes-inside")).ok()?;
        // The last of a name is the one that runs.
        let name = format!(" {name}");
        let line = list.lines().rfind(|line| line.ends_with(&name))?;
        line.split(' ').next()?.parse().ok()
    }

    /// The image behind a volume of the CSI driver; `None` if it is another's.
    pub fn image_of(&self, volume: &Value) -> Option<PathBuf> {
        let handle = volume["spec"]["csi"]["volumeHandle"].as_str()?;
        Some(self.folder.join(format!("csi/volumes/{handle}.img")))
    }
}

/// The folder that a volume is, if it is one of the node's.
pub fn folder_of(volume: &Value) -> Option<PathBuf> {
    let path = |kind: &str| volume["spec"][kind]["path"].as_str();
    path("hostPath")
        .or_else(|| path("local"))
        .map(PathBuf::from)
}

/// The processes of a pod's first container.
pub fn processes_of(pod: &Value) -> Vec<u32> {
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str();
    let Some(id) = id.and_then(|id| id.strip_prefix("containerd://")) else {
        return Vec::new();
    };
    let paths = fs::read_dir("/proc").unwrap().flatten();
    let processes = paths.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_of_it = |process: &u32| {
        let groups = fs::read_to_string(format!("/proc/{process}/cgroup"));
        groups.is_ok_and(|groups| groups.contains(id))
    };
    processes.filter(is_of_it).collect()
}

/// Kills processes as the kernel does when memory is short. True if there were any, and none had gone before.
pub fn kill(processes: &[u32]) -> bool {
    let numbers = processes.iter().map(u32::to_string);
    let mut kill = Command::new("kill");
    kill.arg("-KILL").args(numbers);
    !processes.is_empty() && kill.output().unwrap().status.success()
}

/// What the loop devices over a file, or over those in a folder, are over.
pub fn attached_in(place: &Path) -> Vec<PathBuf> {
    let devices = fs::read_dir("/sys/block").unwrap().flatten();
    let files = devices.filter_map(|device| {
        let file = fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
        Some(PathBuf::from(file.trim_end()))
    });
    files.filter(|file| file.starts_with(place)).collect()
}
