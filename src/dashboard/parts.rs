//! Pieces of markup that several pages share: badges, times, numbers, links, buttons that ask once.

use std::time::Duration;

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use tender_jobs::{
    provision::relay::{Status, SyncState},
    queue::JobState,
};
use uuid::Uuid;

use super::{PATH, session::Viewer};
use crate::words::{noun, span};

/// Why a request is not answered with its page.
#[derive(Debug)]
pub(super) enum Problem {
    NotFound,
    /// A viewer tried to act.
    Forbidden,
    /// The form has no token, or the token of another session.
    Stale,
    /// Too many streams are open.
    Busy,
    Database,
}

impl From<sqlx::Error> for Problem {
    /// Logs the error. The page does not show it, because it may name tables and values.
    fn from(error: sqlx::Error) -> Self {
        tracing::error!(%error, "the database failed while a page of the dashboard was rendered");
        Self::Database
    }
}

/// Whether a path with its query is a page of the dashboard, so that a redirect to it stays here.
pub(super) fn is_ours(path: &str) -> bool {
    let rest = path.strip_prefix(PATH);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
        && !path.contains("//")
        && !path.contains(['\\', '#'])
        && !path.chars().any(char::is_control)
}

/// An instant. A script replaces the text by the distance from now.
pub(super) fn time(at: DateTime<Utc>) -> Markup {
    html! {
        time datetime=(at.to_rfc3339()) data-relative { (at.format("%F %T UTC")) }
    }
}

/// Since when something lasts. A script replaces the text by how long that is: `for 5 min`.
pub(super) fn time_for(since: DateTime<Utc>) -> Markup {
    html! {
        time datetime=(since.to_rfc3339()) data-relative="for" { "since " (since.format("%F %T UTC")) }
    }
}

pub(super) fn maybe_time(at: Option<DateTime<Utc>>) -> Markup {
    html! { @match at { Some(at) => (time(at)), None => "–" } }
}

pub(super) fn sync_badge(state: SyncState) -> Markup {
    let class = match state {
        SyncState::Synced => "good",
        SyncState::Pending => "busy",
        SyncState::Failing => "warn",
        SyncState::GaveUp => "bad",
    };
    html! { span class={ "badge " (class) } { (state.word()) } }
}

pub(super) fn status_badge(status: Status) -> Markup {
    let class = if status == Status::Active { "good" } else { "off" };
    html! { span class={ "badge " (class) } { (status.as_str()) } }
}

pub(super) fn job_badge(state: JobState) -> Markup {
    let class = match state {
        JobState::Waiting | JobState::Queued | JobState::Running => "busy",
        JobState::Retrying => "warn",
        JobState::Done => "good",
        JobState::Killed => "bad",
    };
    html! { span class={ "badge " (class) } { (state.as_str()) } }
}

/// Formats a count: `12,345`. A plus follows if there may be more.
pub(super) fn count(count: i64, is_capped: bool) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if is_capped { text + "+" } else { text }
}

/// Formats a count with its noun: `1 item`, `12,345 items`.
pub(super) fn numbered(number: i64, one: &str) -> String {
    format!("{} {}", count(number, false), noun(number, one))
}

/// Formats a number of bytes: `1.2 MB`.
pub(super) fn bytes(bytes: i64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let number = bytes as f64;
    match bytes {
        ..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{:.1} kB", number / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", number / 1e6),
        _ => format!("{:.1} GB", number / 1e9),
    }
}

/// Formats a duration: `350 ms`, `1.5 s`, `2 min 5 s`.
pub(super) fn duration(time: Duration) -> String {
    match time.as_millis() {
        ms @ ..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{:.1} s", time.as_secs_f64()),
        _ => span(i64::try_from(time.as_secs()).unwrap_or(i64::MAX)),
    }
}

/// Shortens a public key to its first and last characters. Other text is returned as it is.
pub(super) fn short_key(key: &str) -> String {
    match (key.get(..8), key.get(key.len().saturating_sub(4)..)) {
        (Some(start), Some(end)) if key.len() == 64 => format!("{start}…{end}"),
        _ => key.to_owned(),
    }
}

/// Shortens the ids and public keys in a text whose parts are divided by colons, such as
/// `30617:<public key>:<identifier>`.
pub(super) fn short_parts(text: &str) -> String {
    text.split(':').map(short_key).collect::<Vec<_>>().join(":")
}

