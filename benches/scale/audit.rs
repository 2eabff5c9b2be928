//! The API server's audit log: a line of JSON for each request that it has answered.
//!
//! A controller that is killed has requests under way. The server gives up on them (504, or 500 where the
//! store was told so first), and may have done what they asked all the same: the object is what it shall be,
//! nobody asks for it again, and whoever counts good answers waits for ever. Such steps are doubts until
//! either somebody has looked at the object, or the next controller has done them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::Value;

const DAY: f64 = 24.0 * 60.0 * 60.0;
/// Of it we know nothing else, and what it asks has nothing to do with how many imports there are.
const LEASES: &str = "leases";
const OURS: &str = "system:serviceaccount:cdi:cdi-sa";
/// Which token a request came with: each controller has one of its own.
const TOKEN: &str = "/user/extra/authentication.kubernetes.io~1credential-id/0";

/// What the log is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// A claim was made.
    Claim,
    /// A pod was made.
    Pod,
    /// A data volume has succeeded.
    Success,
}

impl Step {
    pub(super) const ALL: [Self; 3] = [Self::Claim, Self::Pod, Self::Success];

    fn of(verb: &str, resource: &str, phase: &str) -> Option<Self> {
        match (verb, resource) {
            ("create", "persistentvolumeclaims") => Some(Self::Claim),
            ("create", "pods") => Some(Self::Pod),
            (_, "datavolumes") if phase == SUCCEEDED => Some(Self::Success),
            _ => None,
        }
    }

    /// Of what it is a step.
    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::Claim => "persistentvolumeclaims",
            Self::Pod => "pods",
            Self::Success => "datavolumes",
        }
    }

    /// Whether an object that is in this phase has it behind it.
    pub(super) fn is_done(self, phase: &str) -> bool {
        self != Self::Success || phase == SUCCEEDED
    }
}

const SUCCEEDED: &str = "Succeeded";

/// When something was done, and by which controller: the first is 0.
#[derive(Debug, Clone, Copy)]
struct Moment {
    time: f64,
    controller: usize,
}

/// What was asked so far. Times are seconds from the begin on.
#[derive(Debug)]
pub(super) struct Audit {
    path: PathBuf,
    /// The time of day when it began.
    begun: f64,
    /// Bytes that were read, whole lines only.
    read: u64,
    /// By what was done, and to which resource.
    counts: BTreeMap<(String, String), usize>,
    /// When the pods of these names were made, and when they had ended.
    made: Vec<(f64, String)>,
    ended: Vec<(f64, String)>,
    succeeded: BTreeMap<String, Moment>,
    /// Claims that were made since somebody asked.
    claims: Vec<String>,
    /// Steps that may have been done, and by whom.
    doubts: BTreeMap<(Step, String), Moment>,
    /// Tokens of the controllers.
    tokens: Vec<String>,
}

