//! Reading single variables.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest part of a value that a message shows.
const SHOWN: usize = 80;

/// Why an environment is no configuration of an importer. Each names its variable; values of variables
/// that may hold secrets are not shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvError {
    /// A variable is not set, or empty.
    #[error("{variable} is not set: {needed_for} needs it")]
    Missing {
        /// Its name.
        variable: &'static str,
        /// What cannot be done without.
        needed_for: &'static str,
    },
    /// A value makes no sense.
    #[error("{variable} is {}, and should be {expected}", shown(value.as_deref()))]
    Invalid {
        /// The variable's name.
        variable: String,
        /// The value, unless it may be a secret.
        value: Option<String>,
        /// What would be right.
        expected: &'static str,
    },
    /// A kind of source that there is none of.
    #[error("unknown data source {source_kind:?}")]
    UnknownSource {
        /// What was asked for.
        source_kind: String,
    },
    /// Two values exclude each other.
    #[error("{variable} is {value:?}, and a source of kind {source_kind} has no such content")]
    Excluded {
        /// The variable's name.
        variable: &'static str,
        /// Its value.
        value: &'static str,
        /// The kind of source.
        source_kind: &'static str,
    },
}

fn shown(value: Option<&str>) -> String {
    value.map_or_else(|| "something else".to_owned(), |value| format!("{value:?}"))
}

/// An environment.
pub(super) struct Vars<'a>(pub(super) &'a dyn Fn(&str) -> Option<OsString>);

impl Vars<'_> {
    /// The value, if there is one that is not empty.
    pub(super) fn text(&self, variable: &str) -> Result<Option<String>, EnvError> {
        let Some(value) = (self.0)(variable).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let text = value.into_string().map_err(|_| EnvError::Invalid {
            variable: variable.to_owned(),
            value: None,
            expected: "text in UTF-8",
        })?;
        Ok(Some(text))
    }

    pub(super) fn path(&self, variable: &str) -> Option<PathBuf> {
        let value = (self.0)(variable).filter(|value| !value.is_empty())?;
        Some(PathBuf::from(value))
    }

    pub(super) fn needed(
        &self,
        variable: &'static str,
        needed_for: &'static str,
    ) -> Result<String, EnvError> {
        let missing = EnvError::Missing {
            variable,
            needed_for,
        };
        self.text(variable)?.ok_or(missing)
    }

    pub(super) fn needed_path(
        &self,
        variable: &'static str,
        needed_for: &'static str,
    ) -> Result<PathBuf, EnvError> {
        let missing = EnvError::Missing {
            variable,
            needed_for,
        };
        self.path(variable).ok_or(missing)
    }

    /// The value as something that has a spelling. Not for secrets.
    pub(super) fn parsed<T: FromStr>(
        &self,
        variable: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, EnvError> {
        let Some(text) = self.text(variable)? else {
            return Ok(None);
        };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(invalid(variable, &text, expected)),
        }
    }

    /// As Go reads a bool, which is what made these variables; `false` if it is not set.
    pub(super) fn flag(&self, variable: &'static str) -> Result<bool, EnvError> {
        let Some(text) = self.text(variable)? else {
            return Ok(false);
        };
        match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(invalid(variable, &text, "true or false")),
        }
    }
}

pub(super) fn invalid(variable: &str, value: &str, expected: &'static str) -> EnvError {
    EnvError::Invalid {
        variable: variable.to_owned(),
        value: Some(value.chars().take(SHOWN).collect()),
        expected,
    }
}
