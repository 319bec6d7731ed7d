//! A relay whose file zooid cannot read: zooid refuses every PATCH, but takes a whole document by PUT.

use std::time::Instant;

use super::call::{Call, Trouble};
use crate::{provision::zooid::ZooidError, runtime::failpoint};

/// The first attempt that replaces a file, or the last one of a shorter schedule: three failures rule out a
/// short one.
const FIRST_REPAIR: i32 = 4;

impl Call<'_> {
    /// Replaces the relay's file if zooid cannot read it. Otherwise fails with the error of the PATCH.
    pub(super) async fn repair(&mut self, error: ZooidError) -> Result<(), Trouble> {
        let last = self.context.settings.backoff.max_attempts();
        let first = FIRST_REPAIR.min(i32::try_from(last).unwrap_or(FIRST_REPAIR));
        if self.job.place() < first || !self.is_file_broken(&error).await {
            return Err(Trouble::Zooid(error));
        }
        self.check_lease().await?;
        let relay = &self.lease.relay;
        tracing::warn!(%error, "zooid cannot read a relay's file; replacing it");
        let identity = self.identity_note();
        self.attempt.note =
            Some(format!("zooid could not read the relay's file; replaced: {identity}"));
        self.about_to("PUT")?;
        let started = Instant::now();
        failpoint!("sync-before-put");
        let result = self.context.zooid.replace(relay).await;
        failpoint!("sync-after-put");
        self.attempt.latency = started.elapsed();
        if result.is_ok() {
            self.attempt.identity = Some(self.context.zooid.identity(&relay.id));
        }
        result.map_err(Trouble::Zooid)
    }

    /// Whether only this relay's file is at fault: zooid itself refuses to change the relay and to list
    /// its members with 5xx, and answers a request about another relay.
    async fn is_file_broken(&self, error: &ZooidError) -> bool {
        let (zooid, relay) = (&self.context.zooid, &self.lease.relay);
        is_server_error(error)
            && zooid.members(relay).await.is_err_and(|error| is_server_error(&error))
            && zooid.check_instance_of(relay).await.is_ok()
    }
}

/// Whether zooid answered 5xx in its own words.
fn is_server_error(error: &ZooidError) -> bool {
    matches!(
        error,
        ZooidError::Refused { status, is_from_zooid: true, .. } if status.is_server_error()
    )
}
