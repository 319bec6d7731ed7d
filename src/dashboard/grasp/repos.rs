//! The list of repositories: search, coverage, and pages by key.

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use tender_jobs::grasp::view::{self, RepoRow, RepoSearch, ServiceRow};

use super::{coverage, repo_path};
use crate::{
    dashboard::{
        Dashboard, PATH, export,
        layout::{self, Page},
        lists::{Field, Pages, filters, query_of},
        parts::{Problem, count, maybe_time, numbered, scroll, short_key},
        session::Viewer,
    },
    page::cut,
    search,
    words::{grasp as words, name as shown_name, noun},
};

/// Repositories on a page.
const SIZE: i64 = 50;

/// The search, from the address. A value that is not understood is ignored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::dashboard) struct Shown {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    q: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    service: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    missing: String,
    /// `<service id>/<address>` of the last repository of the page before.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(in crate::dashboard) after: String,
}

impl Shown {
    pub(in crate::dashboard) fn search(&self) -> RepoSearch {
        RepoSearch {
            service: self.service.parse().ok(),
            text: search::normal(&self.q),
            is_missing: !self.missing.is_empty(),
            after: RepoSearch::parse_mark(&self.after),
        }
    }
}

pub(in crate::dashboard) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    Query(shown): Query<Shown>,
) -> Result<Response, Problem> {
    let services = view::services(&dashboard.db).await?;
    let source = format!("/repositories{}", query_of(&shown));
    let page = Page {
        title: "Repositories",
        section: "/repositories",
        notice: None,
        fixed: html! { (introduction(&services)) (filter_form(&shown, &services)) },
        live: Some((&source, live(&dashboard, &shown).await?)),
    };
    Ok(layout::page(&viewer, &page).into_response())
}

fn introduction(services: &[ServiceRow]) -> Markup {
    html! {
        @if services.is_empty() {
            p { "No service hosts repositories yet. " code { "tender grasp add wss://git.example.com" } " adds one." }
        }
        @for one in services { (service_line(one)) }
    }
}

fn service_line(one: &ServiceRow) -> Markup {
    html! {
        p {
            a href={ (PATH) "/upstreams/" (one.id) } { (one.url) }
            @if one.removing_at.is_some() { " " span class="badge warn" { "removing" } }
            @else if !one.enabled { " " span class="badge off" { "off" } }
            ": " (numbered(one.repositories, "repository")) ", " (numbered(one.relays, "relay")) ", "
            (numbered(one.accepted, "event")) " accepted."
            @if one.relays_over_limit > 0 {
                @let over = i64::from(one.relays_over_limit);
                " " (over) " more " (noun(over, "relay")) @if over == 1 { " is" } @else { " are" }
                " named and not followed: the limit is " (one.max_relays) "."
            }
            @if let Some(told) = words::stopped(&one.url, one.has_feed, one.has_uploads).filter(|_| one.removing_at.is_none()) { " " span.error { (told) "." } }
            @if let Some(told) = words::refuses_others(&one.url, one.refuses_others.as_deref()) { " " span.error { (told) "." } }
        }
    }
}

fn filter_form(shown: &Shown, services: &[ServiceRow]) -> Markup {
    let ids: Vec<_> = services.iter().map(|one| (one.id.to_string(), one.url.as_str())).collect();
    let named = ids.iter().map(|(id, url)| (id.as_str(), *url));
    let hint = "name, identifier, npub";
    let mut fields = vec![Field::Search { label: "Search", name: "q", value: &shown.q, hint }];
    if services.len() > 1 {
        fields.push(Field::any("Service", "service", &shown.service, named));
    }
    let missing = if shown.missing.is_empty() { "" } else { "yes" };
    let options = [("yes", "something is missing")];
    fields.push(Field::any("Coverage", "missing", missing, options));
    filters("/repositories", true, &fields)
}

/// The live part: one page of the list.
pub(in crate::dashboard) async fn live(
    dashboard: &Dashboard,
    shown: &Shown,
) -> Result<Markup, sqlx::Error> {
    let rows = view::repos(&dashboard.db, &shown.search(), SIZE + 1).await?;
    let (rows, next) = cut(rows, SIZE, RepoRow::mark);
    let at = |after: String| query_of(&Shown { after, ..shown.clone() });
    let first = (!shown.after.is_empty()).then(|| at(String::new()));
    let pages = Pages { first, next: next.map(at), ..Pages::default() };
    Ok(html! {
        @if rows.is_empty() { p { "No repository matches." } } @else {
            (scroll("Repositories", &html! {
                table.cards {
                    thead { tr {
                        th { "Repository" } th { "Owner" } th { "Coverage" } th.n { "Relays" } th.n { "Roots" }
                        th { "Oldest missing" }
                    } }
                    tbody { @for row in &rows { (table_row(row)) } }
                }
            }))
        }
        (pages.of("/repositories"))
        (export::links("repositories", &query_of(&Shown { after: String::new(), ..shown.clone() })))
    })
}

fn table_row(row: &RepoRow) -> Markup {
    let name = row.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&row.identifier);
    html! {
        tr {
            td data-label="Repository" {
                a href=(repo_path(&row.address)) title=(row.address) { (shown_name(name)) }
                @if row.left_at.is_some() { " " span class="badge off" { "left" } }
            }
            td data-label="Owner" { code title=(row.pubkey) { (short_key(&row.pubkey)) } }
            td data-label="Coverage" { (coverage(row.confirmed, row.items())) }
            td.n data-label="Relays" { (row.relays) }
            td.n data-label="Roots" { (count(row.roots, false)) }
            td.none[row.oldest_missing_at.is_none()] data-label="Oldest missing" { (maybe_time(row.oldest_missing_at)) }
        }
    }
}
