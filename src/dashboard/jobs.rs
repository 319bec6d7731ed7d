//! The list of jobs: filters by what they are about, queue, state, error and age, pages by key, and what an operator
//! does to the jobs that match.

pub(super) mod bulk;
pub(super) mod one;
mod table;

use std::time::Duration;

use axum::{
    extract::{Query, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use serde::Deserialize;
use sqlx::PgPool;
use tender_jobs::{
    queue::{self, Cursor, JobFilter, JobState, JobSummary, Page},
    subject,
};

use super::{
    Dashboard, actions, export, layout,
    lists::{Field, Pages, filters},
    parts::{Problem, count, query},
    session::Viewer,
};
use crate::selection::{Selection, Wanted};

/// Jobs on a page.
const SIZE: usize = 100;

/// The ages that are offered, each with its words. The age of a job is the time since it ended, or was due.
const AGES: [(&str, &str); 6] = [
    ("under-300", "less than 5 min"),
    ("under-3600", "less than 1 h"),
    ("under-86400", "less than 1 day"),
    ("over-300", "more than 5 min"),
    ("over-3600", "more than 1 h"),
    ("over-86400", "more than 1 day"),
];

/// The filters and the place in the list, from the address. A value that is not understood is ignored.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Shown {
    /// The host of a relay, or a part of an upstream's address.
    host: String,
    /// A public key in hex, or as npub.
    tenant: String,
    queue: String,
    state: String,
    error: String,
    /// See [`AGES`].
    age: String,
    /// The cursor that the page follows.
    pub(super) after: String,
    /// The cursor that the page precedes.
    before: String,
}

impl Shown {
    pub(super) fn selection(&self) -> Selection {
        let some = |text: &String| (!text.trim().is_empty()).then(|| text.clone());
        let (younger, older) = self.ages();
        Selection {
            host: some(&self.host),
            tenant: some(&self.tenant),
            queue: some(&self.queue),
            state: state_of(&self.state),
            error: some(&self.error),
            younger,
            older,
        }
    }

    /// Whether every filter that was given is understood. A list ignores the others, an action must not.
    fn is_understood(&self) -> bool {
        let is_state = self.state.is_empty() || state_of(&self.state).is_some();
        is_state && (self.age.is_empty() || AGES.iter().any(|(name, _)| *name == self.age))
    }

    /// The greatest and the least age.
    fn ages(&self) -> (Option<Duration>, Option<Duration>) {
        let known = AGES.iter().any(|(name, _)| *name == self.age);
        let (side, secs) = self.age.split_once('-').filter(|_| known).unwrap_or_default();
        let age = secs.parse().ok().map(Duration::from_secs);
        if side == "under" { (age, None) } else { (None, age) }
    }

    pub(super) fn page(&self) -> Page {
        match (Cursor::parse(&self.after), Cursor::parse(&self.before)) {
            (Some(cursor), _) => Page::After(cursor),
            (None, Some(cursor)) => Page::Before(cursor),
            (None, None) => Page::First,
        }
    }

    /// The filters that are set, by their names in addresses and forms.
    fn filters(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("host", &*self.host),
            ("tenant", &*self.tenant),
            ("queue", &*self.queue),
            ("state", &*self.state),
            ("error", &*self.error),
            ("age", &*self.age),
        ];
        all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }

    /// Returns the query of this list at another place.
    fn at(&self, name: &str, cursor: &str) -> String {
        query(&[&self.filters()[..], &[(name, cursor)]].concat())
    }

    /// Returns the query of this page.
    fn query(&self) -> String {
        match self.page() {
            Page::First => self.at("", ""),
            Page::After(cursor) => self.at("after", &cursor.to_string()),
            Page::Before(cursor) => self.at("before", &cursor.to_string()),
        }
    }
}

/// Killed jobs that need attention.
const OPEN: &str = "open";

fn state_of(name: &str) -> Option<Wanted> {
    if name == OPEN {
        return Some(Wanted::Open);
    }
    JobState::ALL.into_iter().find(|state| state.as_str() == name).map(Wanted::In)
}

