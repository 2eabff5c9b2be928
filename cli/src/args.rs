//! What was typed: the command line as clap reads it, and the help that teaches it.
//!
//! Nothing is decided here. `config` checks what was typed and turns it into what can be done.

mod cluster;
mod objects;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use longshore_crds::Quantity;
use longshore_crds::manifest::Override;
use longshore_importer::{InsecureHost, Mirror, Platform};
use longshore_transfer::Checksum;

use self::cluster::{GetArgs, WhyArgs};
use self::objects::ObjectArgs;

const ABOUT: &str = "\
Longshore brings virtual machine disks where they are needed, and boots them.

It reads raw, qcow2, qcow, VMDK, VHD, VHDX, VDI and Parallels images, wrapped in gz, xz, zst or bz2 or
not, from files, pipes, web servers, object stores and container images, and writes raw files, block
devices or qcow2 images: each byte is read once and written once, holes stay holes.";

const EXAMPLES: &str = "\
Examples:
  longshore info disk.qcow2
  longshore convert disk.qcow2.xz disk.raw
  longshore convert -O qcow2 --compress disk.vmdk disk.qcow2
  longshore import https://example.org/disk.qcow2 disk.raw --size 20Gi
  longshore run -f vm.yaml
  longshore why dv disk
  longshore get dv -w

Exit codes:
  0  done
  1  the work failed or was interrupted; the cause is on standard error
  2  wrong usage
  3  the image was refused: malformed, unsupported, or not allowed
  4  the target is too small or full

`longshore COMMAND --help` has examples for each command.";

/// Bring virtual machine disks where they are needed, and boot them
#[derive(Debug, Parser)]
#[command(name = "longshore", version, long_about = ABOUT, after_long_help = EXAMPLES)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Args {
    /// Say more on standard error (-v: decisions, -vv: steps)
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what an image is, without copying it
    #[command(after_long_help = INFO_EXAMPLES)]
    Info(LookArgs),
    /// List where an image has data, and where it has none
    #[command(after_long_help = MAP_EXAMPLES)]
    Map(LookArgs),
    /// Make a raw disk or a qcow2 image of an image
    #[command(after_long_help = CONVERT_EXAMPLES)]
    Convert(ConvertArgs),
    /// Fetch an image and make a raw disk of it
    #[command(after_long_help = IMPORT_EXAMPLES)]
    Import(Box<ImportArgs>),
    /// Import the disks of a manifest and boot its virtual machine, without Kubernetes
    #[command(after_long_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Take our kinds off a Kubernetes cluster, once there is no data volume
    #[command(after_long_help = PURGE_EXAMPLES)]
    Purge(PurgeArgs),
    /// Tell what a data volume or a claim waits for, and what to do about it
    #[command(after_long_help = cluster::WHY_EXAMPLES)]
    Why(WhyArgs),
    /// Show data volumes of a cluster with bytes, rate and time left
    #[command(after_long_help = cluster::GET_EXAMPLES)]
    Get(GetArgs),
    /// Print a shell's completions for this command
    #[command(after_long_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        #[arg(value_parser = clap::builder::EnumValueParser::<Shell>::new())]
        shell: Shell,
    },
}

const INFO_EXAMPLES: &str = "\
Examples:
  longshore info disk.qcow2
  longshore info --json https://example.org/disk.vmdk | jq .virtualSize
  zcat disk.raw.gz | longshore info --from raw -
  longshore info appliance.ova                  # lists its disks
  longshore info appliance.ova#vmdisk1

Files that the image names (a backing file) are shown, and not opened unless --backing same-dir
lets them in. A compressed or streamed image is read only as far as its header: what would take
more says so (`allocatedBytes` is null then, with the reason beside it).

With --json, an image that is refused is described as well, under `refused`; the exit code is 3.";

const MAP_EXAMPLES: &str = "\
Examples:
  longshore map disk.qcow2
  longshore map --json disk.qcow2 | jq 'map(select(.data) | .length) | add'

The JSON is a list with one extent a line, as `qemu-img map --output=json` prints it: start,
length, depth (0 is the image itself, 1 its backing file), present, zero, data, compressed, and
offset where the bytes lie in the file (not if there are several). If the image turns out damaged
half-way, the list is not closed and the exit code is 3.";

