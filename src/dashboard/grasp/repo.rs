//! One repository: its relays, its roots, what is missing, and what happened last.

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use serde::Deserialize;
use sqlx::PgPool;
use tender_jobs::{
    grasp::view::{self, Moment, RepoRelay, RepoRow, RootRow},
    queue,
};

use super::{coverage, missing_list, repo_path, state_badge};
use crate::{
    dashboard::{
        Dashboard, PATH,
        layout::{self, Page},
        parts::{Problem, copyable, count, maybe_time, numbered, query, scroll, short_key, time},
        session::Viewer,
    },
    words::grasp as words,
};

/// Rows of each list of the page.
const LISTED: i64 = 20;
/// Moments that are read, to be told together.
const MOMENTS: i64 = 100;
/// The most lines that tell what happened.
const SHOWN: usize = 20;

/// The repository, from the address.
#[derive(Debug, Clone, Deserialize)]
pub(in crate::dashboard) struct Shown {
    #[serde(default)]
    pub(in crate::dashboard) address: String,
}

pub(in crate::dashboard) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    Query(shown): Query<Shown>,
) -> Result<Response, Problem> {
    let found = find(&dashboard.db, &shown.address).await?;
    let first = found.first().ok_or(Problem::NotFound)?;
    let name = first.name.as_deref().filter(|name| !name.is_empty());
    let title = name.unwrap_or(&first.identifier).to_owned();
    let source = format!("/repository{}", query(&[("address", &shown.address)]));
    let page = Page {
        title: &title,
        section: "/repositories",
        notice: None,
        fixed: html! {},
        live: Some((&source, live(&dashboard.db, &found).await?)),
    };
    Ok(layout::page(&viewer, &page).into_response())
}

/// Returns the repository in each service that has it; at least one.
pub(in crate::dashboard) async fn find(
    db: &PgPool,
    address: &str,
) -> Result<Vec<RepoRow>, Problem> {
    let found = view::repo(db, address).await?;
    if found.is_empty() { Err(Problem::NotFound) } else { Ok(found) }
}

/// The live part.
pub(in crate::dashboard) async fn live(
    db: &PgPool,
    found: &[RepoRow],
) -> Result<Markup, sqlx::Error> {
    let mut parts = Vec::with_capacity(found.len());
    for (place, one) in found.iter().enumerate() {
        parts.push(of_service(db, one, Ids(place)).await?);
    }
    Ok(html! { @for part in &parts { (part) } })
}

/// Makes the ids of a page's sections unique, which has them once for each service.
#[derive(Debug, Clone, Copy)]
struct Ids(usize);

impl Ids {
    fn of(self, section: &str) -> String {
        match self.0 {
            0 => section.to_owned(),
            place => format!("{section}-{place}"),
        }
    }
}

async fn of_service(db: &PgPool, one: &RepoRow, ids: Ids) -> Result<Markup, sqlx::Error> {
    let (service, address) = (one.service_id, one.address.as_str());
    let relays = view::repo_relays(db, service, address).await?;
    let missing = view::missing_of(db, service, address, words::READ).await?;
    let roots = view::roots(db, service, address, LISTED).await?;
    let timeline = view::timeline(db, service, address, MOMENTS).await?;
    let now = queue::now(db).await?;
    Ok(html! {
        (facts(one, ids))
        (relay_table(&relays, ids))
        @if !missing.is_empty() {
            section aria-labelledby=(ids.of("missing")) {
                h2 id=(ids.of("missing")) { "Missing" }
                (missing_list(&missing, one.missing + one.in_flight, true, now))
            }
        }
        div.columns { (root_list(&roots, one.roots, ids)) (moments(&timeline, ids)) }
    })
}

