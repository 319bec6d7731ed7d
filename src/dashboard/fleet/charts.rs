//! The counts of relays and the chart of the last hour.

use maud::{Markup, html};
use tender_jobs::console::stats::{self, Minute};

use crate::{
    dashboard::{
        PATH,
        parts::{count, duration, time},
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
            (number("retrying", &count(summary.retrying, capped), "?sync=retrying", "warn"))
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

pub(super) fn last_hour(fleet: &Fleet) -> Markup {
    let minutes: &[Minute] = &fleet.minutes;
    let points: Vec<_> = minutes
        .iter()
        .map(|minute| (minute.minute.timestamp(), minute.synced, minute.failed))
        .collect();
    html! {
        section aria-labelledby="last-hour" {
            h2 #last-hour { "The last hour" }
            (sentence(fleet))
            tender-chart data-points=(serde_json::to_string(&points).unwrap_or_default()) {
                (figures(minutes))
            }
        }
    }
}

fn sentence(fleet: &Fleet) -> Markup {
    let (synced, failed) = fleet.hour();
    let percentile =
        |share| stats::percentile(&fleet.minutes, share).map_or("–".to_owned(), duration);
    html! {
        p {
            (count(synced, false)) " syncs, " (count(failed, false)) " failures. Time from a change to its sync: 50 % within "
            (percentile(0.5)) ", 95 % within " (percentile(0.95)) "."
        }
    }
}

/// The figures of the chart as a table, also for browsers without scripts.
fn figures(minutes: &[Minute]) -> Markup {
    html! {
        details {
            summary { "Figures per minute" }
            table {
                thead { tr { th { "Minute" } th.n { "Synced" } th.n { "Failed" } } }
                tbody {
                    @for minute in minutes.iter().rev().filter(|m| m.synced + m.failed > 0) {
                        tr { td { (minute.minute.format("%H:%M UTC")) } td.n { (minute.synced) } td.n { (minute.failed) } }
                    }
                }
            }
        }
    }
}
