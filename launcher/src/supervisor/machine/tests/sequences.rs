//! Every short sequence of what can happen: no machine gets stuck, none lives on after its end.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::supervisor::request::Denied;

/// What can happen to a machine, as something to do to it.
fn alphabet() -> Vec<Happening> {
    let mut all: Vec<_> = [
        Event::Ready,
        resumed(),
        stopped(),
        disk_error(),
        reset(true),
        shutdown("guest-shutdown"),
        shutdown("host-qmp-quit"),
        qmp("GUEST_PANICKED", json!({ "action": "pause" })),
        Event::Signal,
        Event::MonitorLost {
            error: String::new(),
        },
        Event::Exited(CLEAN),
        Event::Exited(KILLED),
    ]
    .into_iter()
    .map(Happening::Event)
    .collect();
    let commands = [
        Command::Cont,
        Command::Stop,
        Command::Powerdown,
        Command::Quit,
    ];
    all.extend(commands.map(|command| {
        Happening::Event(Event::Failed {
            command,
            error: String::new(),
        })
    }));
    let requests = [
        Request::Stop,
        Request::Kill,
        Request::Pause,
        Request::Resume,
    ];
    all.extend(requests.map(Happening::Request));
    // The earliest timer fires; the others keep running.
    all.push(Happening::Timer);
    all
}

#[derive(Debug, Clone)]
enum Happening {
    Event(Event),
    Request(Request),
    Timer,
}

/// A machine with the timers and processes a driver would give it.
struct World {
    machine: Machine,
    timers: BTreeMap<Timer, Duration>,
    now: Duration,
    killed: bool,
    ends: Vec<End>,
}

impl World {
    fn new() -> Self {
        let (machine, effects) = Machine::new(Settings {
            grace: GRACE,
            limit: None,
        });
        let mut world = Self {
            machine,
            timers: BTreeMap::new(),
            now: Duration::ZERO,
            killed: false,
            ends: Vec::new(),
        };
        world.take(effects);
        world
    }

    fn take(&mut self, effects: Vec<Effect>) {
        assert!(
            self.ends.is_empty() || effects.is_empty(),
            "life after the end: {effects:?}"
        );
        for effect in effects {
            match effect {
                Effect::Arm(timer, after) => {
                    self.timers.insert(timer, self.now + after);
                }
                Effect::Disarm(timer) => {
                    self.timers.remove(&timer);
                }
                Effect::Kill => self.killed = true,
                Effect::Finish(end) => self.ends.push(end),
                Effect::Run(_) | Effect::Report(_) => {}
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        let event = match happening {
            Happening::Event(event) => event,
            Happening::Request(request) => {
                if self.machine.submit(request) != Disposition::Queued {
                    return;
                }
                Event::Requested
            }
            Happening::Timer => {
                let next = self.timers.iter().min_by_key(|(_, at)| **at);
                let Some((timer, at)) = next.map(|(timer, at)| (*timer, *at)) else {
                    return;
                };
                self.timers.remove(&timer);
                self.now = at;
                Event::Expired(timer)
            }
        };
        let effects = self.machine.apply(event, self.now);
        self.take(effects);
    }

    fn check(&self, path: &[Happening]) {
        let gone = !self.ends.is_empty();
        assert!(self.ends.len() <= 1, "{path:?}");
        let waits = match self.machine.phase {
            Phase::Starting => self.timers.contains_key(&Timer::Start),
            Phase::Up => true,
            Phase::Stopping => {
                self.timers.contains_key(&Timer::Grace) || self.timers.contains_key(&Timer::Leave)
            }
            Phase::Ending(_) => self.killed || self.timers.contains_key(&Timer::Leave),
            Phase::Gone => gone,
        };
        assert!(waits, "stuck in {:?} after {path:?}", self.machine.phase);
    }
}

/// From here two signals kill, and QEMU's end is the machine's.
fn can_be_ended(mut world: World, path: &[Happening]) {
    if world.ends.is_empty() {
        world.happen(Happening::Event(Event::Signal));
        world.happen(Happening::Event(Event::Signal));
        assert!(world.killed, "two signals do not kill after {path:?}");
        world.happen(Happening::Event(Event::Exited(KILLED)));
    }
    assert_eq!(world.ends.len(), 1, "{path:?}");
    assert_eq!(
        world.machine.submit(Request::Pause),
        Disposition::Denied(Denied::Gone)
    );
}

#[test]
fn no_sequence_of_four_happenings_gets_a_machine_stuck() {
    let alphabet = alphabet();
    let count = alphabet.len();
    for started in [false, true] {
        for index in 0..count.pow(4) {
            let mut world = World::new();
            let mut path = Vec::with_capacity(5);
            if started {
                path.push(Happening::Event(Event::Ready));
                world.happen(path[0].clone());
            }
            let mut rest = index;
            for _ in 0..4 {
                let happening = alphabet[rest % count].clone();
                rest /= count;
                path.push(happening.clone());
                world.happen(happening);
                world.check(&path);
            }
            can_be_ended(world, &path);
        }
    }
}
