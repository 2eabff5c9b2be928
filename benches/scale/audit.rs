//! The API server's audit log: a line of JSON for each request that it has answered.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

pub(super) const DAY: f64 = 24.0 * 60.0 * 60.0;
/// Of it we know nothing else, and what it asks has nothing to do with how many imports there are.
const LEASES: &str = "leases";
const OURS: &str = "system:serviceaccount:cdi:cdi-sa";

/// What was asked so far.
#[derive(Debug)]
pub(super) struct Audit {
    path: PathBuf,
    /// Bytes that were read, whole lines only.
    read: u64,
    /// By what was done, and to which resource.
    counts: BTreeMap<(String, String), usize>,
    /// When the pods of these names were made, and when they had ended.
    made: Vec<(f64, String)>,
    ended: Vec<(f64, String)>,
    succeeded: BTreeSet<String>,
    /// Claims that were made since somebody asked.
    claims: Vec<String>,
    last_success: Option<f64>,
    /// When things were written.
    writes: Vec<f64>,
}

impl Audit {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            read: 0,
            counts: BTreeMap::new(),
            made: Vec::new(),
            ended: Vec::new(),
            succeeded: BTreeSet::new(),
            claims: Vec::new(),
            last_success: None,
            writes: Vec::new(),
        }
    }

    /// Nothing that was asked so far counts.
    pub(super) fn forget(&mut self) {
        *self = Self {
            read: self.read,
            ..Self::new(&self.path)
        };
    }

    /// Reads what has come since.
    pub(super) fn read(&mut self) -> Result<()> {
        let about = || format!("reading {}", self.path.display());
        let mut file = File::open(&self.path).with_context(about)?;
        file.seek(SeekFrom::Start(self.read)).with_context(about)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).with_context(about)?;
        let Some(end) = text.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(());
        };
        let whole = text.get(..=end).unwrap_or_default();
        self.read += u64::try_from(whole.len())?;
        for line in whole.split(|byte| *byte == b'\n') {
            if !line.is_empty() {
                let said = serde_json::from_slice(line).context("a line of the audit log")?;
                self.take(&said);
            }
        }
        Ok(())
    }

    fn take(&mut self, said: &Value) {
        let text = |pointer: &str| said.pointer(pointer).and_then(Value::as_str);
        let word = |pointer: &str| text(pointer).unwrap_or_default();
        let time = time_of_day(word("/stageTimestamp")).unwrap_or_default();
        let (verb, resource) = (word("/verb"), word("/objectRef/resource"));
        let phase = word("/requestObject/status/phase");
        let name = word("/objectRef/name");
        let good = said["responseStatus"]["code"].as_u64() < Some(300);
        if word("/user/username") != OURS {
            if good && resource == "pods" && phase == "Succeeded" {
                self.ended.push((time, name.to_owned()));
            }
            return;
        }
        if verb == "watch" || resource == LEASES {
            return;
        }
        let mut about = resource.to_owned();
        if let Some(part) = text("/objectRef/subresource") {
            about = format!("{about}/{part}");
        }
        if said["responseStatus"]["code"].as_u64() == Some(409) {
            about += " (conflict)";
        }
        *self.counts.entry((verb.to_owned(), about)).or_default() += 1;
        if !["get", "list"].contains(&verb) {
            self.writes.push(time);
        }
        if !good {
            return;
        }
        if (verb, resource) == ("create", "pods") {
            self.made.push((time, name.to_owned()));
        }
        if (verb, resource) == ("create", "persistentvolumeclaims") {
            self.claims.push(name.to_owned());
        }
        if resource == "datavolumes"
            && phase == "Succeeded"
            && self.succeeded.insert(name.to_owned())
        {
            self.last_success = Some(time);
        }
    }

    pub(super) fn counts(&self) -> &BTreeMap<(String, String), usize> {
        &self.counts
    }

    pub(super) fn requests(&self) -> usize {
        self.counts.values().sum()
    }

    pub(super) fn pods(&self) -> usize {
        self.made.len()
    }

    /// Names of the claims that were made since this was asked last.
    pub(super) fn new_claims(&mut self) -> Vec<String> {
        std::mem::take(&mut self.claims)
    }

    pub(super) fn succeeded(&self) -> usize {
        self.succeeded.len()
    }

    pub(super) fn last_pod(&self) -> Option<f64> {
        self.made.last().map(|(time, _)| *time)
    }

    pub(super) fn last_success(&self) -> Option<f64> {
        self.last_success
    }

    /// Seconds from `time` until something was written again.
    pub(super) fn first_write_after(&self, time: f64) -> Option<f64> {
        let gaps = self
            .writes
            .iter()
            .map(|write| (write - time).rem_euclid(DAY));
        gaps.filter(|gap| *gap < DAY / 2.0).reduce(f64::min)
    }

    /// Most pods that had been made and had not ended.
    pub(super) fn most_at_work(&self) -> usize {
        self.most_per(|_| 0)
    }

    /// The same of those of one kind.
    pub(super) fn most_per(&self, kind: impl Fn(&str) -> usize) -> usize {
        let steps = |of: &[(f64, String)], step: i64| -> Vec<(f64, usize, i64)> {
            let all = of.iter().map(|(time, name)| (*time, kind(name), step));
            all.collect()
        };
        let mut all = steps(&self.made, 1);
        all.extend(steps(&self.ended, -1));
        // Where the log cannot tell, whoever ended did so first: the controller made the next one after that.
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.2.cmp(&b.2)));
        let (mut now, mut most) = (BTreeMap::new(), 0);
        for (_, kind, step) in all {
            let count: &mut i64 = now.entry(kind).or_default();
            *count += step;
            most = most.max(*count);
        }
        usize::try_from(most).unwrap_or_default()
    }
}

