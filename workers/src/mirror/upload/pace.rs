//! The pace of uploads: the pause between two batches, and the number of events in a batch. Both begin as configured.
//! While the upstream answers fast, the pause ends, and then the batches grow. A limit, slow answers or a lost connection
//! end that for ten minutes.
//!
//! ```text
//!  as configured ── fast ──▶ shorter pause ── fast ──▶ no pause ── fast, whole ──▶ larger batches
//!    ▲    ▲                        │                      │                             │
//!    │    └── lost, silent ────────┴──────────────────────┴─────────────────────────────┤
//!    └─────── slow, rate-limited: also a longer pause; after a limit, for ten minutes ──┘
//! ```
//!
//! Invariants: a batch is larger than configured only while there is no pause. After a limit, slow answers, a lost
//! connection or silence, it is as configured for ten minutes. It grows only after a batch of its whole size was judged
//! fast, and at most to twice the size. Beyond the configured size, it has at most twice the bytes of a batch that was
//! judged fast since.

use std::time::{Duration, Instant};

/// A batch that is answered within this time was answered fast. The next one may be twice as large, and then still
/// ends well within the time in which an event must be answered.
const FAST: Duration = Duration::from_secs(1);
/// A batch that takes longer was answered slowly.
const SLOW: Duration = Duration::from_secs(3);
/// A shorter pause is none.
const SHORTEST: Duration = Duration::from_millis(5);
/// The shortest pause after a limit.
const POLITE: Duration = Duration::from_millis(100);
/// The longest pause that adapts; one that is configured may be longer.
const LONGEST: Duration = Duration::from_secs(10);
/// The most events of a batch that grows; one that is configured may be larger.
const LARGEST: usize = 500;
/// How long the pause stays long after a limit, and the batches small after a failure.
const WARY_FOR: Duration = Duration::from_mins(10);

/// The pace at which uploads begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mirror) struct Start {
    /// The pause between two batches.
    pub(in crate::mirror) pause: Duration,
    /// The number of events in a batch.
    pub(in crate::mirror) size: usize,
}

/// The pace towards one upstream.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::mirror) struct Pace {
    /// The pace that is configured, and the one that it has become; `None` before the first batch.
    now: Option<(Start, Start)>,
    /// The shortest pause, until an instant.
    floor: Option<(Duration, Instant)>,
    /// The instant until which batches do not grow.
    small_until: Option<Instant>,
    /// The bytes of the largest batch that was judged fast since the last failure.
    bytes: usize,
}

impl Pace {
    /// Returns the pause before the next batch, and its size. Another configured pace begins anew.
    pub(in crate::mirror) fn get(&mut self, start: Start) -> Start {
        match self.now {
            Some((same, pace)) if same == start => pace,
            _ => {
                self.bytes = 0;
                self.set(start, start)
            }
        }
    }

    /// Returns the most bytes of a batch that is larger than configured: twice those of one that was judged fast.
    pub(in crate::mirror) fn bytes(&self) -> usize {
        self.bytes.saturating_mul(2)
    }

    /// Notes the bytes of a batch whose events were all judged within `took`.
    pub(in crate::mirror) fn carried(&mut self, took: Duration, bytes: usize) {
        if took <= FAST {
            self.bytes = self.bytes.max(bytes);
        }
    }

    fn set(&mut self, start: Start, pace: Start) -> Start {
        self.now = Some((start, pace));
        pace
    }

    /// Notes a batch that the upstream answered within `took`. It judged `judged` events without a sign that it does
    /// not want more of them.
    pub(in crate::mirror) fn answered(
        &mut self,
        start: Start,
        (took, judged): (Duration, usize),
        now: Instant,
    ) {
        let pace = self.get(start);
        if took > SLOW {
            let pause = longer(pace.pause, start.pause);
            self.set(start, Start { pause, ..pace });
            self.failed(start, now);
        } else if took <= FAST {
            let pause = self.shorter(pace.pause, now);
            let size = if pace.pause.is_zero() && judged >= pace.size {
                self.larger(pace.size, start.size, now)
            } else {
                pace.size
            };
            self.set(start, Start { pause, size });
        }
    }

    /// Notes that the upstream limits our rate.
    pub(in crate::mirror) fn limited(&mut self, start: Start, now: Instant) {
        let pause = longer(self.get(start).pause, start.pause.max(POLITE));
        self.floor = Some((pause, now + WARY_FOR));
        self.set(start, Start { pause, ..start });
        self.failed(start, now);
    }

    /// Notes that the connection was lost, or that the upstream took and judged none of a batch.
    pub(in crate::mirror) fn failed(&mut self, start: Start, now: Instant) {
        let pace = self.get(start);
        self.small_until = Some(now + WARY_FOR);
        self.bytes = 0;
        self.set(start, Start { size: start.size, ..pace });
    }

    fn shorter(&self, pause: Duration, now: Instant) -> Duration {
        let half = pause / 2;
        let floor = self.floor.filter(|(_, until)| now < *until);
        let least = floor.map_or(Duration::ZERO, |(floor, _)| floor);
        (if half < SHORTEST { Duration::ZERO } else { half }).max(least)
    }

    fn larger(&self, size: usize, start: usize, now: Instant) -> usize {
        if self.small_until.is_some_and(|until| now < until) {
            return start;
        }
        (2 * size).clamp(start, start.max(LARGEST))
    }
}

/// Twice the pause, at least `least`, and at most the longer of it and the longest.
fn longer(pause: Duration, least: Duration) -> Duration {
    (pause * 2).clamp(least, least.max(LONGEST))
}

#[cfg(test)]
mod tests;
