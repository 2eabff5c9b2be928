//! vSphere's own interface (SOAP), as far as reading a disk takes it: who is asked, in which session, and
//! the few calls that are made.
//!
//! ```text
//! RetrieveServiceContent ─▶ Login ─▶ FindByUuid, RetrievePropertiesEx, QueryChangedDiskAreas.. ─▶ Logout
//!                             ▲                        │ NotAuthenticated: the session ran out
//!                             └────────────────────────┘ once for each call
//! ```
//!
//! A session ends when this is dropped, whatever happened before: vCenter has few of them. It goes straight
//! to the server, and not by a proxy: so does VMware's library, which reads the disk.

mod error;
mod pin;
mod soap;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Client;
use reqwest::header::{CONTENT_TYPE, COOKIE, HeaderValue, SET_COOKIE};
use url::Url;

pub use self::error::VsphereError;
use self::pin::Pin;
pub(super) use self::soap::Reference;
use self::soap::{Call, Node, Nonsense, Step, scan};
use super::{VddkDisk, VddkError};
use crate::http::call::{Reply, call, persist};
use crate::http::{HttpError, Net, Policy, trust};
use crate::{BasicAuth, SourceOptions};

/// The longest answer: the devices of a machine, or a hundred thousand changed areas.
const MOST_ANSWER: usize = 8 << 20;
/// Areas of one answer that are taken; the rest is asked for again.
const MOST_AREAS: usize = 64 << 10;
/// Of vSphere's words that are shown.
const MOST_SAID: usize = 300;
/// How long saying goodbye may take: someone may be waiting for us to exit.
const FAREWELL: Duration = Duration::from_secs(5);
/// Every server from 6.5 on speaks it.
const VERSION: &str = "\"urn:vim25/6.5\"";

type Result<T> = std::result::Result<T, VsphereError>;

/// A session with a vCenter or a hypervisor.
pub(super) struct Vsphere {
    net: Arc<Net>,
    client: Client,
    url: Url,
    auth: BasicAuth,
    stall: Duration,
    policy: Policy,
    objects: Objects,
    /// What shows who we are, while we are logged in.
    session: Mutex<Option<HeaderValue>>,
}

/// The server's singletons.
struct Objects {
    sessions: Reference,
    search: Reference,
    properties: Reference,
}

/// A disk of a machine, or of a snapshot of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) key: i64,
    /// Its file, and those below.
    pub(super) files: Vec<String>,
    pub(super) change: Option<String>,
}

/// A snapshot of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) reference: Reference,
    pub(super) name: String,
}

/// What changed of a part of a disk.
pub(super) struct Areas {
    pub(super) start: u64,
    pub(super) until: u64,
    /// Offsets and lengths.
    pub(super) found: Vec<(u64, u64)>,
}

