//! The list of followed relays: state, coverage, health.

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use tender_jobs::grasp::view::{self, Overview, RelayRow, RelaySearch, RelayState};

use super::{coverage, state_badge};
use crate::{
    dashboard::{
        Dashboard, PATH,
        layout::{self, Page},
        parts::{Problem, count, maybe_time, query, scroll, time},
        session::Viewer,
    },
    words::grasp as words,
};

/// Relays on a page.
const SIZE: u16 = 50;

/// The search, from the address. A value that is not understood is ignored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::dashboard) struct Shown {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    q: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    state: String,
    /// The address of the last relay of the page before.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    after: String,
}

impl Shown {
    fn search(&self) -> RelaySearch {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        RelaySearch {
            state: RelayState::parse(&self.state),
            text: text(self.q.trim()),
            after: text(&self.after),
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
    let source = format!("/followed?{}", shown.query());
    let page = Page {
        title: "Followed relays",
        section: "/followed",
        notice: None,
        fixed: filters(&shown),
        live: Some((&source, live(&dashboard, &shown).await?)),
    };
    Ok(layout::page(&viewer, &page).into_response())
}

fn filters(shown: &Shown) -> Markup {
    html! {
        form.filters method="get" action={ (PATH) "/followed" } role="search" data-filters="/followed" {
            label { "Search" input type="search" name="q" value=(shown.q) placeholder="address"; }
            label { "State" select name="state" {
                option value="" { "any" }
                @for state in RelayState::ALL {
                    option value=(state.as_str()) selected[shown.state == state.as_str()] { (words::name(state)) }
                }
            } }
            button { "Show" }
        }
    }
}

/// The live part: the sums, and one page of the list.
pub(in crate::dashboard) async fn live(
    dashboard: &Dashboard,
    shown: &Shown,
) -> Result<Markup, sqlx::Error> {
    let overview = view::overview(&dashboard.db).await?;
    let mut rows = view::relays(&dashboard.db, &shown.search(), i64::from(SIZE) + 1).await?;
    let has_more = rows.len() > usize::from(SIZE);
    rows.truncate(SIZE.into());
    let next = rows.last().filter(|_| has_more);
    let next = next.map(|last| Shown { after: last.url.clone(), ..shown.clone() });
    Ok(html! {
        (numbers(&overview))
        @if rows.is_empty() { p { "No followed relay matches." } } @else { (table(&rows)) }
        nav.pages aria-label="Pages" {
            @if !shown.after.is_empty() {
                a href={ (PATH) "/followed?" (Shown { after: String::new(), ..shown.clone() }.query()) } { "First page" }
            }
            @if let Some(next) = next { " " a href={ (PATH) "/followed?" (next.query()) } { "Next page" } }
        }
    })
}

fn numbers(overview: &Overview) -> Markup {
    let missing = overview.items_in("missing") + overview.items_in("in_flight");
    html! {
        section.numbers aria-label="Counts" {
            @for (state, relays) in &overview.relays {
                a class={ "number " (words::grade(*state)) } href={ (PATH) "/followed" (query(&[("state", state.as_str())])) } {
                    span.figure { (count(*relays, false)) }
                    span { (words::name(*state)) }
                }
            }
            div.number { span.figure { (count(overview.items_in("confirmed"), false)) } span { "items delivered" } }
            div.number { span.figure { (count(missing, false)) } span { "items missing" } }
            div.number { span.figure { (count(overview.open_batches, false)) } span { "open batches" } }
        }
    }
}

fn table(rows: &[RelayRow]) -> Markup {
    scroll(
        "Followed relays",
        &html! {
            table.cards {
                thead { tr {
                    th { "Relay" } th { "State" } th { "Since" } th { "Coverage" } th.n { "Live per min" }
                    th.n { "Open subscriptions" } th { "Next try" } th { "Last error" }
                } }
                tbody { @for row in rows { (table_row(row)) } }
            }
        },
    )
}

fn table_row(row: &RelayRow) -> Markup {
    let (next, error) =
        (words::next_try(row), row.last_error.as_ref().filter(|_| row.failures > 0));
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
                (row.subscriptions) @if row.overflow > 0 { " + " (row.overflow) " polled" }
            }
            td.none[next.is_none()] data-label="Next try" { (maybe_time(next)) }
            td.error.none[error.is_none()] data-label="Last error" { @if let Some(error) = error { (error) } }
        }
    }
}