const CONVERT_EXAMPLES: &str = "\
Examples:
  longshore convert disk.qcow2 disk.raw
  longshore convert disk.vmdk.gz /dev/vg0/vm1 --sync
  ssh host cat disk.qcow2 | longshore convert - disk.raw --spill-limit 10Gi
  longshore convert overlay.qcow2 disk.raw --backing same-dir
  longshore convert -O qcow2 --compress --compression zstd disk.raw disk.qcow2

The format is found out from the image's content; --from says it instead, and is the safe choice
for a raw disk that a guest has written (a guest can make it look like anything). A VHD is as large
as qemu-img takes it for, or as --from vhd:chs (its geometry) or vhd:current-size says.

A file is written as .OUT.partial and gets its name when it is whole; on failure nothing is left.
A block device gets its first MiB last, so that a partial disk neither boots nor probes.

With -O qcow2 the image is of version 3 (compat 1.1), and what is zero has no clusters. Its tables
precede its data, so that it can be read from a pipe in turn. --compress compresses on all threads;
clusters that become no smaller stay as they are. qcow2 is written to files only, and --preallocate
off is its only mode. --size makes the disk larger than the image.

--progress json prints one JSON object a line on standard output: {\"event\":\"progress\",
fraction, phase, read, written, rate, etaSeconds}, and at the end {\"event\":\"done\", ...} or
{\"event\":\"error\", reason, message, exitCode}. The fraction never falls, is null while nothing
tells the whole, and is 1 only when the disk is complete. Nobody needs to read it: a closed
standard output changes nothing.

SIGINT and SIGTERM stop the work and remove what is partial; the exit code is 1.";

const IMPORT_EXAMPLES: &str = "\
Examples:
  longshore import https://example.org/disk.qcow2 disk.raw
  longshore import https://example.org/disk.img.xz disk.raw --size 20Gi --checksum sha256:9f86d0...
  longshore import https://registry.lan/disk.qcow2 /dev/vg0/vm1 --ca lan.pem --user ann
  curl -s https://example.org/disk.raw | longshore import - disk.raw
  longshore import https://example.org/appliance.ova#vmdisk1 disk.raw
  longshore import https://example.org/files.tar.gz directory --content-type archive
  longshore import blank: disk.raw --size 20Gi
  longshore import 'nbd+unix:///?socket=/run/vm.sock' disk.raw
  longshore import docker://quay.io/containerdisks/fedora:43 disk.raw
  longshore import oci-archive:fedora.tar disk.raw --platform linux/arm64
  longshore import s3://images/disk.qcow2 disk.raw --region eu-west-1
  longshore import s3://images/disk.qcow2 disk.raw --endpoint https://minio.lan:9000 --ca lan.pem
  longshore import gs://images/disk.qcow2 disk.raw

SOURCE is an http:// or https:// address, a file, - for standard input, an object of a store, a container
image, or a disk on a server.

An object of S3 is s3://bucket/key, one of Google Cloud Storage gs://bucket/object. A key is written as it is stored, nothing in it is decoded. S3 is shown the keys in
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, else those of the profile AWS_PROFILE in
~/.aws/credentials, of AWS_ROLE_ARN with AWS_WEB_IDENTITY_TOKEN_FILE, of a container's agent, or of the
instance's role. Google is shown a token for the key in GOOGLE_APPLICATION_CREDENTIALS, for a login of
gcloud, or for the machine's account. Where there are none, or with --anonymous, nothing is shown. What runs
out on the way is renewed.

A container image has one file in its directory disk: docker://HOST/REPOSITORY[:TAG][@DIGEST], or in
files oci-archive:PATH[:TAG], oci:DIRECTORY[:TAG], docker-archive:PATH[:TAG]. All of its digests are
checked; credentials for it are --user's or those of --authfile.

A disk on an NBD server is nbd://host:port/export or nbd+unix:///export?socket=PATH. It is raw, whatever it
looks like, unless --from says otherwise; what the server says is zero is not read. A disk of a VMware machine is
vddk://USER@SERVER/?uuid=UUID&file=[DATASTORE] PATH&thumbprint=AA:BB:..., with the password in
LONGSHORE_PASSWORD, and takes nbdkit with its vddk plugin and VMware's own library (libdir=DIR); with
&snapshot=ID it is what it was then, and &snapshot=ID&previous=ID (or a changeId) applies what changed. A disk of
oVirt is imageio://USER@ENGINE/DISK-ID, or with ?snapshot=ID what it was then; ?snapshot=ID&previous=ID and
?backup=ID apply what changed to an OUT that has the rest.

The digest of --checksum is that of the bytes as they are served; of an archive (.ova, .tar), that of the
disk's file in it, which is also checked against the archive's manifest. The password of --user can be left to the
environment: LONGSHORE_PASSWORD.

--size is what the disk has in the end, and must not be less than the image's virtual size (exit
code 4).

With --content-type archive SOURCE is a tar, compressed or not, and OUT a directory, which is made if
it is not there. All of it appears when all of it is durable, under names that are free. What would
reach beyond the directory (absolute names, .., links) or is more than a file (devices, setuid bits)
is refused or left out; files stay sparse and belong to whoever runs this.

The source blank: is none: the disk is zeros, sparse unless --preallocate. A block device is left as
it is without --preallocate, as a blank claim is what its provisioner gave.

An import is durable (fsync) when it ends with exit code 0. For the target, progress and signals
see `longshore convert --help`.

An import that was killed, interrupted, or failed for a reason that can pass (the server, the
network, no space left) goes on where it was when the same command is run again: what is on
storage is written down in .OUT.longshore-journal, beside .OUT.partial. Of a server with ranges
only what is missing is fetched; other sources are read again and not written again. If the
source, the target or an option is another, the import starts over and says what differs; so it
does for a source that can't be told from a later state of it (no ETag or Last-Modified, standard
input, a device, a disk in use on a server; for the last two --source-id helps), and with --backing
same-dir. An image that is refused, a wrong digest, and a source that changes leave nothing. The
progress event has `resumed`, the bytes of the disk that were there, and `rereads` if what came of
them is read again; the error event has `resumable`.";

