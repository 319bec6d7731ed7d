//! The list of repositories: search, coverage, and pages by key.

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use nostr::key::PublicKey;
use serde::{Deserialize, Serialize};
use tender_jobs::grasp::view::{self, RepoRow, RepoSearch, ServiceRow};

use super::{coverage, repo_path};
use crate::{
    dashboard::{
        Dashboard, PATH,
        layout::{self, Page},
        parts::{Problem, count, maybe_time, scroll, short_key},
        session::Viewer,
    },
    words::{grasp as words, name as shown_name},
};

/// Repositories on a page.
const SIZE: u16 = 50;

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
    after: String,
}

impl Shown {
    fn search(&self) -> RepoSearch {
        let text = self.q.trim();
        // The search compares keys in hex; people also write npub.
        let text = match PublicKey::parse(text) {
            Ok(key) if text.starts_with("npub1") => key.to_hex(),
            _ => text.to_owned(),
        };
        RepoSearch {
            service: self.service.parse().ok(),
            text: (!text.is_empty()).then_some(text),
            is_missing: !self.missing.is_empty(),
            after: RepoSearch::parse_mark(&self.after),
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
    let services = view::services(&dashboard.db).await?;
    let source = format!("/repositories?{}", shown.query());
    let page = Page {
        title: "Repositories",
        section: "/repositories",
        notice: None,
        fixed: html! { (introduction(&services)) (filters(&shown, &services)) },
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
            ": " (count(one.repositories, false)) " repositories, " (count(one.relays, false)) " relays, "
            (count(one.accepted, false)) " events accepted."
            @if one.relays_over_limit > 0 {
                " " (one.relays_over_limit) " more relays are named and not followed: the limit is " (one.max_relays) "."
            }
            @if let Some(told) = words::stopped(&one.url, one.has_feed, one.has_uploads).filter(|_| one.removing_at.is_none()) { " " span.error { (told) "." } }
            @if let Some(told) = words::refuses_others(&one.url, one.refuses_others.as_deref()) { " " span.error { (told) "." } }
        }
    }
}

fn filters(shown: &Shown, services: &[ServiceRow]) -> Markup {
    html! {
        form.filters method="get" action={ (PATH) "/repositories" } role="search" data-filters="/repositories" {
            label { "Search" input type="search" name="q" value=(shown.q) placeholder="name, identifier, npub"; }
            @if services.len() > 1 {
                label { "Service" select name="service" {
                    option value="" { "any" }
                    @for one in services { option value=(one.id) selected[shown.service == one.id.to_string()] { (one.url) } }
                } }
            }
            label { "Coverage" select name="missing" {
                option value="" { "any" }
                option value="yes" selected[!shown.missing.is_empty()] { "something is missing" }
            } }
            button { "Show" }
        }
    }
}

/// The live part: one page of the list.
pub(in crate::dashboard) async fn live(
    dashboard: &Dashboard,
    shown: &Shown,
) -> Result<Markup, sqlx::Error> {
    let mut rows = view::repos(&dashboard.db, &shown.search(), i64::from(SIZE) + 1).await?;
    let has_more = rows.len() > usize::from(SIZE);
    rows.truncate(SIZE.into());
    let next =
        rows.last().filter(|_| has_more).map(|last| Shown { after: last.mark(), ..shown.clone() });
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
        nav.pages aria-label="Pages" {
            @if !shown.after.is_empty() {
                a href={ (PATH) "/repositories?" (Shown { after: String::new(), ..shown.clone() }.query()) } { "First page" }
            }
            @if let Some(next) = next { " " a href={ (PATH) "/repositories?" (next.query()) } { "Next page" } }
        }
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
