//! The list of relays: search, filters, order, and pages by key.

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use tender_jobs::provision::relay::{self, Order, RelayId, Row, Search, Status, SyncState};

use crate::{
    dashboard::{
        Dashboard, PATH, export,
        layout::{self, Page},
        lists::{Field, Pages, filters, query_of},
        parts::{Problem, maybe_time, scroll, short_key, status_badge, sync_badge},
        session::Viewer,
    },
    fleet::LONG_PENDING,
    page::cut,
    search,
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
    /// Only relays that gave up for this cause.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    cause: String,
    /// Only relays whose jobs wait for this zooid instance.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    held_by: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    order: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(in crate::dashboard) after: String,
}

const STATUSES: [(&str, Status); 4] = [
    ("active", Status::Active),
    ("inactive", Status::Inactive),
    ("delinquent", Status::Delinquent),
    ("deleting", Status::Deleting),
];
const ORDERS: [(&str, &str); 3] =
    [("newest", "newest first"), ("host", "by host"), ("waiting", "longest waiting first")];

impl Shown {
    pub(in crate::dashboard) fn search(&self) -> Search {
        Search {
            text: search::normal(&self.q),
            sync: SyncState::parse(&self.sync),
            status: STATUSES.iter().find(|(name, _)| *name == self.status).map(|(_, s)| *s),
            is_off: self.status == "off",
            cause: (!self.cause.is_empty()).then(|| self.cause.replace('\0', "")),
            held_by: (!self.held_by.is_empty()).then(|| self.held_by.replace('\0', "")),
            late: (self.sync == "late").then_some(LONG_PENDING),
            order: match self.order.as_str() {
                // The index of causes has this order: another one would sort all relays of the cause.
                _ if !self.cause.is_empty() => Order::GaveUp,
                "host" => Order::Host,
                "waiting" => Order::Waiting,
                _ => Order::Newest,
            },
            after: self.after.parse::<RelayId>().ok(),
        }
    }
}

pub(in crate::dashboard) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    Query(shown): Query<Shown>,
) -> Result<Response, Problem> {
    let table = table(&dashboard, &shown).await?;
    let source = format!("/relays{}", query_of(&shown));
    let page = Page {
        title: "Relays",
        section: "/relays",
        notice: None,
        fixed: html! {
            (filter_form(&shown)) (only_cause(&shown.cause)) (only_held(&shown.held_by))
        },
        live: Some((&source, table)),
    };
    Ok(layout::page(&viewer, &page).into_response())
}

/// Says that the list is of one cause, which no field shows.
fn only_cause(cause: &str) -> Markup {
    html! {
        @if !cause.is_empty() {
            p.quiet {
                "Only relays that gave up with: " span.error { (cause) } ". "
                a href={ (PATH) "/relays?sync=gave_up" } { "Show all that gave up" }
            }
        }
    }
}

/// Says that the list is of those that wait for one instance, which no field shows.
fn only_held(instance: &str) -> Markup {
    html! {
        @if !instance.is_empty() {
            p.quiet {
                "Only relays that wait for zooid at " (instance) ". "
                a href={ (PATH) "/relays" } { "Show all relays" }
            }
        }
    }
}

fn filter_form(shown: &Shown) -> Markup {
    let states = SyncState::ALL.map(|state| (state.as_str(), state.word()));
    let states = states.into_iter().chain([("late", "waiting > 5 min")]);
    let statuses = STATUSES.map(|(name, _)| (name, name));
    let statuses = statuses.into_iter().chain([("off", "switched off")]);
    let order = Field::Choice {
        label: "Order",
        name: "order",
        chosen: &shown.order,
        options: ORDERS.to_vec(),
    };
    let hint = "host, id, npub";
    let mut fields = vec![
        Field::Search { label: "Search", name: "q", value: &shown.q, hint },
        Field::any("Sync", "sync", &shown.sync, states),
        Field::any("Status", "status", &shown.status, statuses),
    ];
    // The relays of a cause have one order.
    fields.push(if shown.cause.is_empty() {
        order
    } else {
        Field::Kept { name: "cause", value: &shown.cause }
    });
    fields.push(Field::Kept { name: "held_by", value: &shown.held_by });
    filters("/relays", true, &fields)
}

/// The live part: one page of the list.
pub(in crate::dashboard) async fn table(
    dashboard: &Dashboard,
    shown: &Shown,
) -> Result<Markup, sqlx::Error> {
    let rows = relay::search(&dashboard.db, &shown.search(), SIZE + 1).await?;
    let (rows, next) = cut(rows, SIZE, |row| row.id.clone());
    let at = |after: String| query_of(&Shown { after, ..shown.clone() });
    let first = (!shown.after.is_empty()).then(|| at(String::new()));
    let pages = Pages { first, next: next.map(at), ..Pages::default() };
    Ok(html! {
        @if rows.is_empty() { p { "No relay matches." } } @else {
            (scroll("Relays", &html! {
                table.cards {
                    thead { tr {
                        th { "Host" } th { "Tenant" } th { "Status" } th { "Sync" } th { "Attempt" }
                        th { "Next attempt" } th { "Last error" }
                    } }
                    tbody { @for row in &rows { (table_row(row, dashboard.max_attempts())) } }
                }
            }))
        }
        (pages.of("/relays"))
        (export::links("relays", &query_of(&Shown { after: String::new(), ..shown.clone() })))
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
