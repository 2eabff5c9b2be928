//! What was typed, checked: after this nothing reads the arguments again.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use longshore_crds::Quantity;
use longshore_image::cluster::{ClusterCodec, Encoding};
use longshore_image::qcow2::write::{CLUSTER_SIZES, USUAL_CLUSTER_SIZE};
use longshore_image::vhd::SizeRule;
use longshore_image::{DenyAll, Format, OpenGate};
use longshore_importer::{
    BasicAuth, RegistryOptions, SourceOptions, parse_header, usual_auth_file,
};
use longshore_launcher::accel::Accel;
use longshore_transfer::{
    Cache, DirectoryGate, Journal, Memory, Options, Preallocate, Qcow2Spec, TargetFormat,
    TargetSpec,
};

use crate::args::{
    AccelArg, Args, BackingArg, CacheArg, Command, CompressionArg, ContentTypeArg, CopyArgs,
    FormatArg, ImageArgs, LookArgs, OutputArgs, PreallocateArg, ProgressArg, RegistryArgs,
    RemoteArgs, ResumeArgs, RunArgs, RunProgressArg, ToArg,
};
use crate::copy::{Content, Copy};
use crate::get::Get;
use crate::look::{Look, Onlooker};
use crate::progress::Mode;
use crate::purge::Purge;
use crate::run::{RunConfig, state_directory};
use crate::source::Place;
use crate::why::Why;

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Config {
    Info(Look),
    Map(Look),
    Copy(Box<Copy>),
    Run(Box<RunConfig>),
    Purge(Purge),
    Why(Why),
    Get(Get),
    Completions(clap_complete::Shell),
}

/// Arguments that make no sense, each well-formed by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    /// An amount that is no number of bytes.
    #[error("--{option} {amount}: this is not {expected}")]
    Amount {
        /// The option without its dashes.
        option: &'static str,
        /// What was given.
        amount: Quantity,
        /// What would be right.
        expected: &'static str,
    },
    /// `convert` reads what is here.
    #[error("convert reads files; `longshore import` fetches {address}")]
    ConvertRemote {
        /// What was given.
        address: String,
    },
    /// A pipe as the target.
    #[error("- is no target: a disk is written out of order; give a file or a block device")]
    StdoutTarget,
    /// An address as the target.
    #[error("{} is an address, and a target must be a file or a block device", path.display())]
    RemoteTarget {
        /// What was given.
        path: PathBuf,
    },
    /// Files beside something that is no file.
    #[error("--backing same-dir needs an image that is a file: {name} lies in no directory")]
    NoDirectory {
        /// The source.
        name: String,
    },
    /// A header that is none.
    #[error("--header is of the form 'Name: value'")]
    Header,
    /// Nobody said the password.
    #[error(
        "--user {user} has no password: write --user {user}:PASSWORD, or put it into LONGSHORE_PASSWORD"
    )]
    NoPassword {
        /// The user.
        user: String,
    },
    /// What only images with clusters have.
    #[error("--{option} is for images with clusters: add -O qcow2")]
    RawHasNone {
        /// The option without its dashes.
        option: &'static str,
    },
    /// Blocks inside an image.
    #[error("-O qcow2 goes with --preallocate off only: blocks are not set aside inside an image")]
    PreallocatedImage,
    /// A level that there is none of.
    #[error("--level {level}: this is not a level of compression")]
    Level {
        /// What was given.
        level: u8,
    },
    /// Imports are for running.
    #[error("an import makes a raw disk; `longshore convert -O qcow2` makes an image of one")]
    ImportIsRaw,
    /// Blank is blank.
    #[error("--{option} is for something that is read, and a blank disk is not")]
    BlankHasNone {
        /// The option without its dashes.
        option: &'static str,
    },
    /// Files are no disk.
    #[error("--{option} is for a disk, and the files of an archive make none")]
    FilesHaveNone {
        /// The option without its dashes.
        option: &'static str,
    },
    /// A target without a name.
    #[error("{} has no file name", path.display())]
    NoName {
        /// What was given.
        path: PathBuf,
    },
}

