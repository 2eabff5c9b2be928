//! The speed probe: a million turns of a loop on a vCPU of our own, against a deadline.
//!
//! Hardware needs a millisecond or so. A device that emulates needs 0.5 to 1 s (measured on a nested
//! paravirtual host), so the deadline between them leaves a wide margin on either side; and since a
//! busy machine can be late without emulating, only the best of several attempts condemns it.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use kvm_ioctls::{Kvm, VcpuExit};
use serde::{Deserialize, Serialize};
use vmm_sys_util::signal::{Killable as _, SIGRTMIN, register_signal_handler};

use crate::sys::{OnePageVm, PAGE_ADDRESS};

/// How often the probe's loop turns.
pub const LOOP_ITERATIONS: u64 = 1_000_000;
/// How long it may take. Between the few milliseconds of hardware and the half second of emulation.
pub const DEADLINE: Duration = Duration::from_millis(100);
/// Attempts before a device is called slow; each costs at most the deadline.
const ATTEMPTS: u32 = 3;
/// How long a vCPU may take to come back once it is kicked.
const KICK_LIMIT: Duration = Duration::from_secs(1);
/// Between kicks: a signal that arrives just before the vCPU enters the kernel is lost.
const KICK_EVERY: Duration = Duration::from_millis(1);

/// `loop: dec ecx; jnz loop; hlt`, in 16-bit real mode.
const LOOP: [u8; 5] = [0x66, 0x49, 0x75, 0xFC, 0xF4];

/// What the loop showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// All turns were made within the deadline.
    Fast { took: Duration },
    /// Only `iterations` turns were made in `ran` (the best attempt).
    Slow { iterations: u64, ran: Duration },
}

/// Nothing could be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    #[error("no kvm device")]
    NoDevice,
    #[error("opening {}", device.display())]
    Open {
        device: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{step}")]
    Kvm {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the probe's vCPU stopped for {exit} instead of halting")]
    UnexpectedExit { exit: String },
}

/// Measures; blocks for three deadlines at most, plus what a vCPU takes to answer its kick.
pub fn run(device: &Path) -> Result<Outcome, ProbeError> {
    let mut best = attempt(device)?;
    for _ in 1..ATTEMPTS {
        let Outcome::Slow {
            iterations: most, ..
        } = best
        else {
            break;
        };
        best = match attempt(device)? {
            Outcome::Slow { iterations, .. } if iterations <= most => best,
            better => better,
        };
    }
    Ok(best)
}

fn attempt(device: &Path) -> Result<Outcome, ProbeError> {
    let mut machine = machine(device)?;
    install_kick()?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let (sender, receiver) = mpsc::channel();
    let started = Instant::now();
    let vcpu = std::thread::Builder::new()
        .name("kvm-probe".to_owned())
        .spawn(move || {
            // A receiver that gave up does not want the answer.
            drop(sender.send(turn(&mut machine, &stopped)));
        })
        .map_err(|source| ProbeError::Kvm {
            step: "starting the probe's thread",
            source,
        })?;

    let first = receiver.recv_timeout(DEADLINE);
    let ran = started.elapsed();
    if let Ok(turns) = first {
        let turns = turns?;
        return Ok(outcome(turns, ran));
    }
    stop.store(true, Ordering::Release);
    let given_up = Instant::now() + KICK_LIMIT;
    while Instant::now() < given_up {
        // The thread may have ended since; there is then nothing to kick.
        let _ = vcpu.kill(kick_signal());
        match receiver.recv_timeout(KICK_EVERY) {
            Ok(turns) => return Ok(outcome(turns?.min(LOOP_ITERATIONS - 1), ran)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // A vCPU that signals cannot reach is left behind with its thread: it owns all it uses, and
    // process exit does end it.
    Ok(Outcome::Slow { iterations: 0, ran })
}

fn outcome(turns: u64, ran: Duration) -> Outcome {
    if turns == LOOP_ITERATIONS {
        Outcome::Fast { took: ran }
    } else {
        Outcome::Slow {
            iterations: turns,
            ran,
        }
    }
}

fn machine(device: &Path) -> Result<OnePageVm, ProbeError> {
    let at = |step| move |source: io::Error| ProbeError::Kvm { step, source };
    let failed = |step| move |error: kvm_ioctls::Error| at(step)(error.into());
    let path = CString::new(device.as_os_str().as_bytes()).map_err(|_| ProbeError::NoDevice)?;
    let kvm = Kvm::new_with_path(path).map_err(|error| {
        let source = io::Error::from(error);
        if source.kind() == io::ErrorKind::NotFound {
            ProbeError::NoDevice
        } else {
            ProbeError::Open {
                device: device.to_owned(),
                source,
            }
        }
    })?;
    let vm = kvm.create_vm().map_err(failed("creating the probe's VM"))?;
    let mut machine = OnePageVm::new(vm, &LOOP).map_err(at("giving the probe's VM its page"))?;
    prepare(&mut machine).map_err(failed("setting up the probe's vCPU"))?;
    Ok(machine)
}

/// Points the vCPU, which resets to the top of memory, at the loop.
fn prepare(machine: &mut OnePageVm) -> Result<(), kvm_ioctls::Error> {
    let mut segments = machine.vcpu.get_sregs()?;
    segments.cs.base = 0;
    segments.cs.selector = 0;
    machine.vcpu.set_sregs(&segments)?;
    let mut registers = machine.vcpu.get_regs()?;
    registers.rip = PAGE_ADDRESS;
    registers.rcx = LOOP_ITERATIONS;
    registers.rflags = 2; // the one bit that is always set
    machine.vcpu.set_regs(&registers)
}

/// Runs the loop to its end or to the kick, and says how many turns were made.
fn turn(machine: &mut OnePageVm, stop: &AtomicBool) -> Result<u64, ProbeError> {
    loop {
        match machine.vcpu.run() {
            Ok(VcpuExit::Hlt) => return Ok(LOOP_ITERATIONS),
            Ok(exit) => {
                return Err(ProbeError::UnexpectedExit {
                    exit: format!("{exit:?}"),
                });
            }
            Err(error) if error.errno() == rustix::io::Errno::INTR.raw_os_error() => {
                if stop.load(Ordering::Acquire) {
                    break;
                }
            }
            Err(error) => {
                return Err(ProbeError::Kvm {
                    step: "running the probe's vCPU",
                    source: error.into(),
                });
            }
        }
    }
    let registers = machine.vcpu.get_regs().map_err(|error| ProbeError::Kvm {
        step: "reading the probe's registers",
        source: error.into(),
    })?;
    Ok(LOOP_ITERATIONS.saturating_sub(registers.rcx & 0xFFFF_FFFF))
}

/// A real-time signal that nothing else in our processes uses; only ever sent to the probe's thread.
fn kick_signal() -> i32 {
    SIGRTMIN() + 7
}

/// Gives the kick a handler: its default action would end the process.
fn install_kick() -> Result<(), ProbeError> {
    extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(kick_signal(), ignore).map_err(|error| ProbeError::Kvm {
        step: "installing the kick",
        source: error.into(),
    })
}
