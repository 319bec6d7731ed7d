//! The requests of one attempt: create, patch or delete, and the second request where the answer to the
//! first one requires it.

use std::time::{Duration, Instant};

use tender_jobs::{
    provision::{
        self, Attempt, Failure, Lease,
        relay::{FailureKind, Relay, Status},
    },
    queue::Job,
};

use super::classify::classify;
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

/// Why the relay is not as wanted.
pub(super) enum Trouble {
    /// The last request failed.
    Zooid(ZooidError),
    /// No further request may be made.
    Own(Failure),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Zooid(error) => classify(&error),
            Trouble::Own(failure) => failure,
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Own(failure)
    }
}

impl Call<'_> {
    /// Brings zooid to the wanted state of the relay.
    pub(super) async fn carry(&mut self) -> Result<(), Failure> {
        match self.bring().await {
            Err(Trouble::Zooid(error)) if error.is_conflict() => self.resolve(&error).await,
            result => result.map_err(Failure::from),
        }
    }

    /// Makes the requests that the relay's state requires.
    pub(super) async fn bring(&mut self) -> Result<(), Trouble> {
        let relay = &self.lease.relay;
        match (relay.status, relay.provisioned_at) {
            (Status::Deleting, _) => self.delete().await,
            (_, None) => self.create_or_adopt().await,
            (_, Some(_)) => self.change().await,
        }
    }

    /// Changes the relay, and creates it again if zooid has lost it.
    async fn change(&mut self) -> Result<(), Trouble> {
        match self.patch(&self.lease.relay).await {
            Err(Trouble::Zooid(lost @ ZooidError::NotFound)) => self.recreate(lost).await,
            Err(Trouble::Zooid(error)) => self.repair(error).await,
            result => result,
        }
    }

    /// Creates the relay. A conflict may mean that an earlier attempt created it and its answer was
    /// lost; the relay is then patched.
    async fn create_or_adopt(&mut self) -> Result<(), Trouble> {
        let refused = match self.create().await {
            Err(Trouble::Zooid(error)) if error.is_conflict() => error,
            result => return result,
        };
        self.check_lease().await?;
        match self.patch(&self.lease.relay).await {
            // The relay does not exist: another relay has the schema or the host.
            Err(Trouble::Zooid(ZooidError::NotFound)) => Err(Trouble::Zooid(refused)),
            Err(Trouble::Zooid(error)) => self.repair(error).await,
            Ok(()) => {
                self.attempt.note = Some("existed already: an earlier answer was lost".to_owned());
                Ok(())
            }
            result => result,
        }
    }

    /// Creates a relay again that zooid has lost.
    async fn recreate(&mut self, lost: ZooidError) -> Result<(), Trouble> {
        if !self.context.settings.recreate_missing {
            return Err(Trouble::Zooid(lost));
        }
        self.check_lease().await?;
        tracing::warn!("zooid lost a relay; creating it again");
        let identity = self.identity_note();
        self.attempt.note = Some(format!("zooid had lost the relay; created anew: {identity}"));
        self.create().await
    }

    /// The identity of a document that we send whole, and whether it is new.
    pub(super) fn identity_note(&self) -> String {
        let relay = &self.lease.relay;
        let key = self.context.zooid.identity(&relay.id);
        match &relay.identity {
            Some(known) if *known == key => format!("its public key is {key} as before"),
            Some(_) => format!("its public key is {key} now, since ROBOT_SECRET has changed"),
            None => {
                format!("its public key is {key} now; an earlier release may have given it another")
            }
        }
    }

    async fn create(&mut self) -> Result<(), Trouble> {
        self.about_to("POST")?;
        let (zooid, relay) = (&self.context.zooid, &self.lease.relay);
        let started = Instant::now();
        failpoint!("sync-before-post");
        let result = zooid.create(relay).await;
        failpoint!("sync-after-post");
        self.attempt.latency = started.elapsed();
        if result.is_ok() {
            self.attempt.identity = Some(zooid.identity(&relay.id));
        }
        result.map_err(Trouble::Zooid)
    }

    /// Sends the wanted state, or another one in its place.
    pub(super) async fn patch(&mut self, state: &Relay) -> Result<(), Trouble> {
        self.about_to("PATCH")?;
        let started = Instant::now();
        failpoint!("sync-before-patch");
        let result = self.context.zooid.patch(state).await;
        failpoint!("sync-after-patch");
        self.attempt.latency = started.elapsed();
        result.map_err(Trouble::Zooid)
    }

    /// Deletes the relay. It may be gone already.
    async fn delete(&mut self) -> Result<(), Trouble> {
        self.about_to("DELETE")?;
        let started = Instant::now();
        failpoint!("sync-before-delete");
        let result = self.context.zooid.delete(&self.lease.relay).await;
        failpoint!("sync-after-delete");
        self.attempt.latency = started.elapsed();
        match result {
            Err(ZooidError::NotFound) => Ok(()),
            result => result.map_err(Trouble::Zooid),
        }
    }

    /// Notes the method of the next request. Fails if the lease could end before the request does: a
    /// process that was suspended and resumed must not call zooid beside its successor.
    pub(super) fn about_to(&mut self, method: &'static str) -> Result<(), Failure> {
        self.attempt.method = Some(method);
        let last_end = self.claimed_at.elapsed() + self.context.zooid.timeout() + MARGIN;
        if last_end > self.context.instances.lease() {
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
