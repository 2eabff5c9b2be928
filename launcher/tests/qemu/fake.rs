//! A fake QEMU for what the real one does not do on request: losing its monitor, talking nonsense.
//!
//! It is this test binary again, running only [`qemu`]; what it is to do is in a file.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use longshore_launcher::supervisor::{
    Command, End, EndCause, Notice, Options, Outcome, RunError, Supervisor,
};

/// Where the fake finds its part.
const PART: &str = "fake-qemu.part";
const GREETING: &str =
    r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 99}, "package": ""}}}"#;

/// Not a test: what the other tests start in place of QEMU.
#[test]
#[ignore = "a process for other tests to start"]
fn qemu() {
    let Ok(part) = std::fs::read_to_string(PART) else {
        return;
    };
    let listener = UnixListener::bind("qmp.sock").unwrap();
    match part.as_str() {
        "loses its monitor" => {
            // Once at the second command, and then no more.
            serve(&listener, 2);
            serve(&listener, usize::MAX);
        }
        "talks nonsense" => loop {
            let (mut stream, _) = listener.accept().unwrap();
            // The peer may have left already.
            let _ = stream.write_all(b"hello\r\n");
        },
        other => panic!("no part {other}"),
    }
}

/// One connection: greets and answers; ends it after some commands, and the process after `quit`.
fn serve(listener: &UnixListener, commands: usize) {
    let (mut stream, _) = listener.accept().unwrap();
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    say(&mut stream, GREETING);
    for line in lines.take(commands) {
        let command: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        let id = &command["id"];
        say(&mut stream, &format!(r#"{{"return": {{}}, "id": {id}}}"#));
        match command["execute"].as_str().unwrap() {
            "cont" => say(&mut stream, r#"{"event": "RESUME"}"#),
            "system_powerdown" => {
                let data = r#"{"guest": true, "reason": "guest-shutdown"}"#;
                say(
                    &mut stream,
                    &format!(r#"{{"event": "SHUTDOWN", "data": {data}}}"#),
                );
                #[expect(clippy::exit, reason = "the test harness would say more")]
                std::process::exit(0);
            }
            _ => {}
        }
    }
}

fn say(stream: &mut UnixStream, line: &str) {
    stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
}

fn command(dir: &Path, part: &str) -> Command {
    std::fs::write(dir.join(PART), part).unwrap();
    let args = ["--exact", "fake::qemu", "--ignored", "--nocapture"];
    Command {
        program: std::env::current_exe().unwrap(),
        args: args.map(OsString::from).to_vec(),
        dir: dir.to_owned(),
        files: Vec::new(),
        qmp_socket: dir.join("qmp.sock"),
        serial_socket: None,
        vnc_socket: None,
        serial_log: None,
        grace: Duration::from_mins(1),
        start_paused: false,
    }
}

#[test]
fn a_lost_monitor_is_connected_again_and_serves_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (notices, told) = std::sync::mpsc::channel();
    let options = Options {
        signals: false,
        timeout: Some(Duration::from_mins(1)),
        on_event: Box::new(move |notice| notices.send(notice.clone()).unwrap()),
        ..Options::default()
    };
    let (supervisor, control) = Supervisor::new(command(dir.path(), "loses its monitor"), options);
    let run = std::thread::spawn(move || supervisor.run());
    let mut before = Vec::new();
    let back = told.iter().find(|notice| {
        before.push(notice.clone());
        *notice == Notice::MonitorBack
    });
    assert!(back.is_some(), "{before:?}");
    let lost = |notice: &Notice| matches!(notice, Notice::MonitorLost { .. });
    assert!(before.iter().any(lost), "{before:?}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(control.submit(longshore_launcher::supervisor::Request::Stop));
    assert_eq!(run.join().unwrap().unwrap().end, End::Stopped);
}

#[test]
fn a_monitor_that_talks_nonsense_is_no_start() {
    let dir = tempfile::tempdir().unwrap();
    let limit = Duration::from_millis(500);
    let (notices, told) = std::sync::mpsc::channel();
    let options = Options {
        signals: false,
        timeout: Some(limit),
        on_event: Box::new(move |notice| notices.send(notice.clone()).unwrap()),
        ..Options::default()
    };
    let (supervisor, _control) = Supervisor::new(command(dir.path(), "talks nonsense"), options);
    let Outcome { end, .. } = supervisor.run().unwrap();
    assert_eq!(end, End::TimedOut { limit });
    let cause = EndCause::TimedOut;
    assert!(told.iter().any(|notice| notice == Notice::Ending { cause }));
}

#[test]
fn a_qemu_that_is_not_installed_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), "");
    command.program = "/no/such/qemu-system-x86_64".into();
    let (supervisor, _control) = Supervisor::new(command, Options::default());
    let error = supervisor.run().unwrap_err();
    assert!(matches!(error, RunError::NoQemu { .. }), "{error:?}");
    assert!(error.to_string().contains("/no/such/qemu-system-x86_64"));
}
