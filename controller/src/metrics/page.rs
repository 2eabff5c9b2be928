//! The page that Prometheus reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use kube::runtime::reflector::Store;
use longshore_crds::storage_profile::ClaimPropertySet;
use longshore_crds::{CdiStatus, StorageProfileStatus};
use longshore_telemetry::Exposition;

use super::{
    ALL, EVENTS, FAILED_ROUNDS, LEADER, Numbers, PENDING, PHASE_TIME, PROFILE, RATE, READY,
    ROUND_TIME, SCRAPES, SOURCES, TRANSFERS, VOLUMES, numbers,
};
use crate::context::{is_default, is_default_virt};
use crate::custom::part;
use crate::known::Known;

/// It, as it is now.
pub(crate) fn render() -> String {
    let volumes = SOURCES.volumes.get();
    let volumes = volumes.map(Store::state).unwrap_or_default();
    let mut numbers = numbers();
    numbers.forget(Instant::now());
    page(SOURCES.known.get(), &volumes, &numbers)
}

fn page(known: Option<&Known>, volumes: &[Arc<DynamicObject>], numbers: &Numbers) -> String {
    let mut page = Exposition::new();
    for (name, kind, _, help) in ALL {
        page.family(name, kind, help);
        family(&mut page, name, known, volumes, numbers);
    }
    page.into_text()
}

/// The samples of one metric.
fn family(
    page: &mut Exposition,
    name: &str,
    known: Option<&Known>,
    volumes: &[Arc<DynamicObject>],
    numbers: &Numbers,
) {
    match name {
        PROFILE => {
            if let Some(known) = known {
                profiles(page, known);
            }
        }
        PENDING => {
            let waits = |volume: &&Arc<DynamicObject>| waits_for_default(volume);
            let none = known.is_some_and(|known| {
                !known
                    .classes()
                    .iter()
                    .any(|it| is_default(it) || is_default_virt(it))
            });
            let count = if none {
                volumes.iter().filter(waits).count()
            } else {
                0
            };
            page.sample(PENDING, &[], size(count));
        }
        READY => page.sample(READY, &[], known.map_or(-1.0, ready)),
        VOLUMES => {
            let mut phases: BTreeMap<String, usize> = BTreeMap::new();
            for volume in volumes {
                *phases.entry(phase(volume)).or_default() += 1;
            }
            for (phase, count) in phases {
                page.sample(VOLUMES, &[("phase", &phase)], size(count));
            }
        }
        PHASE_TIME => {
            for (phase, times) in &numbers.phases {
                page.histogram(PHASE_TIME, &[("phase", phase)], times);
            }
        }
        ROUND_TIME => {
            for (controller, times) in &numbers.rounds {
                page.histogram(ROUND_TIME, &[("controller", controller)], times);
            }
        }
        FAILED_ROUNDS => {
            for ((controller, reason), count) in &numbers.failed {
                let labels = [("controller", *controller), ("reason", *reason)];
                page.sample(FAILED_ROUNDS, &labels, float(*count));
            }
        }
        EVENTS => {
            for (reason, count) in &numbers.events {
                page.sample(EVENTS, &[("reason", reason)], float(*count));
            }
        }
        SCRAPES => {
            for (outcome, count) in [("answered", numbers.answered), ("silent", numbers.silent)] {
                page.sample(SCRAPES, &[("outcome", outcome)], float(count));
            }
        }
        TRANSFERS => page.sample(TRANSFERS, &[], size(numbers.transfers.len())),
        RATE => {
            let rates = numbers.transfers.values().map(|(_, rate)| *rate);
            page.sample(RATE, &[], float(rates.fold(0, u64::saturating_add)));
        }
        LEADER => page.sample(LEADER, &[], f64::from(u8::from(known.is_some()))),
        _ => {}
    }
}

fn profiles(page: &mut Exposition, known: &Known) {
    for class in known.classes() {
        let name = class.name_any();
        let profile = known.profile(&name);
        let status: StorageProfileStatus = profile
            .as_ref()
            .map(|one| part(one, "status"))
            .unwrap_or_default();
        let sets = &status.claim_property_sets;
        let shared =
            |set: &ClaimPropertySet| set.access_modes.iter().any(|it| it == "ReadWriteMany");
        let complete = sets.iter().any(|set| !set.access_modes.is_empty());
        let rwx = sets.iter().any(shared);
        let strategy = status.clone_strategy.as_deref().unwrap_or_default();
        let smart = ["snapshot", "csi-clone"].contains(&strategy);
        let word = |is: bool| if is { "true" } else { "false" };
        let labels = [
            ("storageclass", name.as_str()),
            ("provisioner", class.provisioner.as_str()),
            ("complete", word(complete)),
            ("default", word(is_default(&class))),
            ("virtdefault", word(is_default_virt(&class))),
            ("rwx", word(rwx)),
            ("smartclone", word(smart)),
            ("degraded", word(!rwx || !smart)),
        ];
        page.sample(PROFILE, &labels, 1.0);
    }
}

