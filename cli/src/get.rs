//! `longshore get dv`: data volumes and how far they are, with bytes, rate and time left.
//!
//! ```text
//! DataVolumes + annotations of claims -> Row (pure) -> table | JSON
//!     watched with -w -> redrawn on a terminal, elsewhere a line for each change
//! ```

mod rows;
mod screen;
mod watch;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::PartialObjectMeta;
use serde::de::DeserializeOwned;

use self::rows::{Claims, Row, Table, Volumes};
use crate::cluster::{Access, Hidden, block_on, hidden, resource};
use crate::failure::Failure;
use crate::output::{Data, say};

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Get {
    pub(crate) access: Access,
    pub(crate) place: Place,
    /// Only these; all if there are none.
    pub(crate) names: Vec<String>,
    pub(crate) watch: bool,
    pub(crate) json: bool,
}

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Everywhere,
    Namespace(String),
    /// The one of the kubeconfig.
    Usual,
}

/// A list is read in parts of so many.
const PART: u32 = 500;

/// A claim, without what is in it.
type ClaimMeta = PartialObjectMeta<PersistentVolumeClaim>;

pub(crate) fn run(get: &Get) -> Result<(), Failure> {
    block_on(async {
        let reached = get.access.or_fail().await?;
        let namespace = match &get.place {
            Place::Everywhere => None,
            Place::Namespace(name) => Some(name.clone()),
            Place::Usual => Some(reached.namespace.clone()),
        };
        let (volumes, claims) = apis(&reached.client, namespace.as_deref());
        if get.watch {
            return watch::run(get, namespace.as_deref(), volumes, claims).await;
        }
        let wanted = |row: &Row| get.names.is_empty() || get.names.contains(&row.name);
        let place = namespace.as_deref();
        let volumes: Volumes = all(&volumes, place).await?.into_iter().collect();
        let claims = annotations(&claims, place).await?;
        let mut rows = rows::rows(&volumes, &claims);
        rows.retain(wanted);
        if let Some(missing) = missing(get, &rows) {
            return Err(Failure::Cluster {
                why: format!("there is no DataVolume {missing} in {}", said(place)),
                next: Some("kubectl get dv -A".to_owned()),
            });
        }
        let mut data = Data::open();
        if get.json {
            data.json_document(&serde_json::json!({ "items": rows }))?;
        } else if rows.is_empty() {
            say(&format!("there is no DataVolume in {}", said(place)));
        } else {
            let table = Table::new(rows, place.is_none());
            for line in table.lines() {
                data.line(&line)?;
            }
        }
        data.finish()
    })
}

fn missing<'a>(get: &'a Get, rows: &[Row]) -> Option<&'a String> {
    let mut names = get.names.iter();
    names.find(|name| rows.iter().all(|row| row.name != **name))
}

fn said(place: Option<&str>) -> String {
    place.map_or_else(
        || "any namespace".to_owned(),
        |name| format!("the namespace {name}"),
    )
}

fn apis(client: &Client, namespace: Option<&str>) -> (Api<DynamicObject>, Api<ClaimMeta>) {
    let kind = resource("DataVolume");
    match namespace {
        Some(name) => (
            Api::namespaced_with(client.clone(), name, &kind),
            Api::namespaced(client.clone(), name),
        ),
        None => (
            Api::all_with(client.clone(), &kind),
            Api::all(client.clone()),
        ),
    }
}

/// All objects, in parts: there may be thousands.
async fn all<K>(api: &Api<K>, place: Option<&str>) -> Result<Vec<K>, Failure>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let mut found = Vec::new();
    let mut params = ListParams::default().limit(PART);
    loop {
        let part = api.list(&params).await;
        let part = part.map_err(|error| refused(&error, place))?;
        found.extend(part.items);
        match part.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => params = params.continue_token(&more),
            None => return Ok(found),
        }
    }
}

/// What claims say of their imports. Whoever may not read them sees less.
async fn annotations(api: &Api<ClaimMeta>, place: Option<&str>) -> Result<Claims, Failure> {
    let mut claims = Claims::default();
    let mut params = ListParams::default().limit(PART);
    loop {
        let part = match api.list(&params).await {
            Ok(part) => part,
            Err(error) if hidden(&error) == Hidden::Forbidden => {
                say(NO_CLAIMS);
                return Ok(claims);
            }
            Err(error) => return Err(refused(&error, place)),
        };
        for claim in part.items {
            claims.add(&claim.metadata);
        }
        match part.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => params = params.continue_token(&more),
            None => return Ok(claims),
        }
    }
}

const NO_CLAIMS: &str = "you may not read claims here: bytes, rate and time left are not shown";

fn refused(error: &kube::Error, place: Option<&str>) -> Failure {
    let place = said(place);
    let (why, next) = match hidden(error) {
        Hidden::Forbidden => (
            format!("you may not list DataVolumes in {place}"),
            "name a namespace that you may look into: -n NAMESPACE",
        ),
        Hidden::Unknown => (
            "the cluster does not know you".to_owned(),
            "log in again: kubectl auth whoami",
        ),
        Hidden::NoSuchKind => (
            "the cluster has no DataVolumes: their definition is not installed".to_owned(),
            "have it installed: deploy/crds.yaml first, then deploy/longshore.yaml",
        ),
        Hidden::Unreachable(why) => (
            format!("could not list the DataVolumes of {place}: {why}"),
            "see whether the API server runs: kubectl cluster-info",
        ),
    };
    Failure::Cluster {
        why,
        next: Some(next.to_owned()),
    }
}
