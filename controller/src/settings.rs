//! What the installation tells its controller by environment variables.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::ResourceRequirements;

use longshore_crds::contract::Overhead;
use longshore_crds::names::object;

use crate::error::{Error, Result};
use crate::import::pod::Workload;

/// Settings.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) workload: Workload,
    /// Where the controller itself lives.
    pub(crate) namespace: String,
    /// Which of several controllers this is.
    pub(crate) identity: String,
    /// Where the kubelet asks how it goes.
    pub(crate) health: Option<SocketAddr>,
    /// Where Prometheus asks.
    pub(crate) metrics: Option<SocketAddr>,
}

impl Settings {
    /// Reads `IMPORTER_IMAGE`, `PULL_POLICY`, `POD_NAMESPACE`, `POD_NAME`, `HEALTH_ADDRESS`
    /// and `METRICS_ADDRESS`.
    pub(crate) fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let image = variable("IMPORTER_IMAGE")
            .filter(|image| !image.is_empty())
            .ok_or(Error::Setting {
                variable: "IMPORTER_IMAGE",
                why: "is not set: it names the image of the pods that import",
            })?;
        let pull_policy = variable("PULL_POLICY").unwrap_or_else(|| "IfNotPresent".to_owned());
        if !["Always", "IfNotPresent", "Never"].contains(&pull_policy.as_str()) {
            return Err(Error::Setting {
                variable: "PULL_POLICY",
                why: "is none of Always, IfNotPresent and Never",
            });
        }
        let address = |name: &'static str| {
            let address = variable(name).map(|address| address.parse());
            address.transpose().map_err(|_| Error::Setting {
                variable: name,
                why: "is no address with a port, such as 0.0.0.0:8444",
            })
        };
        let (health, metrics) = (address("HEALTH_ADDRESS")?, address("METRICS_ADDRESS")?);
        Ok(Self {
            namespace: variable("POD_NAMESPACE").unwrap_or_else(|| object::NAMESPACE.to_owned()),
            identity: variable("POD_NAME")
                .unwrap_or_else(|| format!("process-{}", std::process::id())),
            workload: Workload {
                image,
                pull_policy,
                // Until the configuration says something, which it does before there is a pod.
                resources: ResourceRequirements::default(),
                overhead: Overhead::USUAL,
                ..Workload::default()
            },
            health,
            metrics,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_must_be_named_and_a_policy_be_one() {
        let settings = |image: &'static str, policy: Option<&'static str>| {
            Settings::from_env(move |name| match name {
                "IMPORTER_IMAGE" => Some(image.to_owned()),
                "PULL_POLICY" => policy.map(str::to_owned),
                _ => None,
            })
        };
        assert_eq!(
            settings("i", None).unwrap().workload.pull_policy,
            "IfNotPresent"
        );
        assert_eq!(
            settings("i", Some("Never")).unwrap().workload.pull_policy,
            "Never"
        );
        assert!(settings("i", Some("Sometimes")).is_err());
        assert!(settings("", None).is_err());
    }
}
