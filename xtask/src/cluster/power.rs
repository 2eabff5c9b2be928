//! The node loses its power, and comes back: what runs on it is gone at once, with all mounts, and what is on its
//! disks stays.
//!
//! Whoever wants that makes the file `reboot` in the cluster's folder, from either side; it is gone when the
//! power is back. The control plane and what serves volumes to it count as other machines' and go on. What was
//! written and not yet durable is not lost: the host's page cache outlives all this.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::place::{Place, Process, State};
use super::{csi, node, volumes};
use crate::shell::Run;
use crate::{paths, say};

/// The file that asks for it.
const ASKED: &str = "reboot";
/// What of the node goes down, besides what it was told to run.
const SERVICES: [&str; 4] = ["kubelet", "containerd", "kube-proxy", csi::DRIVER];
/// What holds containers when containerd does not.
const SHIM: &str = "containerd-shim";
const PATIENCE: Duration = Duration::from_mins(2);

/// Asks for it, and waits until the power is back.
pub(super) fn ask(place: &Place) -> Result<()> {
    if place.state() != State::Up {
        bail!("no cluster {} runs", place.name);
    }
    place.init()?;
    paths::write(&place.file(ASKED), "")?;
    let until = Instant::now() + PATIENCE;
    while is_to_be_cut(place) {
        if Instant::now() > until {
            let said = place.tail("node");
            bail!("the node did not come back:\n{said}");
        }
        thread::sleep(Duration::from_millis(100));
    }
    say::line("the node has power again, and starts what it ran");
    Ok(())
}

/// Whether somebody asks for it.
pub(super) fn is_to_be_cut(place: &Place) -> bool {
    place.file(ASKED).exists()
}

/// Does it, from inside. Whoever watches the services starts them again.
pub(super) fn cut(place: &Place, services: &[Process]) -> Result<()> {
    let of_the_node = |service: &&Process| SERVICES.contains(&service.name.as_str());
    let first = services.iter().filter(of_the_node).map(|it| it.pid);
    kill(&first.collect::<Vec<_>>());
    // Shims that are killed leave what they hold to others, and it is then found by its group.
    let until = Instant::now() + PATIENCE;
    loop {
        let left = left(place)?;
        if left.is_empty() {
            break;
        }
        if Instant::now() > until {
            bail!("processes {left:?} outlive the node's power");
        }
        kill(&left);
        thread::sleep(Duration::from_millis(20));
    }
    unmount(place)?;
    // Those that were mounted go by themselves, maybe just now.
    drop(volumes::free(&place.file("csi")));
    // What containerd knows of what runs is in memory only on other machines.
    for folder in state(place) {
        empty(&folder)?;
    }
    fs::remove_file(place.file(ASKED)).context("saying that the power is back")
}

/// In one call, for all of them at the same moment.
fn kill(processes: &[u32]) {
    let processes = processes.iter().map(u32::to_string);
    // Some have gone by now.
    let kill = Run::new("kill").args(["-s", "KILL"]).args(processes);
    drop(kill.quiet().capture());
}

/// Containers' processes that are still there, and those that hold them.
fn left(place: &Place) -> Result<Vec<u32>> {
    let group = format!("/{}/", node::cgroup(place));
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("looking for processes")? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(pid) = name.and_then(|name| name.parse().ok()) else {
            continue;
        };
        // They may be gone before they are read.
        let read = |file: &str| fs::read_to_string(path.join(file)).unwrap_or_default();
        let is_ours = read("cgroup").contains(&group) || read("comm").starts_with(SHIM);
        if is_ours && Process::is_there(pid) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Folders of what does not outlive the power.
fn state(place: &Place) -> Vec<PathBuf> {
    let kept = node::KEPT_BY_OTHERS
        .iter()
        .filter(|kept| kept.starts_with("/run/"));
    let mut all: Vec<PathBuf> = kept.map(PathBuf::from).collect();
    all.push(place.file("containerd-state"));
    all
}

/// Takes all mounts of the kubelet and of containers away, the last made first.
fn unmount(place: &Place) -> Result<()> {
    let mut folders = state(place);
    folders.push(place.file("kubelet"));
    let until = Instant::now() + PATIENCE;
    loop {
        let mounts = paths::read(Path::new("/proc/self/mountinfo"))?;
        let all = below(&mounts, &folders);
        if all.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("{all:?} stay mounted");
        }
        // The kubelet's are over devices that are mounted, and hold them.
        drop(volumes::free(&place.file("kubelet")));
        for mount in all {
            // One that is seen in two places goes from both at once; one in use goes when its user has.
            drop(Run::new("umount").arg(mount).quiet().capture());
        }
    }
}

/// What is mounted in these folders, and not at them.
fn below(mountinfo: &str, folders: &[PathBuf]) -> Vec<PathBuf> {
    let mounted = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from);
    let is_in = |at: &PathBuf| {
        folders
            .iter()
            .any(|folder| at != folder && at.starts_with(folder))
    };
    let mut found: Vec<PathBuf> = mounted.filter(is_in).collect();
    found.reverse();
    found
}

/// Removes what is in a folder.
fn empty(folder: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        let removed = if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_in_a_folder_goes_the_last_first_and_the_folder_itself_stays() {
        let mountinfo = "\
36 35 98:0 / /c/one/kubelet/pods/1/a rw - ext4 /dev/x rw
37 36 98:0 / /c/one/kubelet/pods/1/a/b rw - tmpfs none rw
38 35 98:0 / /run/netns rw - ext4 /dev/x rw
39 35 98:0 / /run/netns/cni-1 rw - nsfs nsfs rw
40 35 98:0 / /c/one/kubelet-other rw - ext4 /dev/x rw
";
        let folders = ["/c/one/kubelet", "/run/netns"].map(PathBuf::from);
        let expected = [
            "/run/netns/cni-1",
            "/c/one/kubelet/pods/1/a/b",
            "/c/one/kubelet/pods/1/a",
        ];
        assert_eq!(below(mountinfo, &folders), expected.map(PathBuf::from));
    }
}
