//! What the configuration is to be. Pure: the same cluster gives the same configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use longshore_crds::cdi_config::{CdiConfigSpec, CdiConfigStatus, FilesystemOverhead, ImportProxy};
use longshore_crds::contract::Overhead;
use longshore_crds::meta::ResourceRequirements;
use longshore_crds::names::{annotation, label, object};
use serde_json::{Value, json};

use crate::context::IS_DEFAULT;
use crate::custom::{CDI_CONFIG, part, raw, replacing};
use crate::installation;

/// All that it depends on.
pub(super) struct Observed {
    pub(super) installation: Option<Arc<DynamicObject>>,
    pub(super) configuration: Option<Arc<DynamicObject>>,
    pub(super) classes: Vec<Arc<StorageClass>>,
    /// In the installation's namespace.
    pub(super) ingresses: Vec<Ingress>,
}

/// What there is to do.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    Create(Box<DynamicObject>),
    Change {
        of: Arc<DynamicObject>,
        change: Value,
    },
}

/// What pods may use unless somebody says otherwise; upstream's numbers.
const LIMITS: [(&str, &str); 2] = [("cpu", "750m"), ("memory", "600M")];
const REQUESTS: [(&str, &str); 2] = [("cpu", "100m"), ("memory", "60M")];

/// Decides. Without an installation there is nothing to configure, and nothing happens.
pub(super) fn plan(observed: &Observed) -> Option<Action> {
    let installation = observed.installation.as_deref()?;
    let before = observed.configuration.as_deref();
    let spec = spec(installation, before);
    let typed: CdiConfigSpec = serde_json::from_value(spec.clone()).unwrap_or_default();
    let old: CdiConfigStatus = before
        .map(|object| part(object, "status"))
        .unwrap_or_default();
    let status = status(observed, typed, &old);
    let mut labels = installation::labels(Some(installation));
    labels.insert(label::ROLE.to_owned(), String::new());
    let Some(object) = &observed.configuration else {
        let mut object = CDI_CONFIG.empty(object::CONFIG);
        object.metadata.labels = Some(labels);
        object.data = json!({"spec": spec, "status": status});
        return Some(Action::Create(Box::new(object)));
    };
    if object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    labels.retain(|name, value| object.labels().get(name) != Some(value));
    let before = (raw(object, "spec"), raw(object, "status"));
    let after = (spec, serde_json::to_value(&status).unwrap_or_default());
    if before == after && labels.is_empty() {
        return None;
    }
    let change = json!({
        "metadata": {
            "uid": object.metadata.uid, "resourceVersion": object.metadata.resource_version,
            "labels": labels,
        },
        "spec": replacing(&before.0, after.0), "status": replacing(&before.1, after.1),
    });
    let of = Arc::clone(object);
    Some(Action::Change { of, change })
}

/// The installation's, word for word, where it is the authority; else what somebody wrote.
fn spec(installation: &DynamicObject, before: Option<&DynamicObject>) -> Value {
    let spec = if installation
        .annotations()
        .contains_key(annotation::CONFIG_AUTHORITY)
    {
        raw(installation, "spec")["config"].clone()
    } else {
        before.map(|object| raw(object, "spec")).unwrap_or_default()
    };
    if spec.is_object() { spec } else { json!({}) }
}

fn status(observed: &Observed, spec: CdiConfigSpec, old: &CdiConfigStatus) -> CdiConfigStatus {
    let classes = &observed.classes;
    CdiConfigStatus {
        upload_proxy_url: spec
            .upload_proxy_url_override
            .or_else(|| observed.ingresses.iter().find_map(host)),
        // Written by whoever has the certificates.
        upload_proxy_ca: old.upload_proxy_ca.clone(),
        // Upstream's clients read the four without asking whether they are there.
        import_proxy: Some(spec.import_proxy.unwrap_or_else(|| ImportProxy {
            http: Some(String::new()),
            https: Some(String::new()),
            none_for: Some(String::new()),
            trusted_ca: Some(String::new()),
        })),
        scratch_space_storage_class: scratch(classes, spec.scratch_space_storage_class),
        default_pod_resource_requirements: Some(resources(spec.pod_resource_requirements)),
        filesystem_overhead: Some(overhead(classes, spec.filesystem_overhead)),
        preallocation: spec.preallocation.filter(|is| *is),
        image_pull_secrets: spec.image_pull_secrets,
    }
}

/// Of an ingress that leads to the upload proxy, the host.
fn host(ingress: &Ingress) -> Option<String> {
    let spec = ingress.spec.as_ref()?;
    let to_proxy = |service: Option<&str>| service == Some(object::UPLOAD_PROXY);
    let default = spec.default_backend.as_ref();
    let default = default.and_then(|backend| backend.service.as_ref());
    if to_proxy(default.map(|service| service.name.as_str())) {
        let hosts = spec.tls.as_deref().unwrap_or_default().iter();
        let mut hosts = hosts.filter_map(|tls| tls.hosts.as_deref()?.first());
        if let Some(host) = hosts.next() {
            return Some(host.clone());
        }
    }
    spec.rules.iter().flatten().find_map(|rule| {
        let paths = rule.http.as_ref()?.paths.iter();
        let mut services = paths.filter_map(|path| path.backend.service.as_ref());
        let leads = services.any(|service| to_proxy(Some(&service.name)));
        rule.host.clone().filter(|_| leads)
    })
}

/// The class that is named if there is one of that name, else the default one.
fn scratch(classes: &[Arc<StorageClass>], named: Option<String>) -> Option<String> {
    if let Some(name) = named.filter(|name| classes.iter().any(|class| class.name_any() == *name)) {
        return Some(name);
    }
    let defaults = classes.iter().filter(|class| {
        let says = class.annotations().get(IS_DEFAULT);
        says.is_some_and(|text| text == "true")
    });
    defaults.map(|class| class.name_any()).min()
}

fn resources(wanted: Option<ResourceRequirements>) -> ResourceRequirements {
    let wanted = wanted.unwrap_or_default();
    let amounts = |usual: [(&str, &str); 2], wanted: BTreeMap<String, _>| {
        let usual = usual.into_iter();
        usual
            .filter_map(|(name, amount)| {
                let amount = wanted.get(name).cloned().or_else(|| amount.parse().ok())?;
                Some((name.to_owned(), amount))
            })
            .collect()
    };
    ResourceRequirements {
        limits: amounts(LIMITS, wanted.limits),
        requests: amounts(REQUESTS, wanted.requests),
        claims: Vec::new(),
    }
}

/// One entry for each class there is.
fn overhead(
    classes: &[Arc<StorageClass>],
    wanted: Option<FilesystemOverhead>,
) -> FilesystemOverhead {
    let wanted = wanted.unwrap_or_default();
    let valid = |text: &String| text.parse::<Overhead>().is_ok();
    let global = wanted.global.filter(valid);
    let global = global.unwrap_or_else(|| Overhead::USUAL.to_string());
    let of = |name: String| {
        let own = wanted.storage_class.get(&name).filter(|text| valid(text));
        let share = own.cloned().unwrap_or_else(|| global.clone());
        (name, share)
    };
    FilesystemOverhead {
        storage_class: classes.iter().map(|class| of(class.name_any())).collect(),
        global: Some(global),
    }
}
