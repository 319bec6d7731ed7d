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
use crate::words::grasp::{self as words, Next};

/// The path of a repository's page, with its query.
fn repo_path(address: &str) -> String {
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

/// Items that are not delivered, each with the reason and the next attempt. `names_relay` shows the relay.
fn missing_list(
    missing: &[MissingRow],
    total: i64,
    names_relay: bool,
    now: DateTime<Utc>,
) -> Markup {
    let more = total - i64::try_from(missing.len()).unwrap_or_default();
    html! {
        ul.changes {
            @for one in missing {
                li {
                    span title=(one.item) { (words::item(&one.family, &short_parts(&one.item))) }
                    @if names_relay { " from " a href={ (PATH) "/followed/" (one.relay_id) } { (one.url) } }
                    ": wanted " (time(one.wanted_at))
                    @let next = words::next_of(one, now);
                    @if next == Next::InFlight { ", in flight" } @else {
                        ", " span.error[one.reason.is_some()] { (words::why(one)) }
                        @match next {
                            Next::At(at) if at > now => { ", next try " (time(at)) }
                            Next::Never => ", no next try",
                            _ => ", next try now",
                        }
                    }
                }
            }
            @if more > 0 { li { (count(more, false)) " more" } }
        }
    }
}
