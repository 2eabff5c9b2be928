//! Builds QEMU's command line.

use std::ffi::OsString;

use serde_json::{Map, Value};

/// A command line in the making.
#[derive(Debug, Default)]
pub(super) struct Argv {
    args: Vec<OsString>,
}

impl Argv {
    /// An option without a value.
    pub(super) fn flag(&mut self, name: &str) {
        self.args.push(name.into());
    }

    /// An option whose value holds no text of the manifest.
    pub(super) fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.args.push(name.into());
        self.args.push(value.into());
    }

    /// An option that QEMU takes as JSON: `-device`, `-blockdev`, `-netdev`, `-object`.
    pub(super) fn json(&mut self, name: &str, value: &Properties) {
        self.option(name, value.text());
    }

    pub(super) fn into_args(self) -> Vec<OsString> {
        self.args
    }
}

/// Properties of a QEMU object, in the order they were given.
///
/// `serde_json`'s own map would sort them; here the driver stays in front, as people write it.
#[derive(Clone, Debug, Default)]
pub(super) struct Properties {
    entries: Vec<(&'static str, Value)>,
    nested: Vec<(&'static str, Self)>,
}

impl Properties {
    /// Properties of a device, block node, backend or object of this type.
    pub(super) fn of(key: &'static str, value: &str) -> Self {
        Self::default().with(key, value)
    }

    #[must_use]
    pub(super) fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.entries.push((key, value.into()));
        self
    }

    #[must_use]
    pub(super) fn with_some(self, key: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    #[must_use]
    pub(super) fn with_nested(mut self, key: &'static str, value: Self) -> Self {
        self.nested.push((key, value));
        self
    }

    fn text(&self) -> String {
        let plain = self
            .entries
            .iter()
            .map(|(key, value)| format!("\"{key}\":{value}"));
        let nested = self
            .nested
            .iter()
            .map(|(key, value)| format!("\"{key}\":{}", value.text()));
        let all: Vec<String> = plain.chain(nested).collect();
        format!("{{{}}}", all.join(","))
    }
}

/// Doubles commas, so that a value cannot end its `key=value` option.
pub(super) fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

/// A map with one entry, for lists of objects.
pub(super) fn object(key: &str, value: impl Into<Value>) -> Value {
    Value::Object(Map::from_iter([(key.to_owned(), value.into())]))
}
