//! What holds for every history of them.

use proptest::collection::vec;
use proptest::prelude::*;

use super::people::{Sort, Step};
use super::{Round, World};
use crate::model::properties::{cases, runtime};

fn sort() -> impl Strategy<Value = Sort> {
    prop_oneof![
        Just(Sort::Recognized),
        Just(Sort::Unknown),
        Just(Sort::Manual)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let at = any::<bool>;
    prop_oneof![
        5 => (at(), sort()).prop_map(|(at, sort)| Step::Class(at, sort)),
        2 => at().prop_map(Step::DeleteClass),
        1 => at().prop_map(Step::Default),
        1 => at().prop_map(Step::Volume),
        1 => Just(Step::DeleteVolume),
        1 => at().prop_map(Step::SnapshotClass),
        1 => at().prop_map(Step::Profile),
        3 => (at(), at()).prop_map(|(at, says)| Step::EditProfile(at, says)),
        2 => at().prop_map(Step::SmallestClaim),
        1 => at().prop_map(Step::DeleteProfile),
        5 => (at(), at(), at()).prop_map(|(at, says, keeps)| Step::Installation(at, says, keeps)),
        3 => (at(), 0_u8..4).prop_map(|(at, which)| Step::EditSettings(at, which)),
        1 => at().prop_map(Step::EditAuthority),
        2 => at().prop_map(Step::EditStrategy),
        2 => at().prop_map(Step::Finalizer),
        3 => at().prop_map(Step::DeleteInstallation),
        2 => (0_u8..4).prop_map(Step::EditConfiguration),
        1 => Just(Step::DeleteConfiguration),
        2 => at().prop_map(Step::DataVolume),
        3 => prop_oneof![Just(None), at().prop_map(Some)].prop_map(Step::Operator),
        2 => at().prop_map(Step::Lease),
    ]
}

/// What the controllers do between two steps.
fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let lag = prop_oneof![2 => Just(0), 1 => 0_usize..6];
    let round = (0_usize..6, lag, any::<bool>()).prop_map(|(order, lag, unaware)| Round {
        order,
        lag,
        unaware,
    });
    vec(round, 0..4)
}

proptest! {
    #![proptest_config(cases())]

    /// Whatever happens in whatever order, with watches that lag: nothing foreign is touched, nothing is
    /// done in somebody else's cluster, and in the end all is as people were told that it would be.
    #[test]
    fn any_history_of_a_cluster_ends_as_people_were_told(
        history in vec((step(), rounds()), 1..24),
    ) {
        runtime().block_on(async {
            let mut world = World::new();
            for (step, rounds) in history {
                world.step(step);
                for round in rounds {
                    world.round(round).await;
                }
            }
            prop_assert!(world.settle(0).await.is_some(), "no end of it");
            let faults = world.server.store().faults.clone();
            prop_assert!(faults.is_empty(), "{faults:#?}");
            let wrong = world.wrong();
            prop_assert!(wrong.is_empty(), "{wrong:#?}");
            Ok(())
        })?;
    }

    /// A process that dies between any two writes, again and again, leaves nothing that one which never
    /// does would not.
    #[test]
    fn a_crash_between_any_two_writes_to_a_cluster_changes_nothing(
        history in vec((step(), vec((0_usize..6, 0_u32..5), 0..4)), 1..16),
    ) {
        runtime().block_on(async {
            let (mut whole, mut killed) = (World::new(), World::new());
            for (step, crashes) in history {
                for world in [&whole, &killed] {
                    world.step(step);
                }
                for (order, life) in crashes {
                    killed.killed_round(order, life).await;
                }
                for world in [&mut whole, &mut killed] {
                    prop_assert!(world.settle(0).await.is_some(), "no end of it");
                }
                prop_assert_eq!(whole.server.state(), killed.server.state(), "after {:?}", step);
            }
            let faults = killed.server.store().faults.clone();
            prop_assert!(faults.is_empty(), "{faults:#?}");
            Ok(())
        })?;
    }

    /// Where a history ends does not depend on which controller is faster.
    #[test]
    fn the_order_in_which_a_cluster_is_looked_at_does_not_matter(
        order in 1_usize..6,
        history in vec(step(), 1..16),
    ) {
        runtime().block_on(async {
            let (mut one, mut other) = (World::new(), World::new());
            for step in history {
                for (world, order) in [(&mut one, 0), (&mut other, order)] {
                    world.step(step);
                    prop_assert!(world.settle(order).await.is_some(), "no end of it");
                }
                prop_assert_eq!(one.server.state(), other.server.state(), "after {:?}", step);
            }
            Ok(())
        })?;
    }
}
