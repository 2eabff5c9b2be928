//! The controllers: what makes objects of `cdi.kubevirt.io` happen.
//!
//! Each observes, plans without side effects, and applies what it planned; they know each other by what
//! they write on claims only. Nothing here touches an image: pods do.

mod claim;
mod context;
mod data_volume;
mod error;
mod event;
mod import;
mod lease;
#[cfg(test)]
mod model;
mod rounds;
mod settings;

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};

use crate::context::Context;
pub use crate::error::Error;
use crate::error::Result;
use crate::import::scrape::Scraper;
use crate::lease::Elector;
use crate::settings::Settings;

/// Runs all controllers for as long as the lease is ours.
pub async fn run() -> Result<()> {
    // Another part of the process may have chosen a provider already; any will do.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let settings = Settings::from_env(|name| std::env::var(name).ok())?;
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
    tokio::select! {
        () = elector.acquire() => {}
        () = &mut told => return Ok(()),
    }
    let context = Arc::new(Context {
        client,
        settings,
        scraper: Scraper::new(),
        clock: Timestamp::now,
    });
    tokio::select! {
        () = data_volume::run(Arc::clone(&context)) => {}
        () = import::run(Arc::clone(&context)) => {}
        () = elector.keep() => {}
        () = &mut told => {
            // Nothing of ours is under way any more: the next one need not wait.
            elector.release().await;
            return Ok(());
        }
    }
    // Whoever started us starts us again; another controller may be at work by now.
    Err(Error::Lost)
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
