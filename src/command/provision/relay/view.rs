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

use crate::{
    command::print::{self, Column, Table},
    config::Config,
    postgres::Database,
};

const RELAYS: [Column; 7] = [
    Column::text("HOST", Column::ALWAYS, 20),
    Column::whole("STATUS", 3),
    Column::whole("SYNC", 9),
    Column::whole("ATTEMPT", 4),
    Column::whole("NEXT TRY", 6),
    Column::text("LAST ERROR", 7, 24),
    Column::whole("ID", 2),
];

/// Prints a list of relays.
pub(super) fn print_relays(relays: &[Relay], max: u32, now: DateTime<Utc>) -> anyhow::Result<()> {
    let mut table = Table::new(&RELAYS);
    for relay in relays {
        table.add_row(vec![
            relay.host().into(),
            relay.status.as_str().into(),
            print::sync_cell(relay),
            print::attempts(relay, max).into(),
            next_in_short(relay, now).into(),
            relay.sync_error.as_str().into(),
            relay.id.as_str().into(),
        ]);
    }
    table.print()
}

/// Returns when the next attempt is, in its largest unit; `-` if none is planned.
fn next_in_short(relay: &Relay, now: DateTime<Utc>) -> String {
    match (relay.sync_state(), relay.retry_at) {
        (SyncState::Synced | SyncState::GaveUp, _) => "-".to_owned(),
        (_, Some(at)) if at > now => format!("in {}", print::distance(at, now)),
        _ => "now".to_owned(),
    }
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
        ("sync", relay.sync_state().word().to_owned()),
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

const ACTIVITY: [Column; 5] = [
    Column::whole("WHEN", Column::ALWAYS),
    Column::whole("WHAT", 9),
    Column::whole("ATTEMPT", 4),
    Column::whole("MS", 2),
    Column::text("DETAIL", 8, 20),
];

/// Prints a relay's activity.
pub(super) fn print_activity(records: &[Activity]) -> anyhow::Result<()> {
    let mut table = Table::new(&ACTIVITY);
    for record in records {
        let text = |name: &str| match &record.detail[name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        let detail =
            ["error", "note", "changed", "by"].map(text).into_iter().find(|text| !text.is_empty());
        table.add_row(vec![
            record.created_at.format("%F %T").into(),
            record.activity_type.as_str().replace('_', " ").into(),
            text("attempt").into(),
            text("duration_ms").into(),
            detail.unwrap_or_default().into(),
        ]);
    }
    table.print()
}
