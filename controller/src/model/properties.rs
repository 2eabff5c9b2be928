//! What holds for every history of claims and volumes.

use longshore_crds::names::{annotation, object};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::server::{Gates, Server, is_held, key, noted};
use super::world::{Beginning, Kind, Step, Turn, World};

/// Histories of each property, the same in each run: one that fails by chance tells whoever changed something
/// else nothing. `PROPTEST_CASES` asks for so many others.
const CASES: u32 = 24;
const SEED: u64 = 20;

pub(super) fn cases() -> ProptestConfig {
    let more: Option<u32> = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok());
    let config = ProptestConfig::with_cases(more.unwrap_or(CASES));
    ProptestConfig {
        // A history that failed is printed; none is kept.
        failure_persistence: None,
        rng_seed: match more {
            None => RngSeed::Fixed(SEED),
            Some(_) => config.rng_seed,
        },
        ..config
    }
}

pub(super) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => Just(Kind::Http),
        1 => Just(Kind::Blank),
        2 => Just(Kind::Immediate),
        1 => Just(Kind::Nonsense),
        1 => Just(Kind::Clone),
        3 => Just(Kind::Driver),
        2 => Just(Kind::DriverLate),
        1 => Just(Kind::Populator),
        2 => Just(Kind::Adopting),
        2 => Just(Kind::Warm),
        2 => Just(Kind::WarmDriver),
    ]
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        1 => Just(Turn::Run),
        1 => Just(Turn::Crash),
        4 => Just(Turn::Complete),
        1 => Just(Turn::WrongChecksum),
        1 => Just(Turn::Evict),
        1 => Just(Turn::Gone),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let at = any::<bool>;
    prop_oneof![
        6 => (at(), kind()).prop_map(|(at, kind)| Step::Volume(at, kind)),
        1 => at().prop_map(Step::DeleteVolume),
        1 => at().prop_map(Step::EditVolume),
        2 => at().prop_map(Step::Checkpoint),
        1 => at().prop_map(Step::LastCheckpoint),
        3 => at().prop_map(Step::Claim),
        2 => at().prop_map(Step::PopulatedClaim),
        2 => at().prop_map(Step::Source),
        1 => at().prop_map(Step::DeletePrime),
        1 => at().prop_map(Step::ForeignPrime),
        1 => at().prop_map(Step::BindEagerly),
        1 => at().prop_map(Step::ForeignClaim),
        2 => at().prop_map(Step::DeleteClaim),
        3 => at().prop_map(Step::Strip),
        3 => at().prop_map(Step::StartMachine),
        2 => at().prop_map(Step::StopMachine),
        2 => at().prop_map(Step::Race),
        1 => at().prop_map(Step::ForeignPod),
        1 => at().prop_map(Step::DeletePod),
        9 => (at(), turn()).prop_map(|(at, turn)| Step::Pod(at, turn)),
        1 => at().prop_map(Step::Quota),
        1 => Just(Step::Wait),
    ]
}

/// What the controllers do between two steps: rounds of either order, over what is or what was.
fn rounds() -> impl Strategy<Value = Vec<(bool, usize)>> {
    let lag = prop_oneof![2 => Just(0), 1 => 0_usize..8];
    vec((any::<bool>(), lag), 0..4)
}

fn beginning() -> impl Strategy<Value = Beginning> {
    prop_oneof![
        2 => Just(Beginning::Nothing),
        1 => Just(Beginning::Importing),
        2 => Just(Beginning::Filled),
        1 => Just(Beginning::FilledClaim),
        1 => Just(Beginning::Paused),
        2 => Just(Beginning::Populating),
        1 => Just(Beginning::Populated),
        2 => Just(Beginning::Resting),
    ]
}

/// Whether nobody has touched what is not ours.
fn foreign_things(server: &Server) -> Vec<Value> {
    let store = server.store();
    let foreign = store.objects.values().filter(|object| {
        noted(object, "keep").is_some() && noted(object, annotation::CREATED_FOR).is_none()
    });
    foreign.cloned().collect()
}