const RUN_EXAMPLES: &str = "\
Examples:
  longshore run -f vm.yaml
  longshore run -f vm.yaml --accel tcg --timeout 600
  longshore run -f vm.yaml --set spec.template.spec.domain.memory.guest=2Gi
  longshore run -f vm.yaml --reimport demo-root

The manifest has one VirtualMachine (or VirtualMachineInstance) of kubevirt.io/v1, and the
DataVolumes, Secrets and ConfigMaps it refers to; what has no effect here is said on standard
error.

Each data volume is imported once, into disks/NAME.img of the state directory, and kept: later
runs need no network. Raising its size in the manifest grows the disk. Where the manifest names
another source now, a disk that no machine has used yet is imported again; one that was used is
never overwritten unless --reimport names it.

The state directory is --state, or else $XDG_STATE_HOME/longshore/NAMESPACE/NAME (~/.local/state
where that is not set, ./.longshore where there is no home). One run uses it at a time. Whatever
moment a run is killed at, the next one continues from there.

The guest's serial console is on standard output, and typed to on a terminal (Ctrl+] gives it
back). SIGTERM and SIGINT press the power button; a second signal cuts the power. The exit code is
0 if the guest powered off, else 1; importing ends with 3 and 4 as `longshore import` does.";

const PURGE_EXAMPLES: &str = "\
Examples:
  kubectl delete -f deploy/longshore.yaml
  longshore purge          # only says what would be deleted
  longshore purge --yes

Deletes the definitions of all kinds of cdi.kubevirt.io (DataVolume, CDI, CDIConfig, StorageProfile and
the three sources of claims) with all their objects, with the rights that the kubeconfig gives. With the
last definition every claim goes that a DataVolume owns, so it refuses (exit code 1) while there is a
DataVolume in any namespace, and while the controller or upstream's operator is installed.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  longshore completions bash > /etc/bash_completion.d/longshore
  longshore completions zsh > \"${fpath[1]}/_longshore\"
  longshore completions fish > ~/.config/fish/completions/longshore.fish";

/// Taking our kinds off a cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct PurgeArgs {
    /// How to reach the cluster; as kubectl does if not given
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Delete, and do not only say what would be deleted
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Looking at an image.
#[derive(Debug, clap::Args)]
pub(crate) struct LookArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) image: ImageArgs,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
    /// A file, a block device, an http(s)://, s3://, gs:// or nbd:// address, a container image (docker://,
    /// oci-archive:), or - for standard input
    #[arg(value_name = "IMAGE|URL")]
    pub(crate) source: OsString,
}

