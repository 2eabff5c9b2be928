//! A client of QEMU's machine protocol (QMP) over a unix socket.
//!
//! One task owns the socket. It pairs answers with commands by id and hands on events, unknown ones
//! included: a newer QEMU must not break an older client. Any fault of the stream (end of file, a
//! line beyond [`MAX_LINE`], text that is no JSON object) ends the connection, and everyone who waits
//! then or asks later gets the same [`QmpError::Lost`].
//!
//! Whoever holds [`Events`] must keep reading: once [`EVENT_BACKLOG`] events wait, the task stops
//! reading, and with it all answers. Dropping `Events` discards events instead.
//!
//! What commands mean is not known here; see the supervisor.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

mod error;
mod lines;
mod message;

pub use error::{Broken, QmpError};
pub use lines::MAX_LINE;
pub use message::{Event, Greeting, Timestamp};

use lines::Lines;
use message::Message;

/// Events that may wait for a reader.
pub const EVENT_BACKLOG: usize = 256;
/// How long QEMU may take to answer one command; its main loop answers within milliseconds unless
/// storage hangs under it.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Sends commands; cheap to clone. The connection ends when the last clone is gone.
#[derive(Debug, Clone)]
pub struct Qmp {
    commands: mpsc::Sender<Request>,
    shared: Arc<Shared>,
}

/// The events of one connection, in order; `None` once it is lost.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Request {
    command: String,
    arguments: Value,
    answer: oneshot::Sender<Result<Value, QmpError>>,
}

#[derive(Debug, Default)]
struct Shared {
    lost: OnceLock<Arc<Broken>>,
    task: Mutex<Option<AbortOnDrop>>,
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Shared {
    fn lost(&self) -> QmpError {
        let source = self
            .lost
            .get()
            .cloned()
            .unwrap_or_else(|| Arc::new(Broken::Closed));
        QmpError::Lost { source }
    }
}

impl Qmp {
    /// Connects once; see the supervisor for waiting until QEMU listens.
    pub async fn connect(socket: &Path) -> Result<(Self, Events, Greeting), QmpError> {
        let stream = crate::socket::connect(socket)
            .await
            .map_err(|source| QmpError::Connect {
                socket: socket.to_owned(),
                source,
            })?;
        Self::over(stream).await
    }

    /// Greets and negotiates over a stream that is already connected.
    pub async fn over(stream: UnixStream) -> Result<(Self, Events, Greeting), QmpError> {
        let (reader, mut writer) = stream.into_split();
        let mut lines = Lines::new(reader);
        let handshake = async {
            let greeting = message::greeting(&lines.next().await?)?;
            send(&mut writer, 0, "qmp_capabilities", &Value::Null).await?;
            // Events cannot come before the answer: QEMU sends none in negotiation mode.
            match message::parse(&lines.next().await?)? {
                Message::Answer {
                    id: Some(0),
                    result,
                } => Ok((greeting, result)),
                Message::Answer { .. } | Message::Event(_) => Err(Broken::Unexpected),
            }
        };
        let (greeting, result) = tokio::time::timeout(ANSWER_DEADLINE, handshake)
            .await
            .map_err(|_| timed_out("qmp_capabilities"))?
            .map_err(|broken| QmpError::Lost {
                source: Arc::new(broken),
            })?;
        result.map_err(|refusal| refusal.of("qmp_capabilities"))?;

        let shared = Arc::new(Shared::default());
        let (commands, requests) = mpsc::channel(16);
        let (events, receiver) = mpsc::channel(EVENT_BACKLOG);
        let connection = Connection {
            writer,
            requests,
            events,
            pending: HashMap::new(),
        };
        let task = tokio::spawn(connection.run(lines, Arc::downgrade(&shared)));
        *shared.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(AbortOnDrop(task));
        Ok((
            Self {
                commands,
                shared: Arc::clone(&shared),
            },
            Events { receiver, shared },
            greeting,
        ))
    }

    /// Sends a command and waits for its answer. `arguments` is an object, or null for none.
    ///
    /// Cancel-safe in that the connection survives; the command may have been carried out.
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            command: command.to_owned(),
            arguments,
            answer,
        };
        let exchange = async {
            self.commands
                .send(request)
                .await
                .map_err(|_| self.shared.lost())?;
            answered.await.map_err(|_| self.shared.lost())?
        };
        tokio::time::timeout(ANSWER_DEADLINE, exchange)
            .await
            .map_err(|_| timed_out(command))?
    }
}

impl Events {
    /// The next event; `None` once the connection is lost ([`Events::lost`] says how). Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.receiver.recv().await
    }

    /// How the connection ended; meaningful after [`Events::next`] returned `None`.
    pub fn lost(&self) -> QmpError {
        self.shared.lost()
    }
}

fn timed_out(command: &str) -> QmpError {
    QmpError::Timeout {
        command: command.to_owned(),
        after: ANSWER_DEADLINE,
    }
}

/// The task's own state: everything of the connection but the reader.
struct Connection<W> {
    writer: W,
    requests: mpsc::Receiver<Request>,
    events: mpsc::Sender<Event>,
    pending: HashMap<u64, Request>,
}

impl<W: AsyncWrite + Unpin> Connection<W> {
    async fn run<R: AsyncRead + Unpin>(mut self, lines: Lines<R>, shared: std::sync::Weak<Shared>) {
        let broken = Arc::new(match self.exchange(lines).await {
            Ok(()) => Broken::Closed,
            Err(broken) => broken,
        });
        if let Some(shared) = shared.upgrade() {
            // Set before the channels close, so whoever sees them closed finds the cause.
            drop(shared.lost.set(Arc::clone(&broken)));
        }
        for request in self.pending.into_values() {
            let lost = QmpError::Lost {
                source: Arc::clone(&broken),
            };
            drop(request.answer.send(Err(lost)));
        }
    }

    /// Both arms are cancel-safe: `Lines` keeps partial lines, and a received request is written
    /// outside the `select!`.
    async fn exchange<R: AsyncRead + Unpin>(&mut self, mut lines: Lines<R>) -> Result<(), Broken> {
        let mut next_id = 1_u64;
        loop {
            tokio::select! {
                line = lines.next() => self.receive(&line?).await?,
                request = self.requests.recv() => {
                    let Some(request) = request else { return Ok(()) };
                    let id = next_id;
                    next_id += 1;
                    // Callers that gave up waiting leave their entry behind until it is answered.
                    send(&mut self.writer, id, &request.command, &request.arguments).await?;
                    self.pending.insert(id, request);
                }
            }
        }
    }

    async fn receive(&mut self, line: &[u8]) -> Result<(), Broken> {
        match message::parse(line)? {
            Message::Event(event) => {
                // Nobody listens any more: events are discarded, answers still flow.
                drop(self.events.send(event).await);
                Ok(())
            }
            Message::Answer { id, result } => {
                let request = id
                    .and_then(|id| self.pending.remove(&id))
                    .ok_or(Broken::Unexpected)?;
                let result = result.map_err(|refusal| refusal.of(&request.command));
                drop(request.answer.send(result));
                Ok(())
            }
        }
    }
}

async fn send<W: AsyncWrite + Unpin>(
    writer: &mut W,
    id: u64,
    command: &str,
    arguments: &Value,
) -> Result<(), Broken> {
    let mut message = json!({ "execute": command, "id": id });
    if !arguments.is_null() {
        message["arguments"] = arguments.clone();
    }
    let mut line = message.to_string();
    line.push('\n');
    writer
        .write_all(line.as_bytes())
        .await
        .map_err(|source| Broken::Write { source })
}

#[cfg(test)]
mod tests;
