//! The account of a job while it works.

use tender_jobs::mirror::{
    event::{Tally, outgoing::UploadTally},
    lane::{Lane, Progress},
};

/// The account of a job.
#[derive(Debug, Default)]
pub(in crate::mirror) struct Report {
    /// Progress that the lane does not have yet.
    pub(in crate::mirror) progress: Progress,
    /// Events received. The lane has these counts already; they are kept for the log and the
    /// result.
    pub(in crate::mirror) events: Tally,
    /// Events sent. The lane has these counts already, too.
    pub(in crate::mirror) uploads: UploadTally,
    /// Whether the job has stored progress already, or learned about the upstream.
    pub(in crate::mirror) is_ahead: bool,
}

impl Report {
    /// Whether the job leaves the lane further ahead than it found it. A repetition without this
    /// would be endless.
    pub(super) fn shows_progress(&self, lane: &Lane) -> bool {
        let Progress { finished, walked, window, .. } = &self.progress;
        let is_lower =
            |new: Option<i64>, old: Option<i64>| new.is_some() && (old.is_none() || new < old);
        let is_higher = |new: Option<i64>, old: Option<i64>| new.is_some() && new > old;
        self.is_ahead
            || self.events.stored > 0
            || self.events.rejected() > 0
            || self.uploads != UploadTally::default()
            || !finished.is_empty()
            || walked.is_some_and(|walked| is_lower(Some(walked.at), lane.walk_at))
            || window.is_some_and(|(seconds, _)| is_lower(Some(seconds), lane.window_seconds))
            || is_lower(self.progress.backfill_until, lane.backfill_until)
            || is_higher(self.progress.cursor_at, lane.cursor_at)
            || is_higher(self.progress.upload_position, Some(lane.upload_position))
    }
}
