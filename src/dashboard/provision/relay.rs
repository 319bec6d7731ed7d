//! One relay: its wanted state, what was sent to zooid, and its timeline.

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::Value;
use tender_jobs::{
    provision::{
        activity::{self, Activity, ActivityType},
        relay::{self, Relay, RelayId, Status},
    },
    queue,
};

use super::{
    attempts::{self, Plan},
    request,
};

use crate::dashboard::{
    Dashboard, PATH, actions, fleet,
    layout::{self, Page},
    parts::{
        Ask, Problem, ask, copyable, maybe_time, short_key, status_badge, sync_badge, time,
        time_for,
    },
    session::Viewer,
};

/// The number of records in the timeline.
const RECORDS: i64 = 100;

pub(in crate::dashboard) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let relay = find(&dashboard, &id).await?;
    let live_part = live(&dashboard, &relay, &viewer).await?;
    let (title, source) = (relay.host(), format!("/relays/{}", relay.id));
    let page = Page {
        title: &title,
        section: "/relays",
        notice: actions::notice(&headers),
        fixed: html! {},
        live: Some((&source, live_part)),
    };
    Ok(actions::without_notice(layout::page(&viewer, &page).into_response()))
}

pub(in crate::dashboard) async fn find(dashboard: &Dashboard, id: &str) -> Result<Relay, Problem> {
    let id: RelayId = id.parse().map_err(|_| Problem::NotFound)?;
    relay::find(&dashboard.db, &id).await?.ok_or(Problem::NotFound)
}

fn buttons(viewer: &Viewer, relay: &Relay) -> Markup {
    let host = relay.host();
    let button = |action: &str, label: &str, question: &str, is_grave: bool| {
        let action = format!("{PATH}/relays/{}/{action}", relay.id);
        ask(viewer, &Ask { action: &action, label, question, fields: &[], is_grave })
    };
    html! {
        @if viewer.may_act() && relay.status == Status::Deleting {
            div.buttons { (button("sync", "Delete now", &format!("Try again now to delete {host}?"), false)) }
        } @else if viewer.may_act() {
            div.buttons {
                (button("sync", "Sync now", &format!("Send {host} to zooid again now?"), false))
                @if relay.status != Status::Active {
                    (button("activate", "Activate", &format!("Switch {host} on for its members?"), false))
                }
                @if relay.status == Status::Active {
                    (button("deactivate", "Deactivate", &format!("Switch {host} off for its members?"), true))
                }
                @if relay.status != Status::Delinquent {
                    (button("delinquent", "Mark delinquent", &format!("Switch {host} off as delinquent? Its tenant cannot switch it on again."), true))
                }
                (button("delete", "Delete", &format!("Delete {host} for good, on zooid and here? Its events on zooid are lost."), true))
            }
        }
    }
}

/// The live part.
pub(in crate::dashboard) async fn live(
    dashboard: &Dashboard,
    relay: &Relay,
    viewer: &Viewer,
) -> Result<Markup, sqlx::Error> {
    let records = activity::of_relay(&dashboard.db, &relay.id, None, RECORDS).await?;
    let sent = relay::last_sent(&dashboard.db, &relay.id).await?;
    let now = queue::now(&dashboard.db).await?;
    let holds = fleet::read(dashboard).await?.holds_syncs();
    let config = &dashboard.config;
    let plan = Plan { backoff: config.backoff, exhausted_after: config.exhausted_after };
    Ok(html! {
        (buttons(viewer, relay))
        (state(relay, &plan, holds.as_deref(), now))
        (attempts::line(&plan, relay, &records, now))
        div.columns {
            (timeline(&records, now))
            (request::section(dashboard, relay, sent.as_ref()))
        }
        (wanted(relay))
    })
}

fn state(relay: &Relay, plan: &Plan, holds: Option<&str>, now: DateTime<Utc>) -> Markup {
    let waits = !relay.synced && relay.exhausted_at.is_none();
    html! {
        section aria-label="State" {
            dl.facts {
                dt { "Sync" } dd { (sync_badge(relay.sync_state())) }
                dt { "Status" } dd { (status_badge(relay.status)) }
                @if relay.attempts > 0 {
                    dt { "Attempts" } dd { (relay.attempts) " of " (plan.backoff.max_attempts()) " have failed" }
                }
                @if let (true, Some(why)) = (waits, holds) {
                    dt { "Held" } dd { (why) ". " a href=(PATH) { "What needs attention" } }
                }
                @if let Some(at) = relay.retry_at { dt { "Next attempt" } dd { (due(at, now)) } }
                @if let Some(at) = relay.exhausted_at {
                    dt { "Gave up" } dd { (time(at)) ". " (after_giving_up(relay, plan, now)) }
                }
                @if !relay.sync_error.is_empty() { dt { "Last error" } dd.error { (relay.sync_error) } }
                dt { "Wanted" } dd { "generation " (relay.generation) ", changed " (time(relay.updated_at)) }
                dt { "On zooid" } dd {
                    @if relay.provisioned_at.is_some() { "generation " (relay.synced_generation) } @else { "not yet" }
                }
                @if let Some(at) = relay.confirm_at {
                    dt { "To be confirmed" } dd { "an earlier call was not answered; the next call is " (due(at, now)) }
                }
                @if let Some(key) = &relay.identity { dt { "Relay's key" } dd { (copyable(key)) } }
            }
        }
    }
}

