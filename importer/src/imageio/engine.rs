//! The oVirt engine: who we are, and the life of one image transfer.
//!
//! ```text
//! POST imagetransfers ─▶ initializing ─▶ transferring ─▶ finalize │ cancel ─▶ gone
//!                             └────────────▶ paused_system, cancelled...: an error
//! ```
//!
//! A disk stays locked until its transfer was finalized or cancelled, so an open [`Transfer`] is one of the
//! two when it is dropped, whatever happened before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use longshore_transfer::Cancel;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use url::Url;

use super::answer::{list, read};
use super::{Checkpoint, ImageioDisk, ImageioError};
use crate::http::{HttpError, Net, TICK, client_for, exchange};
use crate::{BasicAuth, Retry, SourceOptions};

/// Answers of the engine are lists of snapshots at the most.
const MOST_ANSWER: usize = 8 << 20;
/// Of what the engine says that is shown.
const MOST_SAID: usize = 300;
/// Attempts to end a transfer.
const FAREWELLS: u32 = 5;
/// How long one of them may take: someone may be waiting for us to exit.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long the engine asks the transfer to be kept without activity at the least.
const LEAST_INACTIVITY: u64 = 1;

/// What shows who we are.
#[derive(Clone)]
enum Auth {
    Token(HeaderValue),
    Password(BasicAuth),
}

/// The engine's API.
#[derive(Clone)]
pub(super) struct Engine {
    net: Arc<Net>,
    client: Client,
    /// Ends in a slash.
    api: Url,
    auth: Auth,
    stall: Duration,
    pause: Duration,
    patience: Duration,
    cancel: Cancel,
}

impl Engine {
    /// Logs in.
    pub(super) fn log_in(
        disk: &ImageioDisk,
        options: &SourceOptions,
        net: &Arc<Net>,
    ) -> crate::Result<Result<Self, ImageioError>> {
        let client = client_for(&disk.engine, options)?;
        let mut api = disk.engine.clone();
        if !api.path().ends_with('/') {
            api.set_path(&format!("{}/", api.path()));
        }
        let mut this = Self {
            net: Arc::clone(net),
            client,
            api,
            auth: Auth::Password(disk.auth.clone()),
            stall: options.stall_timeout,
            pause: options.backoff.max(TICK),
            patience: disk.patience,
            cancel: options.cancel.clone(),
        };
        let token = this.token(&disk.auth);
        Ok(token.map(|token| {
            if let Some(token) = token {
                this.auth = Auth::Token(token);
            }
            this
        }))
    }

