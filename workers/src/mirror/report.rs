//! The account of a job while it works, and whether it made progress.

use tender_jobs::mirror::{
    event::{Tally, outgoing::UploadTally},
    lane::{Lane, Progress},
};

/// The account of a job while it works.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Progress that the lane does not have yet.
    pub(super) progress: Progress,
    /// Events received. The lane has these counts already; they are kept for the log and the
    /// result.
    pub(super) events: Tally,
    /// Events sent. The lane has these counts already, too.
    pub(super) uploads: UploadTally,
    /// Whether the job has stored progress already, or learned about the upstream.
    pub(super) is_ahead: bool,
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
            || self.uploads.shows_progress()
            || !finished.is_empty()
            || walked.is_some_and(|walked| is_lower(Some(walked.at), lane.walk_at))
            || window.is_some_and(|next| is_lower(Some(next.seconds), lane.window_seconds))
            || is_lower(self.progress.backfill_until, lane.backfill_until)
            || is_higher(self.progress.cursor_at, lane.cursor_at)
            || is_higher(self.progress.upload_position, Some(lane.upload_position))
    }
}

#[cfg(test)]
mod tests {
    use tender_jobs::mirror::lane::{LaneKind, NextWindow, Walked, gap::Finished};

    use super::*;

    fn window(seconds: i64) -> Progress {
        let next = NextWindow { seconds, easy: 0, refused: None };
        Progress { window: Some(next), ..Progress::default() }
    }

    fn lane() -> Lane {
        Lane {
            id: uuid::Uuid::nil(),
            upstream_id: uuid::Uuid::nil(),
            kind: LaneKind::Backfill,
            filter_hash: String::new(),
            status: "syncing".to_owned(),
            cursor_at: Some(1000),
            backfill_started_at: Some(1000),
            backfill_target: Some(0),
            backfill_until: Some(500),
            window_seconds: Some(120),
            cheap_windows: 0,
            window_refused: None,
            upload_position: 7,
            walk_since: Some(100),
            walk_until: Some(900),
            walk_at: Some(300),
            walk_cursor: Some(900),
            retry_at: None,
            has_due_gap: false,
            is_stale: false,
            is_resting: false,
            last_error: None,
        }
    }

    fn shows(progress: Progress) -> bool {
        Report { progress, ..Report::default() }.shows_progress(&lane())
    }

    #[test]
    fn a_job_that_changes_nothing_makes_no_progress() {
        let walked = |at| Some(Walked { since: 100, until: 900, at, cursor: 900 });
        for still in [
            Progress::default(),
            Progress { backfill_until: Some(500), ..Progress::default() },
            Progress { cursor_at: Some(1000), ..Progress::default() },
            window(120),
            Progress { upload_position: Some(7), ..Progress::default() },
            Progress { walked: walked(300), ..Progress::default() },
            Progress { violations: 9, unavailable: 9, ..Progress::default() },
        ] {
            assert!(!shows(still.clone()), "{still:?}");
        }
        for further in [
            Progress { backfill_until: Some(499), ..Progress::default() },
            Progress { cursor_at: Some(1001), ..Progress::default() },
            window(60),
            Progress { upload_position: Some(8), ..Progress::default() },
            Progress { walked: walked(299), ..Progress::default() },
            Progress { finished: vec![Finished::window(1, 2)], ..Progress::default() },
        ] {
            assert!(shows(further.clone()), "{further:?}");
        }
        let received = Tally { stored: 1, ..Tally::default() };
        assert!(Report { events: received, ..Report::default() }.shows_progress(&lane()));
    }
}
