//! What is asked of a cluster.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::cluster::Access;
use crate::get::{Get, Place};
use crate::why::{Kind, Why};

pub(super) const WHY_EXAMPLES: &str = "\
Examples:
  longshore why dv disk
  longshore why dv disk -n vms --json
  longshore why pvc disk

Looks at the DataVolume, its claim, the claim that is filled in its place, the importer's pod, what
was told about all of these, the controller and the StorageClasses, and tells what is in the way: the
newest cause first, each with what to do about it, and at the end the next command to type. Nothing
is changed.

It asks with your rights: those of a namespace's user (the role view) are enough for most answers.
What you may not read is gone around, and named under `not read`.

With --json it is one object: kind, namespace, name, state (done, working, waiting, failed, ending,
missing, unknown), phase, summary, causes (about, reason, message, advice, since, next), remarks,
unread and next. The exit code is 1 if there is no such object, or nothing could be found out.";

pub(super) const GET_EXAMPLES: &str = "\
Examples:
  longshore get dv
  longshore get dv -w -A
  longshore get dv disk -n vms --json | jq '.items[0].transfer.rate'

On a terminal -w draws the table over itself until it is interrupted; elsewhere it prints a line for
each change, with --json an object a line. READ, RATE and LEFT are what the importer said last; the
controller writes them down with each percent, or every ten seconds.

With --json without -w it is one object with `items`, each with namespace, name, phase, progress,
restarts, reason and message, and while it runs `transfer`: percent, read, written, size, rate
(bytes, in a second) and etaSeconds, or `unknown` with the reason why nothing is known.";

/// Which cluster, and where in it.
#[derive(Debug, clap::Args)]
pub(crate) struct ClusterArgs {
    /// How to reach the cluster; as kubectl does if not given
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Which context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// The namespace [default: the one of the kubeconfig]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WhyKind {
    #[value(name = "dv", aliases = ["datavolume", "datavolumes"])]
    DataVolume,
    #[value(name = "pvc", aliases = ["claim", "persistentvolumeclaim", "persistentvolumeclaims"])]
    Claim,
}

/// Asking what something waits for.
#[derive(Debug, clap::Args)]
pub(crate) struct WhyArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// dv for a data volume, pvc for a claim
    #[arg(value_name = "KIND")]
    kind: WhyKind,
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
}

impl From<WhyArgs> for Why {
    fn from(args: WhyArgs) -> Self {
        Self {
            access: Access {
                kubeconfig: args.cluster.kubeconfig,
                context: args.cluster.context,
            },
            namespace: args.cluster.namespace,
            kind: match args.kind {
                WhyKind::DataVolume => Kind::DataVolume,
                WhyKind::Claim => Kind::Claim,
            },
            name: args.name,
            json: args.json,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GetKind {
    #[value(name = "dv", aliases = ["dvs", "datavolume", "datavolumes"])]
    DataVolumes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputArg {
    Table,
    Json,
}

/// Looking at several.
#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// In all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Go on showing them until interrupted
    #[arg(short, long)]
    watch: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The same as --json, as kubectl has it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: OutputArg,
    /// dv
    #[arg(value_name = "KIND")]
    kind: GetKind,
    /// Only these
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

impl From<GetArgs> for Get {
    fn from(args: GetArgs) -> Self {
        Self {
            access: Access {
                kubeconfig: args.cluster.kubeconfig,
                context: args.cluster.context,
            },
            place: match args.cluster.namespace {
                _ if args.all_namespaces => Place::Everywhere,
                Some(name) => Place::Namespace(name),
                None => Place::Usual,
            },
            names: args.names,
            watch: args.watch,
            json: args.json || args.output == OutputArg::Json,
        }
    }
}
