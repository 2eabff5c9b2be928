//! What is shown of each data volume. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use longshore_crds::Condition;
use longshore_crds::contract::Progress;
use longshore_crds::names::annotation;
use serde::Serialize;
use serde_json::Value;

use crate::bytes::bytes;
use crate::pace::duration;

/// Namespace and name.
pub(super) type Key = (String, String);

/// All volumes.
#[derive(Debug, Default)]
pub(super) struct Volumes(pub(super) BTreeMap<Key, DynamicObject>);

impl FromIterator<DynamicObject> for Volumes {
    fn from_iter<T: IntoIterator<Item = DynamicObject>>(all: T) -> Self {
        let keyed = all
            .into_iter()
            .map(|object| (key(&object.metadata), object));
        Self(keyed.collect())
    }
}

/// What claims say, and which claim is filled in the place of which.
#[derive(Debug, Default)]
pub(super) struct Claims(pub(super) BTreeMap<Key, Claim>);

/// As far as it matters.
#[derive(Debug, Default)]
pub(super) struct Claim {
    uid: String,
    progress: Option<Progress>,
}

impl Claims {
    pub(super) fn add(&mut self, meta: &ObjectMeta) {
        let annotations = meta.annotations.as_ref();
        let text = annotations.and_then(|all| all.get(annotation::PROGRESS));
        let claim = Claim {
            progress: text.and_then(|text| Progress::parse(text)),
            uid: meta.uid.clone().unwrap_or_default(),
        };
        self.0.insert(key(meta), claim);
    }

    /// How far the claim is, or the one that is filled first.
    fn progress(&self, (namespace, name): &Key) -> Option<&Progress> {
        let claim = self.0.get(&(namespace.clone(), name.clone()))?;
        let prime = (namespace.clone(), format!("prime-{}", claim.uid));
        let prime = self.0.get(&prime).and_then(|prime| prime.progress.as_ref());
        prime.or(claim.progress.as_ref())
    }
}

pub(super) fn key(meta: &ObjectMeta) -> Key {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    (text(&meta.namespace), text(&meta.name))
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) phase: String,
    /// As upstream spells it: `N/A`, `12.50%`, `100.0%`.
    pub(super) progress: String,
    /// What the importer says itself, while it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transfer: Option<Progress>,
    pub(super) restarts: i64,
    /// Why it does not run, if it does not and is not done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<String>,
}

/// A row for each volume, by namespace and name.
pub(super) fn rows(volumes: &Volumes, claims: &Claims) -> Vec<Row> {
    let all = volumes.0.iter();
    all.map(|(key, volume)| row(volume, claims.progress(key)))
        .collect()
}

fn row(volume: &DynamicObject, progress: Option<&Progress>) -> Row {
    let status = volume.data.get("status");
    let text = |field: &str| {
        let value = status.and_then(|status| status.get(field)?.as_str());
        value.unwrap_or_default().to_owned()
    };
    let conditions = status.and_then(|status| status.get("conditions").cloned());
    let conditions: Vec<Condition> = conditions
        .and_then(|all| serde_json::from_value(all).ok())
        .unwrap_or_default();
    let phase = text("phase");
    let over = ["Succeeded"].contains(&phase.as_str());
    let running = conditions.iter().find(|one| one.kind == "Running");
    let runs = running.is_some_and(|one| one.status == "True");
    let stopped = running.filter(|_| !over && !runs);
    Row {
        namespace: volume.namespace().unwrap_or_default(),
        name: volume.name_any(),
        progress: match text("progress") {
            none if none.is_empty() => "N/A".to_owned(),
            some => some,
        },
        transfer: progress.filter(|_| !over && runs).cloned(),
        restarts: status
            .and_then(|status| status.get("restartCount").and_then(Value::as_i64))
            .unwrap_or(0),
        reason: stopped.map(|one| one.reason.clone()).unwrap_or_default(),
        message: stopped.map(|one| one.message.clone()).unwrap_or_default(),
        created: volume
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0.to_string()),
        phase,
    }
}

impl Row {
    fn cells(&self, everywhere: bool, now: Timestamp) -> Vec<String> {
        let transfer = self.transfer.as_ref();
        let known = transfer.filter(|it| it.unknown.is_none());
        let age = self.created.as_ref().and_then(|time| time.parse().ok());
        let age = age.map(|made: Timestamp| {
            duration(u64::try_from(now.duration_since(made).as_secs()).unwrap_or(0))
        });
        let why = match transfer.and_then(|it| it.unknown.as_ref()) {
            Some(_) => "(progress unknown)",
            None => self.reason.as_str(),
        };
        let mut cells = Vec::new();
        if everywhere {
            cells.push(self.namespace.clone());
        }
        cells.extend([
            self.name.clone(),
            self.phase.clone(),
            self.progress.clone(),
            known.map(|it| bytes(it.read)).unwrap_or_default(),
            known
                .filter(|it| it.rate > 0)
                .map(|it| format!("{}/s", bytes(it.rate)))
                .unwrap_or_default(),
            known
                .and_then(|it| it.eta_seconds)
                .map(duration)
                .unwrap_or_default(),
            self.restarts.to_string(),
            age.unwrap_or_default(),
            why.to_owned(),
        ]);
        cells
    }

    /// What tells it from the row before, where lines are printed: ages and rates alone are no news.
    pub(super) fn news(&self) -> String {
        let read = self.transfer.as_ref().map(|it| it.read);
        format!(
            "{} {} {read:?} {} {}",
            self.phase, self.progress, self.reason, self.restarts
        )
    }
}

/// Rows beneath each other.
#[derive(Debug)]
pub(super) struct Table {
    lines: Vec<Vec<String>>,
}

