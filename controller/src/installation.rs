//! The settings in force, put together from the `CDI` object and the `CDIConfig`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, LocalObjectReference, ResourceRequirements, Toleration,
};
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use longshore_crds::CdiSpec;
use longshore_crds::cdi_config::{CdiConfigSpec, CdiConfigStatus, ImportProxy};
use longshore_crds::contract::{Overhead, Proxy, Secret};
use longshore_crds::names::{annotation, label};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::custom::part;
use crate::import::line::Limits;
use crate::import::pod::Workload;
use crate::known::Known;

/// The gate that keeps claims waiting for the pod that uses them first.
pub(crate) const HONOR_FIRST_CONSUMER: &str = "HonorWaitForFirstConsumer";
/// The gate that lets every volume take over a claim that is there already.
const CLAIM_ADOPTION: &str = "DataVolumeClaimAdoption";

/// Them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Installation {
    cdi: CdiSpec,
    wanted: CdiConfigSpec,
    in_force: CdiConfigStatus,
    /// Annotations of the `CDI`, for what upstream's definition has no field for.
    noted: BTreeMap<String, String>,
}

/// Imports on one node, and from one source, unless the `CDI` says otherwise.
const USUAL_PER_NODE: usize = 32;
/// See [`USUAL_PER_NODE`].
const USUAL_PER_SOURCE: usize = 100;

impl Installation {
    pub(crate) fn of(known: &Known) -> Self {
        let cdi = known.installation();
        let configuration = known.configuration();
        let configuration = configuration.as_deref();
        Self {
            noted: cdi
                .as_ref()
                .map(|cdi| cdi.annotations().clone())
                .unwrap_or_default(),
            cdi: cdi.map(|cdi| part(&cdi, "spec")).unwrap_or_default(),
            wanted: configuration
                .map(|object| part(object, "spec"))
                .unwrap_or_default(),
            in_force: configuration
                .map(|object| part(object, "status"))
                .unwrap_or_default(),
        }
    }

    fn gate(&self, name: &str) -> bool {
        self.wanted.feature_gates.iter().any(|gate| gate == name)
    }

    /// Claims whose volume is made for whoever uses them first wait for that.
    pub(crate) fn honors_first_consumer(&self) -> bool {
        self.gate(HONOR_FIRST_CONSUMER)
    }

    /// How many imports may be at work. What is no number counts as not said.
    pub(crate) fn limits(&self) -> Limits {
        let limit = |name: &str, usual: usize| {
            let told = self
                .noted
                .get(name)
                .and_then(|text| text.trim().parse().ok());
            Some(told.unwrap_or(usual)).filter(|limit| *limit > 0)
        };
        Limits {
            per_node: limit(annotation::IMPORTS_PER_NODE, USUAL_PER_NODE),
            per_source: limit(annotation::IMPORTS_PER_SOURCE, USUAL_PER_SOURCE),
        }
    }

    /// Every volume may take over a claim that is there already.
    pub(crate) fn adopts_claims(&self) -> bool {
        self.gate(CLAIM_ADOPTION)
    }

    /// Disks are allocated up front unless their volume says otherwise.
    pub(crate) fn preallocates(&self) -> bool {
        self.in_force.preallocation == Some(true)
    }

    /// What of a volume of this class its filesystem takes.
    pub(crate) fn overhead(&self, class: Option<&str>) -> Overhead {
        let Some(overhead) = &self.in_force.filesystem_overhead else {
            return Overhead::USUAL;
        };
        let of_class = class.and_then(|class| overhead.storage_class.get(class));
        let share = of_class.or(overhead.global.as_ref());
        share
            .and_then(|share| share.parse().ok())
            .unwrap_or(Overhead::USUAL)
    }

    /// Whether a registry's certificate goes unchecked: `docker://host:5000/image` of `host:5000` or `host`.
    pub(crate) fn is_insecure(&self, address: &str) -> bool {
        let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or_default();
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let host = authority.split(':').next().unwrap_or_default();
        let mut listed = self.wanted.insecure_registries.iter();
        !host.is_empty() && listed.any(|entry| entry == authority || entry == host)
    }

    /// The `ConfigMap` with authorities that vouch for the proxy.
    pub(crate) fn proxy_authorities(&self) -> Option<&str> {
        let proxy = self.in_force.import_proxy.as_ref()?;
        proxy.trusted_ca.as_deref().filter(|name| !name.is_empty())
    }

    /// What pods of this class's volumes are made with; `usual` is what the deployment says.
    pub(crate) fn workload(&self, usual: &Workload, class: Option<&str>) -> Workload {
        let placement = self.cdi.workload.clone().unwrap_or_default();
        let resources = &self.in_force.default_pod_resource_requirements;
        let secrets = self.in_force.image_pull_secrets.iter();
        Workload {
            image: usual.image.clone(),
            pull_policy: self
                .cdi
                .image_pull_policy
                .clone()
                .unwrap_or_else(|| usual.pull_policy.clone()),
            pull_secrets: secrets
                .map(|secret| LocalObjectReference {
                    name: secret.name.clone(),
                })
                .collect(),
            resources: resources
                .as_ref()
                .and_then(translated::<_, ResourceRequirements>)
                .unwrap_or_else(|| usual.resources.clone()),
            node_selector: placement.node_selector,
            affinity: placement
                .affinity
                .as_ref()
                .and_then(translated::<_, Affinity>),
            tolerations: placement
                .tolerations
                .iter()
                .filter_map(translated::<_, Toleration>)
                .collect(),
            overhead: self.overhead(class),
            proxy: self
                .in_force
                .import_proxy
                .as_ref()
                .map_or_else(Proxy::default, proxy),
            proxy_authorities: None,
            log: self.wanted.log_verbosity.and_then(filter),
        }
    }
}

