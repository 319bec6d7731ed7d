//! The gaps of lanes, as `mirror show` lists them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tender_jobs::mirror::lane::{
    LaneState,
    gap::{self, GapRow},
};

use crate::command::print;

/// The most gaps of a lane that are listed.
const LISTED: i64 = 20;

/// The first gaps, by lane.
type Gaps = BTreeMap<&'static str, Vec<GapRow>>;

/// Returns the first gaps of each lane that has some.
pub(super) async fn of(db: &PgPool, lanes: &[LaneState]) -> Result<Gaps, sqlx::Error> {
    let mut gaps = Gaps::new();
    for lane in lanes.iter().filter(|lane| lane.gaps() > 0) {
        gaps.insert(lane.lane.as_str(), gap::gaps(db, lane.id, LISTED).await?);
    }
    Ok(gaps)
}

pub(super) fn print(lanes: &[LaneState], gaps: &Gaps, now: DateTime<Utc>) -> anyhow::Result<()> {
    for lane in lanes {
        let Some(of_lane) = gaps.get(lane.lane.as_str()) else { continue };
        print::line(&format!("\nmissing in lane {}", lane.lane))?;
        for gap in of_lane {
            print::line(&line(gap, now))?;
        }
        let more = lane.gaps() - i64::try_from(of_lane.len()).unwrap_or_default();
        if more > 0 {
            print::line(&format!("  and {more} more"))?;
        }
    }
    Ok(())
}

fn line(gap: &GapRow, now: DateTime<Utc>) -> String {
    let time = |second: i64| {
        let at = DateTime::from_timestamp(second, 0);
        at.map_or_else(|| second.to_string(), |at| at.format("%F %T").to_string())
    };
    let place = match &gap.event_id {
        Some(id) => format!("event {id}"),
        None if gap.since == gap.until => format!("second {}", time(gap.since)),
        None => format!("{} to {}", time(gap.since), time(gap.until)),
    };
    let (found, next) =
        (print::relative(gap.first_seen_at, now), print::relative(gap.retry_at, now));
    format!("  {place}: {} (found {found}, next retry {next})", gap.reason)
}
