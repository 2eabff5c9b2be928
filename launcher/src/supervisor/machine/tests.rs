//! Scenarios: events in, effects out.

use serde_json::{Value, json};

use super::*;

const GRACE: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_mins(10);
const CLEAN: Exit = Exit::Code(0);
const KILLED: Exit = Exit::Signal(9);

fn machine() -> Machine {
    Machine::new(Settings {
        grace: GRACE,
        limit: Some(LIMIT),
    })
    .0
}

fn qmp(name: &str, data: Value) -> Event {
    Event::Qmp(qmp::Event {
        name: name.to_owned(),
        data,
        timestamp: qmp::Timestamp::default(),
    })
}

fn resumed() -> Event {
    qmp("RESUME", Value::Null)
}

fn stopped() -> Event {
    qmp("STOP", Value::Null)
}

fn shutdown(reason: &str) -> Event {
    qmp(
        "SHUTDOWN",
        json!({ "guest": reason.starts_with("guest"), "reason": reason }),
    )
}

fn reset(guest: bool) -> Event {
    qmp("RESET", json!({ "guest": guest, "reason": "guest-reset" }))
}

fn disk_error() -> Event {
    let data = json!({
        "device": "", "qom-path": "/machine/peripheral/ua-root/virtio-backend", "node-name": "disk0",
        "operation": "write", "action": "stop", "nospace": true, "reason": "No space left on device",
    });
    qmp("BLOCK_IO_ERROR", data)
}

/// Applies events at time zero and gives the effects of the last one.
fn after(machine: &mut Machine, events: &[Event]) -> Vec<Effect> {
    let mut effects = Vec::new();
    for event in events {
        effects = machine.apply(event.clone(), Duration::ZERO);
    }
    effects
}

fn running() -> Machine {
    let mut machine = machine();
    after(&mut machine, &[Event::Ready, resumed()]);
    machine
}

fn ask(machine: &mut Machine, request: Request) -> Vec<Effect> {
    assert_eq!(machine.submit(request), Disposition::Queued, "{request:?}");
    machine.apply(Event::Requested, Duration::ZERO)
}

fn runs(effects: &[Effect]) -> Vec<Command> {
    let commands = effects.iter().filter_map(|effect| match effect {
        Effect::Run(command) => Some(*command),
        _ => None,
    });
    commands.collect()
}

