//! A host that zooid refuses because another of its relays has it. `docs/adr/0016-names-that-move.md`

use tender_jobs::provision::{
    self, Conflict, Failure, Occupant, Reached,
    relay::{FailureKind, Relay},
};

use super::{
    call::{Call, Trouble},
    classify::classify,
};
use crate::provision::zooid::ZooidError;

impl Call<'_> {
    /// Finds out who has the wanted host. If a relay of ours is about to move away from it, the failure is
    /// transient. If that relay waits for a host of this one, this one moves to a temporary host first.
    /// Otherwise the request is made once more, because the other may have moved just now; a second refusal
    /// is permanent.
    pub(super) async fn resolve(&mut self, refused: &ZooidError) -> Result<(), Failure> {
        if let Some(failure) = self.wait_for_occupant(refused).await? {
            return Err(failure);
        }
        self.check_lease().await?;
        let refused = match self.bring().await {
            Ok(()) => return Ok(()),
            Err(Trouble::Zooid(again)) if again.is_conflict() => again,
            Err(trouble) => return Err(trouble.into()),
        };
        if let Some(failure) = self.wait_for_occupant(&refused).await? {
            return Err(failure);
        }
        Err(self.without_occupant(&refused).await?)
    }

    /// The failure of a host that no relay of ours is about to leave. If zooid accepted it for this relay
    /// before, zooid's documents are older than our tables: a backup was restored. The relay that has the host
    /// there is then sent again too, so this is transient. From the second attempt on, this relay leaves the host
    /// that it has there, which another one may want.
    async fn without_occupant(&mut self, refused: &ZooidError) -> Result<Failure, Failure> {
        let had = provision::had_host(&self.context.db, &self.lease.relay).await;
        if !had.map_err(|error| undecided(refused, &error))? {
            return Ok(not_ours(refused));
        }
        let has_moved_away = self.job.place() >= 2 && self.move_away().await?;
        let text = format!(
            "{refused}; zooid had this host for this relay before, so its documents may have been restored \
             from a backup: `tender relay sync --all` sends every relay again"
        );
        let host = self.lease.relay.host();
        let conflict =
            has_moved_away.then_some(Conflict { host, is_awaited: false, has_moved_away });
        Ok(Failure { conflict, ..answered(&text) })
    }

    /// Returns the failure of a relay that waits for another one; `None` if no relay of ours has the host.
    async fn wait_for_occupant(
        &mut self,
        refused: &ZooidError,
    ) -> Result<Option<Failure>, Failure> {
        let relay = &self.lease.relay;
        let found = provision::occupant(&self.context.db, relay).await;
        let found = found.map_err(|error| undecided(refused, &error))?;
        let Some(occupant) = found else { return Ok(None) };
        // A relay that gave up would leave this one at the temporary host.
        let may_move = occupant.is_mutual && !occupant.is_stuck;
        let has_moved_away = may_move && self.move_away().await?;
        Ok(Some(waiting(relay, &occupant, has_moved_away)))
    }

    /// Moves the relay to a temporary host. Returns false if zooid does not have the relay.
    async fn move_away(&mut self) -> Result<bool, Failure> {
        self.check_lease().await?;
        match self.patch(&at_temporary_host(&self.lease.relay)).await {
            Ok(()) => Ok(true),
            Err(Trouble::Zooid(ZooidError::NotFound)) => Ok(false),
            Err(trouble) => Err(trouble.into()),
        }
    }
}

/// The relay under a host that no tenant can have: a subdomain does not start with an underscore.
fn at_temporary_host(relay: &Relay) -> Relay {
    Relay { subdomain: format!("_{}", relay.id), ..relay.clone() }
}

fn waiting(relay: &Relay, occupant: &Occupant, has_moved_away: bool) -> Failure {
    let (host, id, wanted) = (relay.host(), &occupant.id, &occupant.wanted);
    let mut text = format!(
        "zooid still serves relay {id} at {host}; it is to move to {wanted}, and this relay follows"
    );
    if has_moved_away {
        text += "; the two wait for each other, so this one is at a temporary host meanwhile";
    }
    let conflict = Conflict { host, is_awaited: true, has_moved_away };
    Failure { conflict: Some(conflict), ..answered(&text) }
}

/// A transient failure after a conflict.
fn answered(text: &str) -> Failure {
    let failure = Failure::new(FailureKind::Transient, text);
    Failure { status: Some(409), reached: Reached::Answered, ..failure }
}

fn undecided(refused: &ZooidError, error: &sqlx::Error) -> Failure {
    answered(&format!("{refused}; could not look for the relay that has the host: {error}"))
}

fn not_ours(refused: &ZooidError) -> Failure {
    let text = format!("{refused}; zooid has it for a relay that Tender does not manage");
    Failure { message: Failure::new(FailureKind::Permanent, &text).message, ..classify(refused) }
}