proptest! {
    #![proptest_config(cases())]

    /// Whatever happens in whatever order, with watches that lag: no worker beside a pod that mounts the
    /// claim, for a disk that is filled or for a checkpoint that was copied, or before the one that it
    /// goes on from; nothing foreign touched, and in the end there is peace.
    #[test]
    fn any_history_ends_in_peace_and_harms_nobody(
        beginning in beginning(),
        history in vec((step(), rounds(), any::<bool>()), 1..24),
    ) {
        runtime().block_on(async {
            let mut world = World::new();
            prop_assert!(world.begin(beginning).await.is_some());
            for (step, rounds, housekeeping) in history {
                world.step(step);
                for (claims_first, lag) in rounds {
                    world.round(claims_first, lag).await;
                }
                if housekeeping {
                    world.housekeeping();
                }
            }
            let foreign = foreign_things(&world.server);
            prop_assert!(world.settle(true).await.is_some(), "no end of it");
            let faults = world.server.store().faults.clone();
            prop_assert!(faults.is_empty(), "{faults:#?}");
            // Binding and deletion are others' work on it.
            prop_assert!(foreign_things(&world.server).len() <= foreign.len());
            Ok(())
        })?;
    }

    /// Of two imports one waits for the other, whatever else happens, and in the end neither waits.
    #[test]
    fn no_more_importers_than_may_be_are_at_work_and_everybodys_turn_comes(
        history in vec((step(), rounds(), any::<bool>()), 1..20),
    ) {
        runtime().block_on(async {
            let mut world = World::limited(1);
            for (step, rounds, housekeeping) in history {
                world.step(step);
                for (claims_first, lag) in rounds {
                    world.round(claims_first, lag).await;
                }
                if housekeeping {
                    world.housekeeping();
                }
            }
            prop_assert!(world.settle(true).await.is_some(), "no end of it");
            prop_assert!(world.complete().await.is_some(), "no end of it");
            prop_assert_eq!(world.queued(), 0);
            let faults = world.server.store().faults.clone();
            prop_assert!(faults.is_empty(), "{faults:#?}");
            Ok(())
        })?;
    }

    /// A controller that dies between any two writes, again and again, leaves nothing that one which
    /// never does would not.
    #[test]
    fn a_crash_between_any_two_writes_changes_nothing(
        beginning in beginning(),
        history in vec((step(), vec((any::<bool>(), 0_u32..5), 0..4)), 1..16),
    ) {
        runtime().block_on(async {
            let (mut whole, mut killed) = (World::new(), World::new());
            for world in [&mut whole, &mut killed] {
                prop_assert!(world.begin(beginning).await.is_some());
            }
            for (step, crashes) in history {
                for world in [&whole, &killed] {
                    world.step(step);
                }
                for (claims_first, life) in crashes {
                    killed.killed_round(claims_first, life).await;
                }
                for world in [&mut whole, &mut killed] {
                    prop_assert!(world.settle(true).await.is_some(), "no end of it");
                }
                prop_assert_eq!(whole.server.state(), killed.server.state(), "after {:?}", step);
            }
            let told = killed.ends_told();
            for event in whole.ends_told() {
                prop_assert!(told.contains(&event), "{event} was not told: {told:#?}");
            }
            let faults = killed.server.store().faults.clone();
            prop_assert!(faults.is_empty(), "{faults:#?}");
            Ok(())
        })?;
    }

    /// Where a history ends does not depend on which controller is faster.
    #[test]
    fn the_order_of_the_controllers_does_not_matter(history in vec(step(), 1..16)) {
        runtime().block_on(async {
            let (mut one, mut other) = (World::new(), World::new());
            for step in history {
                for (world, claims_first) in [(&mut one, true), (&mut other, false)] {
                    world.step(step);
                    prop_assert!(world.settle(claims_first).await.is_some(), "no end of it");
                }
                prop_assert_eq!(one.server.state(), other.server.state(), "after {:?}", step);
            }
            Ok(())
        })?;
    }
}