fn end(machine: &mut Machine, exit: Exit) -> End {
    match machine
        .apply(Event::Exited(exit), Duration::ZERO)
        .as_slice()
    {
        [Effect::Finish(end)] => end.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_guest_is_started_once_qemu_answers() {
    let (mut machine, effects) = Machine::new(Settings {
        grace: GRACE,
        limit: None,
    });
    assert_eq!(effects, [Effect::Arm(Timer::Start, START_LIMIT)]);
    let effects = after(&mut machine, &[Event::Ready]);
    assert_eq!(
        effects,
        [Effect::Disarm(Timer::Start), Effect::Run(Command::Cont)]
    );
    let effects = after(&mut machine, &[resumed()]);
    assert!(effects.contains(&Effect::Report(Notice::Running)));
    let effects = after(&mut machine, &[Event::Ready]);
    assert_eq!(effects, [Effect::Report(Notice::MonitorBack)]);
}

/// How a machine that ran its guest ends after these events, and that its exit code fits.
fn ended(events: &[Event], exit: Exit) -> End {
    let mut machine = running();
    after(&mut machine, events);
    let end = end(&mut machine, exit);
    let success = matches!(end, End::PoweredOff | End::Stopped | End::NeverStarted);
    assert_eq!(end.exit_code(), u8::from(!success), "{end}");
    end
}

fn off() -> Event {
    shutdown("guest-shutdown")
}

fn panicked() -> Event {
    qmp("GUEST_PANICKED", json!({ "action": "shutdown" }))
}

#[test]
fn ends_of_the_guests_own_doing() {
    assert_eq!(ended(&[off()], CLEAN), End::PoweredOff);
    assert_eq!(ended(&[shutdown("guest-reset")], CLEAN), End::Reset);
    let panic = shutdown("guest-panic");
    assert_eq!(ended(&[panicked(), panic], CLEAN), End::Panicked);
    assert_eq!(ended(&[panicked(), off()], CLEAN), End::Panicked);
    // A crash kernel saved what it could and rebooted; then all was well.
    let recovered = [panicked(), reset(true), off()];
    assert_eq!(ended(&recovered, CLEAN), End::PoweredOff);
}

#[test]
fn ends_after_a_stop() {
    let grace_over = || Event::Expired(Timer::Grace);
    let killed_for_grace = End::GraceOver { grace: GRACE };
    assert_eq!(ended(&[Event::Signal, off()], CLEAN), End::Stopped);
    assert_eq!(ended(&[off(), Event::Signal], CLEAN), End::Stopped);
    let quit = shutdown("host-qmp-quit");
    let disobeyed = [Event::Signal, grace_over(), quit];
    assert_eq!(ended(&disobeyed, CLEAN), killed_for_grace);
    let hung = [Event::Signal, grace_over()];
    assert_eq!(ended(&hung, KILLED), killed_for_grace);
    let obeyed_late = [Event::Signal, grace_over(), off()];
    assert_eq!(ended(&obeyed_late, CLEAN), End::Stopped);
    let twice = [Event::Signal, Event::Signal];
    assert_eq!(ended(&twice, KILLED), End::Killed);
    let crashed = End::Crashed { exit: KILLED };
    assert_eq!(ended(&[Event::Signal], KILLED), crashed);
}

#[test]
fn ends_from_elsewhere() {
    let limit_over = Event::Expired(Timer::Limit);
    assert_eq!(ended(&[limit_over], CLEAN), End::TimedOut { limit: LIMIT });
    for reason in ["host-qmp-quit", "host-signal", "from-the-future"] {
        let outside = End::EndedFromOutside {
            reason: reason.to_owned(),
        };
        assert_eq!(ended(&[shutdown(reason)], CLEAN), outside);
        assert_eq!(ended(&[Event::Signal, shutdown(reason)], CLEAN), outside);
    }
    for exit in [CLEAN, Exit::Code(1), Exit::Signal(11)] {
        assert_eq!(ended(&[], exit), End::Crashed { exit });
    }
    // What the guest wrote may not be on the disk.
    let exit = Exit::Code(1);
    assert_eq!(ended(&[off()], exit), End::Crashed { exit });
}

#[test]
fn ends_before_the_guest_ran() {
    let ended = |events: &[Event], exit| {
        let mut machine = machine();
        after(&mut machine, events);
        end(&mut machine, exit)
    };
    let exit = Exit::Code(1);
    assert_eq!(ended(&[], exit), End::StartFailed { exit });
    let start_over = Event::Expired(Timer::Start);
    let hung = End::StartFailed { exit: KILLED };
    assert_eq!(ended(&[start_over], KILLED), hung);
    let limit_over = Event::Expired(Timer::Limit);
    let timed_out = End::TimedOut { limit: LIMIT };
    assert_eq!(ended(&[limit_over], KILLED), timed_out);
    assert_eq!(ended(&[Event::Signal], KILLED), End::NeverStarted);
}

#[test]
fn a_stop_presses_the_button_again_and_again_until_grace_is_over() {
    let mut machine = running();
    let effects = ask(&mut machine, Request::Stop);
    assert_eq!(runs(&effects), [Command::Powerdown]);
    assert!(effects.contains(&Effect::Arm(Timer::Grace, GRACE)));
    for _ in 0..3 {
        let effects = after(&mut machine, &[Event::Expired(Timer::Press)]);
        assert_eq!(runs(&effects), [Command::Powerdown]);
        assert!(effects.contains(&Effect::Arm(Timer::Press, PRESS_EVERY)));
    }
    let effects = after(&mut machine, &[Event::Expired(Timer::Grace)]);
    assert_eq!(runs(&effects), [Command::Quit]);
    let effects = after(&mut machine, &[Event::Expired(Timer::Leave)]);
    assert!(effects.contains(&Effect::Kill));
}

#[test]
fn without_a_grace_period_a_stop_ends_qemu() {
    let (mut machine, _) = Machine::new(Settings {
        grace: Duration::ZERO,
        limit: None,
    });
    after(&mut machine, &[Event::Ready, resumed()]);
    assert_eq!(runs(&ask(&mut machine, Request::Stop)), [Command::Quit]);
}

#[test]
fn signals_before_the_guest_runs_end_qemu_at_once() {
    let mut machine = machine();
    let effects = after(&mut machine, &[Event::Signal]);
    assert!(effects.contains(&Effect::Kill));
    assert_eq!(runs(&effects), [], "nobody is there to be asked");
}

#[test]
fn a_guest_that_is_off_is_not_killed_while_qemu_still_writes() {
    let mut machine = running();
    let effects = after(&mut machine, &[Event::Signal, shutdown("guest-shutdown")]);
    assert!(effects.contains(&Effect::Disarm(Timer::Grace)));
    let effects = after(&mut machine, &[Event::Expired(Timer::Leave)]);
    assert_eq!(
        effects,
        [
            Effect::Report(Notice::Lingering),
            Effect::Arm(Timer::Leave, LEAVE_LIMIT)
        ]
    );
    let effects = after(&mut machine, &[Event::Signal]);
    assert!(effects.contains(&Effect::Kill), "but a second signal does");
}

#[test]
fn a_disk_error_is_told_and_tried_again_ever_less_often() {
    let mut machine = running();
    let mut waits = Vec::new();
    for round in 0..6 {
        let now = Duration::from_secs(round);
        let effects = machine.apply(disk_error(), now);
        let [
            Effect::Report(Notice::IoError {
                device,
                no_space,
                stops,
                ..
            }),
        ] = effects.as_slice()
        else {
            panic!("{effects:?}")
        };
        assert_eq!(
            (device.as_str(), *no_space, *stops),
            ("ua-root", true, true)
        );
        // Other requests in flight fail with it, before and after the guest stands still.
        machine.apply(disk_error(), now);
        let effects = machine.apply(stopped(), now);
        machine.apply(disk_error(), now);
        waits.extend(effects.iter().filter_map(|effect| match effect {
            Effect::Arm(Timer::Retry, wait) => Some(wait.as_secs()),
            _ => None,
        }));
        let effects = machine.apply(Event::Expired(Timer::Retry), now);
        assert_eq!(runs(&effects), [Command::Cont]);
        machine.apply(resumed(), now);
    }
    assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
    let later = Duration::from_secs(1000);
    machine.apply(disk_error(), later);
    let effects = machine.apply(stopped(), later);
    assert!(effects.contains(&Effect::Arm(Timer::Retry, RETRY_FIRST)));
}

#[test]
fn a_retry_that_fails_is_tried_again() {
    let mut machine = running();
    after(
        &mut machine,
        &[disk_error(), stopped(), Event::Expired(Timer::Retry)],
    );
    let failed = Event::Failed {
        command: Command::Cont,
        error: "busy".to_owned(),
    };
    let effects = after(&mut machine, &[failed]);
    assert!(effects.contains(&Effect::Arm(Timer::Retry, RETRY_FIRST)));
}

#[test]
fn a_pause_by_someone_else_is_told() {
    let mut machine = running();
    let cause = PauseCause::Other;
    assert_eq!(
        after(&mut machine, &[stopped()]),
        [Effect::Report(Notice::Paused { cause })]
    );
}

#[test]
fn the_echo_of_our_own_reset_is_not_the_guests() {
    let mut machine = running();
    assert_eq!(runs(&ask(&mut machine, Request::Reset)), [Command::Reset]);
    assert_eq!(after(&mut machine, &[reset(false), reset(true)]), []);
    assert_eq!(
        after(&mut machine, &[reset(true)]),
        [Effect::Report(Notice::GuestReset)]
    );
}

#[test]
fn resets_end_a_guest_only_when_there_are_many_within_the_window() {
    let mut slow = running();
    for round in 0..100 {
        let effects = slow.apply(reset(true), Duration::from_secs(10 * round));
        assert_eq!(effects, [Effect::Report(Notice::GuestReset)]);
    }
    let mut fast = running();
    let last = (1..=RESET_LIMIT)
        .map(|_| after(&mut fast, &[reset(true)]))
        .last()
        .unwrap();
    assert_eq!(runs(&last), [Command::Quit]);
}

#[test]
fn a_start_that_qemu_refuses_ends_the_run() {
    let mut machine = machine();
    let error = "it may not".to_owned();
    let failed = Event::Failed {
        command: Command::Cont,
        error,
    };
    let effects = after(&mut machine, &[Event::Ready, failed]);
    assert_eq!(runs(&effects), [Command::Quit]);
    assert!(matches!(end(&mut machine, CLEAN), End::StartFailed { .. }));
}

#[test]
fn a_panic_that_pauses_the_guest_ends_it() {
    let mut machine = running();
    let panicked = qmp("GUEST_PANICKED", json!({ "action": "pause" }));
    assert_eq!(runs(&after(&mut machine, &[panicked])), [Command::Quit]);
    assert_eq!(end(&mut machine, CLEAN), End::Panicked);
}

#[test]
fn a_lost_monitor_is_told_unless_qemu_is_leaving() {
    let lost = || Event::MonitorLost {
        error: "eof".to_owned(),
    };
    let effects = after(&mut running(), &[lost()]);
    assert!(matches!(
        effects.as_slice(),
        [Effect::Report(Notice::MonitorLost { .. })]
    ));
    assert_eq!(
        after(&mut running(), &[shutdown("guest-shutdown"), lost()]),
        []
    );
}

#[test]
fn events_of_newer_qemus_change_nothing() {
    let mut machine = running();
    assert_eq!(
        after(&mut machine, &[qmp("FROM_THE_FUTURE", json!({ "x": 1 }))]),
        []
    );
    assert_eq!(
        after(&mut machine, &[qmp("SHUTDOWN", json!("odd"))]).len(),
        4
    );
}

mod sequences;