/// Seconds of `2026-11-22T03:04:05.123456Z`.
fn time_of_day(stamp: &str) -> Option<f64> {
    let (_, time) = stamp.strip_suffix('Z')?.split_once('T')?;
    let mut parts = time.split(':').map(str::parse::<f64>);
    let mut part = || parts.next()?.ok();
    Some(part()? * 3600.0 + part()? * 60.0 + part()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(verb: &str, resource: &str, name: &str, time: &str) -> Value {
        json!({
            "user": {"username": OURS}, "verb": verb, "responseStatus": {"code": 200},
            "objectRef": {"resource": resource, "name": name},
            "stageTimestamp": format!("2026-11-22T{time}Z"),
        })
    }

    fn read(lines: &[Value]) -> Audit {
        let mut audit = Audit::new(Path::new("/nonexistent"));
        for line in lines {
            audit.take(line);
        }
        audit
    }

    #[test]
    fn pods_are_at_work_from_their_making_until_the_kubelet_says_that_they_have_ended() {
        let ended = |name: &str, time: &str| {
            let mut line = asked("patch", "pods", name, time);
            line["user"]["username"] = json!("longshore-admin");
            line["requestObject"] = json!({"status": {"phase": "Succeeded"}});
            line
        };
        let made = |name: &str, time: &str| asked("create", "pods", name, time);
        let audit = read(&[
            made("importer-dv-000000", "00:00:01.5"),
            made("importer-dv-000001", "00:00:02.5"),
            ended("importer-dv-000000", "00:00:03.5"),
            made("importer-dv-000002", "00:00:03.5"),
        ]);
        assert_eq!((audit.pods(), audit.most_at_work()), (3, 2));
        assert_eq!(audit.most_per(|name| super::super::number(name) % 2), 1);
        assert_eq!(audit.last_pod(), Some(3.5));
        assert_eq!(audit.requests(), 3);
    }

    #[test]
    fn a_data_volume_succeeds_once_and_leases_and_watches_are_no_requests() {
        let mut done = asked("patch", "datavolumes", "dv-000000", "12:00:00.25");
        done["objectRef"]["subresource"] = json!("status");
        done["requestObject"] = json!({"status": {"phase": "Succeeded"}});
        let audit = read(&[
            asked("update", "leases", "l", "12:00:00.1"),
            asked("watch", "pods", "", "12:00:00.1"),
            done.clone(),
            done,
        ]);
        assert_eq!((audit.succeeded(), audit.requests()), (1, 2));
        assert_eq!(audit.last_success(), Some(43200.25));
        let gap = audit.first_write_after(43200.0);
        assert_eq!(gap, Some(0.25));
        let about = ("patch".to_owned(), "datavolumes/status".to_owned());
        assert_eq!(audit.counts()[&about], 2);
    }
}