const HEAD: [&str; 9] = [
    "NAME", "PHASE", "PROGRESS", "READ", "RATE", "LEFT", "RESTARTS", "AGE", "WHY",
];

impl Table {
    pub(super) fn new(rows: impl IntoIterator<Item = Row>, everywhere: bool) -> Self {
        Self::at(rows, everywhere, Timestamp::now())
    }

    fn at(rows: impl IntoIterator<Item = Row>, everywhere: bool, now: Timestamp) -> Self {
        let mut head: Vec<String> = HEAD.map(str::to_owned).into();
        if everywhere {
            head.insert(0, "NAMESPACE".to_owned());
        }
        let mut lines = vec![head];
        lines.extend(rows.into_iter().map(|row| row.cells(everywhere, now)));
        Self { lines }
    }

    /// The head and the rows, with columns as wide as they must be.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut widths: Vec<usize> = Vec::new();
        for cells in &self.lines {
            for (column, cell) in cells.iter().enumerate() {
                match widths.get_mut(column) {
                    Some(width) => *width = (*width).max(cell.chars().count()),
                    None => widths.push(cell.chars().count()),
                }
            }
        }
        let line = |cells: &Vec<String>| {
            let padded = cells
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"));
            let padded: Vec<String> = padded.collect();
            padded.join("   ").trim_end().to_owned()
        };
        self.lines.iter().map(line).collect()
    }
}

/// All of them in a line.
pub(super) fn sum(rows: &[Row]) -> String {
    let done = rows.iter().filter(|row| row.phase == "Succeeded").count();
    let failed = rows.iter().filter(|row| row.phase == "Failed").count();
    let working: Vec<&Progress> = rows
        .iter()
        .filter_map(|row| row.transfer.as_ref())
        .collect();
    let rate = working
        .iter()
        .fold(0u64, |sum, it| sum.saturating_add(it.rate));
    let left = working.iter().filter_map(|it| it.eta_seconds).max();
    // Writing to a String does not fail.
    let mut text = format!("{done} of {} done", rows.len());
    if failed > 0 {
        let _ = write!(text, ", {failed} failed");
    }
    if !working.is_empty() {
        let _ = write!(text, ", {} at work at {}/s", working.len(), bytes(rate));
    }
    if let Some(left) = left {
        let _ = write!(text, ", the last of these in {}", duration(left));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::resource;
    use serde_json::json;

    fn volume(name: &str, status: &Value) -> DynamicObject {
        let mut volume = DynamicObject::new(name, &resource("DataVolume")).within("ns");
        volume.data = json!({ "status": status });
        volume.metadata.creation_timestamp =
            serde_json::from_value(json!("2026-11-22T00:00:00Z")).unwrap();
        volume
    }

    fn running() -> DynamicObject {
        volume(
            "a",
            &json!({"phase": "ImportInProgress", "progress": "12.50%", "restartCount": 2,
                "conditions": [{"type": "Running", "status": "True", "reason": "Pod is running"}]}),
        )
    }

    fn claims(name: &str, uid: &str, progress: &str) -> Claims {
        let mut claims = Claims::default();
        let meta = json!({"namespace": "ns", "name": name, "uid": uid,
                "annotations": {annotation::PROGRESS: progress}});
        claims.add(&serde_json::from_value(meta).unwrap());
        claims
    }

    const PROGRESS: &str =
        "{\"percent\":12.5,\"read\":1048576,\"written\":0,\"rate\":2048,\"etaSeconds\":90}";

    #[test]
    fn a_row_shows_bytes_rate_and_time_left_while_an_import_runs() {
        let waiting = volume(
            "b",
            &json!({"phase": "Pending",
                "conditions": [{"type": "Running", "status": "False", "reason": "Unschedulable"}]}),
        );
        let volumes: Volumes = [running(), waiting].into_iter().collect();
        let rows = rows(&volumes, &claims("a", "u", PROGRESS));
        let now = "2026-11-22T00:05:00Z".parse().unwrap();
        let lines = Table::at(rows.clone(), false, now).lines();
        assert_eq!(
            lines,
            [
                "NAME   PHASE              PROGRESS   READ    RATE      LEFT         RESTARTS   AGE         WHY",
                "a      ImportInProgress   12.50%     1 MiB   2 KiB/s   1 min 30 s   2          5 min 0 s",
                "b      Pending            N/A                                       0          5 min 0 s   Unschedulable",
            ]
        );
        assert_eq!(
            sum(&rows),
            "0 of 2 done, 1 at work at 2 KiB/s, the last of these in 1 min 30 s"
        );
        assert!(Table::at(rows, true, now).lines()[1].starts_with("ns "));
    }

    #[test]
    fn of_a_claim_with_a_stand_in_the_stand_in_is_what_counts() {
        let volumes: Volumes = [running()].into_iter().collect();
        let mut all = claims("a", "u", "{\"read\":1}");
        all.0.extend(claims("prime-u", "v", PROGRESS).0);
        let rows = rows(&volumes, &all);
        assert_eq!(rows[0].transfer.as_ref().map(|it| it.read), Some(1 << 20));
    }

    #[test]
    fn what_is_over_shows_no_transfer_and_no_reason() {
        let done = volume(
            "a",
            &json!({"phase": "Succeeded", "progress": "100.0%",
                "conditions": [{"type": "Running", "status": "False", "reason": "Completed"}]}),
        );
        let volumes: Volumes = [done].into_iter().collect();
        let rows = rows(&volumes, &claims("a", "u", PROGRESS));
        assert_eq!(rows[0].transfer, None);
        assert_eq!(rows[0].reason, "");
        assert_eq!(sum(&rows), "1 of 1 done");
    }
}
