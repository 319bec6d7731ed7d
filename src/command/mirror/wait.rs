//! Waits for lanes and shows a progress bar for each.

use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use sqlx::PgPool;
use tender_jobs::{
    mirror::{
        MIRROR,
        lane::{self, LaneState},
        work,
    },
    queue,
};
use tender_workers::runtime::pause;
use uuid::Uuid;

/// Interval between two reads of the lanes.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Waits until no lane has a job, and returns their last states. With `is_quiet`, shows no bars.
pub(super) async fn until_done(
    db: &PgPool,
    lanes: &[Uuid],
    is_quiet: bool,
) -> anyhow::Result<Vec<LaneState>> {
    let workers = queue::workers(db).await?;
    if !lanes.is_empty() && !workers.iter().any(|one| one.is_alive && one.queue == MIRROR) {
        bail!("no worker of the queue mirror is running: start `tender work` or `tender serve`");
    }
    let target = if is_quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bars = MultiProgress::with_draw_target(target);
    let mut open: Vec<(Uuid, ProgressBar)> = Vec::new();
    for lane in lanes {
        open.push((*lane, bars.add(bar())));
    }
    let (mut ended, begun) = (Vec::new(), Instant::now());
    while !open.is_empty() {
        let mut still = Vec::new();
        for (lane, bar) in open {
            // The job is checked first: the last state is then the one after the last job.
            let is_open = work::lane_has_job(db, lane).await?;
            let Some(state) = lane::state(db, lane, u64::from(u32::MAX)).await? else { continue };
            show(&bar, &state, begun);
            if is_open {
                still.push((lane, bar));
            } else {
                bar.finish();
                ended.push(state);
            }
        }
        open = still;
        if !open.is_empty() {
            pause(LOOK_EVERY).await;
        }
    }
    Ok(ended)
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(1000);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}") {
        bar.set_style(style.progress_chars("██░"));
    }
    bar
}

/// Updates the bar of a lane. The bar of a lane without progress in per cent stays empty until the
/// lane has no job.
fn show(bar: &ProgressBar, lane: &LaneState, begun: Instant) {
    if let Some(progress) = lane.progress {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
        bar.set_position((10.0 * progress) as u64);
    }
    let seconds = begun.elapsed().as_secs();
    bar.set_message(format!(
        "{} {}  {} stored, {} duplicate, {} rejected, {} uploaded, {seconds} s",
        lane.url, lane.lane, lane.stored, lane.duplicate, lane.rejected, lane.uploaded
    ));
}