fn phase(volume: &DynamicObject) -> String {
    let status = volume.data.get("status");
    let phase = status.and_then(|status| status.get("phase")?.as_str());
    phase.unwrap_or_default().to_owned()
}

/// It names no class, and has no volume.
fn waits_for_default(volume: &DynamicObject) -> bool {
    let spec = volume.data.get("spec");
    let names_class = ["pvc", "storage"].into_iter().any(|part| {
        let class = spec.and_then(|spec| spec.get(part)?.get("storageClassName"));
        class.is_some()
    });
    !names_class && ["", "Pending"].contains(&phase(volume).as_str())
}

fn ready(known: &Known) -> f64 {
    let Some(cdi) = known.installation() else {
        return -1.0;
    };
    let status: CdiStatus = part(&cdi, "status");
    let available = status
        .conditions
        .iter()
        .any(|one| one.kind == "Available" && one.status == "True");
    f64::from(u8::from(available))
}

fn size(n: usize) -> f64 {
    float(u64::try_from(n).unwrap_or(u64::MAX))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a metric is a float; nobody sees the seventeenth digit"
)]
fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custom::DATA_VOLUME;
    use serde_json::json;

    fn volume(name: &str, phase: &str, spec: &serde_json::Value) -> Arc<DynamicObject> {
        let mut volume = DATA_VOLUME.empty(name);
        volume.data = json!({"spec": spec, "status": {"phase": phase}});
        Arc::new(volume)
    }

    #[test]
    fn the_page_has_every_metric_and_what_the_cluster_says_of_itself() {
        let class = json!({"metadata": {"name": "fast"}, "provisioner": "p"});
        let known = Known::seen([("storageclasses", &class)].into_iter());
        let volumes = [
            volume("a", "Pending", &json!({"pvc": {}})),
            volume(
                "b",
                "Pending",
                &json!({"storage": {"storageClassName": "x"}}),
            ),
            volume("c", "Succeeded", &json!({"pvc": {}})),
        ];
        let page = page(Some(&known), &volumes, &Numbers::default());
        for (name, ..) in ALL {
            assert!(page.contains(&format!("# TYPE {name} ")), "{name}: {page}");
        }
        for line in [
            "kubevirt_cdi_storageprofile_info{storageclass=\"fast\",provisioner=\"p\",complete=\"false\",default=\"false\",virtdefault=\"false\",rwx=\"false\",smartclone=\"false\",degraded=\"true\"} 1\n",
            "kubevirt_cdi_datavolume_pending 1\n",
            "kubevirt_cdi_cr_ready -1\n",
            "cdi_controller_data_volumes{phase=\"Pending\"} 2\n",
            "cdi_controller_leader 1\n",
        ] {
            assert!(page.contains(line), "{line}: {page}");
        }
    }

    #[test]
    fn with_a_default_class_nothing_waits_for_one() {
        let class = json!({"metadata": {"name": "fast", "annotations": {
            "storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p"});
        let known = Known::seen([("storageclasses", &class)].into_iter());
        let volumes = [volume("a", "Pending", &json!({"pvc": {}}))];
        let page = page(Some(&known), &volumes, &Numbers::default());
        assert!(
            page.contains("kubevirt_cdi_datavolume_pending 0\n"),
            "{page}"
        );
        assert!(page.contains("default=\"true\""), "{page}");
    }

    #[test]
    fn the_documentation_has_this_table() {
        let mut table =
            String::from("| metric | type | labels | what it tells |\n|---|---|---|---|\n");
        for (name, kind, labels, help) in ALL {
            let row = format!("| `{name}` | {} | {labels} | {help} |\n", kind.name());
            table.push_str(&row);
        }
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        let (before, after) = ("<!-- controller -->\n", "<!-- /controller -->");
        let page = std::fs::read_to_string(&path).unwrap();
        let (head, rest) = page.split_once(before).unwrap();
        let (known, tail) = rest.split_once(after).unwrap();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, format!("{head}{before}{table}{after}{tail}")).unwrap();
        } else {
            assert_eq!(known, table, "UPDATE_GOLDEN=1 writes docs/metrics.md anew");
        }
    }
}
