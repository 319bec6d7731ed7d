//! Relays and their activity, as text and as JSON.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tender_jobs::{
    provision::{
        activity::Activity,
        relay::{Relay, SyncState},
    },
    queue,
};

use crate::{command::print, config::Config, postgres::Database};

/// Returns the table of a list of relays.
pub(super) fn relay_table(relays: &[Relay], max: u32, now: DateTime<Utc>) -> String {
    let mut table =
        print::table(&["HOST", "STATUS", "SYNC", "ATTEMPT", "NEXT TRY", "LAST ERROR", "ID"]);
    for relay in relays {
        table.add_row(vec![
            relay.host().into(),
            relay.status.as_str().into(),
            print::sync_cell(relay),
            print::attempts(relay, max).into(),
            next_try(relay, now).into(),
            print::short(&relay.sync_error, 60).into(),
            relay.id.as_str().into(),
        ]);
    }
    table.trim_fmt()
}

fn next_try(relay: &Relay, now: DateTime<Utc>) -> String {
    match (relay.sync_state(), relay.retry_at) {
        (SyncState::Synced, _) => "-".to_owned(),
        (SyncState::GaveUp, _) => "none: run `tender relay sync`".to_owned(),
        (_, Some(at)) => print::relative(at.max(now), now),
        (_, None) => "now".to_owned(),
    }
}

/// Returns the fields of a relay, with its host, its sync state and its maximum of attempts.
pub(super) fn fields(relay: &Relay, max_attempts: u32) -> Value {
    let mut view = json!(relay);
    view["host"] = json!(relay.host());
    view["sync_state"] = json!(relay.sync_state());
    view["max_attempts"] = json!(max_attempts);
    view
}

/// Prints a relay.
pub(super) async fn print(
    database: &Database,
    config: &Config,
    relay: &Relay,
    json: bool,
) -> anyhow::Result<()> {
    let max = config.provision.backoff.max_attempts();
    if json {
        return print::json(&fields(relay, max));
    }
    let now = queue::now(&database.pool).await?;
    let ago =
        |at: DateTime<Utc>| format!("{} ({})", print::relative(at, now), at.format("%F %T UTC"));
    let on: Vec<_> = relay.flags.named().filter(|(_, on)| *on).map(|(name, _)| name).collect();
    print::pairs(&[
        ("host", relay.host()),
        ("id", relay.id.to_string()),
        ("tenant", relay.tenant_pubkey.clone()),
        ("status", relay.status.as_str().to_owned()),
        ("sync", relay.sync_state().as_str().replace('_', " ")),
        ("attempt", print::attempts(relay, max)),
        ("next try", next_try(relay, now)),
        ("last error", relay.sync_error.clone()),
        (
            "generation",
            format!("{} wanted, {} on zooid", relay.generation, relay.synced_generation),
        ),
        ("first synced", relay.provisioned_at.map_or_else(|| "never".to_owned(), ago)),
        ("schema", relay.schema.clone()),
        ("plan", relay.plan_id.clone()),
        ("name", relay.info_name.clone()),
        ("icon", relay.info_icon.clone()),
        ("description", print::short(&relay.info_description, 200)),
        ("custom domain", relay.custom_domain.clone()),
        ("switched on", on.join(", ")),
        ("created", ago(relay.created_at)),
        ("changed", ago(relay.updated_at)),
    ])
}

/// Returns the table of a relay's activity.
pub(super) fn activity_table(records: &[Activity]) -> String {
    let mut table = print::table(&["WHEN", "WHAT", "ATTEMPT", "MS", "DETAIL"]);
    for record in records {
        let text = |name: &str| match &record.detail[name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        let detail =
            ["error", "note", "changed", "by"].map(text).into_iter().find(|text| !text.is_empty());
        table.add_row(vec![
            record.created_at.format("%F %T").to_string(),
            record.activity_type.as_str().replace('_', " "),
            text("attempt"),
            text("duration_ms"),
            print::short(&detail.unwrap_or_default(), 100),
        ]);
    }
    table.trim_fmt()
}
