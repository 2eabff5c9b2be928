//! Carries out what the machine decides: one task, `select` to an event, `apply`, then the effects.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::claim::Claim;
use super::machine::{self, Effect, Event, Machine, Settings, Timer};
use super::notice::Notice;
use super::outcome::{End, Outcome};
use super::planned;
use super::process::Process;
use super::signals::Signals;
use super::viewer::Viewer;
use super::{Asked, CONSOLE_SOCKET, Command, Disposition, Options, Request, RunError, Supervisor};
use crate::chain::chain;
use crate::console::{self, Console};
use crate::qmp::{Events, Greeting, Qmp, QmpError};

/// Between attempts to reach the monitor.
const RETRY: Duration = Duration::from_millis(20);
/// Commands that may wait for QEMU; the machine gives a handful in all.
const BACKLOG: usize = 64;
/// QEMU's last events are in the socket when its process is gone; reading them takes no time.
const DRAIN: Duration = Duration::from_secs(2);
/// What the log, the clients and standard output get for the end of the console.
const FAREWELL: Duration = Duration::from_secs(5);

pub(super) async fn drive(supervisor: Supervisor) -> Result<Outcome, RunError> {
    let Supervisor {
        command,
        options,
        requests,
    } = supervisor;
    // Before QEMU starts: from here on a signal is an event and never the end of this process.
    let signals = Signals::new(options.signals)?;
    let console_socket = command.dir.join(CONSOLE_SOCKET);
    let sockets = [Some(&command.qmp_socket), command.serial_socket.as_ref()]
        .into_iter()
        .chain([command.vnc_socket.as_ref(), Some(&console_socket)])
        .flatten()
        .cloned()
        .collect();
    planned::prepare(&command.dir)?;
    let claim = Claim::on(&command.dir, sockets).await?;
    planned::make(&command.files)?;
    let console = start_console(&command, console_socket)?;
    let (process, said) = Process::spawn(&command, &claim)?;
    let viewer = console
        .as_ref()
        .map(|console| Viewer::new(console, options.console))
        .transpose()?;

    let settings = Settings {
        grace: command.grace,
        limit: options.timeout,
    };
    let (machine, effects) = Machine::new(settings);
    let mut driver = Driver {
        machine,
        effects: effects.into(),
        qmp_socket: command.qmp_socket.clone(),
        started: Instant::now(),
        announced: false,
        timers: BTreeMap::new(),
        monitor: None,
        options,
        requests,
        signals,
        process,
        said,
        console,
    };
    if command.start_paused {
        driver.submit(Request::Pause);
    }
    let end = driver.run().await;
    let Driver {
        process,
        console,
        mut signals,
        ..
    } = driver;
    let stderr = process.last_words().await;
    if let Some(console) = console {
        console.finish(FAREWELL).await;
    }
    if let Some(viewer) = viewer {
        tokio::select! {
            () = viewer.finish(FAREWELL) => {}
            // Whoever is in a hurry; the terminal comes back with the runtime's end.
            () = signals.next() => {}
        }
    }
    drop(claim);
    Ok(Outcome { end, stderr })
}

fn start_console(command: &Command, listen: PathBuf) -> Result<Option<Console>, RunError> {
    let Some(serial) = command.serial_socket.clone() else {
        return Ok(None);
    };
    let log = command.serial_log.clone();
    let log = log.map(|path| console::LogFile {
        path,
        limit: console::LOG_LIMIT,
    });
    let config = console::Config {
        serial,
        log,
        listen: Some(listen),
    };
    Console::start(config)
        .map(Some)
        .map_err(|source| RunError::State {
            step: "opening the console in",
            path: command.dir.clone(),
            source,
        })
}

/// A connection to QEMU, or the attempt to get one.
enum Monitor {
    Connecting(Pin<Box<dyn Future<Output = (Qmp, Events, Greeting)> + Send>>),
    Connected {
        events: Events,
        commands: mpsc::Sender<machine::Command>,
        runner: Runner,
    },
}

/// Gives commands one after the other and brings back those that failed.
struct Runner {
    task: JoinHandle<()>,
    failures: mpsc::Receiver<(machine::Command, QmpError)>,
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Driver {
    machine: Machine,
    effects: VecDeque<Effect>,
    qmp_socket: PathBuf,
    started: Instant,
    /// That QEMU answers has been told.
    announced: bool,
    timers: BTreeMap<Timer, Instant>,
    monitor: Option<Monitor>,
    options: Options,
    requests: mpsc::Receiver<Asked>,
    signals: Signals,
    process: Process,
    said: mpsc::Receiver<String>,
    console: Option<Console>,
}

/// What the select below found.
enum Found {
    Event(Event),
    Connected(Qmp, Events, Greeting),
    Lost(String),
    Asked(Asked),
    Said(String),
}

impl Driver {
    async fn run(&mut self) -> End {
        self.connect();
        loop {
            while let Some(effect) = self.effects.pop_front() {
                if let Some(end) = self.carry_out(effect) {
                    return end;
                }
            }
            match self.wait().await {
                Found::Event(Event::Exited(exit)) => {
                    self.drain().await;
                    self.apply(Event::Exited(exit));
                }
                Found::Event(event) => self.apply(event),
                Found::Connected(qmp, events, greeting) => {
                    self.connected(qmp, events, &greeting).await;
                }
                Found::Lost(error) => {
                    self.connect();
                    self.apply(Event::MonitorLost { error });
                }
                Found::Asked(Asked { request, answer }) => {
                    let disposition = self.submit(request);
                    // Whoever asked may have left.
                    let _ = answer.send(disposition);
                }
                Found::Said(line) => self.report(&Notice::QemuSaid { line }),
            }
        }
    }

