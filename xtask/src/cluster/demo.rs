//! `cargo xtask cluster demo`: a data volume on a real cluster, watched from `kubectl apply` to its end.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::control::{Programs, kubectl};
use super::place::{Place, State};
use super::watched::{import, server};
use super::{node, up};
use crate::http::Server;
use crate::{guest, say};

/// What to show.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The cluster to show it on; it is started if it does not run, and ended again
    #[arg(long, default_value = "demo")]
    name: String,
    /// Leave everything as it is at the end
    #[arg(long)]
    keep: bool,
    /// How many imports, one after the other
    #[arg(long, default_value_t = 1)]
    runs: u32,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let place = Place::of(&args.name)?;
    let image = guest::make()?.join(guest::QCOW2);
    let started_here = place.state() != State::Up;
    if started_here {
        up(&place)?;
    }
    let outcome = show(&place, &image, args);
    if args.keep {
        say::line(&format!(
            "\nThe cluster stays: `export KUBECONFIG={}`, and `cargo xtask cluster down --name {}` at the end.",
            place.kubeconfig().display(),
            place.name
        ));
    } else if started_here {
        super::down(&place)?;
    }
    outcome
}

/// Serves a file on the node's network until standard input ends; from inside.
pub(super) fn serve(file: &Path) -> Result<()> {
    let server = Server::start_on(node::ADDRESS, file)?;
    say::line(&server.url());
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut std::io::stdin(), &mut rest).context("waiting for the end")?;
    Ok(())
}

fn show(place: &Place, image: &Path, args: &Args) -> Result<()> {
    let programs = Programs::build()?;
    let (_server, url) = server(place, image)?;
    let size = std::fs::metadata(image)
        .with_context(|| format!("looking at {}", image.display()))?
        .len();
    say::line(&format!(
        "\nServing {} of compressed qcow2 to the node at {url}",
        say::bytes(size)
    ));
    for number in 1..=args.runs {
        let namespace = format!("demo-{}-{number}", std::process::id());
        kubectl(&programs, place)
            .args(["create", "namespace", &namespace])
            .capture()?;
        let volume = json!({
            "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume",
            "metadata": {"name": "demo", "namespace": namespace, "annotations": {
                "cdi.kubevirt.io/storage.bind.immediate.requested": "true",
            }},
            "spec": {
                "source": {"http": {"url": url}},
                "storage": {"resources": {"requests": {"storage": "2Gi"}}},
            },
        });
        let steps = import(place, &programs, &volume, say::line);
        if !args.keep || steps.is_err() {
            kubectl(&programs, place)
                .args(["delete", "namespace", &namespace, "--wait=false"])
                .capture()?;
        }
        say::line(&format!("\nWhere the time went:\n{}", steps?.table()));
    }
    Ok(())
}
