//! The core objects that machines and volumes refer to: `Secret` and `ConfigMap`.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::ObjectMeta;

/// A `Secret`. `Debug` shows its keys and none of its values.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// `v1`.
    pub api_version: String,
    /// `Secret`.
    pub kind: String,
    /// Name and namespace.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Purpose of the secret; carried, never read.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub secret_type: Option<String>,
    /// Whether it may change; carried, never read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
    /// Values in base64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
    /// Values in plain text, which win over `data`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub string_data: BTreeMap<String, String>,
}

/// A `ConfigMap`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMap {
    /// `v1`.
    pub api_version: String,
    /// `ConfigMap`.
    pub kind: String,
    /// Name and namespace.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Whether it may change; carried, never read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
    /// Values in plain text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
    /// Values in base64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub binary_data: BTreeMap<String, String>,
}

/// Why a value of a `Secret` or `ConfigMap` cannot be used. The value itself is never shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// There is no such key.
    #[error("{kind} \"{name}\" has no key \"{key}\"")]
    Missing {
        /// `Secret` or `ConfigMap`.
        kind: &'static str,
        /// Name of the object.
        name: String,
        /// The key looked for.
        key: String,
    },
    /// The value is not base64.
    #[error("the value of \"{key}\" in {kind} \"{name}\" is not base64")]
    NotBase64 {
        /// `Secret` or `ConfigMap`.
        kind: &'static str,
        /// Name of the object.
        name: String,
        /// The key of the value.
        key: String,
        /// Where the encoding is wrong.
        source: base64::DecodeError,
    },
}

impl Secret {
    /// The kind.
    pub const KIND: &'static str = "Secret";

    /// The decoded value of a key.
    pub fn value(&self, key: &str) -> Result<Vec<u8>, ValueError> {
        value(
            Self::KIND,
            &self.metadata,
            &self.string_data,
            &self.data,
            key,
        )
    }

    /// Every key with a value, sorted.
    pub fn keys(&self) -> Vec<&str> {
        keys(&self.string_data, &self.data)
    }
}

impl ConfigMap {
    /// The kind.
    pub const KIND: &'static str = "ConfigMap";

    /// The decoded value of a key.
    pub fn value(&self, key: &str) -> Result<Vec<u8>, ValueError> {
        value(
            Self::KIND,
            &self.metadata,
            &self.data,
            &self.binary_data,
            key,
        )
    }

    /// Every key with a value, sorted.
    pub fn keys(&self) -> Vec<&str> {
        keys(&self.data, &self.binary_data)
    }
}

fn keys<'a>(
    plain: &'a BTreeMap<String, String>,
    base64: &'a BTreeMap<String, String>,
) -> Vec<&'a str> {
    let mut keys: Vec<&str> = plain
        .keys()
        .chain(base64.keys())
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn value(
    kind: &'static str,
    metadata: &ObjectMeta,
    plain: &BTreeMap<String, String>,
    base64: &BTreeMap<String, String>,
    key: &str,
) -> Result<Vec<u8>, ValueError> {
    if let Some(text) = plain.get(key) {
        return Ok(text.clone().into_bytes());
    }
    let name = metadata.name.clone().unwrap_or_default();
    let Some(encoded) = base64.get(key) else {
        return Err(ValueError::Missing {
            kind,
            name,
            key: key.to_owned(),
        });
    };
    // Block scalars break long values into lines; those breaks are no part of the encoding.
    let compact: String = encoded.split_ascii_whitespace().collect();
    STANDARD
        .decode(compact)
        .map_err(|source| ValueError::NotBase64 {
            kind,
            name,
            key: key.to_owned(),
            source,
        })
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the annotations: `kubectl apply` keeps a copy of the whole object in one of them.
        f.debug_struct("Secret")
            .field("name", &self.metadata.name)
            .field("keys", &self.keys())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
            "data": {"a": "aGVs\n bG8=\n", "b": "!", "c": "ZGF0YQ=="},
            "stringData": {"c": "plain"},
        }))
        .unwrap()
    }

    #[test]
    fn values_are_decoded_and_plain_text_wins() {
        assert_eq!(secret().value("a").unwrap(), b"hello");
        assert_eq!(secret().value("c").unwrap(), b"plain");
        assert_eq!(secret().keys(), ["a", "b", "c"]);
        assert!(matches!(
            secret().value("b"),
            Err(ValueError::NotBase64 { .. })
        ));
        assert!(matches!(
            secret().value("d"),
            Err(ValueError::Missing { .. })
        ));
    }

    #[test]
    fn debug_output_holds_no_value() {
        let shown = format!("{:?}", secret());
        assert!(
            !shown.contains("plain") && !shown.contains("ZGF0"),
            "{shown}"
        );
    }
}
