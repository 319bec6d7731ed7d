//! The changes of one relay. Each commits with its record in the audit log, under the name `action`.

use nostr::key::PublicKey;
use sqlx::{PgPool, Postgres, Transaction};
use tender_jobs::provision::relay::{self, FieldError, NewRelay, Relay, Status};

use super::{
    arguments::{ChangeArgs, Spelling},
    find::find,
};
use crate::{
    command::{ask::Yes, audit, failure::usage, operator},
    config::ApiConfig,
};

pub(super) async fn create(
    db: &PgPool,
    action: &str,
    api: &ApiConfig,
    subdomain: String,
    tenant: PublicKey,
    change: ChangeArgs,
) -> anyhow::Result<Relay> {
    let change = change.into_change(Some(subdomain))?;
    let new = NewRelay::parse(tenant.to_hex(), &change, &api.relay_domain, &api.domains);
    let new = new.map_err(|problems| wrong(&problems, Spelling::Create))?;
    let mut tx = tender_jobs::database::begin(db).await?;
    let relay = relay::create(&mut *tx, &new, &operator()).await?;
    committed(tx, action, relay).await
}

pub(super) async fn update(
    db: &PgPool,
    action: &str,
    api: &ApiConfig,
    name: &str,
    subdomain: Option<String>,
    change: ChangeArgs,
) -> anyhow::Result<Relay> {
    let found = find(db, name).await?;
    let change = change.into_change(subdomain)?;
    let problems = change.problems_for(&found, &api.domains, &api.instances);
    if !problems.is_empty() {
        return Err(wrong(&problems, Spelling::Update));
    }
    let mut tx = tender_jobs::database::begin(db).await?;
    let relay = relay::update(&mut *tx, &found.id, &change, &operator()).await?.relay;
    committed(tx, action, relay).await
}

pub(super) async fn set_status(
    db: &PgPool,
    action: &str,
    name: &str,
    status: Status,
) -> anyhow::Result<Relay> {
    let id = find(db, name).await?.id;
    let mut tx = tender_jobs::database::begin(db).await?;
    let relay = relay::set_status(&mut *tx, &id, status, &operator()).await?.relay;
    committed(tx, action, relay).await
}

pub(super) async fn delete(
    db: &PgPool,
    action: &str,
    name: &str,
    yes: Yes,
) -> anyhow::Result<Relay> {
    let found = find(db, name).await?;
    let host = found.host();
    let question = format!("Delete 1 relay, {host}, for good? All its events on zooid are lost.");
    yes.or_asks(&question).await?;
    let mut tx = tender_jobs::database::begin(db).await?;
    let relay = relay::delete(&mut *tx, &found.id, &operator()).await?.relay;
    committed(tx, action, relay).await
}

pub(super) async fn sync(db: &PgPool, action: &str, name: &str) -> anyhow::Result<Relay> {
    let id = find(db, name).await?.id;
    let mut tx = tender_jobs::database::begin(db).await?;
    let relay = relay::request_sync(&mut *tx, &id, &operator()).await?;
    committed(tx, action, relay).await
}

async fn committed(
    tx: Transaction<'_, Postgres>,
    action: &str,
    relay: Relay,
) -> anyhow::Result<Relay> {
    audit::commit(tx, action, &relay.host(), "the change is on its way to zooid").await?;
    Ok(relay)
}

/// Returns the error of fields that violate their rules, each named as it is typed.
fn wrong(problems: &[FieldError], spelling: Spelling) -> anyhow::Error {
    let each = problems
        .iter()
        .map(|problem| format!("{} {}", spelling.of(problem.field), problem.problem));
    usage(each.collect::<Vec<_>>().join("; "))
}