/// How an image is to be opened.
#[derive(Debug, clap::Args)]
pub(crate) struct ImageArgs {
    /// Take the image as this format, whatever its content looks like
    #[arg(long, value_name = "FMT")]
    pub(crate) from: Option<FormatArg>,
    /// Whether files that the image names may be opened: never, or if they lie beside it
    #[arg(long, default_value = "deny", value_name = "WHICH")]
    pub(crate) backing: BackingArg,
    /// Open images that another process is using
    #[arg(long)]
    pub(crate) force_share: bool,
    /// Memory to use, such as 64Mi [default: 112Mi, or nine tenths of the cgroup's limit]
    #[arg(long, value_name = "QTY")]
    pub(crate) memory: Option<Quantity>,
    /// Threads to decode with [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    Raw,
    Qcow2,
    Qcow,
    Vmdk,
    /// VHD, its size by who made it
    #[value(alias = "vpc")]
    Vhd,
    /// VHD, its size by its geometry
    #[value(name = "vhd:chs", alias = "vpc:chs")]
    VhdChs,
    /// VHD, its size by its current size
    #[value(name = "vhd:current-size", alias = "vpc:current-size")]
    VhdCurrentSize,
    Vdi,
    Parallels,
    Vhdx,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackingArg {
    Deny,
    SameDir,
}

/// What `convert` and `import` share.
#[derive(Debug, clap::Args)]
pub(crate) struct CopyArgs {
    #[command(flatten)]
    pub(crate) image: ImageArgs,
    /// Blocks for what is zero: none, set aside, or written
    #[arg(long, default_value = "off", value_name = "HOW")]
    pub(crate) preallocate: PreallocateArg,
    /// Write through the page cache, or past it
    #[arg(long, default_value = "writeback", value_name = "MODE")]
    pub(crate) cache: CacheArg,
    /// Most bytes of a stream that may wait in a file for tables that come after their data
    #[arg(long, default_value = "1Gi", value_name = "QTY")]
    pub(crate) spill_limit: Quantity,
    /// A bar on a terminal, JSON lines on standard output, or nothing
    #[arg(long, default_value = "auto", value_name = "HOW")]
    pub(crate) progress: ProgressArg,
    /// End only when the disk is durable (import always does)
    #[arg(long)]
    pub(crate) sync: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PreallocateArg {
    Off,
    Falloc,
    Full,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CacheArg {
    Writeback,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressArg {
    Auto,
    Json,
    Off,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ConvertArgs {
    #[command(flatten)]
    pub(crate) copy: CopyArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// The image: a file, a block device, or - for standard input
    #[arg(value_name = "IN")]
    pub(crate) source: OsString,
    /// A file to make or replace, or (raw only) a block device to fill
    #[arg(value_name = "OUT")]
    pub(crate) target: PathBuf,
}

/// What `convert` writes.
#[derive(Debug, clap::Args)]
pub(crate) struct OutputArgs {
    /// Format to write
    #[arg(short = 'O', long = "to", visible_alias = "output-format")]
    #[arg(default_value = "raw", value_name = "FMT")]
    pub(crate) to: ToArg,
    /// Compress clusters (qcow2)
    #[arg(short = 'c', long)]
    pub(crate) compress: bool,
    /// How to compress [default: zlib]
    #[arg(long, requires = "compress", value_name = "TYPE")]
    pub(crate) compression: Option<CompressionArg>,
    /// How hard to compress, 1 to 9 [default: 5 for zlib, 3 for zstd]
    #[arg(long, requires = "compress", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) level: Option<u8>,
    /// Bytes per cluster (qcow2), a power of two from 512 to 2Mi [default: 64Ki]
    #[arg(long, value_name = "QTY")]
    pub(crate) cluster_size: Option<Quantity>,
    /// Size of the resulting disk, such as 20Gi [default: the image's virtual size]
    #[arg(long, value_name = "QTY")]
    pub(crate) size: Option<Quantity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ToArg {
    Raw,
    Qcow2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressionArg {
    Zlib,
    Zstd,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// Taken to say that an import is always raw
    #[arg(short = 'O', long = "to", hide = true, default_value = "raw")]
    pub(crate) to: ToArg,
    /// Size of the resulting disk, such as 20Gi [default: the image's virtual size]
    #[arg(long, value_name = "QTY")]
    pub(crate) size: Option<Quantity>,
    /// Digest of the source's bytes (md5, sha1, sha256 or sha512)
    #[arg(long, value_name = "ALGO:HEX")]
    pub(crate) checksum: Option<Checksum>,
    /// Disk image, or archive of files
    #[arg(long, default_value = "kubevirt", value_name = "TYPE")]
    pub(crate) content_type: ContentTypeArg,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
    #[command(flatten)]
    pub(crate) copy: CopyArgs,
    #[command(flatten)]
    pub(crate) resume: ResumeArgs,
    /// An http(s)://, s3://, gs:// or nbd:// address, a container image (docker://, oci-archive:), a file,
    /// - for standard input, or blank: for none
    #[arg(value_name = "SOURCE")]
    pub(crate) source: OsString,
    /// A raw file to make or replace, a block device to fill, or a directory for an archive's files
    #[arg(value_name = "OUT")]
    pub(crate) target: PathBuf,
}

/// Going on with an import that ended early.
#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    /// Start from the beginning, and leave nothing behind if the import ends early
    #[arg(long)]
    pub(crate) no_resume: bool,
    /// Where the journal is kept if OUT is a block device [default: journals/ of the state directory]
    #[arg(long, value_name = "DIR", conflicts_with = "no_resume")]
    pub(crate) journal_dir: Option<PathBuf>,
    /// What you call the present state of SOURCE, where it does not say itself (a block device, a disk on
    /// an NBD server): an import of what has the same name goes on where it was
    #[arg(long, value_name = "NAME", conflicts_with = "no_resume")]
    pub(crate) source_id: Option<String>,
    /// Write down what is done after so many bytes of the disk, whatever it costs
    #[arg(long, value_name = "QTY", hide = true)]
    pub(crate) journal_step: Option<Quantity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContentTypeArg {
    Kubevirt,
    Archive,
}

/// What a server wants to see.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct RemoteArgs {
    /// Certificates to trust in addition, as PEM (may be given more than once)
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Vec<PathBuf>,
    /// The same for a proxy, and for what it shows in the name of servers
    #[arg(long, value_name = "FILE")]
    pub(crate) proxy_ca: Vec<PathBuf>,
    /// Most connections to a server at the same time [default: 16]; with 1 all comes as one stream
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) connections: Option<u16>,
    /// A header to send, as 'Name: value' (may be given more than once)
    #[arg(long, value_name = "K: V")]
    pub(crate) header: Vec<String>,
    /// User for basic authentication
    #[arg(long, value_name = "USER[:PASSWORD]")]
    #[arg(
        help = "User for basic authentication; the password can be in LONGSHORE_PASSWORD instead"
    )]
    pub(crate) user: Option<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) objects: ObjectArgs,
}

/// What a registry of container images wants to see besides.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Container images")]
pub(crate) struct RegistryArgs {
    /// Which image of several, such as linux/arm64 [default: this machine's platform]
    #[arg(long, value_name = "[OS/]ARCH[/VARIANT]")]
    pub(crate) platform: Option<Platform>,
    /// Credentials as docker login writes them, or a dockerconfigjson [default: where docker and podman
    /// keep theirs]
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
    /// A registry whose certificate is not checked, and that may speak plain HTTP (may be given more
    /// than once)
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) insecure_registry: Vec<InsecureHost>,
    /// A registry to ask first, for all images or those of one registry (may be given more than once)
    #[arg(long, value_name = "[REGISTRY=]HOST[/PREFIX]")]
    pub(crate) registry_mirror: Vec<Mirror>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The manifest, or - for standard input
    #[arg(short, long, value_name = "MANIFEST")]
    pub(crate) file: PathBuf,
    /// Directory for the machine's disks and sockets
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// How the guest's processors run; auto takes KVM only where it runs guests at speed
    #[arg(long, default_value = "auto", value_name = "HOW")]
    pub(crate) accel: AccelArg,
    /// End everything after this many seconds, imports included (exit code 1)
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: Option<u64>,
    /// Change a field of the machine, such as spec.template.spec.domain.cpu.cores=2
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<Override>,
    /// Import this data volume anew: what is on its disk is lost
    #[arg(long, value_name = "NAME")]
    pub(crate) reimport: Vec<String>,
    /// Let the manifest's hostDisk volumes use files of this host
    #[arg(long)]
    pub(crate) allow_host_disks: bool,
    /// Progress of imports: a bar on a terminal, or nothing
    #[arg(long, default_value = "auto", value_name = "HOW")]
    pub(crate) progress: RunProgressArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AccelArg {
    Auto,
    Kvm,
    Tcg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunProgressArg {
    Auto,
    Off,
}
