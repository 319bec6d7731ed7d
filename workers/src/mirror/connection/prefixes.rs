//! Whether an upstream takes requests for ids by their first digits. NIP-01 no longer has them: some relays answer nothing,
//! and some end the connection.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a refusal is remembered. The connection may have ended for another reason.
const REMEMBERED: Duration = Duration::from_hours(24);

/// When an upstream last refused them; shared by its connections, one after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prefixes(Arc<Mutex<Option<Instant>>>);

impl Prefixes {
    pub(crate) fn are_refused(&self) -> bool {
        let refused = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused.is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    pub(crate) fn refuse(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}
