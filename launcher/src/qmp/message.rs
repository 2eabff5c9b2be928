//! The three shapes of a line: greeting, answer, event.

use serde::Deserialize;
use serde_json::Value;

use super::{Broken, QmpError};

/// What QEMU says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    pub major: u64,
    pub minor: u64,
    pub micro: u64,
    /// The distribution's own version string; may be empty.
    pub package: String,
}

/// Something QEMU tells unasked. Unknown names and fields are kept as they came.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Event {
    #[serde(rename = "event")]
    pub name: String,
    #[serde(default)]
    pub data: Value,
    #[serde(default)]
    pub timestamp: Timestamp,
}

/// The host's clock when the event was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Timestamp {
    pub seconds: i64,
    pub microseconds: i64,
}

impl Event {
    /// A string field of the data; empty when it is missing or no string.
    pub fn text(&self, field: &str) -> &str {
        self.data
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// A boolean field of the data; false when it is missing or no boolean.
    pub fn flag(&self, field: &str) -> bool {
        self.data
            .get(field)
            .and_then(Value::as_bool)
            .unwrap_or_default()
    }
}

#[derive(Debug)]
pub(super) enum Message {
    Answer {
        id: Option<u64>,
        result: Result<Value, Refusal>,
    },
    Event(Event),
}

#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    class: String,
    desc: String,
}

impl Refusal {
    pub(super) fn of(self, command: &str) -> QmpError {
        QmpError::Refused {
            command: command.to_owned(),
            class: self.class,
            desc: self.desc,
        }
    }
}

#[derive(Deserialize)]
struct RawAnswer {
    #[serde(default)]
    id: Value,
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct RawGreeting {
    #[serde(rename = "QMP")]
    qmp: RawQmp,
}

#[derive(Deserialize)]
struct RawQmp {
    version: RawVersion,
}

#[derive(Deserialize)]
struct RawVersion {
    qemu: RawNumbers,
    #[serde(default)]
    package: String,
}

#[derive(Deserialize)]
struct RawNumbers {
    major: u64,
    minor: u64,
    micro: u64,
}

fn malformed(source: serde_json::Error) -> Broken {
    Broken::Malformed { source }
}

pub(super) fn greeting(line: &[u8]) -> Result<Greeting, Broken> {
    let RawGreeting { qmp } = serde_json::from_slice(line).map_err(malformed)?;
    let RawVersion {
        qemu: RawNumbers {
            major,
            minor,
            micro,
        },
        package,
    } = qmp.version;
    Ok(Greeting {
        major,
        minor,
        micro,
        package,
    })
}

pub(super) fn parse(line: &[u8]) -> Result<Message, Broken> {
    let value: Value = serde_json::from_slice(line).map_err(malformed)?;
    if value.get("event").is_some() {
        return serde_json::from_value(value)
            .map(Message::Event)
            .map_err(malformed);
    }
    let RawAnswer { id, value, error } = serde_json::from_value(value).map_err(malformed)?;
    let result = match (value, error) {
        (Some(value), None) => Ok(value),
        (None, Some(refusal)) => Err(refusal),
        (None, None) | (Some(_), Some(_)) => return Err(Broken::Unexpected),
    };
    Ok(Message::Answer {
        id: id.as_u64(),
        result,
    })
}
