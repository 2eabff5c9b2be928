//! Prints a verdict.

use std::fmt::Write as _;

use k8s_openapi::jiff::Timestamp;

use super::judge::Verdict;
use crate::failure::Failure;
use crate::output::Data;
use crate::pace::duration;

pub(super) fn print(verdict: &Verdict, json: bool) -> Result<(), Failure> {
    let mut data = Data::open();
    if json {
        data.json_document(verdict)?;
    } else {
        data.write(&text(verdict, Timestamp::now()))?;
    }
    data.finish()
}

/// For people: what is, why, and at the end what to type.
pub(super) fn text(verdict: &Verdict, now: Timestamp) -> String {
    let Verdict {
        kind,
        namespace,
        name,
        state: _,
        phase: _,
        summary,
        causes,
        remarks,
        unread,
        next,
    } = verdict;
    let mut text = format!("{kind} {namespace}/{name}\n{summary}\n");
    // Writing to a String does not fail.
    for (number, cause) in (1..).zip(causes) {
        let since = cause.since.map_or_else(String::new, |since| {
            let seconds = now.duration_since(since).as_secs();
            format!(", {} ago", duration(u64::try_from(seconds).unwrap_or(0)))
        });
        let _ = writeln!(
            text,
            "\n{number}. {} ({}{since})",
            cause.about, cause.reason
        );
        if !cause.message.is_empty() {
            let _ = writeln!(
                text,
                "   {}",
                cause.message.trim_end().replace('\n', "\n   ")
            );
        }
        let _ = writeln!(text, "   to do: {}", cause.advice);
    }
    if !remarks.is_empty() {
        text += "\n";
    }
    for remark in remarks {
        let _ = writeln!(text, "note: {remark}");
    }
    if !unread.is_empty() {
        text += "\n";
    }
    for what in unread {
        let _ = writeln!(text, "not read: {what}");
    }
    if let Some(next) = next {
        let _ = writeln!(text, "\nnext: {next}");
    }
    text
}
