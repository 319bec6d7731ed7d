//! The list of followed relays: state, coverage, health.

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use tender_jobs::{
    grasp::view::{self, Overview, RelayRow, RelaySearch, RelayState},
    queue,
};

use super::{coverage, state_badge};
use crate::{
    dashboard::{
        Dashboard, PATH, export,
        layout::{self, Page},
        lists::{Field, Pages, filters, query_of},
        parts::{Problem, count, query, scroll, time},
        session::Viewer,
    },
    page::cut,
    search,
    words::{grasp as words, noun},
};

/// Relays on a page.
const SIZE: i64 = 50;

/// The search, from the address. A value that is not understood is ignored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::dashboard) struct Shown {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    q: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    state: String,
    /// The address of the last relay of the page before.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(in crate::dashboard) after: String,
}

impl Shown {
    pub(in crate::dashboard) fn search(&self) -> RelaySearch {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        RelaySearch {
            state: RelayState::parse(&self.state),
            text: search::normal(&self.q),
            after: text(&self.after),
        }
    }
}

pub(in crate::dashboard) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    Query(shown): Query<Shown>,
) -> Result<Response, Problem> {
    let source = format!("/followed{}", query_of(&shown));
    let page = Page {
        title: "Followed relays",
        section: "/followed",
        notice: None,
        fixed: filter_form(&shown),
        live: Some((&source, live(&dashboard, &shown).await?)),
    };
    Ok(layout::page(&viewer, &page).into_response())
}

fn filter_form(shown: &Shown) -> Markup {
    let states = RelayState::ALL.map(|state| (state.as_str(), words::name(state)));
    let search = Field::Search { label: "Search", name: "q", value: &shown.q, hint: "address" };
    filters("/followed", true, &[search, Field::any("State", "state", &shown.state, states)])
}

/// The live part: the sums, and one page of the list.
pub(in crate::dashboard) async fn live(
    dashboard: &Dashboard,
    shown: &Shown,
) -> Result<Markup, sqlx::Error> {
    let overview = view::overview(&dashboard.db).await?;
    let now = queue::now(&dashboard.db).await?;
    let rows = view::relays(&dashboard.db, &shown.search(), SIZE + 1).await?;
    let (rows, next) = cut(rows, SIZE, |last| last.url.clone());
    let at = |after: String| query_of(&Shown { after, ..shown.clone() });
    let first = (!shown.after.is_empty()).then(|| at(String::new()));
    let pages = Pages { first, next: next.map(at), ..Pages::default() };
    Ok(html! {
        (numbers(&overview))
        @if rows.is_empty() { p { "No followed relay matches." } } @else { (table(&rows, now)) }
        (pages.of("/followed"))
        (export::links("followed", &query_of(&Shown { after: String::new(), ..shown.clone() })))
    })
}

fn numbers(overview: &Overview) -> Markup {
    let delivered = overview.items_in("confirmed");
    let missing = overview.items_in("missing") + overview.items_in("in_flight");
    html! {
        section.numbers aria-label="Counts" {
            @for state in RelayState::ALL {
                @let relays = overview.relays_in(state);
                @if relays > 0 {
                    a class={ "number " (words::grade(state)) } href={ (PATH) "/followed" (query(&[("state", state.as_str())])) } {
                        span.figure { (count(relays, false)) }
                        span { (words::name(state)) }
                    }
                }
            }
            (figure(delivered, &format!("{} delivered", noun(delivered, "item"))))
            (figure(missing, &format!("{} missing", noun(missing, "item"))))
            (figure(overview.open_batches, &noun(overview.open_batches, "open batch")))
        }
    }
}

fn figure(number: i64, words: &str) -> Markup {
    html! { div.number { span.figure { (count(number, false)) } span { (words) } } }
}

fn table(rows: &[RelayRow], now: DateTime<Utc>) -> Markup {
    scroll(
        "Followed relays",
        &html! {
            table.cards {
                thead { tr {
                    th { "Relay" } th { "State" } th { "Since" } th { "Coverage" } th.n { "Live per min" }
                    th.n { "Open subscriptions" } th { "Next try" } th { "Last error" }
                } }
                tbody { @for row in rows { (table_row(row, now)) } }
            }
        },
    )
}

fn table_row(row: &RelayRow, now: DateTime<Utc>) -> Markup {
    let next = words::next_try(row);
    let error = row.last_error.as_ref().filter(|_| row.failures > 0);
    html! {
        tr {
            td data-label="Relay" {
                a href={ (PATH) "/followed/" (row.id) } { (row.url) }
                @if row.is_bootstrap { " " span class="badge off" { "start" } }
            }
            td data-label="State" { (state_badge(row.state, row.fault.as_deref())) }
            td data-label="Since" { (time(words::since(row))) }
            td data-label="Coverage" { (coverage(row.confirmed, row.items())) }
            td.n data-label="Live per min" { (format!("{:.1}", row.live_per_minute)) }
            td.n data-label="Open subscriptions" {
                span title=[words::closed(row)] { (row.subscriptions) }
                @if row.subscriptions_closed > 0 { ", " (row.subscriptions_closed) " closed" }
                @if row.overflow > 0 { ", " (row.overflow) " polled" }
            }
            td.none[next.is_none()] data-label="Next try" {
                @match next { Some(at) if at > now => (time(at)), Some(_) => "now", None => "–" }
            }
            td.error.none[error.is_none()] data-label="Last error" { @if let Some(error) = error { (error) } }
        }
    }
}
