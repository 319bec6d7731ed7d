//! Mutations of a relay. Each is one transaction that writes the relay's row, a record of activity
//! and a SyncRelay job; or a part of the caller's transaction, which commits more with it.

use serde_json::{Map, Value, json};
use sqlx::{PgConnection, Postgres, Transaction};

use super::{
    Change, NewRelay, Relay, RelayId, Status, Wanted, limit,
    write::{insert, lock, next_generation, wanted_of, write},
};
use crate::{
    database::Begin,
    provision::{
        Cause,
        activity::{self, ActivityType},
        job::enqueue_sync,
    },
};

/// The author of a mutation, and the trace that its job continues.
#[derive(Debug, Clone)]
pub struct By {
    /// A public key in hex, or `operator` for the command line.
    pub who: String,
    /// The id of the request, which becomes part of the job's payload.
    pub trace: Option<String>,
}

/// The result of an accepted mutation.
#[derive(Debug, Clone)]
pub struct Requested {
    /// The relay after the mutation.
    pub relay: Relay,
    /// False if the relay had the requested state already; nothing was written then.
    pub changed: bool,
}

/// Why a mutation failed. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum MutationError {
    /// The relay does not exist.
    #[error("there is no relay {0}")]
    NotFound(RelayId),
    /// Another relay has this host.
    #[error("{0} is taken by another relay")]
    HostTaken(String),
    /// The relay is being deleted, and changes no more.
    #[error("the relay {0} is being deleted")]
    Deleting(RelayId),
    /// The tenant has as many relays as it may have.
    #[error("the tenant has {0} relays, which is the limit: delete one, or ask the operator")]
    QuotaUsedUp(u32),
    /// The operator marked the relay as delinquent, and only the operator may change that.
    #[error("this relay is delinquent; ask the operator")]
    Delinquent,
    /// The tenant requested a sync a moment ago; the wait in seconds.
    #[error("a sync was requested less than a minute ago: try again in {0} s")]
    TooSoon(u64),
    /// The database is unreachable or refused a statement.
    #[error("failed to write the change")]
    Database(#[from] sqlx::Error),
}

/// Creates a relay with its activity and its job.
///
/// # Errors
/// [`MutationError::HostTaken`] if another relay has the host.
pub async fn create(db: impl Begin<'_>, new: &NewRelay, by: &By) -> Result<Relay, MutationError> {
    create_with(db, new, None, by).await
}

/// As [`create`], for a tenant that may have at most `most` relays.
///
/// # Errors
/// [`MutationError::QuotaUsedUp`], or as [`create`].
pub async fn create_within(
    db: impl Begin<'_>,
    new: &NewRelay,
    most: u32,
    by: &By,
) -> Result<Relay, MutationError> {
    create_with(db, new, Some(most), by).await
}

async fn create_with(
    db: impl Begin<'_>,
    new: &NewRelay,
    most: Option<u32>,
    by: &By,
) -> Result<Relay, MutationError> {
    let mut tx = db.begin().await?;
    if let Some(most) = most {
        limit::check_quota(&mut tx, new, most).await?;
    }
    let relay = insert(&mut tx, new).await.map_err(|error| host_taken(error, &new.wanted))?;
    let detail = json!({ "by": by.who, "status": relay.status, "wanted": new.wanted });
    record(&mut tx, &relay, ActivityType::CreateRelay, &detail, Cause::Create, by).await?;
    tx.commit().await?;
    Ok(relay)
}

/// Changes the wanted state. A change without a difference writes nothing.
///
/// # Errors
/// [`MutationError::NotFound`], [`MutationError::Deleting`], or [`MutationError::HostTaken`] if the
/// change moves the relay to another relay's host.
pub async fn update(
    db: impl Begin<'_>,
    id: &RelayId,
    change: &Change,
    by: &By,
) -> Result<Requested, MutationError> {
    let mut tx = db.begin().await?;
    let old = lock_living(&mut tx, id).await?;
    let before = wanted_of(&old);
    let after = change.applied_to(&before);
    if after == before {
        return Ok(Requested { relay: old, changed: false });
    }
    let relay = write(&mut tx, id, &after).await.map_err(|error| host_taken(error, &after))?;
    let detail = json!({ "by": by.who, "changed": difference(&before, &after) });
    record(&mut tx, &relay, ActivityType::UpdateRelay, &detail, Cause::Update, by).await?;
    tx.commit().await?;
    Ok(Requested { relay, changed: true })
}

/// Deletes a relay: zooid first, and then its row, which frees its host. Its activity stays. Writes nothing
/// if the relay is being deleted already.
///
/// # Errors
/// [`MutationError::NotFound`].
pub async fn delete(db: impl Begin<'_>, id: &RelayId, by: &By) -> Result<Requested, MutationError> {
    set_status(db, id, Status::Deleting, by).await
}

/// Activates a relay, deactivates it or marks it as delinquent. Writes nothing if the relay has
/// that status already.
///
/// # Errors
/// [`MutationError::NotFound`], or [`MutationError::Deleting`].
pub async fn set_status(
    db: impl Begin<'_>,
    id: &RelayId,
    status: Status,
    by: &By,
) -> Result<Requested, MutationError> {
    switch(db, id, status, true, by).await
}

