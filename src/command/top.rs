//! `top`: the overview of the fleet in a terminal, live.

use std::{io::IsTerminal, time::Duration};

use anyhow::bail;
use chrono::{DateTime, Utc};
use ratatui::{
    Frame,
    crossterm::event::{self, Event, KeyCode, KeyModifiers},
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Paragraph, Row, Sparkline, Table},
};
use serde_json::json;
use tender_jobs::{console::stats, provision::instance::BreakerState};
use tokio::sync::mpsc;

use super::{load, print, status, with_database};
use crate::{
    config::Needs,
    fleet::{Fleet, Item},
};

/// Interval between two reads of the overview.
const LOOK: Duration = Duration::from_secs(1);
/// The most items that need attention on the screen; a line counts the others.
const MOST_ITEMS: usize = 9;
/// Lines of the chart, and the fewest lines of the tables below it.
const CHART_HEIGHT: u16 = 7;
const REST_HEIGHT: u16 = 4;
/// Longest wait for a key before the thread checks whether to end.
const KEY: Duration = Duration::from_millis(200);

/// Shows the fleet until q, Esc or Ctrl-C. With `--json`, prints one overview and ends.
pub(super) async fn run(as_json: bool) -> anyhow::Result<()> {
    let config = load(Needs::Database, "off")?;
    with_database(&config, async |database| {
        if as_json {
            let fleet = Fleet::read(&database.pool).await?;
            return print::json(&json!({ "fleet": fleet, "attention": fleet.attention() }));
        }
        if !std::io::stdout().is_terminal() {
            bail!(
                "`tender top` needs a terminal: use `tender top --json` or `tender queue status`"
            );
        }
        let mut terminal = ratatui::try_init()?;
        let watched = watch(&database.pool, &mut terminal).await;
        ratatui::try_restore()?;
        watched
    })
    .await
}

async fn watch(db: &sqlx::PgPool, terminal: &mut ratatui::DefaultTerminal) -> anyhow::Result<()> {
    let mut ends = ends_and_resizes();
    let mut looks = tokio::time::interval(LOOK);
    let mut shown: Result<Fleet, String> = Err("reading …".to_owned());
    loop {
        terminal.draw(|frame| match &shown {
            Ok(fleet) => draw(frame, fleet),
            Err(words) => frame.render_widget(Paragraph::new(words.as_str()), frame.area()),
        })?;
        tokio::select! {
            _ = looks.tick() => {
                shown = Fleet::read(db).await.map_err(|error| {
                    format!("failed to read the overview: {error}; retrying every second, q quits")
                });
            }
            key = ends.recv() => match key {
                Some(Key::Resize) => {}
                Some(Key::End) | None => return Ok(()),
            },
        }
    }
}

enum Key {
    End,
    Resize,
}

/// Reads keys on a separate thread. The thread ends when the receiver is dropped.
fn ends_and_resizes() -> mpsc::Receiver<Key> {
    let (sender, receiver) = mpsc::channel(8);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            let Ok(true) = event::poll(KEY) else { continue };
            let key = match event::read() {
                Ok(Event::Resize(..)) => Key::Resize,
                Ok(Event::Key(key)) if is_end(key.code, key.modifiers) => Key::End,
                Ok(_) => continue,
                Err(_) => Key::End,
            };
            if sender.blocking_send(key).is_err() {
                return;
            }
        }
    });
    receiver
}

fn is_end(code: KeyCode, modifiers: KeyModifiers) -> bool {
    matches!(code, KeyCode::Char('q') | KeyCode::Esc)
        || (code == KeyCode::Char('c') && modifiers.contains(KeyModifiers::CONTROL))
}

fn draw(frame: &mut Frame<'_>, fleet: &Fleet) {
    let area = frame.area();
    let attention = attention(&fleet.attention(), fleet.now, area.width.saturating_sub(2).into());
    let height = u16::try_from(attention.len()).unwrap_or(u16::MAX) + 2;
    let queues_height = 3 + u16::try_from(fleet.queues.len()).unwrap_or(4);
    // A low terminal has no room for the chart.
    let needed = 2 + height + CHART_HEIGHT + queues_height + REST_HEIGHT;
    let hour_height = if area.height < needed { 0 } else { CHART_HEIGHT };
    let [counts_at, attention_at, hour_at, queues_at, rest_at] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(height),
        Constraint::Length(hour_height),
        Constraint::Length(queues_height),
        Constraint::Min(REST_HEIGHT),
    ])
    .areas(area);
    let [workers_at, instances_at] =
        Layout::horizontal([Constraint::Percentage(55), Constraint::Percentage(45)]).areas(rest_at);
    frame.render_widget(counts(fleet), counts_at);
    let block = Block::bordered().title(" needs attention ");
    frame.render_widget(Paragraph::new(attention).block(block), attention_at);
    hour(frame, fleet, hour_at);
    frame.render_widget(queues(fleet), queues_at);
    frame.render_widget(workers(fleet), workers_at);
    frame.render_widget(instances(fleet), instances_at);
}