/// What importers log at one of upstream's levels, of which 1 is the usual one. Only of what is ours: what
/// libraries tell of requests may have secrets in it.
fn filter(verbosity: i32) -> Option<&'static str> {
    match verbosity {
        ..=1 => None,
        2..=4 => Some("info,longshore_importer=debug,longshore_transfer=debug"),
        5.. => Some("info,longshore_importer=trace,longshore_transfer=trace,longshore_image=trace"),
    }
}

/// The same in the types of the client library.
fn translated<T: Serialize, U: DeserializeOwned>(value: &T) -> Option<U> {
    let value = serde_json::to_value(value).ok()?;
    serde_json::from_value(value).ok()
}

fn proxy(proxy: &ImportProxy) -> Proxy {
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    Proxy {
        http: text(&proxy.http).map(Secret::from),
        https: text(&proxy.https).map(Secret::from),
        none_for: text(&proxy.none_for),
        cert_dir: None,
    }
}

/// The labels of everything that is made for the cluster as a whole.
pub(crate) fn labels(installation: Option<&DynamicObject>) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = [
        (label::APP, label::APP_VALUE),
        (label::MANAGED_BY, label::MANAGED_BY_VALUE),
        (label::COMPONENT, label::COMPONENT_VALUE),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    for name in [label::PART_OF, label::VERSION] {
        if let Some(value) = installation.and_then(|cdi| cdi.labels().get(name)) {
            labels.insert(name.to_owned(), value.clone());
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn installation(cdi: Value, spec: Value, status: Value) -> Installation {
        Installation {
            cdi: serde_json::from_value(cdi).unwrap(),
            wanted: serde_json::from_value(spec).unwrap(),
            in_force: serde_json::from_value(status).unwrap(),
            noted: BTreeMap::new(),
        }
    }

    #[test]
    fn limits_are_what_the_annotations_say_or_the_usual_ones() {
        for (text, expected) in [
            ("5", Some(5)),
            (" 5 ", Some(5)),
            ("0", None),
            ("-1", Some(USUAL_PER_SOURCE)),
            ("many", Some(USUAL_PER_SOURCE)),
        ] {
            let mut installation = installation(json!({}), json!({}), json!({}));
            let name = annotation::IMPORTS_PER_SOURCE.to_owned();
            installation.noted.insert(name, text.to_owned());
            let limits = installation.limits();
            assert_eq!(limits.per_source, expected, "{text}");
            assert_eq!(limits.per_node, Some(USUAL_PER_NODE));
        }
    }

    #[test]
    fn pods_are_made_with_what_the_installation_says() {
        let usual = Workload {
            image: "importer".to_owned(),
            pull_policy: "IfNotPresent".to_owned(),
            ..Workload::default()
        };
        let nothing = Installation::default().workload(&usual, None);
        assert_eq!(nothing.pull_policy, "IfNotPresent");
        assert_eq!(nothing.overhead, Overhead::USUAL);
        let installation = installation(
            json!({
                "imagePullPolicy": "Always",
                "workload": {
                    "nodeSelector": {"disk": "fast"},
                    "tolerations": [{"key": "storage", "operator": "Exists"}],
                    "affinity": {"nodeAffinity": {}},
                },
            }),
            json!({"logVerbosity": 3}),
            json!({
                "importProxy": {"HTTPProxy": "http://proxy", "HTTPSProxy": "", "noProxy": ".svc"},
                "imagePullSecrets": [{"name": "pull"}],
                "defaultPodResourceRequirements": {"limits": {"cpu": "2"}},
                "filesystemOverhead": {"global": "0.1", "storageClass": {"nfs": "0"}},
            }),
        );
        let pods = installation.workload(&usual, Some("nfs"));
        assert_eq!(pods.pull_policy, "Always");
        assert_eq!(pods.node_selector["disk"], "fast");
        assert_eq!(pods.tolerations[0].key.as_deref(), Some("storage"));
        assert!(pods.affinity.unwrap().node_affinity.is_some());
        assert_eq!(pods.pull_secrets[0].name, "pull");
        assert_eq!(pods.resources.limits.unwrap()["cpu"].0, "2");
        assert_eq!(pods.proxy.http.unwrap().reveal(), "http://proxy");
        assert_eq!(
            (pods.proxy.https, pods.proxy.none_for.as_deref()),
            (None, Some(".svc"))
        );
        assert!(pods.log.unwrap().contains("longshore_importer=debug"));
        assert_eq!(nothing.log, None);
        assert_eq!(pods.overhead.to_string(), "0");
        assert_eq!(installation.overhead(Some("other")).to_string(), "0.1");
    }

    #[test]
    fn registries_are_insecure_by_host_with_or_without_a_port() {
        let spec = json!({"insecureRegistries": ["one:5000", "two"]});
        let installation = installation(json!({}), spec, json!({}));
        for (address, expected) in [
            ("docker://one:5000/disk:1", true),
            ("docker://one/disk", false),
            ("docker://two:80/disk", true),
            ("docker://two/disk", true),
            ("docker://three/two", false),
            ("docker://", false),
        ] {
            assert_eq!(installation.is_insecure(address), expected, "{address}");
        }
    }
}