/// As [`set_status`], for the tenant of the relay, who may not change the status of a delinquent relay.
///
/// # Errors
/// [`MutationError::NotFound`] or [`MutationError::Delinquent`].
pub async fn set_own_status(
    db: impl Begin<'_>,
    id: &RelayId,
    status: Status,
    by: &By,
) -> Result<Requested, MutationError> {
    switch(db, id, status, false, by).await
}

async fn switch(
    db: impl Begin<'_>,
    id: &RelayId,
    status: Status,
    is_operator: bool,
    by: &By,
) -> Result<Requested, MutationError> {
    let mut tx = db.begin().await?;
    let old = lock(&mut tx, id).await?;
    if old.status == Status::Delinquent && !is_operator {
        return Err(MutationError::Delinquent);
    }
    if old.status == status {
        // A deletion that gave up starts over when it is requested again.
        if status == Status::Deleting && old.exhausted_at.is_some() {
            let relay = send_again(tx, &old, by).await?;
            return Ok(Requested { relay, changed: true });
        }
        return Ok(Requested { relay: old, changed: false });
    }
    if old.status == Status::Deleting {
        return Err(MutationError::Deleting(old.id));
    }
    let relay = next_generation(&mut tx, id, status).await?;
    let (activity_type, cause) = match status {
        Status::Active => (ActivityType::ActivateRelay, Cause::Activate),
        Status::Inactive | Status::Delinquent => (ActivityType::DeactivateRelay, Cause::Deactivate),
        Status::Deleting => (ActivityType::DeleteRelay, Cause::Delete),
    };
    let detail = json!({ "by": by.who, "status": status });
    record(&mut tx, &relay, activity_type, &detail, cause, by).await?;
    tx.commit().await?;
    Ok(Requested { relay, changed: true })
}

/// Starts a new generation of the relay without a change, so that it is sent to zooid again even if
/// it is synced or gave up.
///
/// # Errors
/// [`MutationError::NotFound`].
pub async fn request_sync(
    db: impl Begin<'_>,
    id: &RelayId,
    by: &By,
) -> Result<Relay, MutationError> {
    let mut tx = db.begin().await?;
    let old = lock(&mut tx, id).await?;
    send_again(tx, &old, by).await
}

/// As [`request_sync`], for the tenant of the relay, at most once a minute.
///
/// # Errors
/// [`MutationError::NotFound`] or [`MutationError::TooSoon`].
pub async fn request_own_sync(
    db: impl Begin<'_>,
    id: &RelayId,
    by: &By,
) -> Result<Relay, MutationError> {
    let mut tx = db.begin().await?;
    let old = lock(&mut tx, id).await?;
    limit::check_sync(&mut tx, id, &by.who).await?;
    send_again(tx, &old, by).await
}

async fn send_again(
    mut tx: Transaction<'_, Postgres>,
    old: &Relay,
    by: &By,
) -> Result<Relay, MutationError> {
    let relay = next_generation(&mut tx, &old.id, old.status).await?;
    let detail = json!({ "by": by.who, "cause": Cause::Operator });
    record(&mut tx, &relay, ActivityType::UpdateRelay, &detail, Cause::Operator, by).await?;
    tx.commit().await?;
    Ok(relay)
}

/// Writes what every mutation has in common: the activity and the job.
async fn record(
    tx: &mut PgConnection,
    relay: &Relay,
    activity_type: ActivityType,
    detail: &Value,
    cause: Cause,
    by: &By,
) -> Result<(), sqlx::Error> {
    activity::append(tx, &relay.id, &relay.tenant_pubkey, activity_type, detail).await?;
    enqueue_sync(tx, &relay.id, cause, by.trace.as_deref()).await
}

/// Locks a relay that is not being deleted.
async fn lock_living(tx: &mut PgConnection, id: &RelayId) -> Result<Relay, MutationError> {
    let relay = lock(tx, id).await?;
    match relay.status {
        Status::Deleting => Err(MutationError::Deleting(relay.id)),
        Status::Active | Status::Inactive | Status::Delinquent => Ok(relay),
    }
}

/// Returns the fields that differ, with their new values.
fn difference(before: &Wanted, after: &Wanted) -> Value {
    let flat = |wanted: &Wanted| match json!(wanted) {
        Value::Object(mut fields) => {
            if let Some(Value::Object(flags)) = fields.remove("flags") {
                fields.extend(flags);
            }
            fields
        }
        _ => Map::new(),
    };
    let before = flat(before);
    let changed = flat(after).into_iter().filter(|(name, value)| before.get(name) != Some(value));
    Value::Object(changed.collect())
}

fn host_taken(error: sqlx::Error, wanted: &Wanted) -> MutationError {
    match &error {
        sqlx::Error::Database(cause) if cause.constraint() == Some("relay_host_key") => {
            MutationError::HostTaken(format!("{}.{}", wanted.subdomain, wanted.zooid_domain))
        }
        _ => error.into(),
    }
}
