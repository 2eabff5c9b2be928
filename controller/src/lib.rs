//! The controllers: what makes objects of `cdi.kubevirt.io` happen.
//!
//! Each observes, plans without side effects, and applies what it planned; they know each other by what
//! they write on claims only. Nothing here touches an image: pods do.

mod cdi;
mod cdi_config;
mod checkpoint;
mod claim;
mod context;
mod custom;
mod data_volume;
mod deployment;
mod error;
mod event;
mod follow;
mod health;
mod import;
mod installation;
mod known;
mod lease;
mod metrics;
#[cfg(test)]
mod model;
mod passes;
mod populate;
mod rounds;
mod settings;
mod storage_profile;
mod troubles;
mod write;
mod written;

use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::runtime::reflector;
use kube::runtime::reflector::store::Writer;
use longshore_telemetry::{Endpoint, error_chain};
use tokio::signal::unix::{SignalKind, signal};

use crate::cdi::foreign::{self, Foreign};
use crate::context::Context;
pub use crate::error::Error;
use crate::error::Result;
use crate::health::Health;
use crate::import::line::Line;
use crate::import::scrape::Scraper;
use crate::import::users::{PATIENCE, Users};
use crate::known::Known;
use crate::lease::{Elector, Holder, PERIOD};
use crate::settings::Settings;
use crate::troubles::Troubles;
use crate::written::Written;

/// Runs all controllers for as long as the lease is ours.
pub async fn run() -> Result<()> {
    // Another part of the process may have chosen a provider already; any will do.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let settings = Settings::from_env(|name| std::env::var(name).ok())?;
    let health = Health::new();
    if let Some(address) = settings.health {
        Arc::clone(&health).serve(address).await?;
    }
    let _metrics = settings.metrics.and_then(serve_metrics);
    let client = Client::try_default()
        .await
        .map_err(|source| Error::Cluster {
            source: Box::new(source),
        })?;
    let mut elector = Elector::new(
        client.clone(),
        &settings.namespace,
        settings.identity.clone(),
    );
    let told = told_to_end()?;
    tokio::pin!(told);
    // This line and the next are upstream's: who looks after it greps for them.
    tracing::info!(
        identity = settings.identity,
        "Attempting to acquire leader lease"
    );
    tokio::select! {
        () = stand_by(&client, &mut elector, &health) => {}
        () = &mut told => return Ok(()),
    }
    tracing::info!(
        identity = settings.identity,
        "Successfully acquired leadership lease"
    );
    health.works(&["the cluster", "data volumes", "claims", "populated claims"]);
    let (known, following) = Known::watch(&client);
    metrics::works_with(&known);
    let (pods, pods_shown) = reflector::store();
    let (claims, claims_shown) = reflector::store();
    let context = Arc::new(Context {
        client: client.clone(),
        settings,
        scraper: Scraper::new(),
        clock: Timestamp::now,
        known,
        health: Arc::clone(&health),
        line: Line::default(),
        users: Arc::new(Users::new(PATIENCE)),
        pods,
        claims,
        troubles: Troubles::default(),
        written: Written::default(),
    });
    let foreign = tokio::select! {
        () = following => None,
        () = Box::pin(cdi::run(Arc::clone(&context))) => None,
        () = Box::pin(cdi_config::run(Arc::clone(&context))) => None,
        () = Box::pin(deployment::run(Arc::clone(&context))) => None,
        () = Box::pin(storage_profile::run(Arc::clone(&context))) => None,
        () = Box::pin(volumes(context, claims_shown, pods_shown)) => None,
        () = elector.keep(&health) => None,
        foreign = foreign::appears(&client) => Some(foreign),
        () = &mut told => {
            // Nothing of ours is under way any more: the next one need not wait.
            elector.release().await;
            return Ok(());
        }
    };
    if let Some(Foreign::Operator { namespace }) = foreign {
        elector.release().await;
        return Err(Error::Foreign { namespace });
    }
    // Whoever started us starts us again; another controller may be at work by now.
    Err(Error::Lost)
}

/// Metrics, if they can be had: nothing else depends on them.
fn serve_metrics(address: SocketAddr) -> Option<Endpoint> {
    match Endpoint::start(address, metrics::render) {
        Ok(endpoint) => Some(endpoint),
        Err(error) => {
            tracing::warn!(cause = error_chain(&error), "there are no metrics");
            None
        }
    }
}

/// Waits until the lease is ours and nobody else looks after the cluster.
async fn stand_by(client: &Client, elector: &mut Elector, health: &Health) {
    while !may_work(client, elector, health).await {
        tokio::time::sleep(PERIOD).await;
    }
}

/// Whether that is so now. If somebody else looks after the cluster, says so.
pub(crate) async fn may_work(client: &Client, elector: &mut Elector, health: &Health) -> bool {
    let outcome = match foreign::operator(client).await {
        Ok(Some(operator)) => {
            health.stands_by();
            foreign::announce(client, &operator).await
        }
        Ok(None) => match elector.attempt().await {
            Ok(Holder::Us) => {
                health.looked();
                return true;
            }
            Ok(Holder::OneOfOurs) => {
                health.stands_by();
                Ok(())
            }
            Ok(Holder::Foreign(holder)) => {
                health.stands_by();
                foreign::announce(client, &Foreign::Lease { holder }).await
            }
            Err(error) => {
                tracing::warn!(%error, "the lease could not be asked for");
                Ok(())
            }
        },
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "this controller stands by, and could not find out or say why"
        );
    }
    health.looked();
    false
}

/// What works on volumes begins once it is settled how.
async fn volumes(context: Arc<Context>, claims: Writer<PersistentVolumeClaim>, pods: Writer<Pod>) {
    context.known.listed().await;
    context.health.listed("the cluster");
    context.known.configured().await;
    tokio::select! {
        () = data_volume::run(Arc::clone(&context), claims) => {}
        () = import::run(Arc::clone(&context), pods) => {}
        () = populate::run(Arc::clone(&context)) => {}
        () = context.troubles.follow(&context.client) => {}
    }
}

/// What ends when somebody asks the process to end. The first process of a container ends of no signal
/// that it does not ask for.
fn told_to_end() -> Result<impl Future<Output = ()>> {
    let mut signal = signal(SignalKind::terminate()).map_err(|source| Error::Signals { source })?;
    Ok(async move {
        signal.recv().await;
        tracing::info!("told to end");
    })
}
