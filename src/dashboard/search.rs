//! One search over everything that has a name or an id: relays, upstreams, followed relays, repositories, jobs,
//! events.

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use serde::Deserialize;
use sqlx::PgPool;
use tender_jobs::{
    grasp::view::{self, RelayRow, RelaySearch, RepoRow, RepoSearch},
    mirror::{
        event::{self, FoundEvent},
        upstream::{self, Upstream},
    },
    provision::relay::{self, Row},
    queue::{self, FoundJob},
};

use super::{
    Dashboard, PATH, grasp,
    layout::{self, Page},
    parts::{Problem, query, short_key, status_badge, sync_badge, time},
    session::Viewer,
};
use crate::search;

/// The most results of a kind.
const MOST: i64 = 10;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    q: String,
}

/// What was found, at most one more of each kind than is shown.
struct Found {
    relays: Vec<Row>,
    upstreams: Vec<Upstream>,
    followed: Vec<RelayRow>,
    repos: Vec<RepoRow>,
    jobs: Vec<FoundJob>,
    events: Vec<FoundEvent>,
}

impl Found {
    async fn read(db: &PgPool, text: &str) -> Result<Self, sqlx::Error> {
        let some = || Some(text.to_owned());
        let relays = relay::Search { text: some(), ..relay::Search::default() };
        let followed = RelaySearch { text: some(), ..RelaySearch::default() };
        let repos = RepoSearch { text: some(), ..RepoSearch::default() };
        Ok(Self {
            relays: relay::search(db, &relays, MOST + 1).await?,
            upstreams: upstream::matching(db, text, MOST + 1).await?,
            followed: view::relays(db, &followed, MOST + 1).await?,
            repos: view::repos(db, &repos, MOST + 1).await?,
            jobs: queue::starting_with(db, text, MOST + 1).await?,
            events: event::starting_with(db, text, MOST + 1).await?,
        })
    }
}

pub(super) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let fixed = match search::normal(&asked.q) {
        Some(text) => shown(&asked.q, &Found::read(&dashboard.db, &text).await?),
        None => help(),
    };
    let page = Page { title: "Search", section: "/search", notice: None, fixed, live: None };
    Ok(layout::page(&viewer, &page).into_response())
}

fn help() -> Markup {
    html! {
        p {
            "Type a host or a part of it, a name, an id, a public key (npub or hex), the address of an upstream, or \
             the first 8 characters of the id of a job or an event. The key / leads here."
        }
    }
}

fn shown(typed: &str, found: &Found) -> Markup {
    let list = |path: &str| Some(format!("{PATH}{path}{}", query(&[("q", typed.trim())])));
    let groups = [
        group("Relays", &found.relays, list("/relays"), relay_of),
        group("Upstreams", &found.upstreams, None, upstream_of),
        group("Followed relays", &found.followed, list("/followed"), followed_of),
        group("Repositories", &found.repos, list("/repositories"), repo_of),
        group("Jobs", &found.jobs, None, job_of),
        group("Events", &found.events, None, event_of),
    ];
    let is_nothing = groups.iter().all(|group| group.0.is_empty());
    html! {
        p { "Results for " b { (typed.trim()) } }
        @if is_nothing { p { "Nothing has this name or id." } (help()) }
        @for group in groups { (group) }
    }
}

/// The results of one kind, or nothing.
fn group<T>(name: &str, rows: &[T], all: Option<String>, one: impl Fn(&T) -> Markup) -> Markup {
    let most = usize::try_from(MOST).unwrap_or(usize::MAX);
    html! {
        @if !rows.is_empty() {
            section {
                h2 { (name) }
                ul.found { @for row in rows.iter().take(most) { li { (one(row)) } } }
                @if rows.len() > most {
                    p.quiet {
                        "The first " (most) ". "
                        @match all {
                            Some(path) => { a href=(path) { "Show all that match" } },
                            None => { "Type more to see fewer." },
                        }
                    }
                }
            }
        }
    }
}

fn relay_of(row: &Row) -> Markup {
    html! { a href={ (PATH) "/relays/" (row.id) } { (row.host) } " " (status_badge(row.status)) " " (sync_badge(row.sync_state())) }
}

fn upstream_of(row: &Upstream) -> Markup {
    html! {
        a href={ (PATH) "/upstreams/" (row.id) } { (row.url) }
        @if !row.enabled { " " span class="badge off" { "disabled" } }
    }
}

fn followed_of(row: &RelayRow) -> Markup {
    html! { a href={ (PATH) "/followed/" (row.id) } { (row.url) } }
}

fn repo_of(row: &RepoRow) -> Markup {
    let name = row.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&row.identifier);
    html! { a href=(grasp::repo_path(&row.address)) { (name) } " of " code title=(row.pubkey) { (short_key(&row.pubkey)) } }
}

fn job_of(row: &FoundJob) -> Markup {
    html! { a href={ (PATH) "/jobs/" (row.id) } { code { (row.id) } } " in " (row.queue) }
}

fn event_of(row: &FoundEvent) -> Markup {
    html! {
        code { (row.id) } br;
        "kind " (row.kind) " of " code title=(row.pubkey) { (short_key(&row.pubkey)) } ", stored " (time(row.first_seen_at))
        @if let Some(reason) = &row.delete_reason { " " span class="badge off" { (reason) } }
    }
}