fn counts(fleet: &Fleet) -> Paragraph<'static> {
    let summary = &fleet.summary;
    let number = |count: i64, name: &str, color| {
        vec![
            Span::styled(format!(" {count}"), Style::new().fg(color).bold()),
            Span::raw(format!(" {name} ")),
        ]
    };
    let mut spans = vec![Span::raw(" Tender  ").bold()];
    spans.extend(number(summary.synced, "synced", Color::Green));
    spans.extend(number(summary.pending, "pending", Color::Cyan));
    spans.extend(number(summary.retrying, "retrying", Color::Yellow));
    spans.extend(number(summary.gave_up, "gave up", Color::Red));
    spans.extend(number(summary.inactive, "switched off", Color::Gray));
    if let Some(at) = summary.oldest_pending_at {
        spans.push(Span::raw(format!("  oldest pending {}", print::relative(at, fleet.now))));
    }
    Paragraph::new(Line::from(spans))
}

/// Returns a line per item. What does not fit is marked: a line by `…`, items by their number.
fn attention(items: &[Item], now: DateTime<Utc>, width: usize) -> Vec<Line<'static>> {
    if items.is_empty() {
        return vec![Line::from("nothing: no relay, queue or lane has a problem").green()];
    }
    let left_out = items.len().saturating_sub(MOST_ITEMS);
    let line = |item: &Item| {
        let line = Line::from(print::short(&status::line(item, now), width.max(2)));
        if item.is_grave { line.red() } else { line.yellow() }
    };
    let mut lines: Vec<Line<'static>> = items.iter().take(MOST_ITEMS).map(line).collect();
    if left_out > 0 {
        lines.push(Line::from(format!("and {left_out} more: tender status")).red());
    }
    lines
}

fn hour(frame: &mut Frame<'_>, fleet: &Fleet, area: Rect) {
    let (synced, failed) = fleet.hour();
    let percentile = |share| {
        let time = stats::percentile(&fleet.minutes, share);
        time.map_or("-".to_owned(), |time| format!("{} ms", time.as_millis()))
    };
    let title = format!(
        " last hour: {synced} syncs, {failed} failures, p50 {}, p95 {} ",
        percentile(0.5),
        percentile(0.95)
    );
    let bars = |count: fn(&stats::Minute) -> i64| -> Vec<u64> {
        fleet.minutes.iter().map(|minute| u64::try_from(count(minute)).unwrap_or(0)).collect()
    };
    let block = Block::bordered().title(title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [above, below] = Layout::vertical([Constraint::Fill(2), Constraint::Fill(1)]).areas(inner);
    let synced = Sparkline::default().data(bars(|minute| minute.synced)).fg(Color::Green);
    let failed = Sparkline::default().data(bars(|minute| minute.failed)).fg(Color::Red);
    frame.render_widget(synced, above);
    frame.render_widget(failed, below);
}

fn queues(fleet: &Fleet) -> Table<'static> {
    let rows = fleet.queues.iter().map(|queue| {
        let due = queue.oldest_due_at.map_or("-".to_owned(), |at| print::relative(at, fleet.now));
        let paused = if queue.paused_at.is_some() { "paused" } else { "" };
        Row::new([
            queue.queue.clone(),
            queue.waiting.to_string(),
            queue.retrying.to_string(),
            (queue.queued + queue.running).to_string(),
            queue.killed.to_string(),
            due,
            paused.to_owned(),
        ])
    });
    let header = ["queue", "waiting", "retrying", "running", "killed", "oldest due", ""];
    let widths = [14, 9, 9, 9, 9, 16, 8].map(Constraint::Length);
    Table::new(rows, widths)
        .header(Row::new(header).bold())
        .block(Block::bordered().title(" queues "))
}

fn workers(fleet: &Fleet) -> Table<'static> {
    let rows = fleet.workers.iter().map(|worker| {
        let beat = print::relative(worker.last_seen, fleet.now);
        Row::new([worker.queue.clone(), worker.process.clone(), beat, worker.running.to_string()])
    });
    let widths = [
        Constraint::Length(11),
        Constraint::Fill(1),
        Constraint::Length(12),
        Constraint::Length(5),
    ];
    Table::new(rows, widths)
        .header(Row::new(["queue", "process", "heartbeat", "runs"]).bold())
        .block(Block::bordered().title(" workers "))
}

fn instances(fleet: &Fleet) -> Table<'static> {
    let rows = fleet.instances.iter().map(|instance| {
        let color =
            if instance.breaker == BreakerState::Closed { Color::Green } else { Color::Red };
        Row::new([
            Line::from(instance.name.clone()),
            Line::from(instance.breaker.as_str()).fg(color),
            Line::from(instance.in_flight.to_string()),
            Line::from(
                instance
                    .calls_allowed
                    .map_or_else(|| "-".to_owned(), |n| format!("{:.0}", n.floor())),
            ),
        ])
    });
    let widths =
        [Constraint::Fill(1), Constraint::Length(10), Constraint::Length(9), Constraint::Length(6)];
    Table::new(rows, widths)
        .header(Row::new(["zooid", "breaker", "in flight", "limit"]).bold())
        .block(Block::bordered().title(" instances "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted_and_marked() {
        let item = |number: usize| Item::named(&format!("{number} relays gave up").repeat(3));
        let items: Vec<Item> = (1..=12).map(item).collect();
        let lines: Vec<String> =
            attention(&items, DateTime::UNIX_EPOCH, 40).iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), MOST_ITEMS + 1);
        assert!(lines[0].starts_with("1 relays gave up") && lines[0].ends_with('…'), "{lines:?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 40), "{lines:?}");
        assert_eq!(lines[MOST_ITEMS], "and 3 more: tender status");
        assert!(attention(&[], DateTime::UNIX_EPOCH, 40)[0].to_string().starts_with("nothing"));
    }
}
