//! `top`: the overview of the fleet in a terminal, live.

use std::{io::IsTerminal, time::Duration};

use anyhow::bail;
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

use super::{load, print, with_database};
use crate::{
    config::Needs,
    fleet::{Attention, Fleet},
    words::grasp as grasp_words,
};

/// Interval between two reads of the overview.
const LOOK: Duration = Duration::from_secs(1);
/// Longest wait for a key before the thread checks whether to end.
const KEY: Duration = Duration::from_millis(200);

/// Shows the fleet until q, Esc or Ctrl-C. With `--json`, prints one overview and ends.
pub(super) async fn run(as_json: bool) -> anyhow::Result<()> {
    let config = load(Needs::Database, "off")?;
    with_database(&config, async |database| {
        if as_json {
            let fleet = Fleet::read(&database.pool).await?;
            let attention: Vec<String> =
                fleet.attention().iter().map(|item| words(item, &fleet)).collect();
            return print::json(&json!({ "fleet": fleet, "attention": attention }));
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
    let attention: Vec<Line<'_>> = attention(fleet);
    let height = u16::try_from(attention.len()).unwrap_or(u16::MAX).min(10) + 2;
    let [counts_at, attention_at, hour_at, queues_at, rest_at] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(height),
        Constraint::Length(7),
        Constraint::Length(3 + u16::try_from(fleet.queues.len()).unwrap_or(4)),
        Constraint::Min(4),
    ])
    .areas(frame.area());
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

fn attention(fleet: &Fleet) -> Vec<Line<'static>> {
    let items = fleet.attention();
    if items.is_empty() {
        return vec![Line::from("nothing: no relay, queue or lane has a problem").green()];
    }
    items.iter().map(|item| Line::from(words(item, fleet)).red()).collect()
}

/// Describes an item, with the command that shows or solves it.
fn words(item: &Attention<'_>, fleet: &Fleet) -> String {
    match item {
        Attention::GaveUp(relay) => format!(
            "{} gave up: {} (tender relay sync {})",
            relay.host(),
            relay.sync_error,
            relay.id
        ),
        Attention::MoreGaveUp(more) => {
            format!("{more} more relays gave up (tender relay list --sync gave_up)")
        }
        Attention::BreakerOpen(instance) => format!(
            "zooid at {} is unavailable (breaker {}): {}",
            instance.name,
            instance.breaker.as_str(),
            instance.last_error
        ),
        Attention::LongPending(row) => {
            let since = print::relative(row.updated_at, fleet.now);
            format!(
                "{} changed {since} and is not synced yet (tender relay show {})",
                row.host, row.id
            )
        }
        Attention::NoWorker => "no worker of sync-relay is running (start tender work)".to_owned(),
        Attention::NoMirrorWorker => {
            "no worker of mirror is running (start tender work)".to_owned()
        }
        Attention::NoGraspProcess => {
            "no process follows relays for GRASP (start tender work)".to_owned()
        }
        Attention::StoppedService(service) => {
            let (feed, uploads) = (service.has_feed, service.has_uploads);
            grasp_words::stopped(&service.url, feed, uploads).unwrap_or_default()
        }
        Attention::RefusesOthers(service) => {
            let reason = service.authors_only_reason.as_deref();
            grasp_words::refuses_others(&service.url, reason).unwrap_or_default()
        }
        Attention::OverLimit(service) => {
            let (limit, over) = (service.max_relays, service.relays_over_limit);
            let told = grasp_words::over_limit(&service.url, limit, over);
            format!("{told} (tender grasp update --max-relays)")
        }
        Attention::Followed(trouble) => format!(
            "{}: {} (tender grasp relays --state {})",
            grasp_words::trouble(trouble),
            trouble.urls.join(", "),
            trouble.state.as_str().replace('_', "-"),
        ),
        Attention::Lane(lane) => format!(
            "{} of {}: {} (tender mirror status)",
            lane.lane,
            lane.url,
            lane.error_message.as_deref().unwrap_or("stale: its holder sends no heartbeat")
        ),
        Attention::Killed(queue) => format!(
            "{} jobs killed in {} (tender queue list --state killed)",
            queue.killed_open, queue.queue
        ),
        Attention::Paused(queue, since) => format!(
            "{} was paused {} (tender queue resume {})",
            queue.queue,
            print::relative(*since, fleet.now),
            queue.queue
        ),
    }
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
