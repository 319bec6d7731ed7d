//! The list of jobs: filters by queue, state and error, and pages by key.

pub(super) mod one;

use axum::{
    extract::{Query, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use serde::Deserialize;
use tender_jobs::queue::{self, Cursor, JobFilter, JobState, JobSummary, Page};

use super::{
    Dashboard, PATH, actions, layout,
    lists::{Field, Pages, filters},
    parts::{Ask, Problem, ask, job_badge, maybe_time, query, scroll, time, worker_link},
    session::Viewer,
};

/// Jobs on a page.
const SIZE: usize = 100;

/// The filters and the place in the list, from the address. A value that is not understood is ignored.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Shown {
    #[serde(default)]
    queue: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    error: String,
    /// The cursor that the page follows.
    #[serde(default)]
    pub(super) after: String,
    /// The cursor that the page precedes.
    #[serde(default)]
    before: String,
}

impl Shown {
    pub(super) fn filter(&self) -> JobFilter {
        // PostgreSQL does not accept NUL in text.
        let text = |text: &str| (!text.is_empty()).then(|| text.replace('\0', ""));
        let (queue, error) = (text(&self.queue), text(&self.error));
        JobFilter { queue, state: state_of(&self.state), error, is_open: is_open(&self.state) }
    }

    pub(super) fn page(&self) -> Page {
        match (Cursor::parse(&self.after), Cursor::parse(&self.before)) {
            (Some(cursor), _) => Page::After(cursor),
            (None, Some(cursor)) => Page::Before(cursor),
            (None, None) => Page::First,
        }
    }

    /// Returns the query of this list at another place.
    fn at(&self, name: &str, cursor: &str) -> String {
        let filters = [("queue", &*self.queue), ("state", &*self.state), ("error", &*self.error)];
        query(&[&filters[..], &[(name, cursor)]].concat())
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

pub(super) fn is_open(state: &str) -> bool {
    state == OPEN
}

pub(super) fn state_of(name: &str) -> Option<JobState> {
    if is_open(name) {
        return Some(JobState::Killed);
    }
    JobState::ALL.into_iter().find(|state| state.as_str() == name)
}

pub(super) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Query(shown): Query<Shown>,
) -> Result<Response, Problem> {
    let names = queue::names(&dashboard.db).await?;
    let list = live(&dashboard, &shown).await?;
    let above = html! { (filter_form(&shown, &names)) (retry_all(&viewer, &shown)) };
    let source = format!("/jobs{}", shown.query());
    // No index serves a search in errors, so a page with one is not read again every second.
    let is_live = shown.error.is_empty();
    let page = layout::Page {
        title: "Jobs",
        section: "/jobs",
        notice: actions::notice(&headers),
        fixed: if is_live {
            above
        } else {
            html! { (above) (list) }
        },
        live: is_live.then(|| (source.as_str(), list.clone())),
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
    let (label, name, value) = ("Error contains", "error", shown.error.as_str());
    let fields = [
        Field::any("Queue", "queue", &shown.queue, queues),
        Field::any("State", "state", &shown.state, states),
        Field::Search { label, name, value, hint: "" },
    ];
    filters("/jobs", false, &fields)
}

fn retry_all(viewer: &Viewer, shown: &Shown) -> Markup {
    let state = state_of(&shown.state);
    html! {
        @if matches!(state, Some(JobState::Killed | JobState::Retrying)) {
            (ask(viewer, &Ask {
                action: &format!("{PATH}/jobs/retry-all"),
                label: "Retry all that match",
                question: "Retry all jobs that match, except those of relays that are in step?",
                fields: &[("queue", &shown.queue), ("state", &shown.state), ("error", &shown.error)],
                is_grave: false,
            }))
        }
    }
}

/// The jobs of a page, and where the list goes on.
struct Listed {
    jobs: Vec<JobSummary>,
    previous: Option<Cursor>,
    next: Option<Cursor>,
}

/// Reads a page. One job more than the page has says whether the list goes on. A page before a cursor
/// that reaches the start of the list is the first page instead, so that it is full.
async fn read(dashboard: &Dashboard, shown: &Shown) -> Result<Listed, sqlx::Error> {
    let (filter, mut page) = (shown.filter(), shown.page());
    let most = i64::try_from(SIZE + 1).unwrap_or(i64::MAX);
    let mut jobs = queue::jobs(&dashboard.db, &filter, &page, most).await?;
    if matches!(page, Page::Before(_)) && jobs.len() <= SIZE {
        page = Page::First;
        jobs = queue::jobs(&dashboard.db, &filter, &page, most).await?;
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
pub(super) async fn live(dashboard: &Dashboard, shown: &Shown) -> Result<Markup, sqlx::Error> {
    let listed = read(dashboard, shown).await?;
    let pages = Pages {
        first: (shown.page() != Page::First).then(|| shown.at("", "")),
        previous: listed.previous.map(|cursor| shown.at("before", &cursor.to_string())),
        next: listed.next.map(|cursor| shown.at("after", &cursor.to_string())),
    };
    Ok(html! {
        @if listed.jobs.is_empty() { p { "No job matches." } } @else { (table(&listed.jobs)) }
        (pages.of("/jobs"))
    })
}

fn table(jobs: &[JobSummary]) -> Markup {
    scroll(
        "Jobs",
        &html! {
            table.cards {
                thead { tr {
                    th { "Job" } th { "Queue" } th { "State" } th { "Attempts" } th.n { "Priority" }
                    th { "Due" } th { "Ended" } th { "Held by" } th { "Last error" }
                } }
                tbody { @for job in jobs { (row(job)) } }
            }
        },
    )
}

fn row(job: &JobSummary) -> Markup {
    html! {
        tr {
            td data-label="Job" { a href={ (PATH) "/jobs/" (job.id) } { (job.id) } }
            td data-label="Queue" { (job.queue) }
            td data-label="State" { (job_badge(job.state)) }
            td data-label="Attempts" { (job.attempts) " of " (job.max_attempts) }
            td.n data-label="Priority" { (job.priority) }
            td data-label="Due" { (time(job.run_at)) }
            td.none[job.done_at.is_none()] data-label="Ended" { (maybe_time(job.done_at)) }
            td.none[job.lock_by.is_none()] data-label="Held by" { (holder(job)) }
            td.error.none[job.error.is_none()] data-label="Last error" { (job.error.as_deref().unwrap_or_default()) }
        }
    }
}

/// The worker that holds a job, and since when.
fn holder(job: &JobSummary) -> Markup {
    html! {
        @match &job.lock_by {
            Some(worker) => {
                (worker_link(worker, &job.queue))
                @if let Some(at) = job.lock_at { " since " (time(at)) }
            },
            None => "–",
        }
    }
}
