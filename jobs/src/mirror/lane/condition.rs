//! The condition of a lane, as people read it: its status, and what the status alone hides.

use super::LaneState;

/// How a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The lane waits for its next run.
    Idle,
    /// A job or process works on the lane.
    Syncing,
    /// The holder has sent no heartbeat for too long.
    Stale,
    /// The last attempt failed; another one runs or is due.
    Retrying,
    /// History is complete.
    Completed,
    /// The lane has reached its target, and knows of events that are missing.
    Gaps,
    /// The lane rests until its cool-down is over.
    Error,
}

impl Condition {
    /// Returns the words that are shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Syncing => "syncing",
            Self::Stale => "stale",
            Self::Retrying => "retrying",
            Self::Completed => "completed",
            Self::Gaps => "completed with gaps",
            Self::Error => "error",
        }
    }
}

impl LaneState {
    /// Returns the condition of the lane.
    pub fn condition(&self) -> Condition {
        match self.status.as_str() {
            "error" => Condition::Error,
            _ if self.is_stale => Condition::Stale,
            _ if self.last_error.is_some() => Condition::Retrying,
            "syncing" => Condition::Syncing,
            "completed" if self.gaps() > 0 => Condition::Gaps,
            "completed" => Condition::Completed,
            _ => Condition::Idle,
        }
    }
}
