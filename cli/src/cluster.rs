//! The cluster, as whoever calls may see it: how it is reached, and what its refusals mean.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::failure::Failure;

/// An API server that does not take the connection by then is not there.
const CONNECT: Duration = Duration::from_secs(5);
/// One that says nothing for so long has nothing to say. Watches hear something at least this often, or
/// begin anew.
const SILENCE: Duration = Duration::from_mins(1);

/// Which cluster.
#[derive(Debug, Default)]
pub(crate) struct Access {
    /// How to reach it, if not as `kubectl` does.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Which of the file's contexts, if not its current one.
    pub(crate) context: Option<String>,
}

/// A cluster within reach, if it answers.
pub(crate) struct Reached {
    pub(crate) client: Client,
    /// The namespace where nobody names another.
    pub(crate) namespace: String,
    /// Where the API server is.
    pub(crate) address: String,
}

impl Access {
    /// Reads how to reach it, and asks it nothing.
    pub(crate) async fn reach(&self) -> Result<Reached, String> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = match (&self.kubeconfig, &self.context) {
            (None, None) => Config::infer().await.map_err(|error| error.to_string()),
            (None, Some(_)) => Config::from_kubeconfig(&options)
                .await
                .map_err(|error| error.to_string()),
            (Some(path), _) => {
                let file = Kubeconfig::read_from(path).map_err(|error| error.to_string())?;
                let config = Config::from_custom_kubeconfig(file, &options).await;
                config.map_err(|error| error.to_string())
            }
        };
        let mut config = config?;
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(SILENCE);
        let namespace = config.default_namespace.clone();
        let address = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| error.to_string())?;
        Ok(Reached {
            client,
            namespace,
            address,
        })
    }

    /// The same, as a failure of a command.
    pub(crate) async fn or_fail(&self) -> Result<Reached, Failure> {
        self.reach().await.map_err(|why| Failure::Cluster {
            why: format!("no cluster could be found: {why}"),
            next: Some("name one: --kubeconfig FILE, or KUBECONFIG as kubectl takes it".to_owned()),
        })
    }
}

/// Does something about a cluster.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::Host {
            action: "could not start".to_owned(),
            source,
        })?;
    runtime.block_on(work)
}

/// What an object is to whoever asked for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Seen<T> {
    /// It was not asked for, because it does not matter.
    #[default]
    NotAsked,
    /// There is none.
    Absent,
    /// This one.
    There(T),
    /// It could not be read.
    Hidden(Hidden),
}

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hidden {
    /// Whoever calls may not.
    Forbidden,
    /// The cluster does not know who calls.
    Unknown,
    /// The cluster has no such kind.
    NoSuchKind,
    /// The API server did not answer, or answered with something else.
    Unreachable(String),
}

impl<T> Seen<T> {
    /// The object, if it was seen.
    pub(crate) fn there(&self) -> Option<&T> {
        match self {
            Self::There(object) => Some(object),
            _ => None,
        }
    }

    /// Why it could not be read.
    pub(crate) fn hidden(&self) -> Option<&Hidden> {
        match self {
            Self::Hidden(why) => Some(why),
            _ => None,
        }
    }
}

impl<T> From<Result<Option<T>, kube::Error>> for Seen<T> {
    fn from(answer: Result<Option<T>, kube::Error>) -> Self {
        match answer {
            Ok(Some(object)) => Self::There(object),
            Ok(None) => Self::Absent,
            Err(error) => Self::Hidden(hidden(&error)),
        }
    }
}

/// What an error of the client means.
pub(crate) fn hidden(error: &kube::Error) -> Hidden {
    match error {
        kube::Error::Api(status) => match status.code {
            401 => Hidden::Unknown,
            403 => Hidden::Forbidden,
            404 => Hidden::NoSuchKind,
            _ => Hidden::Unreachable(status.message.clone()),
        },
        other => Hidden::Unreachable(longshore_telemetry::error_chain(other)),
    }
}

/// A kind of ours, as the server calls it.
pub(crate) fn resource(kind: &str) -> kube::api::ApiResource {
    kube::api::ApiResource {
        group: "cdi.kubevirt.io".to_owned(),
        version: "v1beta1".to_owned(),
        api_version: "cdi.kubevirt.io/v1beta1".to_owned(),
        kind: kind.to_owned(),
        plural: format!("{}s", kind.to_lowercase()),
    }
}
