//! What is shown of a copy.

use std::process::Stdio;

use longshore_tests::program::said;
use serde_json::Value;

use crate::rig::{MIB, Rig};

fn events(stdout: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

#[test]
fn progress_is_json_lines_that_never_fall_and_end_in_done() {
    let rig = Rig::new();
    let bytes = rig.image("in.raw", 48 * MIB);
    for (args, input) in [
        (["import", "--progress", "json", "in.raw", "out.raw"], None),
        (
            ["import", "--progress", "json", "-", "out.raw"],
            Some(&bytes),
        ),
    ] {
        let output = match input {
            Some(input) => rig.fed(&args, input),
            None => rig.longshore(&args),
        };
        assert!(output.status.success(), "{}", said(&output));
        assert!(output.stderr.is_empty(), "{}", said(&output));
        let events = events(&output.stdout);
        let (done, before) = events.split_last().unwrap();
        assert_eq!(done["event"], "done");
        assert_eq!(done["virtualSize"], bytes.len());
        assert_eq!(done["format"], "raw");
        let mut last = 0.0;
        for event in before {
            assert_eq!(event["event"], "progress");
            if let Some(fraction) = event["fraction"].as_f64() {
                assert!(fraction >= last, "{event} after {last}");
                assert_eq!(fraction >= 1.0, event["phase"] == "done", "{event}");
                last = fraction;
            }
        }
        assert!(last >= 1.0, "all is there when it is done");
    }
}

#[test]
fn a_failure_is_an_event_too() {
    let rig = Rig::new();
    rig.image("in.raw", 2 * MIB);
    let args = [
        "import",
        "--progress",
        "json",
        "--size",
        "1Mi",
        "in.raw",
        "out.raw",
    ];
    let output = rig.ends(&args, 4);
    let events = events(&output.stdout);
    let error = events.last().unwrap();
    assert_eq!(error["event"], "error");
    assert_eq!(error["reason"], "TargetTooSmall");
    assert_eq!(error["exitCode"], 4);
    assert!(said(&output).contains(error["message"].as_str().unwrap()));
}

#[test]
fn without_a_terminal_there_is_one_line_and_with_off_none() {
    let rig = Rig::new();
    rig.image("in.raw", MIB);
    let output = rig.ends(&["convert", "in.raw", "out.raw"], 0);
    assert!(output.stdout.is_empty());
    assert_eq!(
        String::from_utf8_lossy(&output.stderr).lines().count(),
        1,
        "{}",
        said(&output)
    );
    let output = rig.ends(&["convert", "--progress", "off", "in.raw", "out.raw"], 0);
    assert!(
        output.stdout.is_empty() && output.stderr.is_empty(),
        "{}",
        said(&output)
    );
}

#[test]
fn a_copy_does_not_depend_on_who_reads_its_progress() {
    let rig = Rig::new();
    let bytes = rig.image("in.raw", 16 * MIB);
    let mut child = rig
        .command(&["import", "--progress", "json", "in.raw", "out.raw"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(rig.read("out.raw") == bytes);
}
