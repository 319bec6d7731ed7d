//! When the mirror's recurring jobs run.

use tender_jobs::mirror::{deployment::Profile, lane::LaneKind, work::Work};

use crate::runtime::{Recurring, Schedule};

/// The recurring recovery.
pub(super) const RECOVERY: &str = "mirror-recovery";
/// The recurring purge.
pub(super) const PURGE: &str = "mirror-purge";

/// The name of the recurring job that enqueues a mode's work. A live lane has none, because a process
/// holds it, not a job.
pub(super) fn name_of(mode: LaneKind) -> Option<&'static str> {
    Some(match mode {
        LaneKind::Realtime => "mirror-realtime",
        LaneKind::Backfill => "mirror-backfill",
        LaneKind::Upload => "mirror-upload",
        LaneKind::Full => "mirror-full",
        LaneKind::Live => return None,
    })
}

/// A recurring job: its name, its work, and its cron expressions in production and development.
type Row = (&'static str, Work, &'static str, Option<&'static str>);

fn rows() -> Vec<Row> {
    let mode = |mode, production, development| {
        let work = Work::Orchestrate { mode, upstream: None, manual: false };
        name_of(mode).map(|name| (name, work, production, development))
    };
    let modes = [
        mode(LaneKind::Realtime, "0 */5 * * * *", Some("0 */2 * * * *")),
        mode(LaneKind::Backfill, "0 0 * * * *", Some("0 */10 * * * *")),
        mode(LaneKind::Upload, "0 */15 * * * *", Some("0 */5 * * * *")),
        mode(LaneKind::Full, "0 0 3 * * *", None),
    ];
    let upkeep = [
        (RECOVERY, Work::Recover, "0 */10 * * * *", Some("0 */5 * * * *")),
        (PURGE, Work::Purge, "0 30 * * * *", Some("0 30 * * * *")),
    ];
    modes.into_iter().flatten().chain(upkeep).collect()
}

/// The recurring jobs of a profile. Backfill also runs when a process starts, since lanes whose
/// history is not complete need no tick.
pub(super) fn recurring(profile: Profile) -> Vec<Recurring> {
    rows().into_iter().filter_map(|row| one(row, profile)).collect()
}

fn one((name, work, production, development): Row, profile: Profile) -> Option<Recurring> {
    let expression = match profile {
        Profile::Production => Some(production),
        Profile::Development => development,
        Profile::Off => None,
    };
    let schedule: Schedule = expression?.parse().ok()?;
    let recurring = Recurring::new(name, schedule, work.job());
    let is_backfill = name_of(LaneKind::Backfill) == Some(name);
    Some(if is_backfill { recurring.at_start() } else { recurring })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_expression_is_a_schedule() {
        for (name, _, production, development) in rows() {
            for expression in [Some(production), development].into_iter().flatten() {
                assert!(expression.parse::<Schedule>().is_ok(), "{name}: {expression}");
            }
        }
    }
}