impl TryFrom<Args> for Config {
    type Error = UsageError;

    fn try_from(args: Args) -> Result<Self, UsageError> {
        Ok(match args.command {
            Command::Info(args) => {
                let denies = args.image.backing == BackingArg::Deny;
                let mut look = look(args)?;
                if denies {
                    // What an image is can be told without what it refers to.
                    look.options.gate = Arc::new(Onlooker);
                }
                Self::Info(look)
            }
            Command::Map(args) => Self::Map(look(args)?),
            Command::Convert(args) => {
                let place = Place::of(&args.source);
                if let Place::Remote(_) = place {
                    let address = place.name();
                    return Err(UsageError::ConvertRemote { address });
                }
                let sync = args.copy.sync;
                let mut copy = copy(args.copy, place, args.target, sync)?;
                output(args.output, &mut copy.target)?;
                Self::Copy(Box::new(copy))
            }
            Command::Import(args) => {
                let args = *args;
                if args.to != ToArg::Raw {
                    return Err(UsageError::ImportIsRaw);
                }
                let place = Place::of(&args.source);
                let denies = args.copy.image.backing == BackingArg::Deny;
                let mut copy = copy(args.copy, place, args.target, true)?;
                remote(args.remote, &mut copy.source_options)?;
                copy.target.size = args
                    .size
                    .map(|size| at_least_one("size", size, "the size of a disk"))
                    .transpose()?;
                copy.options.checksum = args.checksum;
                copy.target.journal = journal(args.resume, denies)?;
                copy.content = content(&args.source, args.content_type)?;
                if copy.content == Content::Blank && copy.options.checksum.is_some() {
                    return Err(UsageError::BlankHasNone { option: "checksum" });
                }
                if copy.content == Content::Files {
                    let target = &copy.target;
                    let given = [
                        (target.size.is_some(), "size"),
                        (target.preallocate != Preallocate::Off, "preallocate"),
                        (target.cache != Cache::Writeback, "cache"),
                    ];
                    if let Some((_, option)) = given.into_iter().find(|(given, _)| *given) {
                        return Err(UsageError::FilesHaveNone { option });
                    }
                }
                Self::Copy(Box::new(copy))
            }
            Command::Run(args) => Self::Run(Box::new(run(args))),
            Command::Purge(args) => Self::Purge(Purge {
                kubeconfig: args.kubeconfig,
                sure: args.yes,
            }),
            Command::Why(args) => Self::Why(args.into()),
            Command::Get(args) => Self::Get(args.into()),
            Command::Completions { shell } => Self::Completions(shell),
        })
    }
}

/// Nobody can tell whether files beside the image are later what they are now.
fn journal(args: ResumeArgs, denies: bool) -> Result<Option<Journal>, UsageError> {
    let ResumeArgs {
        no_resume,
        journal_dir,
        source_id,
        journal_step,
    } = args;
    let step = journal_step
        .map(|step| at_least_one("journal-step", step, "an amount of bytes"))
        .transpose()?;
    Ok((denies && !no_resume).then(|| Journal {
        directory: Some(journal_dir.unwrap_or_else(|| state_directory().join("journals"))),
        target_id: None,
        source_id,
        step,
    }))
}

fn look(args: LookArgs) -> Result<Look, UsageError> {
    let place = Place::of(&args.source);
    let mut source_options = SourceOptions {
        force_share: args.image.force_share,
        ..SourceOptions::default()
    };
    remote(args.remote, &mut source_options)?;
    Ok(Look {
        json: args.json,
        opens_references: args.image.backing == BackingArg::SameDir,
        source_options,
        options: options(args.image, &place)?,
        place,
    })
}

