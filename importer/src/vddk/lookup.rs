//! What VMware's library and the query of changes are to be told, as vSphere has it: the machine's
//! reference, the disk's key and its file in a snapshot, and the mark (changeId) of an earlier one.

use super::VddkDisk;
use super::vsphere::{Device, Reference, Snapshot, Vsphere, VsphereError};
use crate::nbd::areas::{ChangedBlocks, Changes};

type Result<T> = std::result::Result<T, VsphereError>;

/// A disk in a state, as vSphere knows it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) machine: Reference,
    pub(super) key: i64,
    pub(super) file: String,
    pub(super) snapshot: Option<Reference>,
    /// What the target has: only what changed since is wanted.
    pub(super) since: Option<String>,
}

/// Whether there is anything to ask vSphere for.
pub(super) fn is_needed(disk: &VddkDisk) -> bool {
    let named = |snapshot: &String| !is_snapshot_reference(snapshot);
    is_uuid(&disk.vm) || disk.previous.is_some() || disk.snapshot.as_ref().is_some_and(named)
}

/// 32 hexadecimal digits, in groups or not. References are shorter.
pub(super) fn is_uuid(text: &str) -> bool {
    let digits = text.chars().filter(|c| *c != '-');
    digits.clone().count() == 32 && digits.clone().all(|c| c.is_ascii_hexdigit())
}

/// `snapshot-12`, and on hypervisors `3-snapshot-12`.
fn is_snapshot_reference(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.split_once("snapshot-") {
        Some((before, number)) => {
            let before = before.strip_suffix('-').map_or(before.is_empty(), digits);
            before && digits(number)
        }
        None => false,
    }
}

/// `52 de c0 d9 ..-61 d5 ../81`, or `*`: everything that was ever written.
fn is_change(text: &str) -> bool {
    let Some((life, number)) = text.rsplit_once('/') else {
        return text == "*";
    };
    let hexadecimal = |c: char| c.is_ascii_hexdigit() || matches!(c, ' ' | '-');
    !life.is_empty()
        && life.chars().all(hexadecimal)
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit())
}

/// Asks for all of it.
pub(super) fn look_up(vsphere: &Vsphere, disk: &VddkDisk) -> Result<Found> {
    let machine = if is_uuid(&disk.vm) {
        vsphere.machine(&disk.vm)?
    } else {
        Reference::new("VirtualMachine", &disk.vm)
    };
    let present = vsphere.disks(&machine)?;
    let snapshots = vsphere.snapshots(&machine)?;
    let (key, file) = match disk_of(&present, &disk.file) {
        Some(found) => (found.key, first_file(found, &disk.file)),
        None => (
            key_in(vsphere, &snapshots, &present, &disk.file)?,
            disk.file.clone(),
        ),
    };
    let mut found = Found {
        machine,
        key,
        file,
        snapshot: None,
        since: None,
    };
    let Some(wanted) = &disk.snapshot else {
        return Ok(found);
    };
    let snapshot = pick(&snapshots, wanted)?;
    let then = in_snapshot(vsphere, snapshot, &found)?;
    found.file = first_file(&then, &disk.file);
    found.snapshot = Some(snapshot.reference.clone());
    found.since = match &disk.previous {
        None => None,
        Some(change) if is_change(change) => Some(change.clone()),
        Some(previous) => {
            let previous = pick(&snapshots, previous)?;
            let change = in_snapshot(vsphere, previous, &found)?.change;
            Some(change.ok_or_else(|| VsphereError::NotTracked {
                snapshot: previous.reference.value.clone(),
                file: disk.file.clone(),
            })?)
        }
    };
    Ok(found)
}

fn disk_of<'a>(disks: &'a [Device], file: &str) -> Option<&'a Device> {
    disks
        .iter()
        .find(|disk| disk.files.iter().any(|name| name == file))
}

fn first_file(disk: &Device, file: &str) -> String {
    disk.files.first().map_or(file, String::as_str).to_owned()
}

/// The key of a disk that was known by another file when a snapshot was taken.
fn key_in(
    vsphere: &Vsphere,
    snapshots: &[Snapshot],
    present: &[Device],
    file: &str,
) -> Result<i64> {
    for snapshot in snapshots {
        let disks = vsphere.disks(&snapshot.reference)?;
        if let Some(found) = disk_of(&disks, file) {
            return Ok(found.key);
        }
    }
    let disks = present.iter().filter_map(|disk| disk.files.first());
    Err(VsphereError::NoDisk {
        file: file.to_owned(),
        disks: disks.cloned().collect(),
    })
}

