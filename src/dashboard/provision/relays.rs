//! The list of relays: search, filters, order, and pages by key.

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use nostr::key::PublicKey;
use serde::{Deserialize, Serialize};
use tender_jobs::provision::relay::{self, Order, RelayId, Row, Search, Status, SyncState};

use crate::dashboard::{
    Dashboard, PATH,
    layout::{self, Page},
    parts::{Problem, maybe_time, scroll, short_key, status_badge, sync_badge},
    session::Viewer,
};

/// Relays on a page.
const SIZE: i64 = 50;

/// The search and filters, from the address. A value that is not understood is ignored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::dashboard) struct Shown {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    q: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    sync: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    status: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    order: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    after: String,
}

const STATES: [(&str, &str, SyncState); 4] = [
    ("synced", "synced", SyncState::Synced),
    ("pending", "pending", SyncState::Pending),
    ("retrying", "retrying", SyncState::Retrying),
    ("gave_up", "gave up", SyncState::GaveUp),
];
const STATUSES: [(&str, Status); 4] = [
    ("active", Status::Active),
    ("inactive", Status::Inactive),
    ("delinquent", Status::Delinquent),
    ("deleting", Status::Deleting),
];
const ORDERS: [(&str, &str); 3] =
    [("newest", "newest first"), ("host", "by host"), ("waiting", "longest waiting first")];

impl Shown {
    fn search(&self) -> Search {
        let text = self.q.trim().trim_start_matches("wss://");
        // The search compares keys in hex; people also write npub.
        let text = match PublicKey::parse(text) {
            Ok(key) if text.starts_with("npub1") => key.to_hex(),
            _ => text.to_owned(),
        };
        Search {
            text: (!text.is_empty()).then_some(text),
            sync: STATES.iter().find(|(name, ..)| *name == self.sync).map(|(.., state)| *state),
            status: STATUSES.iter().find(|(name, _)| *name == self.status).map(|(_, s)| *s),
            is_off: self.status == "off",
            order: match self.order.as_str() {
                "host" => Order::Host,
                "waiting" => Order::Waiting,
                _ => Order::Newest,
            },
            after: self.after.parse::<RelayId>().ok(),
        }
    }

    fn query(&self) -> String {
        serde_urlencoded::to_string(self).unwrap_or_default()
    }
}

pub(in crate::dashboard) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    Query(shown): Query<Shown>,
) -> Result<Response, Problem> {
    let table = table(&dashboard, &shown).await?;
    let source = format!("/relays?{}", shown.query());
    let page = Page {
        title: "Relays",
        section: "/relays",
        notice: None,
        fixed: filters(&shown),
        live: Some((&source, table)),
    };
    Ok(layout::page(&viewer, &page).into_response())
}

fn filters(shown: &Shown) -> Markup {
    html! {
        form.filters method="get" action={ (PATH) "/relays" } role="search" data-filters="/relays" {
            label { "Search" input type="search" name="q" value=(shown.q) placeholder="host, id, npub"; }
            label { "Sync" select name="sync" {
                option value="" { "any" }
                @for (name, text, _) in STATES { option value=(name) selected[shown.sync == name] { (text) } }
            } }
            label { "Status" select name="status" {
                option value="" { "any" }
                @for (name, _) in STATUSES { option value=(name) selected[shown.status == name] { (name) } }
                option value="off" selected[shown.status == "off"] { "switched off" }
            } }
            label { "Order" select name="order" {
                @for (name, text) in ORDERS { option value=(name) selected[shown.order == name] { (text) } }
            } }
            button { "Show" }
        }
    }
}

/// The live part: one page of the list.
pub(in crate::dashboard) async fn table(
    dashboard: &Dashboard,
    shown: &Shown,
) -> Result<Markup, sqlx::Error> {
    let mut rows = relay::search(&dashboard.db, &shown.search(), SIZE + 1).await?;
    let has_more = rows.len() > usize::try_from(SIZE).unwrap_or(usize::MAX);
    rows.truncate(usize::try_from(SIZE).unwrap_or(usize::MAX));
    let next = rows
        .last()
        .filter(|_| has_more)
        .map(|row| Shown { after: row.id.clone(), ..shown.clone() });
    Ok(html! {
        @if rows.is_empty() { p { "No relay matches." } } @else {
            (scroll("Relays", &html! {
                table.cards {
                    thead { tr {
                        th { "Host" } th { "Tenant" } th { "Status" } th { "Sync" } th { "Attempt" }
                        th { "Next attempt" } th { "Last error" }
                    } }
                    tbody { @for row in &rows { (table_row(row, dashboard.max_attempts)) } }
                }
            }))
        }
        nav.pages aria-label="Pages" {
            @if !shown.after.is_empty() {
                a href={ (PATH) "/relays?" (Shown { after: String::new(), ..shown.clone() }.query()) } { "First page" }
            }
            @if let Some(next) = next { a href={ (PATH) "/relays?" (next.query()) } { "Next page" } }
        }
    })
}

fn table_row(row: &Row, max_attempts: u32) -> Markup {
    html! {
        tr {
            td data-label="Host" { a href={ (PATH) "/relays/" (row.id) } { (row.host) } }
            td data-label="Tenant" { code title=(row.tenant_pubkey) { (short_key(&row.tenant_pubkey)) } }
            td data-label="Status" { (status_badge(row.status)) }
            td data-label="Sync" { (sync_badge(row.sync_state())) }
            td.none[row.attempts == 0] data-label="Attempt" { @if row.attempts > 0 { (row.attempts) " of " (max_attempts) } @else { "–" } }
            td.none[row.retry_at.is_none()] data-label="Next attempt" { (maybe_time(row.retry_at)) }
            td.error.none[row.sync_error.is_empty()] data-label="Last error" { (row.sync_error) }
        }
    }
}
