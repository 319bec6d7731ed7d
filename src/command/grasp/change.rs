//! `grasp add`, `update`, `remove`: changes of services.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;
use sqlx::PgPool;
use tender_jobs::{
    grasp::service::{self, NewService, ServiceChange, ServiceError},
    mirror::upstream,
};
use uuid::Uuid;

use super::service::named;
use crate::{
    command::{ask::Yes, failure::wrong_fields, mirror::address, operator, print},
    words::{counted, grasp as words},
};

/// The longest file of rules, in bytes.
const MAX_POLICY: u64 = 4 * 1024 * 1024;

#[derive(Debug, Args)]
pub(crate) struct Fields {
    /// Host by which announcements mean the service, with a port unless it is the scheme's; may be repeated
    /// (default: the host of its relay).
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// Relay that is followed even if no repository names it; may be repeated.
    #[arg(long, value_name = "URL", value_parser = address)]
    bootstrap: Vec<String>,
    /// The most relays that are followed in total, 1 to 10000 (default: 1000). A lower number drops the newest of
    /// the relays beyond it.
    #[arg(long, value_name = "N")]
    max_relays: Option<i32>,
    /// The most relays that are followed for one announcement, 1 to 100 (default: 20).
    #[arg(long, value_name = "N")]
    max_relays_per_announcement: Option<i32>,
    /// JSON file with rules of admission; docs/GRASP.md describes them.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Allow relays with an address that is not public, such as 127.0.0.1 or 10.0.0.1.
    #[arg(long)]
    private: bool,
    /// Whether the service judges events and wants relays to be followed (default: true).
    #[arg(long, value_name = "BOOL")]
    enabled: Option<bool>,
}

/// Reads rules of admission from a file.
async fn policy(file: Option<&Path>) -> anyhow::Result<Option<Value>> {
    let Some(file) = file else { return Ok(None) };
    let name = file.display();
    let size = tokio::fs::metadata(file).await.with_context(|| format!("failed to read {name}"))?;
    if size.len() > MAX_POLICY {
        bail!("{name} is longer than 4 MiB: a policy has at most 10,000 entries in a list");
    }
    let text = tokio::fs::read_to_string(file).await;
    let text = text.with_context(|| format!("failed to read {name}"))?;
    let policy = serde_json::from_str(&text);
    policy
        .map(Some)
        .with_context(|| format!("{name} is not JSON such as {{\"accept_all\": false}}"))
}

fn given<T>(values: Vec<T>) -> Option<Vec<T>> {
    (!values.is_empty()).then_some(values)
}

/// Returns the error of a service that was not stored.
fn refused(error: ServiceError) -> anyhow::Error {
    match error {
        ServiceError::Invalid(problems) => wrong_fields(&problems),
        error => error.into(),
    }
}

/// Adds a service. `allows_private` says that the deployment allows addresses that are not public.
pub(super) async fn add(
    db: &PgPool,
    url: String,
    fields: Fields,
    allows_private: bool,
    as_json: bool,
) -> anyhow::Result<()> {
    let new = NewService {
        url,
        names: fields.names,
        bootstrap: fields.bootstrap,
        policy: policy(fields.policy.as_deref()).await?,
        max_relays_per_announcement: fields.max_relays_per_announcement,
        max_relays: fields.max_relays,
        private: fields.private || allows_private,
        enabled: fields.enabled,
        by: Some(operator().who),
        ..NewService::default()
    };
    let created = match service::create(db, &new).await {
        Err(ServiceError::Taken) => {
            bail!("{} is a service already; `tender grasp update` changes it", new.url)
        }
        Err(error @ ServiceError::BeingRemoved) => return Err(error).context(new.url),
        created => created.map_err(refused)?,
    };
    if as_json {
        return print::json(&created);
    }
    print::line(&format!(
        "added {}, which announcements mean by {}",
        created.url,
        created.names.join(", ")
    ))?;
    print::line("the store is judged now; `tender grasp status` shows the progress")
}

/// Changes a service. Names and bootstrap relays replace the former ones, if any is given.
pub(super) async fn update(
    db: &PgPool,
    name: &str,
    fields: Fields,
    forgets_bootstrap: bool,
    allows_private: bool,
    as_json: bool,
) -> anyhow::Result<()> {
    let found = named(db, name).await?;
    let bootstrap = if forgets_bootstrap { Some(Vec::new()) } else { given(fields.bootstrap) };
    let change = ServiceChange {
        names: given(fields.names),
        bootstrap,
        policy: policy(fields.policy.as_deref()).await?,
        max_relays_per_announcement: fields.max_relays_per_announcement,
        max_relays: fields.max_relays,
        private: fields.private || allows_private,
        enabled: fields.enabled,
        by: Some(operator().who),
    };
    let changed = service::update(db, found.id, &change).await.map_err(refused)?;
    if as_json {
        return print::json(&changed);
    }
    print::line(&format!("changed {}", changed.url))?;
    let told = words::new_limit(found.max_relays, changed.max_relays);
    told.map_or(Ok(()), |told| print::line(&told))
}

pub(super) async fn remove(db: &PgPool, name: &str, yes: Yes, as_json: bool) -> anyhow::Result<()> {
    let found = named(db, name).await?;
    let url = &found.url;
    let repositories = counted(found.repositories, "repository");
    yes.or_asks(&format!("Remove {url} with the coverage of {repositories}? Its events are kept."))
        .await?;
    if !service::delete(db, found.id, Some(&operator().who)).await? {
        bail!(
            "{url} is being removed already; `tender grasp list` shows it until its rows are deleted"
        );
    }
    let left = left(db, found.id, url).await?;
    print::done(
        as_json,
        &format!(
            "removing {url}: it judges nothing and wants nothing any more; its events are kept. {left}"
        ),
    )
}

/// Says what the mirror does with the relay of a removed service.
async fn left(db: &PgPool, id: Uuid, url: &str) -> anyhow::Result<String> {
    let relay = upstream::find(db, id).await?.filter(|relay| relay.mirrored);
    let Some(relay) = relay else {
        return Ok(format!("Its relay is not mirrored (`tender mirror add {url}`)"));
    };
    let state = if relay.enabled { "enabled" } else { "disabled" };
    let direction = relay.direction;
    Ok(format!(
        "Its relay is an upstream of the mirror as before: {state}, direction {direction} \
         (`tender mirror show {url}`)"
    ))
}
