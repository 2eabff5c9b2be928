//! What people see of how far an import is: the annotation of its claim. Pure.
//!
//! It is written anew with a change of one percent, or every ten seconds while bytes move, and its share is
//! never taken back. Where the pod does not answer (a `NetworkPolicy` between it and us, say) the reason is
//! written down once; nothing of the import depends on it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use longshore_crds::contract::Progress;
use longshore_crds::names::annotation;

use super::scrape::{Heard, Reading};
use crate::claim::Claim;

/// What is written down is as old as this before it is written anew, unless a percent was done.
const STEP: i64 = 10;
/// A pod that runs for less may still be setting itself up.
const SETTING_UP: i64 = 30;
/// A pod that was heard since is only busy.
const BUSY: i64 = 60;
/// Between two questions: as long as a part of the time it has run, within these.
const SOONEST: Duration = Duration::from_secs(2);
const LATEST: Duration = Duration::from_secs(30);
const PART: u32 = 20;
/// Held below 100 until the pod has ended well.
const MOST: f64 = 99.99;

/// How soon to ask a pod again that has run for so long.
pub(super) fn pause(pod: &Pod, now: Timestamp) -> Duration {
    let ran = u64::try_from(ran(pod, now)).unwrap_or(0);
    (Duration::from_secs(ran) / PART).clamp(SOONEST, LATEST)
}

/// For how many seconds a pod's container has run.
fn ran(pod: &Pod, now: Timestamp) -> i64 {
    let container = pod.status.as_ref().and_then(|status| {
        let all = status.container_statuses.as_ref()?;
        all.first()?.state.as_ref()?.running.as_ref()
    });
    let since = container.and_then(|it| it.started_at.as_ref());
    since.map_or(0, |since| now.duration_since(since.0).as_secs())
}

/// The annotation's text after `heard`; that of before if there is no reason to write.
pub(super) fn text(
    claim: &PersistentVolumeClaim,
    pod: &Pod,
    heard: &Heard,
    now: Timestamp,
) -> Option<String> {
    let text = claim.annotation(annotation::PROGRESS);
    let known = text.and_then(Progress::parse);
    let age = |known: &Progress| {
        let at: Option<Timestamp> = known.at.as_ref().and_then(|at| at.parse().ok());
        at.map_or(i64::MAX, |at| now.duration_since(at).as_secs())
    };
    let next = match heard {
        Heard::Said(reading) => said(known.as_ref(), reading, age),
        Heard::Silent(why) => silent(known.as_ref(), why, ran(pod, now), age),
    };
    match next {
        Some(mut next) => {
            next.at = Some(now.to_string());
            Some(next.to_string())
        }
        None => text.map(str::to_owned),
    }
}

fn said(
    known: Option<&Progress>,
    reading: &Reading,
    age: impl Fn(&Progress) -> i64,
) -> Option<Progress> {
    let before = known.and_then(|known| known.percent);
    // A run that goes on where another one was may count from the start.
    let percent = match (reading.percent, before) {
        (Some(percent), Some(before)) => Some(percent.max(before)),
        (percent, before) => percent.or(before),
    };
    let percent = percent.map(|percent| percent.min(MOST));
    if let Some(known) = known {
        let grown = match (percent, known.percent) {
            (Some(now), Some(before)) => now >= before + 1.0,
            (now, before) => now != before,
        };
        let moved = known.read != reading.read || known.rate != reading.rate;
        let due = moved && age(known) >= STEP;
        if !grown && !due && known.unknown.is_none() {
            return None;
        }
    }
    if percent.is_none() && reading.read == 0 {
        return None;
    }
    Some(Progress {
        percent,
        read: reading.read,
        written: reading.written,
        size: reading.size,
        rate: reading.rate,
        eta_seconds: reading.eta_seconds,
        retries: reading.retries,
        at: None,
        unknown: None,
    })
}

fn silent(
    known: Option<&Progress>,
    why: &str,
    ran: i64,
    age: impl Fn(&Progress) -> i64,
) -> Option<Progress> {
    if ran < SETTING_UP {
        return None;
    }
    if let Some(known) = known
        && (known.unknown.is_some() || age(known) < BUSY)
    {
        return None;
    }
    // What was done is still done; how fast it goes on nobody knows.
    let known = known.cloned().unwrap_or_default();
    Some(Progress {
        rate: 0,
        eta_seconds: None,
        unknown: Some(why.to_owned()),
        ..known
    })
}

