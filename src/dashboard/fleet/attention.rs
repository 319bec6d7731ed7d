//! What needs an operator's attention, each item with the action that can help, and with a snooze.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use maud::{Markup, html};
use sha2::{Digest, Sha256};

use crate::{
    dashboard::{
        PATH,
        parts::{Ask, ask, short_key, time, time_for},
        session::Viewer,
    },
    fleet::{Fleet, Item, Remedy},
};

/// The ends of a snooze that are offered, in hours.
const SNOOZES: [(&str, &str); 5] =
    [("1", "1 hour"), ("4", "4 hours"), ("24", "1 day"), ("168", "7 days"), ("720", "30 days")];

pub(super) fn section(fleet: &Fleet, viewer: &Viewer) -> Markup {
    let (items, snoozed) = (fleet.attention(), fleet.snoozed());
    let summary = &fleet.summary;
    let is_in_step = summary.pending + summary.retrying + summary.gave_up == 0;
    html! {
        section.attention.calm[items.is_empty()] aria-labelledby="attention" {
            h2 #attention { "Needs attention" @if !items.is_empty() { " (" (items.len()) ")" } }
            @if items.is_empty() {
                p {
                    @if snoozed.is_empty() { "Nothing." } @else { "Nothing else." }
                    @if is_in_step { " Every relay is in step." }
                    @else if snoozed.is_empty() { " Relays that are not in step are being synced." }
                }
            }
            @for item in &items { (item_of(item, viewer)) }
            @if !snoozed.is_empty() { (put_aside(&snoozed, viewer)) }
        }
    }
}

fn item_of(item: &Item, viewer: &Viewer) -> Markup {
    let class = if item.is_grave { "bad" } else { "warn" };
    html! {
        div class={ "item " (class) } {
            p { (sentence(item)) }
            div.acts {
                @if let Some(remedy) = &item.remedy { (action(remedy, viewer)) }
                @if viewer.may_act() { (snooze(item, viewer)) }
            }
        }
    }
}

fn sentence(item: &Item) -> Markup {
    html! {
        @if item.page.is_empty() { (item.headline) } @else { a href={ (PATH) (item.page) } { (item.headline) } }
        @if let Some(since) = item.since { ", " (time_for(since)) }
        @if item.error.is_empty() { "." } @else { ": " span.error { (item.error) } }
        @if !item.advice.is_empty() {
            @if !item.error.is_empty() { "." } " " (with_code(&item.advice))
        }
        @if let Some(from) = item.grown_from() { " Listed again: it was snoozed at " (from) "." }
        @else if item.began_anew() { " Listed again: it began after it was snoozed." }
    }
}

/// Shows what stands between backticks as code.
fn with_code(text: &str) -> Markup {
    html! {
        @for (place, part) in text.split('`').enumerate() {
            @if place % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn action(remedy: &Remedy, viewer: &Viewer) -> Markup {
    let button = |path: &str, label: &str, question: &str, fields: &[(&str, &str)]| {
        let action = format!("{PATH}{path}");
        ask(viewer, &Ask { action: &action, label, question, fields, is_grave: false })
    };
    match remedy {
        Remedy::Probe(name) => {
            let question = format!("Probe zooid at {name} now?");
            button("/instances/probe", "Probe now", &question, &[("instance", name)])
        }
        Remedy::Resume(queue) => {
            let path = format!("/queues/{queue}/resume");
            button(&path, "Resume", &format!("Resume {queue}?"), &[])
        }
        Remedy::SyncCause(cause) => {
            let question = "Send the relays that gave up for this cause to zooid again now?";
            button("/attention/sync", "Sync now", question, &[("key", cause)])
        }
        Remedy::Reconcile => {
            let question = "Enqueue a job now for every pending relay that has none?";
            button("/reconcile", "Reconcile now", question, &[])
        }
        Remedy::RetryKilled(queue) => {
            let question = format!("Retry the killed jobs of {queue} that need attention?");
            let fields =
                [("queue", queue.as_str()), ("state", "open"), ("scope", "all"), ("verb", "retry")];
            button("/jobs/steer", "Retry", &question, &fields)
        }
    }
}

/// The form that puts an item aside. What is typed is the confirmation.
fn snooze(item: &Item, viewer: &Viewer) -> Markup {
    let id = short_hash(&item.key);
    html! {
        details.snooze id={ "snooze-" (id) } {
            summary { "Snooze" }
            form method="post" action={ (PATH) "/attention/snooze" } {
                input type="hidden" name="form_token" value=(viewer.form_token);
                input type="hidden" name="confirmed" value="yes";
                input type="hidden" name="key" value=(item.key);
                input type="hidden" name="size" value=(item.size);
                label { "Why can it wait?" input name="reason" id={ "reason-" (id) } required maxlength="300"; }
                label { "For" select name="hours" id={ "hours-" (id) } {
                    @for (hours, name) in SNOOZES { option value=(hours) { (name) } }
                } }
                button { "Snooze" }
            }
        }
    }
}

/// The items that wait. They are never hidden without a count.
fn put_aside(items: &[Item], viewer: &Viewer) -> Markup {
    html! {
        details #snoozed {
            summary { (items.len()) " snoozed" }
            @for item in items {
                div.item.off {
                    p {
                        (sentence(item))
                        @if let Some(snooze) = &item.snooze {
                            br; "Snoozed by " span title=(snooze.who) { (short_key(&snooze.who)) } " until "
                            (time(snooze.ends_at)) ": " (snooze.reason)
                        }
                    }
                    div.acts {
                        (ask(viewer, &Ask {
                            action: &format!("{PATH}/attention/wake"), label: "End snooze",
                            question: "List this item again?", fields: &[("key", &item.key)], is_grave: false,
                        }))
                    }
                }
            }
        }
    }
}

/// Names an element of an item for as long as the item exists, so that an update leaves it as it is.
fn short_hash(key: &str) -> String {
    URL_SAFE_NO_PAD.encode(&Sha256::digest(key)[..6])
}
