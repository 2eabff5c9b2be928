//! What all controllers share: the client, the installation's settings, and what storage classes say.

use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::jiff::{Timestamp, Unit};
use kube::Client;
use kube::api::{Api, ListParams};

use crate::data_volume::render::Profile;
use crate::error::{Result, Trying as _};
use crate::import::scrape::Scraper;
use crate::settings::Settings;

/// It.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) scraper: Option<Scraper>,
    /// What time it is.
    pub(crate) clock: fn() -> Timestamp,
}

/// A storage class, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) provisioner: String,
    /// Volumes are made once somebody uses them.
    pub(crate) binds_late: bool,
}

const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const IS_DEFAULT_VIRT: &str = "storageclass.kubevirt.io/is-default-virt-class";

impl Context {
    /// What time it is, in seconds as the API keeps them.
    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)().round(Unit::Second).unwrap_or_default()
    }

    /// The class of this name, or the cluster's default one; `None` if there is none.
    pub(crate) async fn class(&self, name: Option<&str>) -> Result<Option<Class>> {
        let classes: Api<StorageClass> = Api::all(self.client.clone());
        let class = match name {
            // Explicitly none: a volume that exists already.
            Some("") => None,
            Some(name) => {
                let class = classes.get_opt(name).await;
                class.trying("read the storage class", name)?
            }
            None => {
                let all = classes.list(&ListParams::default()).await;
                default_of(all.trying("list", "storage classes")?.items)
            }
        };
        Ok(class.map(|class| Class {
            binds_late: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            provisioner: class.provisioner,
        }))
    }

    /// What a claim of this class can be.
    pub(crate) fn profile(&self, class: Option<&Class>) -> Profile {
        let known = class.and_then(|class| capabilities(&class.provisioner));
        Profile {
            access_modes: known.map(|mode| vec![mode.to_owned()]).unwrap_or_default(),
            volume_mode: known.map(|_| "Filesystem".to_owned()),
            overhead: self.settings.workload.overhead,
        }
    }
}

/// The one for virtual machines comes before the one for all; of several, the one made last.
fn default_of(classes: Vec<StorageClass>) -> Option<StorageClass> {
    let says = |class: &StorageClass, name: &str| {
        let annotations = class.metadata.annotations.as_ref();
        annotations
            .and_then(|all| all.get(name))
            .is_some_and(|text| text == "true")
    };
    classes
        .into_iter()
        .filter(|class| says(class, IS_DEFAULT_VIRT) || says(class, IS_DEFAULT))
        .max_by_key(|class| {
            let made = class
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0);
            (
                says(class, IS_DEFAULT_VIRT),
                made,
                class.metadata.name.clone(),
            )
        })
}

/// The access mode that claims of a provisioner's volumes have at the least.
fn capabilities(provisioner: &str) -> Option<&'static str> {
    match provisioner {
        "rancher.io/local-path" | "openebs.io/local" | "local.csi.openebs.io" => {
            Some("ReadWriteOnce")
        }
        _ => None,
    }
}
