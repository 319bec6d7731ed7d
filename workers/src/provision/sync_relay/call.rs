//! The requests of one attempt: create or patch, the second request where the answer to the first
//! one requires it, and the class of a failure.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use tender_jobs::{
    provision::{self, Attempt, Failure, LEASE, Lease, Reached, relay::FailureKind},
    queue::Job,
};

use crate::{
    provision::{Context, zooid::ZooidError},
    runtime::failpoint,
};

/// The part of the lease that no request uses, for the time between the check and the request.
const MARGIN: Duration = Duration::from_secs(5);

/// The calls of one attempt under its lease.
pub(super) struct Call<'a> {
    pub(super) context: &'a Context,
    pub(super) job: &'a Job,
    pub(super) lease: &'a Lease,
    /// The instant before the claim.
    pub(super) claimed_at: Instant,
    /// The method of the last request, and a note for the operator.
    pub(super) attempt: Attempt,
}

impl Call<'_> {
    /// Brings zooid to the wanted state of the relay.
    pub(super) async fn carry(&mut self) -> Result<(), Failure> {
        if self.lease.relay.provisioned_at.is_none() {
            return self.create_or_adopt().await;
        }
        match self.patch().await? {
            Err(error @ ZooidError::NotFound) => self.recreate(&error).await,
            Err(error) => self.repair(&error).await,
            Ok(()) => Ok(()),
        }
    }

    /// Creates the relay. A conflict may mean that an earlier attempt created it and its answer was
    /// lost; the relay is then patched.
    async fn create_or_adopt(&mut self) -> Result<(), Failure> {
        let refused = match self.create().await? {
            Err(error) if is(&error, StatusCode::CONFLICT) => error,
            result => return result.map_err(|error| classify(&error)),
        };
        self.check_lease().await?;
        match self.patch().await? {
            // The relay does not exist: another relay has the schema or the host.
            Err(ZooidError::NotFound) => Err(classify(&refused)),
            Err(error) => self.repair(&error).await,
            Ok(()) => {
                self.attempt.note = Some("existed already: an earlier answer was lost".to_owned());
                Ok(())
            }
        }
    }

    /// Creates a relay again that zooid has lost, under its derived identity.
    async fn recreate(&mut self, lost: &ZooidError) -> Result<(), Failure> {
        if !self.context.settings.recreate_missing {
            return Err(classify(lost));
        }
        self.check_lease().await?;
        tracing::warn!(relay.id = %self.lease.relay.id, "zooid lost a relay; creating it again");
        self.attempt.note = Some("zooid had lost the relay; created anew".to_owned());
        self.create().await?.map_err(|error| classify(&error))
    }

    async fn create(&mut self) -> Result<Result<(), ZooidError>, Failure> {
        self.about_to("POST")?;
        failpoint!("sync-before-post");
        let result = self.context.zooid.create(&self.lease.relay).await;
        failpoint!("sync-after-post");
        Ok(result)
    }

    async fn patch(&mut self) -> Result<Result<(), ZooidError>, Failure> {
        self.about_to("PATCH")?;
        failpoint!("sync-before-patch");
        let result = self.context.zooid.patch(&self.lease.relay).await;
        failpoint!("sync-after-patch");
        Ok(result)
    }

    /// Notes the method of the next request. Fails if the lease could end before the request does: a
    /// process that was suspended and resumed must not call zooid beside its successor.
    pub(super) fn about_to(&mut self, method: &'static str) -> Result<(), Failure> {
        self.attempt.method = Some(method);
        let last_end = self.claimed_at.elapsed() + self.context.zooid.timeout() + MARGIN;
        if last_end > LEASE {
            let words = "the attempt took longer than its lease allows";
            return Err(Failure::new(FailureKind::Transient, words));
        }
        Ok(())
    }

    /// Fails unless the job still holds the lease. Asked before a second request, because a
    /// successor may have sent a newer state while the first answer was awaited.
    pub(super) async fn check_lease(&self) -> Result<(), Failure> {
        let words = match provision::is_leased(&self.context.db, self.job, self.lease).await {
            Ok(true) => return Ok(()),
            Ok(false) => "the lease was lost during the attempt".to_owned(),
            Err(error) => format!("could not verify the lease: {error}"),
        };
        Err(Failure::new(FailureKind::Transient, &words))
    }
}

fn is(error: &ZooidError, expected: StatusCode) -> bool {
    matches!(error, ZooidError::Refused { status, .. } if *status == expected)
}

/// Returns the failure for an error of a request. Only this function decides which errors are
/// transient. Source: `docs/adr/0004-permanent-failures.md`.
pub(super) fn classify(error: &ZooidError) -> Failure {
    let mut failure = Failure::new(FailureKind::Transient, &error.to_string());
    failure.status = error.status().map(|status| status.as_u16());
    failure.reached = Reached::Outage;
    match error {
        ZooidError::Refused { status, retry_after, .. } => {
            if matches!(status.as_u16(), 400 | 405 | 409 | 413 | 422) {
                failure.kind = FailureKind::Permanent;
            }
            if !status.is_server_error() {
                failure.reached = Reached::Answered;
            }
            let asks_to_wait = matches!(status.as_u16(), 429 | 503);
            failure.retry_after = retry_after.filter(|_| asks_to_wait);
        }
        ZooidError::NotFound => failure.reached = Reached::Answered,
        ZooidError::WrongServer { .. }
        | ZooidError::KeyRefused { .. }
        | ZooidError::Unreachable(_)
        | ZooidError::Unanswered { .. } => {}
    }
    failure
}