fn copy(args: CopyArgs, place: Place, path: PathBuf, sync: bool) -> Result<Copy, UsageError> {
    if path == Path::new("-") {
        return Err(UsageError::StdoutTarget);
    }
    if let Place::Remote(_) = Place::of(path.as_os_str()) {
        return Err(UsageError::RemoteTarget { path });
    }
    if path.file_name().is_none() {
        return Err(UsageError::NoName { path });
    }
    let force_share = args.image.force_share;
    let mut options = options(args.image, &place)?;
    options.spill_limit = bytes("spill-limit", args.spill_limit, "an amount of bytes")?;
    Ok(Copy {
        target: TargetSpec {
            format: TargetFormat::Raw,
            path,
            preallocate: match args.preallocate {
                PreallocateArg::Off => Preallocate::Off,
                PreallocateArg::Falloc => Preallocate::Falloc,
                PreallocateArg::Full => Preallocate::Full,
            },
            cache: match args.cache {
                CacheArg::Writeback => Cache::Writeback,
                CacheArg::None => Cache::None,
            },
            size: None,
            sync,
            force_share,
            journal: None,
        },
        options,
        source_options: SourceOptions {
            force_share,
            ..SourceOptions::default()
        },
        place,
        content: Content::Disk,
        progress: match args.progress {
            ProgressArg::Auto => Mode::Auto,
            ProgressArg::Json => Mode::Json,
            ProgressArg::Off => Mode::Off,
        },
    })
}

/// The word for a disk without a source.
const BLANK: &str = "blank:";

fn content(source: &OsStr, kind: ContentTypeArg) -> Result<Content, UsageError> {
    match (source == BLANK, kind) {
        (true, ContentTypeArg::Archive) => Err(UsageError::BlankHasNone {
            option: "content-type archive",
        }),
        (true, ContentTypeArg::Kubevirt) => Ok(Content::Blank),
        (false, ContentTypeArg::Archive) => Ok(Content::Files),
        (false, ContentTypeArg::Kubevirt) => Ok(Content::Disk),
    }
}

/// What is written.
fn output(args: OutputArgs, target: &mut TargetSpec) -> Result<(), UsageError> {
    let OutputArgs {
        to,
        compress,
        compression,
        level,
        cluster_size,
        size,
    } = args;
    target.size = size
        .map(|size| at_least_one("size", size, "the size of a disk"))
        .transpose()?;
    if to == ToArg::Raw {
        let given = [
            (compress, "compress"),
            (cluster_size.is_some(), "cluster-size"),
        ];
        return match given.into_iter().find(|(given, _)| *given) {
            Some((_, option)) => Err(UsageError::RawHasNone { option }),
            None => Ok(()),
        };
    }
    if target.preallocate != Preallocate::Off {
        return Err(UsageError::PreallocatedImage);
    }
    let cluster_size = cluster_size.map_or(Ok(USUAL_CLUSTER_SIZE), clusters)?;
    let codec = match compression {
        Some(CompressionArg::Zstd) => ClusterCodec::Zstd,
        Some(CompressionArg::Zlib) | None => ClusterCodec::Deflate,
    };
    let compression = if compress {
        let refused = |_| UsageError::Level {
            level: level.unwrap_or_default(),
        };
        Some(Encoding::new(codec, level).map_err(refused)?)
    } else {
        None
    };
    target.format = TargetFormat::Qcow2(Qcow2Spec {
        cluster_size,
        compression,
    });
    Ok(())
}

fn clusters(amount: Quantity) -> Result<u64, UsageError> {
    let (option, expected) = ("cluster-size", "a power of two from 512 to 2Mi");
    let size = bytes(option, amount.clone(), expected)?;
    if size.is_power_of_two() && CLUSTER_SIZES.contains(&size) {
        return Ok(size);
    }
    Err(UsageError::Amount {
        option,
        amount,
        expected,
    })
}