impl Audit {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            begun: 0.0,
            read: 0,
            counts: BTreeMap::new(),
            made: Vec::new(),
            ended: Vec::new(),
            succeeded: BTreeMap::new(),
            claims: Vec::new(),
            doubts: BTreeMap::new(),
            tokens: Vec::new(),
        }
    }

    /// It begins at this time: nothing that was asked so far counts.
    pub(super) fn begin(&mut self, now: SystemTime) -> Result<()> {
        let since = now.duration_since(UNIX_EPOCH);
        let since = since.context("the clock is before its beginning")?;
        *self = Self {
            begun: since.as_secs_f64().rem_euclid(DAY),
            read: self.read,
            ..Self::new(&self.path)
        };
        Ok(())
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
        let time = (time - self.begun).rem_euclid(DAY);
        let (verb, resource) = (word("/verb"), word("/objectRef/resource"));
        let phase = word("/requestObject/status/phase");
        let name = word("/objectRef/name");
        let code = said["responseStatus"]["code"].as_u64().unwrap_or_default();
        if word("/user/username") != OURS {
            if code < 300 && resource == "pods" && phase == SUCCEEDED {
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
        if code == 409 {
            about += " (conflict)";
        }
        *self.counts.entry((verb.to_owned(), about)).or_default() += 1;
        let moment = Moment {
            time,
            controller: self.controller(word(TOKEN)),
        };
        let Some(step) = Step::of(verb, resource, phase) else {
            return;
        };
        if code < 300 {
            self.done(step, name, moment);
        } else if code >= 500 {
            self.doubts.insert((step, name.to_owned()), moment);
        }
    }

    fn done(&mut self, step: Step, name: &str, moment: Moment) {
        self.doubts.remove(&(step, name.to_owned()));
        let name = name.to_owned();
        match step {
            Step::Claim => self.claims.push(name),
            Step::Pod => self.made.push((moment.time, name)),
            Step::Success => {
                self.succeeded.entry(name).or_insert(moment);
            }
        }
    }

    /// Which of them this token is.
    fn controller(&mut self, token: &str) -> usize {
        let known = self.tokens.iter().position(|known| known == token);
        known.unwrap_or_else(|| {
            self.tokens.push(token.to_owned());
            self.tokens.len() - 1
        })
    }

    /// Names of the objects of which nobody knows whether they have taken this step.
    pub(super) fn doubts(&self, step: Step) -> Vec<&str> {
        let all = self.doubts.keys().filter(|(of, _)| *of == step);
        all.map(|(_, name)| name.as_str()).collect()
    }

    /// Somebody has looked: it has.
    pub(super) fn believe(&mut self, step: Step, name: &str) {
        if let Some(moment) = self.doubts.remove(&(step, name.to_owned())) {
            self.done(step, name, moment);
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
        self.made.iter().map(|(time, _)| *time).reduce(f64::max)
    }

    pub(super) fn last_success(&self) -> Option<f64> {
        let times = self.succeeded.values().map(|moment| moment.time);
        times.reduce(f64::max)
    }

    /// How long nothing succeeded: between the last success of a controller and the first of the next, or at
    /// most if there was one controller.
    pub(super) fn gap(&self) -> Option<f64> {
        let of = |controller: usize| {
            let all = self.succeeded.values();
            all.filter(move |moment| moment.controller == controller)
                .map(|moment| moment.time)
        };
        if self.tokens.len() > 1 {
            return Some(of(1).reduce(f64::min)? - of(0).reduce(f64::max)?);
        }
        let mut times: Vec<f64> = of(0).collect();
        times.sort_by(f64::total_cmp);
        let between = times.windows(2).map(|pair| pair[1] - pair[0]);
        between.reduce(f64::max)
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

    /// Said by a controller with this token, with this code.
    fn success(name: &str, time: &str, token: &str, code: u16) -> Value {
        let mut line = asked("patch", "datavolumes", name, time);
        line["objectRef"]["subresource"] = json!("status");
        line["requestObject"] = json!({"status": {"phase": "Succeeded"}});
        line["responseStatus"]["code"] = json!(code);
        line["user"]["extra"] = json!({"authentication.kubernetes.io/credential-id": [token]});
        line
    }

    #[test]
    fn a_data_volume_succeeds_once_and_leases_and_watches_are_no_requests() {
        let done = success("dv-000000", "12:00:00.25", "a", 200);
        let audit = read(&[
            asked("update", "leases", "l", "12:00:00.1"),
            asked("watch", "pods", "", "12:00:00.1"),
            done.clone(),
            done,
        ]);
        assert_eq!((audit.succeeded(), audit.requests()), (1, 2));
        assert_eq!(audit.last_success(), Some(43200.25));
        let about = ("patch".to_owned(), "datavolumes/status".to_owned());
        assert_eq!(audit.counts()[&about], 2);
    }

    #[test]
    fn a_write_that_was_cut_counts_from_its_own_time_on_once_somebody_has_looked() {
        let mut audit = read(&[
            success("dv-000000", "00:00:01", "a", 200),
            success("dv-000001", "00:00:02", "a", 504),
            success("dv-000002", "00:00:02", "a", 500),
            success("dv-000002", "00:00:05", "b", 200),
            success("dv-000003", "00:00:06", "b", 409),
        ]);
        assert_eq!(audit.succeeded(), 2);
        assert_eq!(audit.doubts(Step::Success), ["dv-000001"]);
        assert!(audit.doubts(Step::Claim).is_empty());
        assert_eq!(audit.gap(), Some(4.0));
        audit.believe(Step::Success, "dv-000001");
        audit.believe(Step::Success, "dv-000009");
        assert_eq!(audit.succeeded(), 3);
        assert!(audit.doubts(Step::Success).is_empty());
        assert_eq!((audit.last_success(), audit.gap()), (Some(5.0), Some(3.0)));
    }

    #[test]
    fn a_claim_whose_making_was_cut_is_told_when_it_is_found() {
        let mut cut = asked("create", "persistentvolumeclaims", "dv-000000", "00:00:01");
        cut["responseStatus"]["code"] = json!(504);
        let mut audit = read(&[cut]);
        assert!(audit.new_claims().is_empty());
        audit.believe(Step::Claim, "dv-000000");
        assert_eq!(audit.new_claims(), ["dv-000000"]);
    }

    #[test]
    fn without_a_restart_the_longest_time_between_two_successes_is_told() {
        let said = |name: &str, time: &str| success(name, time, "a", 200);
        let audit = read(&[
            said("dv-000000", "23:59:58"),
            said("dv-000001", "23:59:59"),
            said("dv-000002", "23:59:55.5"),
        ]);
        assert_eq!(audit.gap(), Some(2.5));
    }

    #[test]
    fn midnight_is_no_end() {
        let mut audit = Audit::new(Path::new("/nonexistent"));
        let begun = UNIX_EPOCH + std::time::Duration::from_secs(24 * 3600 * 9 - 10);
        audit.begin(begun).unwrap();
        audit.take(&asked("create", "pods", "p", "23:59:59"));
        assert_eq!(audit.last_pod(), Some(9.0));
        audit.take(&success("dv-000000", "00:00:05", "a", 200));
        assert_eq!(audit.last_success(), Some(15.0));
    }
}
