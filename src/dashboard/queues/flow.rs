//! What flows through each queue now, and how many jobs run at the same time.

use std::{collections::HashMap, time::Duration};

use maud::{Markup, html};
use tender_jobs::queue::{Flow, MOST_AT_ONCE, QueueStatus, Scaled, process::Process};

use crate::dashboard::{
    PATH,
    parts::{Ask, ask, count, duration, numbered, query, scroll, short_key, time},
    session::Viewer,
};

/// What the section shows.
pub(super) struct Flows<'a> {
    pub(super) queues: &'a [QueueStatus],
    pub(super) flow: &'a HashMap<String, Flow>,
    pub(super) processes: &'a [Process],
    pub(super) scaled: &'a [Scaled],
}

pub(super) fn section(flows: &Flows<'_>, viewer: &Viewer) -> Markup {
    html! {
        h2 #flow { "Now" }
        p.quiet {
            "Rates are means of the last 5 minutes. Waits and durations are those of the last 1,000 done jobs: the median, and what 95 % did not exceed. "
            "Busy is the share of the places for jobs, in processes that take jobs, that is taken."
        }
        (scroll("Flow of the queues", &html! {
            table.cards {
                thead { tr {
                    th { "Queue" } th.n { "In per min" } th.n { "Out per min" } th { "Waits" } th { "Takes" }
                    th { "Busy" } th { "Processes" } th { "Jobs at once, per process" }
                } }
                tbody { @for queue in flows.queues { (row(queue, flows, viewer)) } }
            }
        }))
    }
}

fn row(queue: &QueueStatus, flows: &Flows<'_>, viewer: &Viewer) -> Markup {
    let idle = Flow::default();
    let flow = flows.flow.get(&queue.queue).unwrap_or(&idle);
    let serving = Serving::of(&queue.queue, flows.processes);
    html! {
        tr {
            td data-label="Queue" { (queue.queue) }
            td.n data-label="In per min" { (rate(flow.added)) }
            td.n data-label="Out per min" { (rate(flow.ended)) }
            td.none[flow.waited.is_none()] data-label="Waits" { div { (times(flow.waited)) } }
            td.none[flow.took.is_none()] data-label="Takes" { div { (times(flow.took)) } }
            td data-label="Busy" { div { (busy(queue, &serving)) } }
            td data-label="Processes" { div { (processes(&queue.queue, &serving)) } }
            td data-label="Jobs at once" { div { (at_once(&queue.queue, &serving, flows.scaled, viewer)) } }
        }
    }
}

/// The processes that serve a queue.
#[derive(Default)]
struct Serving {
    /// Living processes, and of these those that drain.
    processes: usize,
    draining: usize,
    /// Jobs that run at the same time in the others, together.
    places: usize,
    /// The numbers that living processes run, and are configured with.
    jobs: Vec<usize>,
    configured: Vec<usize>,
}

impl Serving {
    fn of(queue: &str, processes: &[Process]) -> Self {
        let mut serving = Self::default();
        for process in processes.iter().filter(|process| process.is_alive) {
            let Some(served) = process.stations.get(queue) else { continue };
            serving.processes += 1;
            if process.drain_at.is_some() {
                serving.draining += 1;
            } else {
                serving.places += served.jobs;
            }
            serving.jobs.push(served.jobs);
            serving.configured.push(served.configured);
        }
        serving
    }
}

fn rate(per_minute: f64) -> String {
    match per_minute {
        0.0 => "0".to_owned(),
        few if few < 10.0 => format!("{few:.1}"),
        #[expect(clippy::cast_possible_truncation, reason = "a rate of jobs")]
        many => count(many.round() as i64, false),
    }
}

/// `12 ms · 95 %: 1.5 s`
fn times(times: Option<[f64; 2]>) -> Markup {
    let told =
        |secs: f64| Duration::try_from_secs_f64(secs).map_or_else(|_| "–".to_owned(), duration);
    html! {
        @match times {
            Some([median, most]) => { (told(median)) " " span.quiet { "95 %: " (told(most)) } }
            None => "–",
        }
    }
}

fn busy(queue: &QueueStatus, serving: &Serving) -> Markup {
    let (running, places) = (queue.running + queue.queued, serving.places);
    html! {
        @if places == 0 { (running) } @else {
            meter min="0" max=(places) value=(running) aria-label={ "Busy places of " (queue.queue) } {} " "
            span.word { (running) " of " (places) }
        }
    }
}

fn processes(queue: &str, serving: &Serving) -> Markup {
    html! {
        a href={ (PATH) "/processes" (query(&[("queue", queue)])) } {
            (numbered(i64::try_from(serving.processes).unwrap_or(i64::MAX), "process"))
        }
        @if serving.draining > 0 { " " span.badge.warn { (serving.draining) " draining" } }
    }
}

/// The number of jobs that run at the same time in each process, who set it, and the form that changes it.
fn at_once(queue: &str, serving: &Serving, scaled: &[Scaled], viewer: &Viewer) -> Markup {
    let set = scaled.iter().find(|one| one.queue == queue);
    let configured = range(&serving.configured);
    html! {
        @match set {
            Some(set) => {
                strong { (set.jobs) } ", set by " span title=(set.set_by) { (short_key(&set.set_by)) } " " (time(set.set_at))
                @if let Some(reason) = &set.reason { ": " (reason) }
                " " span.quiet { "(configured: " (configured) ")" }
            }
            None => { (configured) },
        }
        @if viewer.may_act() && tender_jobs::queues().contains(&queue) {
            " " (change(queue, set, viewer))
        }
    }
}

/// The numbers of several processes: `16`, or `4 to 16`; a dash without any.
fn range(numbers: &[usize]) -> String {
    match (numbers.iter().min(), numbers.iter().max()) {
        (Some(least), Some(most)) if least == most => least.to_string(),
        (Some(least), Some(most)) => format!("{least} to {most}"),
        _ => "–".to_owned(),
    }
}

fn change(queue: &str, set: Option<&Scaled>, viewer: &Viewer) -> Markup {
    let action = |verb: &str| format!("{PATH}/queues/{queue}/{verb}");
    html! {
        details.snooze id={ "scale-" (queue) } {
            summary { "Change" }
            form method="post" action=(action("scale")) {
                input type="hidden" name="form_token" value=(viewer.form_token);
                input type="hidden" name="confirmed" value="yes";
                label { "Jobs at once" input type="number" name="jobs" id={ "jobs-" (queue) } min="1" max=(MOST_AT_ONCE) required; }
                label { "Why?" input name="reason" id={ "scale-reason-" (queue) } required maxlength="300"; }
                button { "Set" }
            }
        }
        @if set.is_some() {
            (ask(viewer, &Ask {
                action: &action("unscale"), label: "Back to configured", fields: &[], is_grave: false,
                question: &format!("Let each process run the number of {queue} jobs that it is configured with?"),
            }))
        }
    }
}
