//! Pages and actions of the GRASP wing.

pub(super) mod actions;
pub(super) mod parked;
pub(super) mod relay;
pub(super) mod relays;
pub(super) mod repo;
pub(super) mod repos;

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use tender_jobs::grasp::view::{MissingRow, RelayState};

use super::{
    PATH,
    parts::{count, query, short_parts, time},
};
use crate::words::grasp::{self as words, Group, Next};

/// The most lines of items that are missing for the same reason.
const GROUPS: usize = 20;

/// The path of a repository's page, with its query.
pub(super) fn repo_path(address: &str) -> String {
    format!("{PATH}/repository{}", query(&[("address", address)]))
}

/// The badge of a followed relay's state.
fn state_badge(state: RelayState, fault: Option<&str>) -> Markup {
    html! { span class={ "badge " (words::grade(state)) } { (words::state(state, fault)) } }
}

/// A bar and the numbers of delivered and wanted items; a dash if none is wanted.
fn coverage(confirmed: i64, items: i64) -> Markup {
    html! {
        @if items == 0 { "–" } @else {
            span.coverage {
                progress max=(items) value=(confirmed) aria-label="share of the items that were delivered" {}
                span { (count(confirmed, false)) " of " (count(items, false)) }
            }
        }
    }
}

/// Items that are not delivered, with the reason and the next attempt. `names_relay` shows the relay.
fn missing_list(
    missing: &[MissingRow],
    total: i64,
    names_relay: bool,
    now: DateTime<Utc>,
) -> Markup {
    let groups = words::grouped(missing, now);
    let shown = &groups[..groups.len().min(GROUPS)];
    let more = total - shown.iter().map(|group| group.number).sum::<i64>();
    html! {
        ul.changes {
            @for group in shown { li { (missing_group(group, names_relay, now)) } }
            @if more > 0 { li { (count(more, false)) " more" } }
        }
    }
}

fn missing_group(group: &Group<'_>, names_relay: bool, now: DateTime<Utc>) -> Markup {
    let Group { first, number, next } = group;
    html! {
        span title=[(*number == 1).then_some(&first.item)] { (group.words(short_parts)) }
        @if names_relay { " from " a href={ (PATH) "/followed/" (first.relay_id) } { (first.url) } }
        ": wanted " (time(first.wanted_at)) ", "
        span.error[first.reason.is_some() && *next != Next::InFlight] { (words::why(first)) }
        @match next {
            Next::InFlight => ", in flight",
            Next::At(at) if *at > now => { ", next try " (time(*at)) }
            Next::At(_) => ", next try now",
            Next::Never => ", no next try",
        }
    }
}
