//! The problems that need an operator's attention, each with the action that helps.

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use tender_jobs::{
    grasp::{service::Service, view::Trouble},
    mirror::{MIRROR, lane::LaneState},
    provision::{
        SYNC_RELAY,
        instance::Instance,
        relay::{Relay, Row},
    },
    queue::QueueStatus,
};

use crate::{
    dashboard::{
        PATH,
        parts::{Ask, ask, count, maybe_time, query, time},
        session::Viewer,
    },
    fleet::{Attention, Fleet},
    words::grasp as words,
};

/// The count of open killed jobs stops at the last 1,000 killed jobs; see [`QueueStatus`].
const KILLED_CAP: i64 = 1000;

pub(super) fn section(fleet: &Fleet, viewer: &Viewer) -> Markup {
    let items = fleet.attention();
    let is_in_step = fleet.summary.pending + fleet.summary.retrying == 0;
    html! {
        section.attention.calm[items.is_empty()] aria-labelledby="attention" {
            h2 #attention { "Needs attention" }
            @if items.is_empty() {
                p { "Nothing. " @if is_in_step { "Every relay is in step." } @else { "Relays that are not in step are being synced." } }
            }
            @for item in &items { (item_of(item, viewer)) }
        }
    }
}

fn item_of(item: &Attention<'_>, viewer: &Viewer) -> Markup {
    match item {
        Attention::GaveUp(relay) => gave_up(relay, viewer),
        Attention::MoreGaveUp(more) => more_gave_up(*more),
        Attention::BreakerOpen(instance) => breaker(instance, viewer),
        Attention::LongPending(row) => long_pending(row, viewer),
        Attention::NoWorker => no_worker(SYNC_RELAY, "changes of relays do not reach zooid"),
        Attention::NoMirrorWorker => no_worker(MIRROR, "no events are mirrored"),
        Attention::Lane(lane) => failed_lane(lane),
        Attention::NoGraspProcess => no_grasp_process(),
        Attention::StoppedService(service) => stopped(service),
        Attention::RefusesOthers(service) => refuses_others(service),
        Attention::OverLimit(service) => over_limit(service),
        Attention::Followed(trouble) => followed(trouble),
        Attention::Killed(queue) => killed(queue, viewer),
        Attention::Paused(queue, since) => paused(queue, *since, viewer),
    }
}

fn gave_up(relay: &Relay, viewer: &Viewer) -> Markup {
    let host = relay.host();
    let action = format!("{PATH}/relays/{}/sync", relay.id);
    let question = format!("Send {host} to zooid again now?");
    html! {
        div.item.bad {
            p {
                a href={ (PATH) "/relays/" (relay.id) } { (host) } " gave up "
                (maybe_time(relay.exhausted_at)) ": " span.error { (relay.sync_error) }
            }
            (ask(viewer, &Ask { action: &action, label: "Sync now", question: &question, fields: &[], is_grave: false }))
        }
    }
}

fn more_gave_up(more: i64) -> Markup {
    html! {
        div.item.bad { p { a href={ (PATH) "/relays?sync=gave_up" } { (count(more, false)) " more relays gave up" } } }
    }
}

fn breaker(instance: &Instance, viewer: &Viewer) -> Markup {
    html! {
        div.item.bad {
            p {
                "zooid at " (instance.name) " is out: its breaker is " (instance.breaker.as_str())
                " since " (maybe_time(instance.opened_at)) ". Next probe " (maybe_time(instance.retry_at)) ". "
                span.error { (instance.last_error) }
            }
            (ask(viewer, &Ask {
                action: &format!("{PATH}/instances/probe"), label: "Probe now",
                question: &format!("Probe zooid at {} now?", instance.name),
                fields: &[("instance", &instance.name)], is_grave: false,
            }))
        }
    }
}

