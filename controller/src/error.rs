//! Why a reconciliation did not end.

/// Result of one.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong on the way to the cluster or back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(
    clippy::error_impl_error,
    reason = "read as longshore_controller::Error everywhere"
)]
pub enum Error {
    /// The API server refused, or could not be asked.
    #[error("could not {action} {object}")]
    Api {
        /// What was tried.
        action: &'static str,
        /// On what, as `kind namespace/name`.
        object: String,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// Who came before a pod is not known yet.
    #[error(
        "the pod {pod} was not shown by the watch of all pods in time, or is no more: it may not run before it was"
    )]
    NotShown {
        /// As `namespace/name`.
        pod: String,
    },
    /// The installation's own settings are of no use.
    #[error("the environment variable {variable} {why}")]
    Setting {
        /// Which one.
        variable: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The process cannot be told to end.
    #[error("could not listen for signals")]
    Signals {
        /// The cause.
        source: std::io::Error,
    },
    /// The lease is somebody else's, or could not be renewed.
    #[error("the lease is lost: another controller may be at work")]
    Lost,
    /// Somebody else has come who looks after this cluster.
    #[error(
        "the deployment {namespace}/cdi-operator is there: it looks after this cluster, and Longshore does nothing beside it"
    )]
    Foreign {
        /// Where they are.
        namespace: String,
    },
    /// The kubelet's questions could not be listened for.
    #[error("could not listen at {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// There is no cluster to talk to.
    #[error("could not find out how to reach the cluster")]
    Cluster {
        /// The cause.
        source: Box<kube::Error>,
    },
}

impl Error {
    /// The word that logs and metrics use.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api { .. } => "ApiError",
            Self::NotShown { .. } => "PodNotShown",
            Self::Setting { .. } => "InvalidSetting",
            Self::Signals { .. } => "NoSignals",
            Self::Lost => "LeaseLost",
            Self::Foreign { .. } => "ForeignOperator",
            Self::Listen { .. } => "NoListener",
            Self::Cluster { .. } => "NoCluster",
        }
    }

    /// What the API server said when it would not do what it understood well: a quota, say, or a policy.
    pub(crate) fn refusal(&self) -> Option<&str> {
        match self {
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => {
                    Some(&status.message)
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// The status that the API server answered with.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Says what was tried when it fails.
pub(crate) trait Trying<T> {
    /// `could not ACTION OBJECT`.
    fn trying(self, action: &'static str, object: &str) -> Result<T>;
}

impl<T> Trying<T> for Result<T, kube::Error> {
    fn trying(self, action: &'static str, object: &str) -> Result<T> {
        self.map_err(|source| Error::Api {
            action,
            object: object.to_owned(),
            source: Box::new(source),
        })
    }
}

/// What the server answers about what is there already, or was written to since.
pub(crate) const CONFLICT: u16 = 409;
/// What it answers to who may not ask.
pub(crate) const FORBIDDEN: u16 = 403;
/// What it answers about what is not there.
pub(crate) const NOT_FOUND: u16 = 404;

/// `None` for an answer of this status: somebody was faster, and it is as it should be.
pub(crate) fn unless<T>(
    outcome: Result<T, kube::Error>,
    status: u16,
) -> Result<Option<T>, kube::Error> {
    match outcome {
        Err(kube::Error::Api(answer)) if answer.code == status => Ok(None),
        outcome => outcome.map(Some),
    }
}
