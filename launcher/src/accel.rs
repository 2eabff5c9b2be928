//! Which accelerator runs a guest: the choice, its reason, and the memory of it.
//!
//! That `/dev/kvm` exists, opens and creates virtual machines says little: on nested, paravirtual
//! hosts it does all of that and yet emulates every instruction of an ordinary guest, at a speed at
//! which Linux never finishes booting. So `auto` times a short loop on a vCPU of its own
//! ([`probe`]) and takes KVM only where the loop runs at the speed of hardware. The verdict is kept
//! per boot of the host ([`cache`]): neither the kernel nor the device changes before the next one.
//!
//! This module does not know QEMU; the plan turns an [`Accelerator`] into arguments.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub mod cache;
pub mod probe;

use crate::chain::chain;
use probe::{LOOP_ITERATIONS, Outcome, ProbeError};

/// Where the kernel offers KVM.
pub const DEVICE: &str = "/dev/kvm";

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accel {
    /// KVM where it runs guests at speed, else TCG.
    #[default]
    Auto,
    /// KVM, or an error where its device cannot be opened.
    Kvm,
    /// QEMU's own translator, which runs everywhere.
    Tcg,
}

/// What QEMU is told to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    Tcg,
}

impl Accelerator {
    /// The name as QEMU's `-accel` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no accelerator.
#[derive(Debug, thiserror::Error)]
#[error("unknown accelerator {word:?}: one of auto, kvm, tcg")]
pub struct UnknownAccel {
    pub word: String,
}

impl FromStr for Accel {
    type Err = UnknownAccel;

    fn from_str(word: &str) -> Result<Self, UnknownAccel> {
        match word {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            _ => Err(UnknownAccel {
                word: word.to_owned(),
            }),
        }
    }
}

/// The accelerator to use and why; `Display` is the line shown to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub accelerator: Accelerator,
    pub reason: Reason,
    /// Measured earlier in this boot of the host, not now.
    pub cached: bool,
}

/// Why an accelerator was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The user said so.
    Forced,
    /// The loop ran at the speed of hardware.
    Fast { took: Duration },
    /// The loop crawled: the device emulates.
    Slow { iterations: u64, ran: Duration },
    /// There is no device.
    NoDevice,
    /// The device is there but cannot be used; the text is the whole chain of causes.
    Unusable { cause: String },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accelerator = self.accelerator;
        match &self.reason {
            Reason::Forced => write!(f, "using {accelerator} as told"),
            Reason::Fast { took } => {
                write!(
                    f,
                    "kvm runs at speed ({took:.1?} for the probe loop); using {accelerator}"
                )
            }
            Reason::Slow { iterations, ran } => write!(
                f,
                "kvm device emulates: {iterations} of {LOOP_ITERATIONS} loop iterations in {} ms, \
                 where real hardware takes a few ms for all of them; using {accelerator}",
                ran.as_millis()
            ),
            Reason::NoDevice => write!(f, "no kvm device ({DEVICE}); using {accelerator}"),
            Reason::Unusable { cause } => {
                write!(f, "kvm device is unusable ({cause}); using {accelerator}")
            }
        }?;
        if self.cached {
            f.write_str(" (measured earlier in this boot)")
        } else {
            Ok(())
        }
    }
}

/// KVM was demanded and cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccelError {
    #[error("kvm was demanded but there is no {}; use tcg or auto", device.display())]
    NoDevice { device: PathBuf },
    #[error("kvm was demanded but {} cannot be opened", device.display())]
    Unusable {
        device: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl AccelError {
    /// The word for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoDevice { .. } => "KvmMissing",
            Self::Unusable { .. } => "KvmUnusable",
        }
    }
}

/// Decides, probing or remembering as needed. Blocks for up to half a second on hosts whose KVM crawls.
///
/// Without a `cache` file (see [`cache::default_path`]) every call with [`Accel::Auto`] measures anew.
pub fn resolve(wanted: Accel, cache: Option<&Path>) -> Result<Verdict, AccelError> {
    resolve_on(Path::new(DEVICE), wanted, cache)
}

fn resolve_on(device: &Path, wanted: Accel, cache: Option<&Path>) -> Result<Verdict, AccelError> {
    match wanted {
        Accel::Tcg => Ok(forced(Accelerator::Tcg)),
        Accel::Kvm => demand(device).map(|()| forced(Accelerator::Kvm)),
        Accel::Auto => Ok(automatic(device, cache)),
    }
}

fn forced(accelerator: Accelerator) -> Verdict {
    Verdict {
        accelerator,
        reason: Reason::Forced,
        cached: false,
    }
}

fn demand(device: &Path) -> Result<(), AccelError> {
    match std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(device)
    {
        Ok(_) => Ok(()),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Err(AccelError::NoDevice {
            device: device.to_owned(),
        }),
        Err(source) => Err(AccelError::Unusable {
            device: device.to_owned(),
            source,
        }),
    }
}

fn automatic(device: &Path, cache: Option<&Path>) -> Verdict {
    let key = cache::Key::of(device);
    let remembered = cache
        .zip(key.as_ref())
        .and_then(|(file, key)| cache::load(file, key));
    if let Some(outcome) = remembered {
        return judged(outcome, true);
    }
    match probe::run(device) {
        Ok(outcome) => {
            if let Some((file, key)) = cache.zip(key)
                && let Err(error) = cache::store(file, key, outcome)
            {
                // Measuring again next time costs half a second at most.
                tracing::debug!(file = %file.display(), %error, "kvm verdict not remembered");
            }
            judged(outcome, false)
        }
        Err(ProbeError::NoDevice) => tcg(Reason::NoDevice),
        // Not remembered: permissions and limits change within a boot.
        Err(error) => tcg(Reason::Unusable {
            cause: chain(&error),
        }),
    }
}

fn judged(outcome: Outcome, cached: bool) -> Verdict {
    let (accelerator, reason) = match outcome {
        Outcome::Fast { took } => (Accelerator::Kvm, Reason::Fast { took }),
        Outcome::Slow { iterations, ran } => (Accelerator::Tcg, Reason::Slow { iterations, ran }),
    };
    Verdict {
        accelerator,
        reason,
        cached,
    }
}

fn tcg(reason: Reason) -> Verdict {
    Verdict {
        accelerator: Accelerator::Tcg,
        reason,
        cached: false,
    }
}

#[cfg(test)]
mod tests;
