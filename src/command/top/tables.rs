//! The tables of `tender top`: queues, processes and zooid instances.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ratatui::{
    layout::Constraint,
    style::{Color, Stylize},
    text::Line,
    widgets::{Block, Row, Table},
};
use tender_jobs::provision::instance::BreakerState;

use crate::{command::print, fleet::Fleet};

pub(super) fn queues(fleet: &Fleet) -> Table<'static> {
    let rows = fleet.queues.iter().map(|queue| {
        let due = queue.oldest_due_at.map_or("-".to_owned(), |at| print::relative(at, fleet.now));
        let workers = fleet.workers.iter().filter(|worker| worker.queue == queue.queue).count();
        Row::new([
            queue.queue.clone(),
            queue.waiting.to_string(),
            queue.retrying.to_string(),
            (queue.queued + queue.running).to_string(),
            queue.killed.to_string(),
            workers.to_string(),
            if queue.paused_at.is_some() { "paused".to_owned() } else { due },
        ])
    });
    let header = ["queue", "waiting", "retrying", "running", "killed", "workers", "oldest due"];
    let widths = [17, 8, 8, 8, 7, 7, 16].map(Constraint::Length);
    boxed(Table::new(rows, widths), header, " queues ")
}

fn boxed<const N: usize>(
    table: Table<'static>,
    header: [&'static str; N],
    title: &'static str,
) -> Table<'static> {
    table.header(Row::new(header).bold()).block(Block::bordered().title(title))
}

/// The workers of a process together.
struct Process {
    queues: usize,
    running: i64,
    last_seen: DateTime<Utc>,
}

/// Returns one row per process. `width` is that of the whole table.
pub(super) fn processes(fleet: &Fleet, width: u16) -> Table<'static> {
    let mut processes: BTreeMap<&str, Process> = BTreeMap::new();
    for worker in &fleet.workers {
        let one = processes.entry(&worker.process);
        let new = Process { queues: 0, running: 0, last_seen: worker.last_seen };
        let one = one.or_insert(new);
        one.queues += 1;
        one.running += worker.running;
        one.last_seen = one.last_seen.max(worker.last_seen);
    }
    let [queues, runs, heartbeat] = [6, 4, 9];
    let name = usize::from(width.saturating_sub(2 + 3 + queues + runs + heartbeat));
    let rows = processes.iter().map(|(process, one)| {
        Row::new([
            print::short(process, name.max(2)),
            one.queues.to_string(),
            one.running.to_string(),
            print::distance(one.last_seen, fleet.now),
        ])
    });
    let widths = [Constraint::Fill(1)].into_iter();
    let widths = widths.chain([queues, runs, heartbeat].map(Constraint::Length));
    boxed(Table::new(rows, widths), ["process", "queues", "runs", "heartbeat"], " processes ")
}

/// Returns one row per zooid instance. `width` is that of the whole table.
pub(super) fn instances(fleet: &Fleet, width: u16) -> Table<'static> {
    let [breaker, in_flight, limit] = [9, 9, 5];
    let name = usize::from(width.saturating_sub(2 + 3 + breaker + in_flight + limit));
    let rows = fleet.instances.iter().map(|instance| {
        let color =
            if instance.breaker == BreakerState::Closed { Color::Green } else { Color::Red };
        let allowed = instance.calls_allowed.map(|calls| format!("{:.0}", calls.floor()));
        Row::new([
            Line::from(print::short(&instance.name, name.max(2))),
            Line::from(instance.breaker.as_str()).fg(color),
            Line::from(instance.in_flight.to_string()),
            Line::from(allowed.unwrap_or_else(|| "-".to_owned())),
        ])
    });
    let widths = [Constraint::Fill(1)].into_iter();
    let widths = widths.chain([breaker, in_flight, limit].map(Constraint::Length));
    boxed(Table::new(rows, widths), ["zooid", "breaker", "in flight", "limit"], " instances ")
}