fn long_pending(row: &Row, viewer: &Viewer) -> Markup {
    html! {
        div.item.warn {
            p {
                a href={ (PATH) "/relays?order=waiting" } { "The longest-waiting relay" } ", "
                a href={ (PATH) "/relays/" (row.id) } { (row.host) } ", was changed "
                (time(row.updated_at)) " and the change is not on zooid yet."
                @if !row.sync_error.is_empty() { " " span.error { (row.sync_error) } }
            }
            (ask(viewer, &Ask {
                action: &format!("{PATH}/reconcile"), label: "Reconcile now",
                question: "Enqueue a job now for every pending relay that has none?",
                fields: &[], is_grave: false,
            }))
        }
    }
}

fn no_worker(queue: &str, consequence: &str) -> Markup {
    html! {
        div.item.bad {
            p { "No worker of " code { (queue) } " is alive: " (consequence) ". Start " code { "tender work" } " or " code { "tender serve" } "." }
        }
    }
}

fn failed_lane(lane: &LaneState) -> Markup {
    html! {
        div.item.warn {
            p {
                (lane.lane) " of " a href={ (PATH) "/upstreams/" (lane.upstream_id) } { (lane.url) }
                @if lane.is_stale { " is stale: its holder sends no heartbeat." } @else { " failed " (maybe_time(lane.failed_at.or(lane.last_error_at))) ": " }
                @if let Some(error) = &lane.last_error { span.error { (error) } }
            }
        }
    }
}

fn no_grasp_process() -> Markup {
    html! {
        div.item.bad {
            p { "No process follows relays for the GRASP services. Start " code { "tender work" } " or " code { "tender serve" } "." }
        }
    }
}

fn stopped(service: &Service) -> Markup {
    html! {
        div.item.bad {
            p { a href={ (PATH) "/upstreams/" (service.id) } { (words::stopped(&service.url, service.has_feed, service.has_uploads).unwrap_or_default()) } }
        }
    }
}

fn refuses_others(service: &Service) -> Markup {
    html! {
        div.item.bad {
            p { a href={ (PATH) "/upstreams/" (service.id) } { (service.url) } ": " @if let Some(told) = words::refuses_others(&service.url, service.authors_only_reason.as_deref()) { (told) "." } }
        }
    }
}

fn over_limit(service: &Service) -> Markup {
    html! {
        div.item.warn {
            p { (words::over_limit(&service.url, service.max_relays, service.relays_over_limit)) ". " code { "tender grasp update --max-relays" } " raises the limit." }
        }
    }
}

fn followed(trouble: &Trouble) -> Markup {
    let list = query(&[("state", trouble.state.as_str())]);
    html! {
        div class={ "item " (words::grade(trouble.state)) } {
            p {
                a href={ (PATH) "/followed" (list) } { (words::trouble(trouble)) }
                ", the first since " (time(trouble.since)) ": " (trouble.urls.join(", "))
                @if trouble.relays > 3 { " …" }
            }
        }
    }
}

fn killed(queue: &QueueStatus, viewer: &Viewer) -> Markup {
    html! {
        div.item.warn {
            p {
                a href={ (PATH) "/jobs?queue=" (queue.queue) "&state=killed" } {
                    (count(queue.killed_open, queue.killed_open >= KILLED_CAP)) " killed"
                }
                " in " (queue.queue)
            }
            (ask(viewer, &Ask {
                action: &format!("{PATH}/jobs/retry-all"), label: "Retry all",
                question: &format!("Retry every killed job of {}, except those of relays that are in step?", queue.queue),
                fields: &[("queue", &queue.queue), ("state", "killed")], is_grave: false,
            }))
        }
    }
}

fn paused(queue: &QueueStatus, since: DateTime<Utc>, viewer: &Viewer) -> Markup {
    html! {
        div.item.warn {
            p { (queue.queue) " is paused since " (time(since)) "." }
            (ask(viewer, &Ask {
                action: &format!("{PATH}/queues/{}/resume", queue.queue), label: "Resume",
                question: &format!("Resume {}?", queue.queue), fields: &[], is_grave: false,
            }))
        }
    }
}
