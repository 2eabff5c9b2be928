//! Paths of fields inside a document, as people write them: `spec.disks[0].name`.

use std::{fmt, str::FromStr};

/// Steps in a path; more than a manifest can nest.
const MAX_STEPS: usize = 64;

/// A path from the top of a document to one of its fields.
///
/// ```
/// use longshore_crds::FieldPath;
/// let path: FieldPath = r#"metadata.labels["kubevirt.io/os"]"#.parse()?;
/// assert_eq!(path.to_string(), r#"metadata.labels["kubevirt.io/os"]"#);
/// assert_eq!(path.steps().len(), 3);
/// # Ok::<(), longshore_crds::field_path::ParseFieldPathError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath {
    steps: Vec<Step>,
}

/// One step of a [`FieldPath`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Into the value of a key.
    Key(String),
    /// Into an element of a list, from 0.
    Index(usize),
}

/// Why a text is not a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseFieldPathError {
    /// There is nothing, or nothing between two dots.
    #[error("\"{text}\" is not a path: a field name is missing at character {at}")]
    EmptyName {
        /// The text refused.
        text: String,
        /// Byte offset of the missing name.
        at: usize,
    },
    /// A bracket holds neither a number nor a quoted name, or never closes.
    #[error("\"{text}\" is not a path: expected [NUMBER] or [\"NAME\"] at character {at}")]
    BadBracket {
        /// The text refused.
        text: String,
        /// Byte offset of the bracket.
        at: usize,
    },
    /// The path has more steps than any document nests.
    #[error("a path of more than {MAX_STEPS} steps leads nowhere")]
    TooDeep,
}

impl FieldPath {
    /// The path of the document itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// The path of a key below this one.
    #[must_use]
    pub fn key(&self, name: impl Into<String>) -> Self {
        self.step(Step::Key(name.into()))
    }

    /// The path of a list element below this one.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    /// The steps from the top.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Puts another path below this one.
    #[must_use]
    pub fn join(&self, below: &Self) -> Self {
        let mut steps = self.steps.clone();
        steps.extend(below.steps.iter().cloned());
        Self { steps }
    }

    fn step(&self, step: Step) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        Self { steps }
    }
}

/// Whether a key can stand in a path without quotes.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['.', '[', ']', '"']) && !name.contains(char::is_whitespace)
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.steps.iter().enumerate() {
            match step {
                Step::Key(name) if is_plain(name) => {
                    let dot = if position == 0 { "" } else { "." };
                    write!(f, "{dot}{name}")?;
                }
                Step::Key(name) => write!(f, "[{name:?}]")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl FromStr for FieldPath {
    type Err = ParseFieldPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() || steps.is_empty() {
            if steps.len() == MAX_STEPS {
                return Err(ParseFieldPathError::TooDeep);
            }
            let at = text.len() - rest.len();
            if rest.starts_with('[') {
                let (step, after) =
                    parse_bracket(rest).ok_or_else(|| ParseFieldPathError::BadBracket {
                        text: text.to_owned(),
                        at,
                    })?;
                steps.push(step);
                rest = after;
                continue;
            }
            let rest_of_name = match (steps.is_empty(), rest.strip_prefix('.')) {
                (true, None) => rest,
                (false, Some(after)) => after,
                _ => {
                    return Err(ParseFieldPathError::EmptyName {
                        text: text.to_owned(),
                        at,
                    });
                }
            };
            let end = rest_of_name.find(['.', '[']).unwrap_or(rest_of_name.len());
            if end == 0 {
                return Err(ParseFieldPathError::EmptyName {
                    text: text.to_owned(),
                    at,
                });
            }
            let (name, after) = rest_of_name.split_at(end);
            steps.push(Step::Key(name.to_owned()));
            rest = after;
        }
        Ok(Self { steps })
    }
}

/// Reads `[0]` or `["name"]` at the start of a text, and gives what follows.
fn parse_bracket(text: &str) -> Option<(Step, &str)> {
    let inside = text.strip_prefix('[')?;
    if inside.starts_with('"') {
        let mut values = serde_json::Deserializer::from_str(inside).into_iter::<String>();
        let name = values.next()?.ok()?;
        let after = inside.get(values.byte_offset()..)?.strip_prefix(']')?;
        return Some((Step::Key(name), after));
    }
    let (number, after) = inside.split_once(']')?;
    Some((Step::Index(number.parse().ok()?), after))
}

impl From<&serde_path_to_error::Path> for FieldPath {
    fn from(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment;
        let steps = path
            .iter()
            .filter_map(|segment| match segment {
                Segment::Seq { index } => Some(Step::Index(*index)),
                Segment::Map { key } => Some(Step::Key(key.clone())),
                Segment::Enum { variant } => Some(Step::Key(variant.clone())),
                Segment::Unknown => None,
            })
            .collect();
        Self { steps }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_read_back_as_they_are_shown() {
        for text in [
            "a",
            "a.b",
            "a[0]",
            "a[0].b[12]",
            r#"a["b.c/d"].e"#,
            r#"["x y"][0]"#,
            r#"a["]"]"#,
        ] {
            assert_eq!(text.parse::<FieldPath>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn broken_paths_are_refused_by_cause() {
        use ParseFieldPathError as E;
        for text in ["", ".", "a.", "a..b", ".a", "a[0]b", "a.[0]"] {
            let error = text.parse::<FieldPath>().unwrap_err();
            assert!(matches!(error, E::EmptyName { .. }), "{text}: {error:?}");
        }
        for text in [
            "a[",
            "a[]",
            "a[x]",
            "a[-1]",
            "a[\"b]",
            "a[\"b\"",
            "a[99999999999999999999]",
        ] {
            let error = text.parse::<FieldPath>().unwrap_err();
            assert!(matches!(error, E::BadBracket { .. }), "{text}: {error:?}");
        }
        assert!(
            format!("a{}", "[0]".repeat(63))
                .parse::<FieldPath>()
                .is_ok()
        );
        assert_eq!(
            format!("a{}", "[0]".repeat(64)).parse::<FieldPath>(),
            Err(E::TooDeep)
        );
    }

    proptest! {
        #[test]
        fn any_path_survives_the_round_trip(names in prop::collection::vec("[ -~é]{1,6}", 1..5), index in 0_usize..100) {
            let mut path = FieldPath::root();
            for name in names {
                path = path.key(name).index(index);
            }
            prop_assert_eq!(path.to_string().parse::<FieldPath>().unwrap(), path);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = text.parse::<FieldPath>();
        }
    }
}
