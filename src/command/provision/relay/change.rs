//! The changes of one relay.

use nostr::key::PublicKey;
use sqlx::PgPool;
use tender_jobs::provision::relay::{self, FieldError, NewRelay, Relay, Status};

use super::{
    arguments::{ChangeArgs, Spelling},
    find::find,
};
use crate::{
    command::{ask::Yes, failure::usage, operator},
    config::ApiConfig,
};

pub(super) async fn create(
    db: &PgPool,
    api: &ApiConfig,
    subdomain: String,
    tenant: PublicKey,
    change: ChangeArgs,
) -> anyhow::Result<Relay> {
    let change = change.into_change(Some(subdomain))?;
    let new = NewRelay::parse(tenant.to_hex(), &change, &api.relay_domain, &api.domains);
    let new = new.map_err(|problems| wrong(&problems, Spelling::Create))?;
    Ok(relay::create(db, &new, &operator()).await?)
}

pub(super) async fn update(
    db: &PgPool,
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
    Ok(relay::update(db, &found.id, &change, &operator()).await?.relay)
}

pub(super) async fn set_status(db: &PgPool, name: &str, status: Status) -> anyhow::Result<Relay> {
    let id = find(db, name).await?.id;
    Ok(relay::set_status(db, &id, status, &operator()).await?.relay)
}

pub(super) async fn delete(db: &PgPool, name: &str, yes: Yes) -> anyhow::Result<Relay> {
    let found = find(db, name).await?;
    let host = found.host();
    let question = format!("Delete 1 relay, {host}, for good? All its events on zooid are lost.");
    yes.or_asks(&question).await?;
    Ok(relay::delete(db, &found.id, &operator()).await?.relay)
}

pub(super) async fn sync(db: &PgPool, name: &str) -> anyhow::Result<Relay> {
    let id = find(db, name).await?.id;
    Ok(relay::request_sync(db, &id, &operator()).await?)
}

/// Returns the error of fields that violate their rules, each named as it is typed.
fn wrong(problems: &[FieldError], spelling: Spelling) -> anyhow::Error {
    let each = problems
        .iter()
        .map(|problem| format!("{} {}", spelling.of(problem.field), problem.problem));
    usage(each.collect::<Vec<_>>().join("; "))
}
