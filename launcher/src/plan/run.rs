//! Whether the machine is to run at all.

use longshore_crds::{FieldPath, VirtualMachine, virtual_machine::RunStrategy};

use super::{
    problem::{PlanError, ProblemKind},
    report::Report,
};

/// Refuses a machine that shall not run, or whose size lives in a cluster.
pub(super) fn check(vm: &VirtualMachine, report: &mut Report) -> Result<(), PlanError> {
    let spec_path = FieldPath::root().key("spec");
    let spec = &vm.spec;
    if let (Some(_), Some(_)) = (spec.running, spec.run_strategy) {
        report.problem(
            &spec_path.key("running"),
            ProblemKind::Contradicts {
                other: "spec.runStrategy",
            },
        );
    }
    let strategy = match (spec.run_strategy, spec.running) {
        (Some(strategy), _) => strategy,
        (None, Some(true)) => RunStrategy::Always,
        (None, Some(false)) => RunStrategy::Halted,
        (None, None) => {
            report.notice(
                &spec_path.key("runStrategy"),
                "neither runStrategy nor running is set, which a cluster refuses; the machine runs once",
            );
            RunStrategy::Once
        }
    };
    let unsupported = |what| ProblemKind::Unsupported {
        what,
        remedy: "write the resulting fields into the template (`virtctl expand` shows them)",
    };
    if spec.instancetype.is_some() {
        report.problem(
            &spec_path.key("instancetype"),
            unsupported("a size that lives in a cluster"),
        );
    }
    if spec.preference.is_some() {
        report.problem(
            &spec_path.key("preference"),
            unsupported("a preference that lives in a cluster"),
        );
    }
    match strategy {
        RunStrategy::Always
        | RunStrategy::RerunOnFailure
        | RunStrategy::Manual
        | RunStrategy::Once => Ok(()),
        RunStrategy::Halted | RunStrategy::WaitAsReceiver => Err(PlanError::NotToRun { strategy }),
    }
}