/// Returns the fields that are not empty as a query: `?queue=prune`, or nothing.
pub(super) fn query(fields: &[(&str, &str)]) -> String {
    let fields: Vec<_> = fields.iter().filter(|(_, value)| !value.is_empty()).collect();
    let query = serde_urlencoded::to_string(fields).unwrap_or_default();
    if query.is_empty() { query } else { format!("?{query}") }
}

/// A link to a worker in the list of its queue. The name of a worker is `<queue>-<uuid>`; the first
/// characters of the id are shown.
pub(super) fn worker_link(worker: &str, queue: &str) -> Markup {
    html! {
        a href={ (PATH) "/workers" (query(&[("queue", queue)])) "#worker-" (worker) } title=(worker) { (short_worker(worker)) }
    }
}

pub(super) fn short_worker(worker: &str) -> String {
    let id = worker.len().checked_sub(36).and_then(|start| worker.get(start..));
    match id.filter(|id| Uuid::parse_str(id).is_ok()).and_then(|id| id.get(..8)) {
        Some(start) => format!("{start}…"),
        None => worker.to_owned(),
    }
}

/// An id or key as text, with a button that copies it. The button needs scripts and is hidden without.
pub(super) fn copyable(text: &str) -> Markup {
    html! {
        code { (text) }
        button.copy type="button" data-copy=(text) title={ "Copy " (text) } { "Copy" }
    }
}

/// A table that scrolls sideways where the window is too narrow for it.
pub(super) fn scroll(label: &str, table: &Markup) -> Markup {
    html! { div.scroll tabindex="0" role="region" aria-label={ (label) ", table" } { (table) } }
}

/// A button that does something after one confirmation. A script asks for it; without scripts the
/// server asks.
pub(super) struct Ask<'a> {
    pub(super) action: &'a str,
    pub(super) label: &'a str,
    pub(super) question: &'a str,
    pub(super) fields: &'a [(&'a str, &'a str)],
    pub(super) is_grave: bool,
}

/// Renders the button for operators, and nothing for viewers.
pub(super) fn ask(viewer: &Viewer, ask: &Ask<'_>) -> Markup {
    html! {
        @if viewer.may_act() {
            form.ask method="post" action=(ask.action) data-ask=(ask.question) {
                input type="hidden" name="form_token" value=(viewer.form_token);
                @for (name, value) in ask.fields {
                    input type="hidden" name=(name) value=(value);
                }
                button.grave[ask.is_grave] { (ask.label) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_commas_and_a_plus_if_there_may_be_more() {
        let texts = [(7, false), (1234, false), (10_000, true), (1_234_567, false)];
        let texts = texts.map(|(number, is_capped)| count(number, is_capped));
        assert_eq!(texts, ["7", "1,234", "10,000+", "1,234,567"]);
    }

    #[test]
    fn only_paths_of_the_dashboard_are_ours() {
        for path in ["/dashboard", "/dashboard/relays?q=a&order=host", "/dashboard?x"] {
            assert!(is_ours(path), "{path}");
        }
        for path in [
            "",
            "/",
            "/dashboardevil",
            "//evil.example",
            "/dashboard//evil",
            "/dashboard/\\evil",
            "https://evil/dashboard",
            "/dashboard/\n",
        ] {
            assert!(!is_ours(path), "{path}");
        }
    }

    #[test]
    fn durations_have_the_unit_that_fits() {
        let texts = [0.35, 1.54, 125.0].map(|secs| duration(Duration::from_secs_f64(secs)));
        assert_eq!(texts, ["350 ms", "1.5 s", "2 min 5 s"]);
    }

    #[test]
    fn queries_encode_their_fields_and_leave_empty_ones_out() {
        assert_eq!(query(&[("queue", ""), ("state", "")]), "");
        let jobs = query(&[("queue", "a&b=c #"), ("state", "killed")]);
        assert_eq!(jobs, "?queue=a%26b%3Dc+%23&state=killed");
    }

    #[test]
    fn ids_within_texts_are_shortened() {
        let text = format!("a:30617:{}:my:repo", "ab".repeat(32));
        assert_eq!(short_parts(&text), "a:30617:abababab…abab:my:repo");
    }

    #[test]
    fn workers_are_shown_by_the_start_of_their_id() {
        let names = ["sync-relay-6f9619ff-8b86-4011-b42d-00c04fc964ff", "other", "é"];
        assert_eq!(names.map(short_worker), ["6f9619ff…", "other", "é"]);
    }
}