fn options(args: ImageArgs, place: &Place) -> Result<Options, UsageError> {
    let gate = gate(args.backing, place, args.force_share)?;
    let mut options = Options {
        from: args.from.map(|format| match format {
            FormatArg::Raw => Format::Raw,
            FormatArg::Qcow2 => Format::Qcow2,
            FormatArg::Qcow => Format::Qcow,
            FormatArg::Vmdk => Format::Vmdk,
            FormatArg::Vhd => Format::Vhd(SizeRule::Creator),
            FormatArg::VhdChs => Format::Vhd(SizeRule::Geometry),
            FormatArg::VhdCurrentSize => Format::Vhd(SizeRule::CurrentSize),
            FormatArg::Vdi => Format::Vdi,
            FormatArg::Parallels => Format::Parallels,
            FormatArg::Vhdx => Format::Vhdx,
        }),
        gate,
        ..Options::default()
    };
    if let Some(threads) = args.threads {
        options.threads = usize::from(threads);
    }
    if let Some(memory) = args.memory {
        options.memory = Memory::of(at_least_one("memory", memory, "an amount of memory")?);
    }
    Ok(options)
}

fn gate(
    backing: BackingArg,
    place: &Place,
    force_share: bool,
) -> Result<Arc<dyn OpenGate>, UsageError> {
    match (backing, place) {
        (BackingArg::Deny, _) => Ok(Arc::new(DenyAll)),
        (BackingArg::SameDir, Place::File(path)) => {
            Ok(Arc::new(DirectoryGate::beside(path, force_share)))
        }
        (BackingArg::SameDir, Place::Stdin(_)) => Err(UsageError::NoDirectory {
            name: "standard input".to_owned(),
        }),
        (BackingArg::SameDir, Place::Remote(_)) => {
            Err(UsageError::NoDirectory { name: place.name() })
        }
    }
}

/// What a server is told. The password of the environment is only for a user named here.
fn remote(args: RemoteArgs, options: &mut SourceOptions) -> Result<(), UsageError> {
    let RemoteArgs {
        ca,
        proxy_ca,
        connections,
        header,
        user,
        registry,
        objects,
    } = args;
    options.ca = ca;
    options.proxy_ca = proxy_ca;
    options.registry = registry_options(registry);
    objects.into_options(&mut options.objects);
    if let Some(most) = connections {
        options.connections = most.into();
    }
    for text in header {
        // The text stays out of the message: it may be all secret.
        let header = parse_header(&text).map_err(|_| UsageError::Header)?;
        options.headers.push(header);
    }
    let Some(user) = user else { return Ok(()) };
    let (user, password) = match user.split_once(':') {
        Some((user, password)) => (user.to_owned(), password.to_owned()),
        None => match std::env::var("LONGSHORE_PASSWORD") {
            Ok(password) => (user, password),
            Err(_) => return Err(UsageError::NoPassword { user }),
        },
    };
    options.basic_auth = Some(BasicAuth { user, password });
    Ok(())
}

fn registry_options(args: RegistryArgs) -> RegistryOptions {
    let RegistryArgs {
        platform,
        authfile,
        insecure_registry,
        registry_mirror,
    } = args;
    RegistryOptions {
        auth_file: authfile.or_else(usual_auth_file),
        platform,
        insecure: insecure_registry,
        mirrors: registry_mirror,
    }
}

fn run(args: RunArgs) -> RunConfig {
    let RunArgs {
        file,
        state,
        accel,
        timeout,
        set,
        reimport,
        allow_host_disks,
        progress,
    } = args;
    RunConfig {
        manifest: file,
        state,
        accel: match accel {
            AccelArg::Auto => Accel::Auto,
            AccelArg::Kvm => Accel::Kvm,
            AccelArg::Tcg => Accel::Tcg,
        },
        timeout: timeout.map(Duration::from_secs),
        overrides: set,
        reimport,
        allow_host_disks,
        progress: match progress {
            RunProgressArg::Auto => Mode::Auto,
            RunProgressArg::Off => Mode::Off,
        },
    }
}

fn bytes(
    option: &'static str,
    amount: Quantity,
    expected: &'static str,
) -> Result<u64, UsageError> {
    amount.to_u64().ok_or(UsageError::Amount {
        option,
        amount,
        expected,
    })
}

fn at_least_one(
    option: &'static str,
    amount: Quantity,
    expected: &'static str,
) -> Result<u64, UsageError> {
    match bytes(option, amount.clone(), expected)? {
        0 => Err(UsageError::Amount {
            option,
            amount,
            expected,
        }),
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests;
