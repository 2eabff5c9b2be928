//! What was typed, checked: after this nothing reads the arguments again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use longshore_crds::Quantity;
use longshore_image::{DenyAll, Format, OpenGate};
use longshore_transfer::{
    Cache, DirectoryGate, Memory, Options, Preallocate, TargetSpec,
};

use crate::args::{
    Args, BackingArg, CacheArg, Command, ContentTypeArg, CopyArgs, FormatArg, ImageArgs, LookArgs,
    PreallocateArg, ProgressArg,
};
use crate::copy::Copy;
use crate::look::Look;
use crate::progress::Mode;
use crate::source::Place;

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Config {
    Info(Look),
    Map(Look),
    Copy(Box<Copy>),
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
            Command::Info(args) => Self::Info(look(args)?),
            Command::Map(args) => Self::Map(look(args)?),
            Command::Convert(args) => {
                let place = Place::of(&args.source);
                if let Place::Remote(address) = place {
                    return Err(UsageError::ConvertRemote { address });
                }
                let sync = args.copy.sync;
                Self::Copy(Box::new(copy(args.copy, place, args.target, sync)?))
            }
            Command::Import(args) => {
                let place = Place::of(&args.source);
                let mut copy = copy(args.copy, place, args.target, true)?;
                copy.target.size = args
                    .size
                    .map(|size| at_least_one("size", size, "the size of a disk"))
                    .transpose()?;
                copy.options.checksum = args.checksum;
                copy.archive = args.content_type == ContentTypeArg::Archive;
                Self::Copy(Box::new(copy))
            }
            Command::Completions { shell } => Self::Completions(shell),
        })
    }
}

fn look(args: LookArgs) -> Result<Look, UsageError> {
    let place = Place::of(&args.source);
    Ok(Look {
        json: args.json,
        force_share: args.image.force_share,
        options: options(args.image, &place)?,
        place,
    })
}

fn copy(
    args: CopyArgs,
    place: Place,
    path: PathBuf,
    sync: bool,
) -> Result<Copy, UsageError> {
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
        },
        options,
        place,
        archive: false,
        progress: match args.progress {
            ProgressArg::Auto => Mode::Auto,
            ProgressArg::Json => Mode::Json,
            ProgressArg::Off => Mode::Off,
        },
    })
}

fn options(args: ImageArgs, place: &Place) -> Result<Options, UsageError> {
    let gate = gate(args.backing, place, args.force_share)?;
    let mut options = Options {
        from: args.from.map(|format| match format {
            FormatArg::Raw => Format::Raw,
            FormatArg::Qcow2 => Format::Qcow2,
            FormatArg::Vmdk => Format::Vmdk,
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
        (BackingArg::SameDir, Place::Stdin) => Err(UsageError::NoDirectory {
            name: "standard input".to_owned(),
        }),
        (BackingArg::SameDir, Place::Remote(address)) => Err(UsageError::NoDirectory {
            name: address.clone(),
        }),
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
