//! The attempts to bring a relay's present state to zooid, on a line drawn to scale: those made, and those
//! planned.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};
use tender_jobs::provision::{
    activity::{Activity, ActivityType},
    backoff::Backoff,
    relay::{FailureKind, Relay},
};

use crate::dashboard::parts::time;

/// The attempts that are planned at most on one line; a later round is one more mark.
const MOST_PLANNED: usize = 100;

/// A mark on the line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    at: DateTime<Utc>,
    /// The class, for its colour and form: `change`, `good`, `bad`, `planned`.
    class: &'static str,
    title: String,
}

/// When the attempts are made, as the deployment sets it.
pub(super) struct Plan {
    pub(super) backoff: Backoff,
    /// When a relay that gave up after a transient failure starts over; zero means never.
    pub(super) exhausted_after: Duration,
}

impl Plan {
    /// Returns when a relay that gave up starts one more round; `None` if it does not.
    pub(super) fn next_round(&self, relay: &Relay) -> Option<DateTime<Utc>> {
        let is_transient = relay.failure_kind == Some(FailureKind::Transient);
        let rest = TimeDelta::from_std(self.exhausted_after).ok().filter(|rest| !rest.is_zero());
        relay.exhausted_at.filter(|_| is_transient)?.checked_add_signed(rest?)
    }

    /// Returns when the attempts that are left start, without jitter. One that is due starts at once.
    fn planned(&self, relay: &Relay, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let mut planned: Vec<_> = relay.retry_at.map(|at| at.max(now)).into_iter().collect();
        let mut attempt = u32::try_from(relay.attempts).unwrap_or_default() + 1;
        while let Some(last) = planned.last().copied().filter(|_| planned.len() < MOST_PLANNED) {
            let delay = self.backoff.delay(attempt, None);
            let Some(delay) = delay.and_then(|delay| TimeDelta::from_std(delay).ok()) else {
                break;
            };
            planned.push(last + delay);
            attempt += 1;
        }
        planned.extend(self.next_round(relay).map(|at| at.max(now)));
        planned
    }

    fn marks(&self, relay: &Relay, records: &[Activity], now: DateTime<Utc>) -> Vec<Mark> {
        let change = Mark { at: relay.updated_at, class: "change", title: "changed".to_owned() };
        let mut marks = vec![change];
        marks.extend(records.iter().rev().filter_map(|record| made(relay, record)));
        let first = u64::try_from(relay.attempts).unwrap_or_default() + 1;
        let numbers = if relay.exhausted_at.is_some() { 1.. } else { first.. };
        marks.extend(self.planned(relay, now).into_iter().zip(numbers).map(|(at, number)| Mark {
            at,
            class: "planned",
            title: format!("attempt {number}, planned"),
        }));
        marks
    }
}

/// An attempt at the present generation.
fn made(relay: &Relay, record: &Activity) -> Option<Mark> {
    if record.detail["generation"].as_i64() != Some(relay.generation) {
        return None;
    }
    let (class, words) = match record.activity_type {
        ActivityType::CompleteRelaySync => ("good", "succeeded"),
        ActivityType::FailRelaySync => ("bad", "failed"),
        _ => return None,
    };
    let number = record.detail["attempt"].as_i64().unwrap_or_default();
    Some(Mark { at: record.created_at, class, title: format!("attempt {number} {words}") })
}

/// Draws the line from the change to the last attempt. Nothing is drawn before the first failure.
pub(super) fn line(plan: &Plan, relay: &Relay, records: &[Activity], now: DateTime<Utc>) -> Markup {
    let marks = plan.marks(relay, records, now);
    if !marks.iter().any(|mark| mark.class == "bad") {
        return html! {};
    }
    let (start, last) = (relay.updated_at, marks.iter().map(|mark| mark.at).max().unwrap_or(now));
    let end = last.max(now);
    let count = |class: &str| marks.iter().filter(|mark| mark.class == class).count();
    let label = format!("{} failed attempts, {} planned", count("bad"), count("planned"));
    html! {
        section aria-labelledby="attempts" {
            h2 #attempts { "Attempts at this change" }
            svg.attempts width="100%" height="44" role="img" aria-label=(label) {
                line.axis x1="1%" y1="22" x2="99%" y2="22" {}
                line.now x1=(place(now, start, end)) y1="4" x2=(place(now, start, end)) y2="40" { title { "now" } }
                @for mark in &marks {
                    circle class=(mark.class) cx=(place(mark.at, start, end)) cy="22" r=(if mark.class == "change" { "4" } else { "7" }) {
                        title { (mark.title) ", " (mark.at.format("%F %T UTC")) }
                    }
                }
            }
            p.ends.quiet {
                span { "changed " (time(start)) }
                @if count("planned") > 0 { span { "last planned attempt " (time(last)) } }
            }
        }
    }
}

/// Returns the place of an instant, in per cent of the width, within 1 % of each end.
fn place(at: DateTime<Utc>, start: DateTime<Utc>, end: DateTime<Utc>) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a place on the screen")]
    let part = |time: TimeDelta| time.num_milliseconds() as f64;
    let whole = part(end - start).max(1.0);
    format!("{:.2}%", 1.0 + 98.0 * (part(at - start) / whole).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_to_scale() {
        let at = |second| DateTime::from_timestamp(second, 0).expect("a time");
        let places = [0, 25, 100, 200].map(|second| place(at(second), at(0), at(100)));
        assert_eq!(places, ["1.00%", "25.50%", "99.00%", "99.00%"]);
    }
}