pub(super) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Query(shown): Query<Shown>,
) -> Result<Response, Problem> {
    let names = queue::names(&dashboard.db).await?;
    let list = live(&dashboard, &shown, &viewer).await?;
    let source = format!("/jobs{}", shown.query());
    let page = layout::Page {
        title: "Jobs",
        section: "/jobs",
        notice: actions::notice(&headers),
        fixed: filter_form(&shown, &names),
        live: Some((&source, list)),
    };
    Ok(actions::without_notice(layout::page(&viewer, &page).into_response()))
}

/// The filters offer the queues of Tender, then any others that have jobs.
fn filter_form(shown: &Shown, names: &[String]) -> Markup {
    let mut queues = tender_jobs::queues();
    for name in names.iter().map(String::as_str).chain([shown.queue.as_str()]) {
        if !name.is_empty() && !queues.contains(&name) {
            queues.push(name);
        }
    }
    let queues = queues.into_iter().map(|name| (name, name));
    let states = JobState::ALL.map(|state| (state.as_str(), state.as_str()));
    let states = states.into_iter().chain([(OPEN, "killed, needs attention")]);
    let search = |label, name, value, hint| Field::Search { label, name, value, hint };
    let fields = [
        search("Relay or upstream", "host", shown.host.as_str(), "its host"),
        search("Tenant", "tenant", shown.tenant.as_str(), "npub or hex"),
        Field::any("Queue", "queue", &shown.queue, queues),
        Field::any("State", "state", &shown.state, states),
        search("Error contains", "error", shown.error.as_str(), ""),
        Field::any("Ended or due", "age", &shown.age, AGES),
    ];
    filters("/jobs", true, &fields)
}

/// The jobs of a page, and where the list goes on.
struct Listed {
    jobs: Vec<JobSummary>,
    previous: Option<Cursor>,
    next: Option<Cursor>,
}

/// Reads a page. One job more than the page has says whether the list goes on. A page before a cursor
/// that reaches the start of the list is the first page instead, so that it is full.
async fn read(db: &PgPool, filter: &JobFilter, mut page: Page) -> Result<Listed, sqlx::Error> {
    let most = i64::try_from(SIZE + 1).unwrap_or(i64::MAX);
    let mut jobs = queue::jobs(db, filter, &page, most).await?;
    if matches!(page, Page::Before(_)) && jobs.len() <= SIZE {
        page = Page::First;
        jobs = queue::jobs(db, filter, &page, most).await?;
    }
    let goes_on = jobs.len() > SIZE;
    let is_before = matches!(page, Page::Before(_));
    if goes_on {
        jobs.remove(if is_before { 0 } else { SIZE });
    }
    let previous = jobs.first().filter(|_| page != Page::First).map(JobSummary::cursor);
    let next = jobs.last().filter(|_| goes_on || is_before).map(JobSummary::cursor);
    Ok(Listed { jobs, previous, next })
}

/// The live part.
pub(super) async fn live(
    dashboard: &Dashboard,
    shown: &Shown,
    viewer: &Viewer,
) -> Result<Markup, sqlx::Error> {
    let db = &dashboard.db;
    let selected = shown.selection().find(db).await?;
    let listed = read(db, &selected.filter, shown.page()).await?;
    let subjects = listed.jobs.iter().filter_map(|job| job.subject.as_deref());
    let named = subject::named(db, subjects).await?;
    let matching = queue::count(db, &selected.filter, bulk::COUNTED).await?;
    let all = count(matching, matching >= bulk::COUNTED || selected.is_partial());
    let pages = Pages {
        first: (shown.page() != Page::First).then(|| shown.at("", "")),
        previous: listed.previous.map(|cursor| shown.at("before", &cursor.to_string())),
        next: listed.next.map(|cursor| shown.at("after", &cursor.to_string())),
    };
    let table = table::table(&listed.jobs, &named, viewer);
    Ok(html! {
        @for words in selected.limits() { p.quiet { (words) } }
        @if listed.jobs.is_empty() { p { "No job matches." } } @else {
            (bulk::form(viewer, shown, &all, &table))
        }
        (pages.of("/jobs"))
        (export::links("jobs", &shown.at("", "")))
    })
}