    /// A token of the engine's single sign-on. `None` where there is none: then each request has the
    /// password.
    fn token(&self, auth: &BasicAuth) -> Result<Option<HeaderValue>, ImageioError> {
        let action = "log in to the engine";
        let Ok(url) = self.api.join("../sso/oauth/token") else {
            return Ok(None);
        };
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "password")
            .append_pair("scope", "ovirt-app-api")
            .append_pair("username", &auth.user)
            .append_pair("password", &auth.password)
            .finish();
        let request = self
            .client
            .post(url)
            .header(ACCEPT, "application/json")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        let (status, body) = self.send(&self.net, action, request)?;
        if matches!(status, 404 | 405) {
            return Ok(None);
        }
        let answer = read(&body).unwrap_or_default();
        let token = answer.get("access_token").and_then(Value::as_str);
        match token {
            Some(token) if (200..300).contains(&status) => {
                let mut value =
                    HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                        ImageioError::Answer {
                            action,
                            why: "its token has bytes that no header may have".to_owned(),
                        }
                    })?;
                value.set_sensitive(true);
                Ok(Some(value))
            }
            // Wrong passwords are told of with 400 and an error, too.
            _ => Err(ImageioError::Refused {
                action,
                status: if status < 300 { 401 } else { status },
                said: said(&body),
            }),
        }
    }

    /// Asks the engine. It is asked for JSON, and XML will do: some know nothing else.
    fn ask(
        &self,
        action: &'static str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ImageioError> {
        let body = self.ask_on(&self.net, action, method, path, body)?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        read(&body).map_err(|e| ImageioError::Answer {
            action,
            why: e.to_string(),
        })
    }

    fn ask_on(
        &self,
        net: &Net,
        action: &'static str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Vec<u8>, ImageioError> {
        let url = self.api.join(path).map_err(|e| ImageioError::Answer {
            action,
            why: e.to_string(),
        })?;
        let mut request = self
            .client
            .request(method, url)
            .header(ACCEPT, "application/json");
        request = match &self.auth {
            Auth::Token(token) => request.header(AUTHORIZATION, token.clone()),
            Auth::Password(auth) => request.basic_auth(&auth.user, Some(&auth.password)),
        };
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let (status, body) = self.send(net, action, request)?;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        Err(ImageioError::Refused {
            action,
            status,
            said: said(&body),
        })
    }

    fn send(
        &self,
        net: &Net,
        action: &'static str,
        request: RequestBuilder,
    ) -> Result<(u16, Vec<u8>), ImageioError> {
        let stall = self.stall;
        net.wait(async move { exchange(request, stall, MOST_ANSWER).await })
            .map_err(|source| match source {
                HttpError::Cancelled => ImageioError::Cancelled,
                source => ImageioError::Http { action, source },
            })
    }

    /// Waits a little, unless someone asks to stop.
    fn wait(&self) -> Result<(), ImageioError> {
        let until = Instant::now().checked_add(self.pause.min(Duration::from_secs(2)));
        while until.is_some_and(|until| Instant::now() < until) {
            if self.cancel.is_cancelled() {
                return Err(ImageioError::Cancelled);
            }
            std::thread::sleep(TICK.min(self.pause));
        }
        Ok(())
    }

    /// What is transferred: the disk, a snapshot of it, or what an incremental backup has of it.
    fn subject(&self, disk: &ImageioDisk) -> Result<Value, ImageioError> {
        match &disk.checkpoint {
            None => Ok(json!({"image": {"id": disk.disk}})),
            Some(Checkpoint::Backup { backup }) => {
                Ok(json!({"disk": {"id": disk.disk}, "backup": {"id": backup}}))
            }
            Some(Checkpoint::Snapshot { current, previous }) => {
                let subject = self.snapshot(&disk.disk, current, previous.as_deref())?;
                Ok(subject.unwrap_or_else(|| json!({"image": {"id": disk.disk}})))
            }
        }
    }

    /// The snapshot `current` of a disk; `None` if that is the disk's present state.
    fn snapshot(
        &self,
        disk: &str,
        current: &str,
        previous: Option<&str>,
    ) -> Result<Option<Value>, ImageioError> {
        let path = format!("disks/{}", segment(disk));
        let found = self.ask("look up the disk", Method::GET, &path, None)?;
        let domains = found.get("storage_domains");
        let domains = domains.map_or(&[][..], |domains| list(domains, "storage_domain"));
        for domain in domains.iter().filter_map(id_of) {
            let path = format!("storagedomains/{}/disksnapshots", segment(domain));
            let snapshots = self.ask("list the snapshots", Method::GET, &path, None)?;
            for snapshot in list(&snapshots, "disk_snapshot") {
                if id_of(snapshot) != Some(current) {
                    continue;
                }
                let parent = snapshot.get("parent").and_then(id_of);
                return match (parent, previous) {
                    (Some(parent), Some(previous)) if parent != previous => {
                        Err(ImageioError::OtherBase {
                            current: current.to_owned(),
                            found: parent.to_owned(),
                            expected: previous.to_owned(),
                        })
                    }
                    (None, Some(_)) => {
                        tracing::warn!(
                            "the engine does not say what the snapshot is on top of: it is taken as said"
                        );
                        Ok(Some(json!({"snapshot": {"id": current}})))
                    }
                    _ => Ok(Some(json!({"snapshot": {"id": current}}))),
                };
            }
        }
        if found.get("image_id").and_then(Value::as_str) == Some(current) {
            return Ok(None);
        }
        Err(ImageioError::NoCheckpoint {
            checkpoint: current.to_owned(),
        })
    }

    /// Begins a transfer and waits until its bytes can be had.
    pub(super) fn begin(&self, disk: &ImageioDisk) -> Result<Transfer, ImageioError> {
        let mut wanted = self.subject(disk)?;
        let more = json!({
            "direction": "download",
            "format": "raw",
            "inactivity_timeout": disk.inactivity.as_secs().max(LEAST_INACTIVITY).to_string(),
        });
        if let (Some(wanted), Value::Object(more)) = (wanted.as_object_mut(), more) {
            wanted.extend(more);
            if disk.is_layer() {
                wanted.insert("shallow".to_owned(), Value::Bool(true));
            }
        }
        let action = "begin an image transfer";
        let started = Instant::now();
        let answer = loop {
            match self.ask(action, Method::POST, "imagetransfers", Some(&wanted)) {
                // Another transfer, a backup or a snapshot has it locked.
                Err(ImageioError::Refused {
                    status: 409, said, ..
                }) if started.elapsed() < self.patience => {
                    tracing::info!(said, "the disk is locked: waiting");
                    self.wait()?;
                }
                answer => break answer?,
            }
        };
        let Some(id) = id_of(&answer) else {
            return Err(ImageioError::Answer {
                action,
                why: "the transfer has no id".to_owned(),
            });
        };
        let transfer = Transfer {
            engine: self.clone(),
            path: format!("imagetransfers/{}", segment(id)),
            of_snapshot: wanted.get("snapshot").is_some(),
            begun: Places::of(&answer).filter(Places::are_named),
            complete: AtomicBool::new(false),
        };
        tracing::info!(id, "an image transfer was begun");
        Ok(transfer)
    }
}

/// An image transfer, which is ended when this is dropped.
pub(super) struct Transfer {
    engine: Engine,
    path: String,
    /// It is of a snapshot, and not of the disk as it is.
    of_snapshot: bool,
    /// Where its bytes are, if the engine said so when it began.
    begun: Option<Places>,
    /// All was read.
    complete: AtomicBool,
}