impl Vsphere {
    /// Logs in.
    pub(super) fn log_in(disk: &VddkDisk, options: &SourceOptions) -> crate::Result<Self> {
        let fail = |source: VddkError| crate::Error::Vddk {
            name: disk.name(),
            source,
        };
        let place = match disk.port {
            Some(port) => format!("https://{}:{port}/sdk", disk.server),
            None => format!("https://{}/sdk", disk.server),
        };
        let url =
            Url::parse(&place).map_err(|e| fail(VddkError::Address { why: e.to_string() }))?;
        let pinned = match disk.thumbprint.as_deref().filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => {
                let pin = Pin::parse(text).ok_or(VddkError::Value {
                    what: "thumbprint",
                    why: "it is neither SHA-1 (20 bytes) nor SHA-256 (32 bytes) in hexadecimal",
                });
                let tls = pin.map_err(fail)?.tls();
                Some(tls.map_err(|e| {
                    fail(VddkError::Start {
                        action: "set up TLS",
                        source: std::io::Error::other(e),
                    })
                })?)
            }
        };
        let client = trust::direct(&url, options, pinned)?;
        let net = Net::open(&disk.name(), options)?;
        let mut this = Self {
            net,
            client,
            url,
            auth: disk.auth.clone(),
            stall: options.stall_timeout,
            policy: Policy::of(options),
            objects: Objects {
                sessions: Reference::new("SessionManager", "SessionManager"),
                search: Reference::new("SearchIndex", "SearchIndex"),
                properties: Reference::new("PropertyCollector", "propertyCollector"),
            },
            session: Mutex::new(None),
        };
        this.objects = this.content().map_err(|e| fail(e.into()))?;
        this.enter().map_err(|e| fail(e.into()))?;
        Ok(this)
    }

    fn content(&self) -> Result<Objects> {
        let action = "ask vSphere for its interface";
        let instance = Reference::new("ServiceInstance", "ServiceInstance");
        let answer = self.node(action, &Call::new("RetrieveServiceContent", &instance))?;
        let content = answer.at(&["RetrieveServiceContentResponse", "returnval"]);
        let object = |name: &str| {
            let found = content.and_then(|content| content.get(name)?.reference());
            found.ok_or_else(|| VsphereError::Answer {
                action,
                why: format!("it names no {name}"),
            })
        };
        Ok(Objects {
            sessions: object("sessionManager")?,
            search: object("searchIndex")?,
            properties: object("propertyCollector")?,
        })
    }

    /// Begins a session, or another one.
    fn enter(&self) -> Result<()> {
        let action = "log in to vSphere";
        *self.session() = None;
        let call = Call::new("Login", &self.objects.sessions)
            .text("userName", &self.auth.user)
            .text("password", &self.auth.password);
        let reply = self.send(&self.net, action, &call, self.policy)?;
        let cookies = reply.headers.get_all(SET_COOKIE);
        let session = cookies.iter().find_map(|cookie| {
            let cookie = cookie.as_bytes().split(|byte| *byte == b';').next()?;
            cookie
                .starts_with(b"vmware_soap_session=")
                .then_some(cookie)
        });
        self.checked(action, &reply)?;
        let mut session = session
            .and_then(|cookie| HeaderValue::from_bytes(cookie).ok())
            .ok_or_else(|| VsphereError::Answer {
                action,
                why: "it has no session".to_owned(),
            })?;
        session.set_sensitive(true);
        *self.session() = Some(session);
        Ok(())
    }

    fn session(&self) -> std::sync::MutexGuard<'_, Option<HeaderValue>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine with this uuid: the one that its firmware shows, or vCenter's own for it.
    pub(super) fn machine(&self, uuid: &str) -> Result<Reference> {
        let action = "find the machine by its uuid";
        for instance in ["false", "true"] {
            let call = Call::new("FindByUuid", &self.objects.search)
                .text("uuid", uuid)
                .text("vmSearch", "true")
                .text("instanceUuid", instance);
            let answer = self.node(action, &call)?;
            let found = answer.at(&["FindByUuidResponse", "returnval"]);
            if let Some(found) = found.and_then(Node::reference) {
                return Ok(found);
            }
        }
        Err(VsphereError::NoMachine {
            uuid: uuid.to_owned(),
        })
    }

    /// The disks of a machine or of a snapshot.
    pub(super) fn disks(&self, of: &Reference) -> Result<Vec<Device>> {
        let action = "ask for the machine's disks";
        let answer = self.properties(action, of, "config.hardware.device")?;
        let value = value(&answer);
        let devices = value.iter().flat_map(|value| &value.children);
        let disks = devices.filter(|device| device.is.as_deref() == Some("VirtualDisk"));
        Ok(disks.filter_map(device).collect())
    }

    /// The snapshots of a machine.
    pub(super) fn snapshots(&self, machine: &Reference) -> Result<Vec<Snapshot>> {
        let action = "ask for the machine's snapshots";
        let answer = self.properties(action, machine, "snapshot")?;
        let mut found = Vec::new();
        let mut wait: Vec<_> = value(&answer)
            .into_iter()
            .flat_map(|value| value.all("rootSnapshotList"))
            .collect();
        while let Some(node) = wait.pop() {
            if let Some(reference) = node.get("snapshot").and_then(Node::reference) {
                found.push(Snapshot {
                    reference,
                    name: node.text_of("name").unwrap_or_default().to_owned(),
                });
            }
            wait.extend(node.all("childSnapshotList"));
        }
        Ok(found)
    }

    /// One property of one object.
    fn properties(&self, action: &'static str, of: &Reference, path: &str) -> Result<Node> {
        let call = Call::new("RetrievePropertiesEx", &self.objects.properties)
            .inside("specSet", |spec| {
                spec.inside("propSet", |set| {
                    set.text("type", &of.kind)
                        .text("all", "false")
                        .text("pathSet", path)
                })
                .inside("objectSet", |set| {
                    set.reference("obj", of).text("skip", "false")
                })
            })
            .inside("options", |options| options);
        self.node(action, &call)
    }

    /// What changed of a disk since `change`, from byte `from` on, as far as one answer goes.
    pub(super) fn changed(
        &self,
        machine: &Reference,
        snapshot: &Reference,
        disk: i64,
        from: u64,
        change: &str,
    ) -> Result<Areas> {
        let action = "ask what changed between two checkpoints";
        let call = Call::new("QueryChangedDiskAreas", machine)
            .reference("snapshot", snapshot)
            .text("deviceKey", &disk.to_string())
            .text("startOffset", &from.to_string())
            .text("changeId", change);
        let body = self.ask(action, &call)?;
        areas(&body).map_err(|why| VsphereError::Answer {
            action,
            why: why.to_owned(),
        })
    }

    fn node(&self, action: &'static str, call: &Call) -> Result<Node> {
        let body = self.ask(action, call)?;
        Node::read(&body).map_err(|e| nonsense(action, e))
    }

    /// Asks, and logs in again if the session ran out.
    fn ask(&self, action: &'static str, call: &Call) -> Result<Bytes> {
        let mut renewed = self.session().is_none();
        loop {
            let reply = self.send(&self.net, action, call, self.policy)?;
            match self.checked(action, &reply) {
                Ok(()) => return Ok(reply.body),
                Err(VsphereError::Refused { fault, .. })
                    if fault == "NotAuthenticated" && !renewed =>
                {
                    tracing::info!("the session with vSphere ran out: logging in again");
                    renewed = true;
                    self.enter()?;
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn send(&self, net: &Net, action: &'static str, what: &Call, policy: Policy) -> Result<Reply> {
        let (client, url, stall) = (self.client.clone(), self.url.clone(), self.stall);
        let session = self.session().clone();
        let body = Bytes::from(what.envelope());
        let asked = async move {
            persist(policy, || {
                let mut request = client
                    .post(url.clone())
                    .header(CONTENT_TYPE, "text/xml; charset=utf-8")
                    .header("SOAPAction", VERSION)
                    .body(body.clone());
                if let Some(session) = &session {
                    request = request.header(COOKIE, session.clone());
                }
                let (client, request) = request.build_split();
                async move {
                    let request =
                        request.map_err(|e| HttpError::from_request(&e, String::new()))?;
                    let reply = call(&client, request, stall, MOST_ANSWER).await?;
                    // Faults come with a 500.
                    match reply.status {
                        200 | 500 => Ok(reply),
                        _ => reply.success(": is this a vCenter or a hypervisor?"),
                    }
                }
            })
            .await
        };
        net.wait(asked)
            .map_err(|source| VsphereError::Http { action, source })
    }

    /// Whether it is an answer, and no fault.
    fn checked(&self, action: &'static str, reply: &Reply) -> Result<()> {
        if reply.status == 200 {
            return Ok(());
        }
        let answer = Node::read(&reply.body).map_err(|e| nonsense(action, e))?;
        let Some(fault) = answer.get("Fault") else {
            return Err(VsphereError::Answer {
                action,
                why: "a fault that is none".to_owned(),
            });
        };
        let detail = fault
            .get("detail")
            .and_then(|detail| detail.children.first());
        let kind = detail.map(|detail| match &detail.is {
            Some(kind) => kind.as_str(),
            None => detail.name.strip_suffix("Fault").unwrap_or(&detail.name),
        });
        let mut said = fault.text_of("faultstring").unwrap_or_default().to_owned();
        if let Some(privilege) = detail.and_then(|detail| detail.text_of("privilegeId")) {
            said = format!("{said} {privilege}");
        }
        Err(VsphereError::Refused {
            action,
            fault: self.shown(kind.unwrap_or("a fault")),
            said: self.shown(&said),
        })
    }

    /// What may be shown of the server's words.
    fn shown(&self, text: &str) -> String {
        let password = &self.auth.password;
        let text = if password.is_empty() {
            text.to_owned()
        } else {
            text.replace(password.as_str(), "***")
        };
        let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        let cut: String = plain.take(MOST_SAID).collect();
        cut.trim().to_owned()
    }

    /// Ends the session. On a network of its own: whoever asked to stop is no reason to leave it open.
    fn leave(&self) -> Result<()> {
        let action = "log out of vSphere";
        if self.session().is_none() {
            return Ok(());
        }
        let net = Net::start(longshore_transfer::Cancel::default()).map_err(|source| {
            VsphereError::Http {
                action,
                source: HttpError::Thread { source },
            }
        })?;
        let call = Call::new("Logout", &self.objects.sessions);
        let once = Policy {
            retries: 1,
            ..self.policy
        };
        let reply = self.send(&net, action, &call, once)?;
        match self.checked(action, &reply) {
            Err(VsphereError::Refused { fault, .. }) if fault == "NotAuthenticated" => Ok(()),
            outcome => outcome,
        }
    }
}

impl Drop for Vsphere {
    fn drop(&mut self) {
        self.stall = self.stall.min(FAREWELL);
        if let Err(error) = self.leave() {
            tracing::warn!(
                cause = &error as &dyn std::error::Error,
                "the session with vSphere stays open until it runs out"
            );
        }
    }
}

fn nonsense(action: &'static str, why: Nonsense) -> VsphereError {
    VsphereError::Answer {
        action,
        why: why.to_string(),
    }
}

/// The value in an answer with one property. There is none where the property has none.
fn value(answer: &Node) -> Option<&Node> {
    let path = [
        "RetrievePropertiesExResponse",
        "returnval",
        "objects",
        "propSet",
        "val",
    ];
    answer.at(&path)
}

fn device(node: &Node) -> Option<Device> {
    let backing = node.get("backing")?;
    let mut files = Vec::new();
    let mut next = Some(backing);
    while let Some(backing) = next {
        files.extend(backing.text_of("fileName").map(str::to_owned));
        next = backing.get("parent");
    }
    Some(Device {
        key: node.text_of("key")?.parse().ok()?,
        files,
        change: backing.text_of("changeId").map(str::to_owned),
    })
}

/// Reads the answer to a query of changes, however many there are.
fn areas(body: &[u8]) -> std::result::Result<Areas, &'static str> {
    let mut depth = 0;
    let (mut start, mut length) = (None, None);
    let (mut area, mut areas) = ((None, None), Vec::new());
    let mut wrong = None;
    let mut whole = true;
    // Envelope, body, answer, value; and in that `startOffset`, `length` and areas.
    let outcome = scan(body, |step| {
        let (name, text) = match step {
            Step::Open { .. } => {
                depth += 1;
                return Ok(true);
            }
            Step::Close { name, text } => (name, text),
        };
        let number = || text.trim().parse::<u64>().ok();
        match (depth, name) {
            (5, "startOffset") => start = number(),
            (5, "length") => length = number(),
            (6, "start") => area.0 = number(),
            (6, "length") => area.1 = number(),
            (5, "changedArea") => match std::mem::take(&mut area) {
                (Some(from), Some(len)) => areas.push((from, len)),
                _ => wrong = Some("an area has no beginning, or no length"),
            },
            _ => {}
        }
        depth -= 1;
        whole = areas.len() < MOST_AREAS;
        Ok(whole && wrong.is_none())
    });
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    outcome.map_err(|_| "it is no XML, or not the whole of it")?;
    let start = start.ok_or("it does not say where it begins")?;
    let length = length.ok_or("it does not say how far it goes")?;
    let until = start.checked_add(length).ok_or("it has no end")?;
    let until = match areas.last() {
        // What is left out here is asked for from the end of what is not.
        Some((from, len)) if !whole => from.checked_add(*len).ok_or("an area has no end")?,
        _ => until,
    };
    Ok(Areas {
        start,
        until,
        found: areas,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(inside: &str) -> Vec<u8> {
        format!(
            "<E><Body><QueryChangedDiskAreasResponse><returnval>{inside}</returnval>\
             </QueryChangedDiskAreasResponse></Body></E>"
        )
        .into_bytes()
    }

    fn area(start: u64, length: u64) -> String {
        format!("<changedArea><start>{start}</start><length>{length}</length></changedArea>")
    }

    #[test]
    fn areas_are_read_in_any_number_and_the_end_is_what_was_taken() {
        let told = "<startOffset>10</startOffset><length>90</length>";
        let few = areas(&answer(&format!("{told}{}{}", area(20, 5), area(50, 50)))).unwrap();
        assert_eq!((few.start, few.until), (10, 100));
        assert_eq!(few.found, [(20, 5), (50, 50)]);
        let none = areas(&answer(told)).unwrap();
        assert_eq!((none.until, none.found.len()), (100, 0));
        let many: String = (0..MOST_AREAS as u64 + 5)
            .map(|n| area(n * 10, 5))
            .collect();
        let told = "<startOffset>0</startOffset><length>10000000</length>";
        let many = areas(&answer(&format!("{told}{many}"))).unwrap();
        assert_eq!(many.found.len(), MOST_AREAS);
        assert_eq!(many.until, (MOST_AREAS as u64 - 1) * 10 + 5);
    }

    #[test]
    fn answers_that_make_no_sense_are_refused() {
        for inside in [
            "",
            "<startOffset>0</startOffset>",
            "<length>5</length>",
            "<startOffset>-1</startOffset><length>5</length>",
            "<startOffset>18446744073709551615</startOffset><length>5</length>",
            "<startOffset>0</startOffset><length>5</length><changedArea><start>1</start></changedArea>",
            "<startOffset>0</startOffset><length>5</length><changedArea/>",
        ] {
            assert!(areas(&answer(inside)).is_err(), "{inside}");
        }
        assert!(areas(b"").is_err());
        assert!(areas(b"<a><b><c><d><startOffset>0</startOffset>").is_err());
    }
}
