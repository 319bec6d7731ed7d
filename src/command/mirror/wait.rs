//! Waits for lanes, and shows a progress bar for each; without a terminal, a line every ten seconds.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

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

use crate::words::lane as words;

/// Interval between two reads of the lanes.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Interval between two lines if there is no terminal.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How the wait is shown.
struct Display {
    bars: MultiProgress,
    /// Whether lines are printed, because bars need a terminal.
    tells: bool,
    told_at: Instant,
    begun: Instant,
}

impl Display {
    fn new(is_quiet: bool) -> Self {
        let has_terminal = std::io::stderr().is_terminal();
        let target = if is_quiet || !has_terminal {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let now = Instant::now();
        let bars = MultiProgress::with_draw_target(target);
        Self { bars, tells: !is_quiet && !has_terminal, told_at: now, begun: now }
    }

    /// Whether a line is due for every lane.
    fn is_due(&mut self) -> bool {
        let is_due = self.tells && self.told_at.elapsed() >= TELL_EVERY;
        if is_due {
            self.told_at = Instant::now();
        }
        is_due
    }
}

/// Waits until no lane has a job, and returns their last states. With `is_quiet`, shows nothing.
pub(super) async fn until_done(
    db: &PgPool,
    lanes: &[Uuid],
    is_quiet: bool,
) -> anyhow::Result<Vec<LaneState>> {
    let workers = queue::workers(db).await?;
    if !lanes.is_empty() && !workers.iter().any(|one| one.serves() && one.queue == MIRROR) {
        bail!("no worker of the queue mirror is running: start `tender work` or `tender serve`");
    }
    let mut display = Display::new(is_quiet);
    let mut open: Vec<(Uuid, ProgressBar)> = Vec::new();
    for lane in lanes {
        open.push((*lane, display.bars.add(bar())));
    }
    let mut ended = Vec::new();
    while !open.is_empty() {
        let mut still = Vec::new();
        let is_due = display.is_due();
        for (lane, bar) in open {
            // The job is checked first: the last state is then the one after the last job.
            let is_open = work::lane_has_job(db, lane).await?;
            let Some(state) = lane::state(db, lane, u64::from(u32::MAX)).await? else { continue };
            // The last line says how it ended.
            show(&bar, &state, &display, is_due || !is_open);
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

/// Updates the bar of a lane, and prints its line if it is due. The bar of a lane without progress in
/// per cent stays empty until the lane has no job.
#[expect(clippy::print_stderr, reason = "progress for people, where there is no terminal")]
fn show(bar: &ProgressBar, lane: &LaneState, display: &Display, is_due: bool) {
    let words = message(lane, display.begun.elapsed());
    if let Some(progress) = words::progress(lane) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
        bar.set_position((10.0 * progress) as u64);
    }
    if is_due {
        let done = words::progress(lane).map(|done| format!("{done:.1} %  ")).unwrap_or_default();
        eprintln!("{done}{words}");
    }
    bar.set_message(words);
}

fn message(lane: &LaneState, waited: Duration) -> String {
    let mut words = format!(
        "{} {}  {} stored, {} duplicate, {} rejected, {} uploaded, {} s",
        lane.url,
        lane.lane,
        lane.stored,
        lane.duplicate,
        lane.rejected,
        lane.uploaded,
        waited.as_secs()
    );
    if let (Some(failure), Some(error)) = (words::failure(lane), &lane.last_error) {
        words = format!("{words}; {failure}: {error}");
    }
    words
}
