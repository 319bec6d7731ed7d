//! The wing's jobs: their payloads.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::GRASP;
use crate::queue::{self, NewJob};

/// The payload of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case")]
pub enum Work {
    /// Compares all wanted with all coverage, ends what died, and forgets what is old.
    Reconcile,
    /// Judges events of the store, page by page, for a service that is new or whose policy changed.
    Scan {
        /// The service.
        service: Uuid,
    },
    /// Judges events again whose reason to wait has gone.
    Release {
        /// The service.
        service: Uuid,
    },
    /// Deletes the rows of a service that is being removed.
    RemoveService {
        /// The service.
        service: Uuid,
    },
}

impl Work {
    /// Reads the payload of a job.
    ///
    /// # Errors
    /// The reason why this job can never be done: its payload is malformed, or of another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        queue::parse(bytes)
    }

    /// Returns the job that carries this work, due now. The work of a service has a key, so that each
    /// kind has at most one job per service.
    pub fn job(&self) -> NewJob {
        let job = NewJob::versioned(GRASP, self);
        match self {
            Self::Reconcile => job.max_attempts(1).priority(10),
            Self::Release { service } => {
                job.max_attempts(5).key(format!("grasp-release:{service}"))
            }
            Self::Scan { service } => job.max_attempts(5).key(format!("grasp-scan:{service}")),
            Self::RemoveService { service } => {
                job.max_attempts(5).priority(-5).key(format!("grasp-remove:{service}"))
            }
        }
    }
}