/// Wherever the controller died on the way to that, and whatever it left there.
#[test]
fn an_importer_goes_to_a_node_with_all_that_it_mounts() {
    for life in 0..6 {
        runtime().block_on(async {
            let mut world = World::new();
            world.step(Step::Claim(false));
            world.housekeeping();
            world.killed_round(true, life).await;
            assert!(world.settle(true).await.is_some(), "no end of it: {life}");
            let store = world.server.store();
            assert!(store.faults.is_empty(), "{life}: {:#?}", store.faults);
            let at = |kind: &str, name: &str| &store.objects[&key(kind, name)];
            let pod = at("pods", "importer-a");
            assert!(!is_held(pod), "{life}: {pod}");
            let copy = at("configmaps", "import-proxy-cm-a");
            let owner = copy.pointer("/metadata/ownerReferences/0/uid");
            assert_eq!(owner, pod.pointer("/metadata/uid"), "{life}");
        });
    }
}

/// Older servers do not know of gates, and webhooks may take them away.
#[test]
fn an_importer_that_nothing_holds_gets_what_it_mounts_too() {
    runtime().block_on(async {
        let mut world = World::new();
        world.server.store().gates = Gates::Dropped;
        world.step(Step::Claim(false));
        world.housekeeping();
        assert!(world.settle(true).await.is_some(), "no end of it");
        let store = world.server.store();
        let at = |kind: &str, name: &str| &store.objects[&key(kind, name)];
        let pod = at("pods", "importer-a");
        let copy = at("configmaps", "import-proxy-cm-a");
        let owner = copy.pointer("/metadata/ownerReferences/0/uid");
        assert_eq!(owner, pod.pointer("/metadata/uid"));
    });
}

#[test]
fn a_pod_of_settings_that_are_gone_makes_way_before_it_runs() {
    runtime().block_on(async {
        let mut world = World::limited(1);
        world.step(Step::Claim(false));
        world.housekeeping();
        let pod = json!({
            "metadata": {"name": "importer-a", "labels": {"cdi.kubevirt.io": "importer"},
                "ownerReferences": [{"kind": "PersistentVolumeClaim", "name": "a",
                    "uid": "persistentvolumeclaims-a-1"}]},
            "spec": {"containers": [], "schedulingGates": [{"name": object::SOLE_USER_GATE}],
                "volumes": [
                    {"name": "d", "persistentVolumeClaim": {"claimName": "a"}},
                    {"name": "proxy-certs", "configMap": {"name": "import-proxy-cm-a"}},
                ]},
        });
        drop(world.server.store().create("pods", &pod));
        assert!(world.settle(true).await.is_some(), "no end of it");
        let store = world.server.store();
        assert!(store.faults.is_empty(), "{:#?}", store.faults);
        let pod = &store.objects[&key("pods", "importer-a")];
        let mounts = pod["spec"]["volumes"].as_array().map(Vec::len);
        assert_eq!((is_held(pod), mounts), (false, Some(1)), "{pod}");
    });
}

/// Such rounds are the most by far.
#[test]
fn a_round_that_finds_nothing_to_do_asks_the_server_nothing() {
    let settled = [
        (Beginning::Importing, 0),
        (Beginning::Filled, 0),
        (Beginning::FilledClaim, 0),
        (Beginning::Paused, 0),
        // Whether what the claim is filled from is still there.
        (Beginning::Populating, 1),
    ];
    for (beginning, expected) in settled {
        runtime().block_on(async {
            let mut world = World::new();
            world.begin(beginning).await.unwrap();
            world.settle(true).await.unwrap();
            let before = world.server.store().requests;
            world.round(true, 0).await;
            let after = world.server.store().requests;
            assert_eq!(after - before, expected, "{beginning:?}");
        });
    }
}
