//! Pieces that several pages show: badges, times, numbers, buttons that ask once.

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use tender_jobs::{
    queue::JobState,
    relay::{Status, SyncState},
};

use super::session::Viewer;

/// Why there is no page.
#[derive(Debug)]
pub(super) enum Problem {
    NotFound,
    /// A viewer acts.
    Forbidden,
    /// A form of another session, or none.
    Stale,
    /// Too many streams.
    Busy,
    Database,
}

impl From<sqlx::Error> for Problem {
    /// The database's words stay in the log.
    fn from(error: sqlx::Error) -> Self {
        tracing::error!(%error, "a page of the dashboard failed in the database");
        Self::Database
    }
}

/// A moment; a script tells it from now.
pub(super) fn time(at: DateTime<Utc>) -> Markup {
    html! {
        time datetime=(at.to_rfc3339()) data-relative { (at.format("%F %T UTC")) }
    }
}

pub(super) fn maybe_time(at: Option<DateTime<Utc>>) -> Markup {
    html! { @match at { Some(at) => (time(at)), None => "–" } }
}

pub(super) fn sync_badge(state: SyncState) -> Markup {
    let (class, text) = match state {
        SyncState::Synced => ("good", "synced"),
        SyncState::Pending => ("busy", "pending"),
        SyncState::Retrying => ("warn", "retrying"),
        SyncState::GaveUp => ("bad", "gave up"),
    };
    html! { span class={ "badge " (class) } { (text) } }
}

pub(super) fn status_badge(status: Status) -> Markup {
    let class = if status == Status::Active { "good" } else { "off" };
    html! { span class={ "badge " (class) } { (status.as_str()) } }
}

pub(super) fn job_badge(state: JobState) -> Markup {
    let class = match state {
        JobState::Waiting | JobState::Running => "busy",
        JobState::Retrying => "warn",
        JobState::Done => "good",
        JobState::Killed => "bad",
    };
    html! { span class={ "badge " (class) } { (state.as_str()) } }
}

/// `12,345`; with a plus when it is only the least that there is.
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

/// `1.2 MB`.
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

/// The first and last of a key.
pub(super) fn short_key(key: &str) -> String {
    match (key.get(..8), key.get(key.len().saturating_sub(4)..)) {
        (Some(start), Some(end)) if key.len() == 64 => format!("{start}…{end}"),
        _ => key.to_owned(),
    }
}

/// A button that does something to `action` after having asked once. Without scripts the server asks.
pub(super) struct Ask<'a> {
    pub(super) action: &'a str,
    pub(super) label: &'a str,
    pub(super) question: &'a str,
    pub(super) fields: &'a [(&'a str, &'a str)],
    pub(super) is_grave: bool,
}

/// The button, for those who may act; nothing for others.
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
    fn counts_have_commas_and_say_when_they_are_the_least() {
        let texts = [(7, false), (1234, false), (10_000, true), (1_234_567, false)];
        let texts = texts.map(|(number, is_capped)| count(number, is_capped));
        assert_eq!(texts, ["7", "1,234", "10,000+", "1,234,567"]);
    }
}