    fn connect(&mut self) {
        self.monitor = Some(Monitor::Connecting(Box::pin(connect(
            self.qmp_socket.clone(),
        ))));
    }

    fn submit(&mut self, request: Request) -> Disposition {
        let disposition = self.machine.submit(request);
        if disposition == Disposition::Queued {
            self.apply(Event::Requested);
        }
        disposition
    }

    fn apply(&mut self, event: Event) {
        let now = self.started.elapsed();
        tracing::debug!(?event, "supervisor");
        self.effects.extend(self.machine.apply(event, now));
    }

    fn report(&mut self, notice: &Notice) {
        (self.options.on_event)(notice);
    }

    fn carry_out(&mut self, effect: Effect) -> Option<End> {
        match effect {
            Effect::Run(command) => self.give(command),
            Effect::Kill => self.process.kill(),
            Effect::Arm(timer, after) => {
                self.timers.insert(timer, Instant::now() + after);
            }
            Effect::Disarm(timer) => {
                self.timers.remove(&timer);
            }
            Effect::Report(notice) => self.report(&notice),
            Effect::Finish(end) => return Some(end),
        }
        None
    }

    fn give(&mut self, command: machine::Command) {
        let given = match &self.monitor {
            Some(Monitor::Connected { commands, .. }) => commands.try_send(command).is_ok(),
            Some(Monitor::Connecting(_)) | None => false,
        };
        if !given {
            let error = "not connected to qemu's monitor".to_owned();
            self.apply(Event::Failed { command, error });
        }
    }

    /// Every arm is cancel-safe: channels, signals and timers lose nothing, connecting is resumed.
    async fn wait(&mut self) -> Found {
        let next = self.timers.iter().min_by_key(|(_, at)| **at);
        let (timer, at) = next.map_or((None, self.started), |(timer, at)| (Some(*timer), *at));
        tokio::select! {
            // In the order in which things must be known: what QEMU said before that it is gone; and
            // what can come in floods last.
            biased;
            found = watch(&mut self.monitor) => found,
            exit = self.process.exited() => Found::Event(Event::Exited(exit)),
            () = self.signals.next() => Found::Event(Event::Signal),
            () = sleep_until(at), if timer.is_some() => {
                let timer = timer.unwrap_or(Timer::Leave);
                self.timers.remove(&timer);
                Found::Event(Event::Expired(timer))
            }
            Some(asked) = self.requests.recv() => Found::Asked(asked),
            Some(line) = self.said.recv() => Found::Said(line),
        }
    }

    async fn connected(&mut self, qmp: Qmp, events: Events, greeting: &Greeting) {
        let Greeting {
            major,
            minor,
            micro,
            package: _,
        } = greeting;
        if !self.announced {
            self.announced = true;
            let (pid, version) = (self.process.pid, format!("{major}.{minor}.{micro}"));
            self.report(&Notice::Started { pid, version });
        }
        if let Some(console) = &self.console {
            // QEMU made this socket before the monitor answered; the limit is for what cannot be.
            if tokio::time::timeout(DRAIN, console.attached())
                .await
                .is_err()
            {
                tracing::warn!("the serial console is not there; its first lines may be lost");
            }
        }
        let (commands, given) = mpsc::channel(BACKLOG);
        let (failed, failures) = mpsc::channel(BACKLOG);
        let task = tokio::spawn(give_in_order(qmp, given, failed));
        self.monitor = Some(Monitor::Connected {
            events,
            commands,
            runner: Runner { task, failures },
        });
        self.apply(Event::Ready);
    }

    /// QEMU is gone: hears what it still had to say.
    async fn drain(&mut self) {
        let until = Instant::now() + DRAIN;
        while let Some(Monitor::Connected { events, .. }) = &mut self.monitor {
            match timeout_at(until, events.next()).await {
                Ok(Some(event)) => self.apply(Event::Qmp(event)),
                Ok(None) | Err(_) => self.monitor = None,
            }
        }
    }
}

/// The next thing from the monitor; pends for ever when there is none.
async fn watch(monitor: &mut Option<Monitor>) -> Found {
    match monitor {
        Some(Monitor::Connecting(attempt)) => {
            let (qmp, events, greeting) = attempt.await;
            Found::Connected(qmp, events, greeting)
        }
        Some(Monitor::Connected { events, runner, .. }) => tokio::select! {
            biased;
            event = events.next() => match event {
                Some(event) => Found::Event(Event::Qmp(event)),
                None => Found::Lost(chain(&events.lost())),
            },
            Some((command, error)) = runner.failures.recv() => {
                Found::Event(Event::Failed { command, error: chain(&error) })
            }
        },
        None => std::future::pending().await,
    }
}

/// Tries until it works; the machine's timers say when that is too long.
async fn connect(socket: PathBuf) -> (Qmp, Events, Greeting) {
    loop {
        match Qmp::connect(&socket).await {
            Ok(connection) => return connection,
            Err(error) => tracing::trace!(error = chain(&error), "connecting to the monitor"),
        }
        sleep(RETRY).await;
    }
}

async fn give_in_order(
    qmp: Qmp,
    mut commands: mpsc::Receiver<machine::Command>,
    failures: mpsc::Sender<(machine::Command, QmpError)>,
) {
    while let Some(command) = commands.recv().await {
        if let Err(error) = qmp.execute(command.name(), Value::Null).await
            && failures.send((command, error)).await.is_err()
        {
            return;
        }
    }
}
