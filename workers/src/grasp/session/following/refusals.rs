//! Whether a relay refuses all requests, as one that wants authentication or payment does. Then one request at a
//! time probes it, later and later. Else each refusal would halve a batch, down to single items.

use std::time::{Duration, Instant};

use crate::{grasp::session::work::is_refusal, mirror::error::StepError};

/// After so many refusals without a success in between, the relay is taken to refuse everything.
const MANY: u32 = 3;
/// The pause before the first probe. It doubles with each refusal.
const PROBE: Duration = Duration::from_secs(65);
/// The longest such pause.
const PROBE_CAP: Duration = Duration::from_hours(1);

/// The refusals since the last success.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    count: u32,
    probe_at: Option<Instant>,
}

impl Refusals {
    /// As an earlier session left it.
    pub(super) fn new(count: u32, probe_in: Option<Duration>) -> Self {
        Self { count, probe_at: probe_in.map(|wait| Instant::now() + wait.min(PROBE_CAP)) }
    }

    /// What the next session has to know: the refusals, and in how long a request may begin.
    pub(super) fn kept(&self) -> (u32, Option<Duration>) {
        (self.count, self.probe_at.map(|at| at.saturating_duration_since(Instant::now())))
    }

    /// Notes the end of a request. Returns whether that changed anything.
    pub(super) fn note(&mut self, result: &Result<(), StepError>) -> bool {
        match result {
            Ok(()) => std::mem::take(self).count > 0,
            Err(error) if is_refusal(error) => {
                self.count = self.count.saturating_add(1);
                let times = self.count.saturating_sub(MANY).min(8);
                let pause = PROBE.saturating_mul(1 << times).min(PROBE_CAP);
                self.probe_at = (self.count >= MANY).then(|| Instant::now() + pause);
                true
            }
            Err(_) => false,
        }
    }

    /// Whether a request may begin while so many are running.
    pub(super) fn allow(&self, running: usize) -> bool {
        self.probe_at.is_none_or(|at| running == 0 && at <= Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Result<(), StepError> {
        Err(StepError::Refused("restricted: members only".to_owned()))
    }

    #[test]
    fn a_relay_that_refuses_everything_is_probed_by_one_request_at_a_time() {
        let mut refusals = Refusals::default();
        for _ in 0..2 {
            refusals.note(&refused());
            assert!(refusals.allow(2));
        }
        refusals.note(&refused());
        assert!(!refusals.allow(0), "the probe waits");
        refusals.probe_at = Some(Instant::now());
        assert!(refusals.allow(0) && !refusals.allow(1), "one at a time");
        for _ in 0..20 {
            refusals.note(&refused());
        }
        let wait = refusals.probe_at.map(|at| at.saturating_duration_since(Instant::now()));
        assert!(wait > Some(Duration::from_mins(59)) && wait <= Some(PROBE_CAP));
        refusals.note(&Ok(()));
        assert!(refusals.allow(2), "a success ends it");
        assert_eq!(refusals.kept(), (0, None));
    }

    #[test]
    fn other_failures_are_no_refusals() {
        let mut refusals = Refusals::default();
        for _ in 0..5 {
            refusals.note(&Err(StepError::Silent("silent".to_owned())));
        }
        assert!(refusals.allow(2));
    }
}
