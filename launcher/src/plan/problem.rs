//! Why a machine cannot run here.

use std::{fmt, path::PathBuf};

use longshore_crds::{FieldPath, Quantity, core_objects::ValueError, virtual_machine::RunStrategy};

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The manifest says that the machine shall not run.
    #[error("the machine is not to run: its run strategy is {strategy:?}")]
    NotToRun {
        /// What it says.
        strategy: RunStrategy,
    },
    /// The manifest asks for what is wrong, or for what cannot be done here.
    #[error("the machine cannot run as written{}", listed(.problems))]
    Refused {
        /// Everything that is in the way.
        problems: Vec<Problem>,
    },
}

impl PlanError {
    /// The cause in one word, for people and machines to match on.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotToRun { .. } => "NotToRun",
            Self::Refused { .. } => "MachineRefused",
        }
    }
}

fn listed(problems: &[Problem]) -> String {
    let mut text = String::new();
    for problem in problems {
        text.extend(["\n  ", problem.to_string().as_str()]);
    }
    text
}

/// One thing that keeps a machine from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it is in the document.
    pub path: FieldPath,
    /// What it is.
    pub kind: ProblemKind,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.kind)
    }
}

/// What keeps a machine from running.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProblemKind {
    /// A field that is needed is not there.
    #[error("this field is required")]
    Required,
    /// A value is outside what the field takes.
    #[error("\"{value}\" is not {expected}")]
    Invalid {
        /// The value.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A value that must be unique is there twice.
    #[error("\"{value}\" is there more than once")]
    Duplicate {
        /// The value.
        value: String,
    },
    /// Of some fields exactly one must be set.
    #[error("exactly one of {choices} must be set, found {}", or_none(.found))]
    ExactlyOne {
        /// The fields to choose from.
        choices: &'static str,
        /// The fields that are set.
        found: Vec<&'static str>,
    },
    /// Two names that go together are not both there.
    #[error("there is no {what} named \"{name}\"")]
    NoCounterpart {
        /// What is missing: `volume`, `disk`, `network`.
        what: &'static str,
        /// The name looked for.
        name: String,
    },
    /// Two fields contradict each other.
    #[error("this contradicts {other}")]
    Contradicts {
        /// The other field.
        other: &'static str,
    },
    /// An amount is above another one that bounds it.
    #[error("{amount} is above the limit of {limit}")]
    AboveLimit {
        /// What was asked for.
        amount: Quantity,
        /// What bounds it.
        limit: Quantity,
    },
    /// There are more of something than fit.
    #[error("{count} {what}, at most {limit} fit")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many fit.
        limit: usize,
    },
    /// Memory follows from nothing that is written.
    #[error("no memory size: set domain.memory.guest or domain.resources.requests.memory")]
    NoMemory,
    /// Something that is valid but cannot be had here, and must not be left out.
    #[error("{what} is not supported here; {remedy}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// What can be done instead.
        remedy: &'static str,
    },
    /// It is not known where the content of a volume is.
    #[error("nothing provides the {kind} \"{name}\": no data volume of the manifest has this name")]
    NotProvided {
        /// The kind of the volume.
        kind: &'static str,
        /// What it refers to.
        name: String,
    },
    /// Files of the host were not allowed.
    #[error("the host's file {path} may not be used without permission")]
    HostDiskDenied {
        /// The file.
        path: String,
    },
    /// There is no secret of this name in the manifest.
    #[error("the manifest has no Secret named \"{name}\"")]
    NoSecret {
        /// The name looked for.
        name: String,
    },
    /// There is no config map of this name in the manifest.
    #[error("the manifest has no ConfigMap named \"{name}\"")]
    NoConfigMap {
        /// The name looked for.
        name: String,
    },
    /// A value of a secret should be text and is not.
    #[error("the value of \"{key}\" in Secret \"{name}\" is not UTF-8 text")]
    NotText {
        /// The secret.
        name: String,
        /// The key.
        key: String,
    },
    /// A value of a secret cannot be used.
    #[error(transparent)]
    SecretValue(#[from] ValueError),
    /// Text in the document that a cluster would refuse for its length.
    #[error(
        "{length} bytes are too long to be inline (the limit is {limit}); put them into a Secret"
    )]
    InlineTooLong {
        /// Its length.
        length: usize,
        /// The longest taken.
        limit: usize,
    },
    /// A value that should be base64 is not.
    #[error("this is not base64")]
    NotBase64,
    /// Data of the machine does not fit the disk it is handed over on.
    #[error("these data cannot be handed to the guest: {source}")]
    CloudInit {
        /// Why.
        source: crate::iso::IsoError,
    },
    /// A path that QEMU cannot be told.
    #[error("the path {path:?} is not UTF-8 text, or is not absolute")]
    UnusablePath {
        /// The path.
        path: PathBuf,
    },
}

fn or_none(found: &[&str]) -> String {
    if found.is_empty() {
        "none".to_owned()
    } else {
        found.join(" and ")
    }
}