/// Where a transfer's bytes are to be had.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) direct: Option<String>,
    pub(super) proxy: Option<String>,
}

impl Places {
    /// Those that a transfer names, if it is transferring.
    fn of(transfer: &Value) -> Option<Self> {
        (text(transfer, "phase") == Some("transferring")).then(|| Self {
            direct: text(transfer, "transfer_url").map(str::to_owned),
            proxy: text(transfer, "proxy_url").map(str::to_owned),
        })
    }

    fn are_named(&self) -> bool {
        self.direct.is_some() || self.proxy.is_some()
    }
}

impl Transfer {
    /// What is transferred stays what it is.
    pub(super) fn is_of_snapshot(&self) -> bool {
        self.of_snapshot
    }

    /// Waits until bytes can be had.
    pub(super) fn ready(&self) -> Result<Places, ImageioError> {
        if let Some(places) = &self.begun {
            return Ok(places.clone());
        }
        let started = Instant::now();
        loop {
            let transfer = match self.look() {
                // An engine that is overloaded or starts anew is no reason to begin anew.
                Err(error)
                    if error.retry() == Retry::Transient
                        && started.elapsed() < self.engine.patience =>
                {
                    tracing::info!(
                        cause = &error as &dyn std::error::Error,
                        "looking at the image transfer again"
                    );
                    self.engine.wait()?;
                    continue;
                }
                transfer => transfer?,
            };
            if let Some(places) = Places::of(&transfer) {
                return Ok(places);
            }
            match text(&transfer, "phase").unwrap_or("of no phase") {
                "initializing" | "resuming" | "unknown" => {}
                phase => {
                    return Err(ImageioError::Phase {
                        phase: phase.chars().take(MOST_SAID).collect(),
                    });
                }
            }
            if started.elapsed() > self.engine.patience {
                return Err(ImageioError::Slow {
                    what: "the image transfer was being initialized",
                    after: self.engine.patience,
                });
            }
            self.engine.wait()?;
        }
    }

    /// How the transfer has ended by itself, if it has.
    pub(super) fn ended(&self) -> Option<ImageioError> {
        let phase = match self.look() {
            Ok(transfer) => text(&transfer, "phase")?.to_owned(),
            Err(ImageioError::Refused { status: 404, .. }) => "gone".to_owned(),
            Err(_) => return None,
        };
        (phase != "transferring").then(|| ImageioError::Phase {
            phase: phase.chars().take(MOST_SAID).collect(),
        })
    }

    fn look(&self) -> Result<Value, ImageioError> {
        let action = "look at the image transfer";
        self.engine.ask(action, Method::GET, &self.path, None)
    }

    /// Keeps the ticket alive.
    pub(super) fn extend(&self) -> Result<(), ImageioError> {
        let path = format!("{}/extend", self.path);
        let action = "extend the image transfer";
        self.engine
            .ask(action, Method::POST, &path, Some(&json!({})))
            .map(drop)
    }

    /// All was read.
    pub(super) fn complete(&self) {
        self.complete.store(true, Ordering::Relaxed);
    }

    /// Finalizes or cancels. On a network of its own: whoever asked to stop is no reason to leave the disk
    /// locked.
    fn end(&self) -> Result<(), ImageioError> {
        let (verb, action) = if self.complete.load(Ordering::Relaxed) {
            ("finalize", "finalize the image transfer")
        } else {
            ("cancel", "cancel the image transfer")
        };
        let mut engine = self.engine.clone();
        engine.stall = engine.stall.min(FAREWELL);
        let net = Net::start(Cancel::default()).map_err(|source| ImageioError::Http {
            action,
            source: HttpError::Thread { source },
        })?;
        let path = format!("{}/{verb}", self.path);
        let started = Instant::now();
        let mut tried = 0;
        loop {
            tried += 1;
            let outcome = engine.ask_on(&net, action, Method::POST, &path, Some(&json!({})));
            match outcome {
                // Not found: it has ended by itself, and nothing is locked any more.
                Ok(_) | Err(ImageioError::Refused { status: 404, .. }) => return Ok(()),
                Err(e) if tried >= FAREWELLS || started.elapsed() > FAREWELL => return Err(e),
                Err(_) => std::thread::sleep(TICK),
            }
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        match self.end() {
            Ok(()) => tracing::info!("the image transfer was ended"),
            Err(error) => tracing::error!(
                cause = &error as &dyn std::error::Error,
                "the image transfer was not ended: the disk is locked until it times out"
            ),
        }
    }
}

/// A part of a path, whatever is in it.
fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value
        .get(key)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

fn id_of(value: &Value) -> Option<&str> {
    text(value, "id")
}

/// What an engine says of a refusal, for people.
fn said(body: &[u8]) -> String {
    let answer = read(body).unwrap_or_default();
    // Of what was done to a transfer it is told inside.
    let answer = answer.get("fault").unwrap_or(&answer);
    let said = ["detail", "error_description", "reason", "error"]
        .iter()
        .find_map(|key| text(answer, key))
        .unwrap_or_default();
    let plain = said.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MOST_SAID).collect()
}
