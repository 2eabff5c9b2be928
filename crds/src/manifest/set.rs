//! Overrides of single fields: `--set spec.template.spec.domain.cpu.cores=2`.

use std::str::FromStr;

use serde_json::{Map, Value};

use crate::{
    FieldPath,
    field_path::{ParseFieldPathError, Step},
};

/// A field to be set, written `PATH=VALUE`.
///
/// A value that is valid JSON is taken as such (`2`, `true`, `null`, `"2"`, `{"a": 1}`), any
/// other text as a string. Maps on the way are made where missing; a list grows by one element
/// at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    path: FieldPath,
    value: Value,
}

/// Why an override cannot be read or applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// There is no `=`.
    #[error("\"{text}\" is not of the form PATH=VALUE")]
    NoValue {
        /// The text refused.
        text: String,
    },
    /// The part before `=` is not a path.
    #[error("the part before \"=\" is not a path")]
    Path {
        /// What is wrong with it.
        #[from]
        source: ParseFieldPathError,
    },
    /// A key is asked of something that is not a map.
    #[error("{at} is {found}, not a map")]
    NotAMap {
        /// Path of the value in the way.
        at: FieldPath,
        /// What it is.
        found: &'static str,
    },
    /// An index is asked of something that is not a list.
    #[error("{at} is {found}, not a list")]
    NotAList {
        /// Path of the value in the way.
        at: FieldPath,
        /// What it is.
        found: &'static str,
    },
    /// An index is beyond the end of its list.
    #[error("{at} has {length} elements; element {index} cannot be set")]
    BeyondEnd {
        /// Path of the list.
        at: FieldPath,
        /// Its length.
        length: usize,
        /// The index asked for.
        index: usize,
    },
}

impl FromStr for Override {
    type Err = OverrideError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (path, value) = split(text).ok_or_else(|| OverrideError::NoValue {
            text: text.to_owned(),
        })?;
        let path = path.parse()?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        Ok(Self { path, value })
    }
}

/// Splits at the first `=` that is not inside a quoted key.
fn split(text: &str) -> Option<(&str, &str)> {
    let mut in_quotes = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '=' if !in_quotes => return Some((&text[..at], &text[at + 1..])),
            '"' if !escaped => in_quotes = !in_quotes,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

impl Override {
    /// The field to be set.
    pub fn path(&self) -> &FieldPath {
        &self.path
    }

    /// Sets the field in a document.
    pub fn apply(&self, document: &mut Value) -> Result<(), OverrideError> {
        let mut here = document;
        let mut at = FieldPath::root();
        for step in self.path.steps() {
            here = match step {
                Step::Key(key) => {
                    if here.is_null() {
                        *here = Value::Object(Map::new());
                    }
                    let found = name_of(here);
                    let map = here.as_object_mut().ok_or_else(|| OverrideError::NotAMap {
                        at: at.clone(),
                        found,
                    })?;
                    at = at.key(key);
                    map.entry(key).or_insert(Value::Null)
                }
                Step::Index(index) => {
                    if here.is_null() {
                        *here = Value::Array(Vec::new());
                    }
                    let found = name_of(here);
                    let list = here.as_array_mut().ok_or_else(|| OverrideError::NotAList {
                        at: at.clone(),
                        found,
                    })?;
                    let length = list.len();
                    if *index == length {
                        list.push(Value::Null);
                    }
                    let element = list
                        .get_mut(*index)
                        .ok_or_else(|| OverrideError::BeyondEnd {
                            at: at.clone(),
                            length,
                            index: *index,
                        })?;
                    at = at.index(*index);
                    element
                }
            };
        }
        *here = self.value.clone();
        Ok(())
    }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(mut document: Value, text: &str) -> Result<Value, OverrideError> {
        text.parse::<Override>()?.apply(&mut document)?;
        Ok(document)
    }

    #[test]
    fn values_are_json_where_they_can_be() {
        assert_eq!(set(json!({}), "a=2"), Ok(json!({"a": 2})));
        assert_eq!(set(json!({}), "a=\"2\""), Ok(json!({"a": "2"})));
        assert_eq!(set(json!({}), "a=2Gi"), Ok(json!({"a": "2Gi"})));
        assert_eq!(set(json!({}), "a="), Ok(json!({"a": ""})));
        assert_eq!(set(json!({}), "a=b=c"), Ok(json!({"a": "b=c"})));
        assert_eq!(
            set(json!({}), r#"a={"b":[1]}"#),
            Ok(json!({"a": {"b": [1]}}))
        );
    }

    #[test]
    fn the_way_is_made_and_what_is_there_is_kept() {
        assert_eq!(
            set(json!({"a": {"x": 1}}), "a.b.c=1"),
            Ok(json!({"a": {"x": 1, "b": {"c": 1}}}))
        );
        assert_eq!(
            set(json!({"a": [1, 2]}), "a[1]=3"),
            Ok(json!({"a": [1, 3]}))
        );
        assert_eq!(
            set(json!({"a": [1, 2]}), "a[2].b=3"),
            Ok(json!({"a": [1, 2, {"b": 3}]}))
        );
        assert_eq!(set(json!({}), "a[0][0]=3"), Ok(json!({"a": [[3]]})));
        assert_eq!(
            set(json!({}), r#"a["k=v.w"]=3"#),
            Ok(json!({"a": {"k=v.w": 3}}))
        );
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        use OverrideError as E;
        assert!(matches!(set(json!({}), "a"), Err(E::NoValue { .. })));
        assert!(matches!(set(json!({}), "a..b=1"), Err(E::Path { .. })));
        assert!(matches!(
            set(json!({"a": 1}), "a.b=1"),
            Err(E::NotAMap {
                found: "a number",
                ..
            })
        ));
        assert!(matches!(
            set(json!({"a": {}}), "a[0]=1"),
            Err(E::NotAList { found: "a map", .. })
        ));
        assert!(matches!(
            set(json!({"a": [1]}), "a[2]=1"),
            Err(E::BeyondEnd {
                length: 1,
                index: 2,
                ..
            })
        ));
    }
}
