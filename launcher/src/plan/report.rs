//! What comes up while planning: problems that refuse the machine, notices that do not.

use std::fmt;

use longshore_crds::FieldPath;

use super::problem::{PlanError, Problem, ProblemKind};

/// Something the manifest asks for and gets differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Where it is in the document.
    pub path: FieldPath,
    /// What happens instead.
    pub message: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Collects problems and notices, so that a user hears of all of them at once.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: Vec<Problem>,
    notices: Vec<Notice>,
}

impl Report {
    pub(super) fn problem(&mut self, path: &FieldPath, kind: ProblemKind) {
        self.problems.push(Problem {
            path: path.clone(),
            kind,
        });
    }

    pub(super) fn notice(&mut self, path: &FieldPath, message: impl Into<String>) {
        self.notices.push(Notice {
            path: path.clone(),
            message: message.into(),
        });
    }

    /// The result, if nothing is in the way of it.
    pub(super) fn finish<T>(self, result: impl FnOnce(Vec<Notice>) -> T) -> Result<T, PlanError> {
        let Self { problems, notices } = self;
        if problems.is_empty() {
            Ok(result(notices))
        } else {
            Err(PlanError::Refused { problems })
        }
    }
}
