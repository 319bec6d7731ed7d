//! The counts of relays and the chart of the last hour.

use maud::{Markup, html};
use tender_jobs::console::{charts::Charts, stats};

use crate::{
    dashboard::{
        PATH, charts,
        parts::{count, duration, numbered, time},
    },
    fleet::Fleet,
};

pub(super) fn numbers(fleet: &Fleet) -> Markup {
    let summary = &fleet.summary;
    let capped = summary.is_capped;
    let synced = count(summary.synced, false);
    let synced = if capped { format!("≤ {synced}") } else { synced };
    html! {
        section.numbers aria-label="Counts" {
            (number("synced", &synced, "?sync=synced", "good"))
            (number("pending", &count(summary.pending, capped), "?sync=pending", "busy"))
            (number("failing", &count(summary.retrying, capped), "?sync=retrying", "warn"))
            (number("gave up", &count(summary.gave_up, capped), "?sync=gave_up", "bad"))
            (number("switched off", &count(summary.inactive, false), "?status=off", "off"))
            @if let Some(at) = summary.oldest_pending_at {
                a.number.plain href={ (PATH) "/relays?order=waiting" } {
                    span.figure { (time(at)) }
                    span { "oldest pending" }
                }
            }
        }
    }
}

fn number(name: &str, figure: &str, query: &str, class: &str) -> Markup {
    html! {
        a class={ "number " (class) } href={ (PATH) "/relays" (query) } {
            span.figure { (figure) }
            span { (name) }
        }
    }
}

/// The chart of the last hour, with its sums.
pub(super) fn last_hour(fleet: &Fleet, charts: &Charts) -> Markup {
    charts::last_hour(charts, &sentence(fleet))
}

fn sentence(fleet: &Fleet) -> Markup {
    let (synced, failed) = fleet.hour();
    let percentile = |share| stats::percentile(&fleet.minutes, share).map(duration);
    html! {
        p {
            (numbered(synced, "sync")) ", " (numbered(failed, "failure")) "."
            @if let (Some(half), Some(most)) = (percentile(0.5), percentile(0.95)) {
                " Time from a change to its sync: 50 % within " (half) ", 95 % within " (most) "."
            }
        }
    }
}