/// When something is due, or for how long it has been.
fn due(at: DateTime<Utc>, now: DateTime<Utc>) -> Markup {
    html! { @if at > now { "due " (time(at)) } @else { "due " (time_for(at)) } }
}

/// Whether and when a relay that gave up is tried again by itself.
fn after_giving_up(relay: &Relay, plan: &Plan, now: DateTime<Utc>) -> Markup {
    html! {
        @match plan.next_round(relay) {
            Some(at) if at > now => { "One more round of attempts starts " (time(at)) "." },
            Some(_) => "One more round of attempts starts with the next reconcile.",
            None => "No further attempt is planned: correct the cause, then change the relay or press the button above.",
        }
    }
}

fn timeline(records: &[Activity], now: DateTime<Utc>) -> Markup {
    html! {
        section aria-labelledby="timeline" {
            h2 #timeline { "Timeline" }
            ol.timeline { @for record in records { (entry(record, now)) } }
        }
    }
}

/// One record of a relay's activity.
pub(in crate::dashboard) fn entry(record: &Activity, now: DateTime<Utc>) -> Markup {
    let detail = &record.detail;
    let text = |name: &str| detail[name].as_str().map(str::to_owned);
    let class = match record.activity_type {
        ActivityType::CompleteRelaySync => "good",
        ActivityType::FailRelaySync => "bad",
        _ => "busy",
    };
    html! {
        li class=(class) {
            p { strong { (words(record)) } " " (time(record.created_at)) }
            p.quiet {
                @if let Some(by) = text("by") { "by " span title=(by) { (short_key(&by)) } " " }
                @if let Some(attempt) = detail["attempt"].as_i64() { "attempt " (attempt) " " }
                @if let Some(method) = text("method") { (method) " " }
                @if let Some(ms) = detail["duration_ms"].as_i64() { (ms) " ms " }
                @if let Some(status) = detail["status"].as_i64() { "status " (status) " " }
                @if let Some(at) = detail["retry_at"].as_i64().and_then(|at| chrono::DateTime::from_timestamp(at, 0)) { @if at > now { "next attempt " } @else { "the next attempt was due " } (time(at)) }
            }
            @if let Some(error) = text("error") { p.error { (error) } }
            @if let Some(note) = text("note") { p { (note) } }
            @if let Some(changed) = detail["changed"].as_object() {
                ul.changes { @for (name, value) in changed { li { code { (name) } " → " (short(value)) } } }
            }
            @if let Some(sent) = detail.get("sent") {
                details id={ "sent-" (record.id) } {
                    summary { "What it sent" }
                    pre.scroll tabindex="0" { (request::pretty(sent)) }
                }
            }
        }
    }
}

/// The title of a record.
fn words(record: &Activity) -> &'static str {
    match record.activity_type {
        ActivityType::CreateRelay => "Created",
        ActivityType::UpdateRelay if record.detail["cause"] == "operator" => "Sync requested",
        ActivityType::UpdateRelay => "Changed",
        ActivityType::ActivateRelay => "Activated",
        ActivityType::DeactivateRelay if record.detail["status"] == "delinquent" => {
            "Marked delinquent"
        }
        ActivityType::DeactivateRelay => "Deactivated",
        ActivityType::DeleteRelay => "Deletion requested",
        ActivityType::CompleteRelaySync if record.detail["method"] == "DELETE" => "Deleted",
        ActivityType::CompleteRelaySync => "Synced",
        ActivityType::FailRelaySync if record.detail["retry_at"].is_null() => "Gave up",
        ActivityType::FailRelaySync => "Failed",
    }
}

fn short(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut short: String = text.chars().take(120).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn wanted(relay: &Relay) -> Markup {
    let on: Vec<_> = relay.flags.named().filter(|(_, on)| *on).map(|(name, _)| name).collect();
    let texts = [
        ("Name", &relay.info_name),
        ("Icon", &relay.info_icon),
        ("Description", &relay.info_description),
        ("Plan", &relay.plan_id),
        ("Custom domain", &relay.custom_domain),
    ];
    html! {
        section aria-labelledby="wanted" {
            h2 #wanted { "Wanted state" }
            dl.facts {
                dt { "Id" } dd { (copyable(&relay.id.to_string())) }
                dt { "Tenant" } dd { (copyable(&relay.tenant_pubkey)) }
                @for (name, text) in texts {
                    @if !text.is_empty() { dt { (name) } dd { (text) } }
                }
                dt { "Schema" } dd { code { (relay.schema) } }
                dt { "Switched on" } dd { (on.join(", ")) }
                dt { "Created" } dd { (time(relay.created_at)) }
                dt { "First synced" } dd { (maybe_time(relay.provisioned_at)) }
            }
        }
    }
}
