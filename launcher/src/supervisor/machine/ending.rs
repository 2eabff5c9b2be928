//! What the end of QEMU's process says about the guest.

use super::{Machine, Phase, RESET_WINDOW};
use crate::supervisor::notice::EndCause;
use crate::supervisor::outcome::{End, Exit};

impl Machine {
    pub(super) fn end(&self, exit: Exit) -> End {
        let clean = exit == Exit::Code(0);
        match (self.phase, self.shutdown.as_deref()) {
            // Obeying in the last moment is obeying.
            (Phase::Ending(_) | Phase::Stopping, Some("guest-shutdown"))
                if clean && !self.panicked =>
            {
                End::Stopped
            }
            (Phase::Ending(cause), _) => self.ended_by_us(cause, exit),
            (Phase::Starting, _) => End::StartFailed { exit },
            // A QEMU that fails on its way out may not have written all that the guest wrote.
            (_, None) => End::Crashed { exit },
            (_, Some("guest-panic")) => End::Panicked,
            (_, Some(_)) if !clean => End::Crashed { exit },
            (_, Some("guest-shutdown")) if self.panicked => End::Panicked,
            (_, Some("guest-shutdown")) => End::PoweredOff,
            (_, Some("guest-reset")) => End::Reset,
            (_, Some(reason)) => End::EndedFromOutside {
                reason: reason.to_owned(),
            },
        }
    }

    fn ended_by_us(&self, cause: EndCause, exit: Exit) -> End {
        match cause {
            EndCause::NeverStarted => End::NeverStarted,
            EndCause::Killed => End::Killed,
            EndCause::GraceOver => End::GraceOver {
                grace: self.settings.grace,
            },
            EndCause::TimedOut => End::TimedOut {
                limit: self.settings.limit.unwrap_or_default(),
            },
            EndCause::StartFailed => End::StartFailed { exit },
            EndCause::ResetLoop { resets } => End::ResetLoop {
                resets,
                within: RESET_WINDOW,
            },
            EndCause::Panicked => End::Panicked,
        }
    }
}
