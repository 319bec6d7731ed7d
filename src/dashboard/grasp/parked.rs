//! Parked events, by reason.

use std::time::Duration;

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use tender_jobs::grasp::{
    parked,
    view::{self, ParkedGroup, ParkedRow, ParkedSearch},
};

use crate::{
    dashboard::{
        Dashboard, PATH, export,
        layout::{self, Page},
        lists::{Pages, query_of},
        parts::{Problem, count, query, scroll, short_key, short_parts, time},
        session::Viewer,
    },
    page::cut,
};

/// All open pages share counts of this age, because counting reads every parked event.
const FRESH: Duration = Duration::from_secs(5);
/// Events on a page.
const SIZE: i64 = 50;

/// The reason and the page, from the address.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::dashboard) struct Shown {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    /// `<expiry>/<event id>` of the last event of the page before.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(in crate::dashboard) after: String,
}

impl Shown {
    pub(in crate::dashboard) fn search(&self) -> ParkedSearch {
        ParkedSearch {
            service: None,
            reason: (!self.reason.is_empty()).then(|| self.reason.clone()),
            after: ParkedSearch::parse_mark(&self.after),
        }
    }
}

pub(in crate::dashboard) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    Query(shown): Query<Shown>,
) -> Result<Response, Problem> {
    let source = format!("/parked{}", query_of(&shown));
    let page = Page {
        title: "Parked",
        section: "/parked",
        notice: None,
        fixed: html! { p { "Events that are refused for now. What they wait for may still arrive; then they are judged again." } },
        live: Some((&source, live(&dashboard, &shown).await?)),
    };
    Ok(layout::page(&viewer, &page).into_response())
}

/// The live part: the reasons, and one page of events.
pub(in crate::dashboard) async fn live(
    dashboard: &Dashboard,
    shown: &Shown,
) -> Result<Markup, sqlx::Error> {
    let groups = dashboard.parked.get(FRESH, view::parked_groups(&dashboard.db)).await?;
    let rows = view::parked(&dashboard.db, &shown.search(), SIZE + 1).await?;
    let (rows, next) = cut(rows, SIZE, ParkedRow::mark);
    let at = |after: String| query_of(&Shown { after, ..shown.clone() });
    let first = (!shown.after.is_empty()).then(|| at(String::new()));
    let pages = Pages { first, next: next.map(at), ..Pages::default() };
    Ok(html! {
        (group_table(&groups, shown))
        @if !rows.is_empty() { (event_table(&rows, shown)) }
        (pages.of("/parked"))
        (export::links("parked", &query_of(&Shown { after: String::new(), ..shown.clone() })))
    })
}

fn group_table(groups: &[ParkedGroup], shown: &Shown) -> Markup {
    html! {
        section aria-labelledby="reasons" {
            h2 #reasons { "By reason" }
            @if groups.is_empty() { p { "No event is parked." } } @else {
                (scroll("Reasons", &html! {
                    table.cards {
                        thead { tr { th { "Reason" } th { "Service" } th.n { "Events" } th { "Oldest" } th { "Newest" } } }
                        tbody { @for one in groups { (group_row(one, shown)) } }
                    }
                }))
            }
        }
    }
}

fn group_row(one: &ParkedGroup, shown: &Shown) -> Markup {
    html! {
        tr {
            td data-label="Reason" {
                a href={ (PATH) "/parked" (query(&[("reason", &one.reason)])) } aria-current=[(shown.reason == one.reason).then_some("true")] { (one.reason) }
            }
            td data-label="Service" { (one.service) }
            td.n data-label="Events" { (count(one.events, false)) }
            td data-label="Oldest" { (time(one.oldest_at)) }
            td data-label="Newest" { (time(one.newest_at)) }
        }
    }
}

fn event_table(rows: &[ParkedRow], shown: &Shown) -> Markup {
    html! {
        h2 { @if shown.reason.is_empty() { "Latest" } @else { (shown.reason) } }
        (scroll("Parked events", &html! {
            table.cards {
                thead { tr {
                    th { "Event" } th.n { "Kind" } th { "Author" } th { "Why" } th { "Waits for" } th { "Relay" } th { "Parked" }
                } }
                tbody { @for one in rows { (event_row(one)) } }
            }
        }))
    }
}

fn event_row(one: &ParkedRow) -> Markup {
    html! {
        tr {
            td data-label="Event" { code title=(one.event_id) { (short_key(&one.event_id)) } }
            td.n data-label="Kind" { (one.kind) }
            td data-label="Author" { code title=(one.pubkey) { (short_key(&one.pubkey)) } }
            td data-label="Why" { (one.reason) ": " (one.detail) }
            td.none[one.waits_for.is_empty()] data-label="Waits for" {
                @for key in &one.waits_for { span title=(key) { (awaited(key)) } " " }
            }
            td.none[one.relay.is_none()] data-label="Relay" { @if let Some(relay) = &one.relay { (relay) } }
            td data-label="Parked" { (time(one.parked_at)) }
        }
    }
}

/// Returns what a parked event waits for, such as `the event 01ab…cd to be accepted`.
fn awaited(key: &str) -> String {
    let told = parked::describe(&short_parts(key));
    told.strip_prefix("waits for ").unwrap_or(&told).to_owned()
}