/// The snapshot of this reference, or else the only one of this name.
fn pick<'a>(snapshots: &'a [Snapshot], wanted: &str) -> Result<&'a Snapshot> {
    if let Some(found) = snapshots.iter().find(|s| s.reference.value == wanted) {
        return Ok(found);
    }
    let mut named = snapshots.iter().filter(|s| s.name == wanted);
    match (named.next(), named.next()) {
        (Some(found), None) => Ok(found),
        (found, _) => Err(VsphereError::NoSnapshot {
            snapshot: wanted.to_owned(),
            several: found.is_some(),
        }),
    }
}

/// The disk as it was then.
fn in_snapshot(vsphere: &Vsphere, snapshot: &Snapshot, found: &Found) -> Result<Device> {
    let disks = vsphere.disks(&snapshot.reference)?;
    let names: Vec<_> = disks
        .iter()
        .filter_map(|d| d.files.first())
        .cloned()
        .collect();
    let then = disks.into_iter().find(|disk| disk.key == found.key);
    then.ok_or_else(|| VsphereError::NoDisk {
        file: format!("{} in snapshot {}", found.file, snapshot.reference.value),
        disks: names,
    })
}

/// vSphere's account of what changed. Its session lasts as long as this.
pub(super) struct Tracked {
    pub(super) vsphere: Vsphere,
    pub(super) machine: Reference,
    pub(super) snapshot: Reference,
    pub(super) key: i64,
    pub(super) since: String,
}

impl ChangedBlocks for Tracked {
    fn changes(
        &mut self,
        from: u64,
    ) -> std::result::Result<Changes, Box<dyn std::error::Error + Send + Sync + 'static>> {
        let told =
            self.vsphere
                .changed(&self.machine, &self.snapshot, self.key, from, &self.since)?;
        let action = "ask what changed between two checkpoints";
        let nonsense = |why: &str| VsphereError::Answer {
            action,
            why: why.to_owned(),
        };
        if told.start != from {
            return Err(nonsense("it is about another part of the disk").into());
        }
        let mut changed = Vec::with_capacity(told.found.len());
        for (start, length) in told.found {
            let end = start
                .checked_add(length)
                .ok_or_else(|| nonsense("an area has no end"))?;
            changed.push(start..end);
        }
        Ok(Changes {
            until: told.until,
            changed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_text_names_is_told_by_its_form() {
        assert!(is_uuid("63d40cc5-9cba-5cc1-884a-f7f19070ecea"));
        assert!(is_uuid("63d40cc59cba5cc1884af7f19070ecea"));
        for text in [
            "vm-123",
            "",
            "63d40cc5",
            "63d40cc5-9cba-5cc1-884a-f7f19070ecez",
        ] {
            assert!(!is_uuid(text), "{text}");
        }
        assert!(is_snapshot_reference("snapshot-12") && is_snapshot_reference("3-snapshot-12"));
        for text in [
            "snapshot-",
            "snapshot-x",
            "a snapshot-1",
            "x-snapshot-1",
            "before",
        ] {
            assert!(!is_snapshot_reference(text), "{text}");
        }
        assert!(is_change(
            "52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/81"
        ));
        assert!(is_change("*"));
        for text in ["snapshot-1", "/1", "52 de/", "52 de/x", "before/1", ""] {
            assert!(!is_change(text), "{text}");
        }
    }

    #[test]
    fn a_snapshot_is_picked_by_reference_or_by_a_name_of_its_own() {
        let snapshot = |value: &str, name: &str| Snapshot {
            reference: Reference::new("VirtualMachineSnapshot", value),
            name: name.to_owned(),
        };
        let all = [
            snapshot("s-1", "a"),
            snapshot("s-2", "b"),
            snapshot("s-3", "b"),
        ];
        assert_eq!(pick(&all, "s-3").unwrap(), &all[2]);
        assert_eq!(pick(&all, "a").unwrap(), &all[0]);
        for (wanted, expected) in [("b", true), ("c", false)] {
            let refused = pick(&all, wanted);
            assert!(
                matches!(refused, Err(VsphereError::NoSnapshot { several, .. }) if several == expected)
            );
        }
    }
}
