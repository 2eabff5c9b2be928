//! What may be asked of a VM, and what is said at once to whoever asks.

use std::collections::VecDeque;

/// Something asked of a VM from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    /// Press the power button, and end QEMU when the grace period is over.
    Stop,
    /// End QEMU now; the guest is not asked.
    Kill,
    /// Press the reset button.
    Reset,
    /// Stop the vCPUs. Before the guest was started: do not start it.
    Pause,
    /// Let the vCPUs run again.
    Resume,
}

/// What became of a request when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It will be carried out.
    Queued,
    /// Things are that way already, or about to be.
    AlreadySo,
    Denied(Denied),
}

/// Why a request was turned down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("the guest has not been started yet")]
    NotStarted,
    #[error("the guest is being stopped")]
    Stopping,
    #[error("qemu has ended")]
    Gone,
}

/// As much of the machine's state as the policy below depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Starting,
    Up { paused: bool },
    Stopping { paused: bool },
    Ending,
    Gone,
}

/// Requests that were accepted and not yet acted on, and the policy for accepting more.
///
/// Plain data without synchronisation. It holds at most one request of a kind, so it is bounded.
#[derive(Debug, Default)]
pub(super) struct RequestQueue {
    waiting: VecDeque<Request>,
}

impl RequestQueue {
    /// Decides on a request in view of the stage and of what waits already.
    pub(super) fn submit(&mut self, stage: Stage, request: Request) -> Disposition {
        if matches!(stage, Stage::Ending | Stage::Gone) {
            // Whatever still waited has been overtaken.
            self.waiting.clear();
        }
        if self.waiting.contains(&request) {
            return Disposition::AlreadySo;
        }
        let ending = self
            .waiting
            .iter()
            .any(|next| matches!(next, Request::Stop | Request::Kill));
        let disposition = match (stage, request) {
            (Stage::Gone | Stage::Ending, Request::Stop | Request::Kill)
            | (Stage::Stopping { .. }, Request::Stop)
            | (
                Stage::Starting | Stage::Up { paused: false } | Stage::Stopping { paused: false },
                Request::Resume,
            )
            | (Stage::Up { paused: true }, Request::Pause) => Disposition::AlreadySo,
            (Stage::Gone, _) => Disposition::Denied(Denied::Gone),
            (Stage::Ending, _) | (Stage::Stopping { .. }, Request::Reset | Request::Pause) => {
                Disposition::Denied(Denied::Stopping)
            }
            (Stage::Starting, Request::Reset) => Disposition::Denied(Denied::NotStarted),
            (_, Request::Reset | Request::Pause) if ending => Disposition::Denied(Denied::Stopping),
            (Stage::Starting, Request::Stop | Request::Kill | Request::Pause)
            | (Stage::Up { .. }, Request::Stop | Request::Kill | Request::Reset)
            | (Stage::Up { paused: false }, Request::Pause)
            | (Stage::Up { paused: true } | Stage::Stopping { paused: true }, Request::Resume)
            | (Stage::Stopping { .. }, Request::Kill) => Disposition::Queued,
        };
        // A guest that waits to be started paused is resumed by forgetting the pause.
        if stage == Stage::Starting && request == Request::Resume && self.forget(Request::Pause) {
            return Disposition::Queued;
        }
        if disposition == Disposition::Queued {
            self.waiting.push_back(request);
        }
        disposition
    }

    /// The next request that can be carried out in this stage; a pause waits for the start.
    pub(super) fn next(&mut self, stage: Stage) -> Option<Request> {
        let ready = |request: &Request| stage != Stage::Starting || *request != Request::Pause;
        let at = self.waiting.iter().position(ready)?;
        self.waiting.remove(at)
    }

    /// Takes back a request that still waits.
    pub(super) fn forget(&mut self, request: Request) -> bool {
        let at = self.waiting.iter().position(|waiting| *waiting == request);
        at.is_some_and(|at| self.waiting.remove(at).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Disposition::{AlreadySo, Queued};

    const UP: Stage = Stage::Up { paused: false };
    const PAUSED: Stage = Stage::Up { paused: true };
    const STOPPING: Stage = Stage::Stopping { paused: false };
    const STUCK: Stage = Stage::Stopping { paused: true };
    const NOT_STARTED: Disposition = Disposition::Denied(Denied::NotStarted);
    const DENIED: Disposition = Disposition::Denied(Denied::Stopping);
    const GONE: Disposition = Disposition::Denied(Denied::Gone);

    #[test]
    fn every_stage_answers_every_request() {
        let requests = [
            Request::Stop,
            Request::Kill,
            Request::Reset,
            Request::Pause,
            Request::Resume,
        ];
        for (stage, expected) in [
            (
                Stage::Starting,
                [Queued, Queued, NOT_STARTED, Queued, AlreadySo],
            ),
            (UP, [Queued, Queued, Queued, Queued, AlreadySo]),
            (PAUSED, [Queued, Queued, Queued, AlreadySo, Queued]),
            (STOPPING, [AlreadySo, Queued, DENIED, DENIED, AlreadySo]),
            (STUCK, [AlreadySo, Queued, DENIED, DENIED, Queued]),
            (
                Stage::Ending,
                [AlreadySo, AlreadySo, DENIED, DENIED, DENIED],
            ),
            (Stage::Gone, [AlreadySo, AlreadySo, GONE, GONE, GONE]),
        ] {
            for (request, expected) in requests.into_iter().zip(expected) {
                let mut queue = RequestQueue::default();
                assert_eq!(
                    queue.submit(stage, request),
                    expected,
                    "{request:?} while {stage:?}"
                );
                let again = queue.submit(stage, request);
                let held = if expected == Queued {
                    AlreadySo
                } else {
                    expected
                };
                assert_eq!(again, held, "{request:?} again while {stage:?}");
            }
        }
    }

    #[test]
    fn nothing_is_accepted_behind_a_stop_that_waits() {
        for end in [Request::Stop, Request::Kill] {
            let mut queue = RequestQueue::default();
            assert_eq!(queue.submit(UP, end), Queued);
            assert_eq!(queue.submit(UP, Request::Reset), DENIED);
            assert_eq!(queue.submit(UP, Request::Pause), DENIED);
        }
    }

    #[test]
    fn a_pause_before_the_start_waits_and_a_resume_takes_it_back() {
        let mut queue = RequestQueue::default();
        assert_eq!(queue.submit(Stage::Starting, Request::Pause), Queued);
        assert_eq!(queue.next(Stage::Starting), None);
        assert_eq!(queue.submit(Stage::Starting, Request::Resume), Queued);
        assert_eq!(queue.next(UP), None);
    }

    #[test]
    fn requests_are_taken_in_order() {
        let mut queue = RequestQueue::default();
        queue.submit(UP, Request::Reset);
        queue.submit(UP, Request::Stop);
        assert_eq!(queue.next(UP), Some(Request::Reset));
        assert_eq!(queue.next(UP), Some(Request::Stop));
        assert_eq!(queue.next(UP), None);
    }
}