fn facts(one: &RepoRow, ids: Ids) -> Markup {
    html! {
        section aria-labelledby=(ids.of("about")) {
            h2 id=(ids.of("about")) { "Repository" }
            dl.facts {
                dt { "Coverage" } dd { (coverage(one.confirmed, one.items())) }
                dt { "Address" } dd { a href=(repo_path(&one.address)) { code { (crate::words::address(&one.address)) } } }
                dt { "Full address" } dd { (copyable(&one.address)) }
                dt { "Service" } dd { (one.service) }
                @if let Some(at) = one.left_at {
                    dt { "Left" } dd { (time(at)) ": its announcement does not name the service any more" }
                }
                dt { "Announced" } dd { (maybe_time(chrono::DateTime::from_timestamp(one.announced_at, 0))) }
                dt { "Relays" } dd { (one.relays) (words::cut(one)) }
                dt { "Authors" } dd { (count(one.authors, false)) }
                dt { "First seen" } dd { (time(one.created_at)) }
            }
        }
    }
}

fn relay_table(relays: &[RepoRelay], ids: Ids) -> Markup {
    html! {
        section aria-labelledby=(ids.of("relays")) {
            h2 id=(ids.of("relays")) { "Relays" }
            @if relays.is_empty() { p { "Its announcement names no other relay." } } @else {
                (scroll("Relays", &html! {
                    table.cards {
                        thead { tr {
                            th { "Relay" } th { "State" } th { "Coverage" } th { "Oldest missing" }
                            th { "Next try" } th { "Error" }
                        } }
                        tbody { @for one in relays { (relay_row(one)) } }
                    }
                }))
            }
        }
    }
}

fn relay_row(one: &RepoRelay) -> Markup {
    let items = one.missing + one.in_flight + one.confirmed;
    html! {
        tr {
            td data-label="Relay" { a href={ (PATH) "/followed/" (one.relay_id) } { (one.url) } }
            td data-label="State" { (state_badge(one.state, None)) }
            td data-label="Coverage" { (coverage(one.confirmed, items)) }
            td.none[one.oldest_missing_at.is_none()] data-label="Oldest missing" { (maybe_time(one.oldest_missing_at)) }
            td.none[one.next_attempt_at.is_none()] data-label="Next try" { (maybe_time(one.next_attempt_at)) }
            td.error.none[one.error.is_none()] data-label="Error" { @if let Some(error) = &one.error { (error) } }
        }
    }
}

fn root_list(roots: &[RootRow], total: i64, ids: Ids) -> Markup {
    let more = total - i64::try_from(roots.len()).unwrap_or_default();
    html! {
        section aria-labelledby=(ids.of("roots")) {
            h2 id=(ids.of("roots")) { "Issues, patches and pull requests" }
            @if roots.is_empty() { p { "None." } }
            ul.changes {
                @for one in roots {
                    li {
                        (words::root(one.kind)) " "
                        @match &one.subject { Some(subject) => (subject), None => code title=(one.event_id) { (short_key(&one.event_id)) } }
                        @if let Some(at) = one.created_at { " " (maybe_time(chrono::DateTime::from_timestamp(at, 0))) }
                        @if one.missing > 0 { ": replies from " (one.confirmed) " of " (numbered(one.confirmed + one.missing, "relay")) }
                    }
                }
                @if more > 0 { li { (count(more, false)) " more" } }
            }
        }
    }
}

fn moments(timeline: &[Moment], ids: Ids) -> Markup {
    html! {
        section aria-labelledby=(ids.of("latest")) {
            h2 id=(ids.of("latest")) { "Latest" }
            @if timeline.is_empty() { p { "Nothing has happened yet." } }
            ol.timeline {
                @for one in words::moments(timeline).iter().take(SHOWN) {
                    li class=(if one.first.what == "confirmed" { "good" } else { "busy" }) {
                        p { (time(one.first.at)) ": " (one.words()) }
                        @if let Some(id) = one.first.event_id.as_ref().filter(|_| one.number == 1) {
                            code title=(id) { (short_key(id)) }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice;

    #[test]
    fn texts_of_strangers_are_escaped() {
        let root = RootRow {
            event_id: "ab".repeat(32),
            kind: 1621,
            subject: Some("<script>".to_owned()),
            created_at: None,
            confirmed: 0,
            missing: 0,
        };
        let markup = root_list(slice::from_ref(&root), 1, Ids(0)).0;
        assert!(markup.contains("issue &lt;script&gt;"), "{markup}");
    }
}