/// Why nothing is known, if nothing is.
pub(super) fn unknown(text: Option<&str>) -> Option<String> {
    Progress::parse(text?)?.unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: &str = "2026-11-22T01:00:00Z";

    fn claim(progress: Option<&Value>) -> PersistentVolumeClaim {
        let annotations = progress.map(|it| json!({annotation::PROGRESS: it.to_string()}));
        serde_json::from_value(json!({"metadata": {"annotations": annotations}})).unwrap()
    }

    fn pod(started: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "status": {"containerStatuses": [{
            "name": "importer", "ready": true, "restartCount": 0, "image": "", "imageID": "",
            "state": {"running": {"startedAt": started}},
        }]}}))
        .unwrap()
    }

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn reading(percent: Option<f64>, read: u64) -> Heard {
        Heard::Said(Reading {
            percent,
            read,
            rate: 5,
            eta_seconds: Some(7),
            ..Reading::default()
        })
    }

    /// What is written after `heard`, if it is another text than before.
    fn written(before: Option<&Value>, heard: &Heard) -> Option<Progress> {
        let claim = claim(before);
        let text = text(&claim, &pod("2026-11-22T00:00:00Z"), heard, now())?;
        (Some(text.as_str()) != claim.annotation(annotation::PROGRESS))
            .then(|| Progress::parse(&text).unwrap())
    }

    #[test]
    fn a_percent_is_written_and_less_only_after_a_while() {
        let recent = json!({"percent": 10.0, "read": 100, "at": "2026-11-22T00:59:55Z"});
        let older = json!({"percent": 10.0, "read": 100, "at": "2026-11-22T00:59:50Z"});
        assert_eq!(written(Some(&recent), &reading(Some(10.9), 109)), None);
        let next = written(Some(&recent), &reading(Some(11.0), 110)).unwrap();
        assert_eq!((next.percent, next.read), (Some(11.0), 110));
        assert_eq!((next.rate, next.eta_seconds), (5, Some(7)));
        let next = written(Some(&older), &reading(Some(10.9), 109)).unwrap();
        assert_eq!(next.percent, Some(10.9));
        assert_eq!(next.at.as_deref(), Some(NOW));
        // Nothing moves: nothing to write.
        let still = json!({"percent": 10.0, "read": 109, "rate": 5, "at": "2026-11-22T00:00:00Z"});
        assert_eq!(written(Some(&still), &reading(Some(10.0), 109)), None);
    }

    #[test]
    fn the_share_never_falls_and_is_not_whole_while_the_pod_runs() {
        let before = json!({"percent": 50.0, "read": 100, "at": "2026-11-22T00:59:50Z"});
        let next = written(Some(&before), &reading(Some(2.0), 5)).unwrap();
        assert_eq!((next.percent, next.read), (Some(50.0), 5));
        let next = written(Some(&before), &reading(Some(100.0), 5)).unwrap();
        assert_eq!(next.percent, Some(99.99));
    }

    #[test]
    fn bytes_are_told_where_the_whole_is_not_known() {
        assert_eq!(written(None, &reading(None, 0)), None);
        let next = written(None, &reading(None, 100)).unwrap();
        assert_eq!((next.percent, next.read), (None, 100));
    }

    #[test]
    fn a_pod_out_of_reach_is_told_once_and_forgotten_when_it_answers() {
        let silent = Heard::Silent("no way".to_owned());
        let next = written(None, &silent).unwrap();
        assert_eq!(next.unknown.as_deref(), Some("no way"));
        let known = serde_json::to_value(&next).unwrap();
        assert_eq!(written(Some(&known), &silent), None);
        let next = written(Some(&known), &reading(Some(1.0), 5)).unwrap();
        assert_eq!(next.unknown, None);
        // It was heard a moment ago.
        let recent = json!({"percent": 10.0, "read": 100, "at": "2026-11-22T00:59:30Z"});
        assert_eq!(written(Some(&recent), &silent), None);
        // It has just started.
        let fresh = pod("2026-11-22T00:59:50Z");
        assert_eq!(text(&claim(None), &fresh, &silent, now()), None);
    }

    #[test]
    fn an_import_that_takes_long_is_asked_less_often() {
        let after = |started| pause(&pod(started), now()).as_secs();
        assert_eq!(after("2026-11-22T00:59:50Z"), 2);
        assert_eq!(after("2026-11-22T00:58:00Z"), 6);
        assert_eq!(after("2026-11-22T00:00:00Z"), 30);
    }
}
