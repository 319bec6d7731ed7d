//! The screen of `tender top`.

use chrono::{DateTime, Utc};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Paragraph, Sparkline},
};
use tender_jobs::console::stats;

use super::{View, keys, tables};
use crate::{
    command::{print, status},
    fleet::{Fleet, Item},
};

/// The fewest and the most items that need attention on the screen; a line counts the others.
const FEWEST_ITEMS: u16 = 2;
const MOST_ITEMS: u16 = 9;
/// Lines of the chart, of a box's frame, of the counts and of the foot.
const CHART: u16 = 7;
const FRAME: u16 = 2;
const COUNTS: u16 = 1;
const FOOT: u16 = 1;
/// The fewest lines of the tables below the queues: a frame, a header and one row.
const REST: u16 = 4;

/// Draws the overview, or why there is none.
pub(super) fn draw(frame: &mut Frame<'_>, view: &mut View) {
    let area = frame.area();
    let [body, foot] = Layout::vertical([Constraint::Min(0), Constraint::Length(FOOT)]).areas(area);
    frame.render_widget(Line::from(print::short(&foot_words(view), area.width.into())).dim(), foot);
    let words = view.error.as_ref().map_or("reading …", String::as_str).to_owned();
    match &view.fleet {
        Some(fleet) => view.scroll = draw_fleet(frame, body, fleet, view.scroll),
        None => frame.render_widget(Paragraph::new(words), body),
    }
}

/// The keys, and the age of what is shown.
fn foot_words(view: &View) -> String {
    let age = view.read_at.map(|at| format!("{} s", at.elapsed().as_secs())).unwrap_or_default();
    let state = match (&view.error, view.is_frozen) {
        (Some(error), _) if age.is_empty() => format!("not read, retrying every second: {error}"),
        (Some(error), _) => format!("not read for {age}, retrying every second: {error}"),
        (None, true) => format!("paused, read {age} ago"),
        (None, false) => "live".to_owned(),
    };
    format!(" {}   {state}", keys::HELP)
}

/// Draws an overview whose list begins at the item `scroll`, or at the last one that leaves no line empty.
/// Returns where it began.
fn draw_fleet(frame: &mut Frame<'_>, area: Rect, fleet: &Fleet, scroll: usize) -> usize {
    let items = fleet.attention();
    let queues = FRAME + 1 + u16::try_from(fleet.queues.len()).unwrap_or(u16::MAX);
    let others = COUNTS + queues.saturating_add(REST) + FRAME;
    let room = area.height.saturating_sub(others).clamp(FEWEST_ITEMS, MOST_ITEMS);
    let width = usize::from(area.width.saturating_sub(2));
    let (first, lines) = attention(&items, fleet.now, width, (scroll, room.into()));
    let height = FRAME + u16::try_from(lines.len()).unwrap_or(u16::MAX);
    // A low terminal has no room for the chart.
    let needed = COUNTS + height + CHART + queues + REST;
    let chart = if area.height < needed { 0 } else { CHART };
    let [counts_at, attention_at, chart_at, queues_at, rest_at] = Layout::vertical([
        Constraint::Length(COUNTS),
        Constraint::Length(height),
        Constraint::Length(chart),
        Constraint::Length(queues),
        Constraint::Min(0),
    ])
    .areas(area);
    let [processes_at, instances_at] =
        Layout::horizontal([Constraint::Percentage(55), Constraint::Percentage(45)]).areas(rest_at);
    frame.render_widget(counts(fleet, area.width.into()), counts_at);
    let block = Block::bordered().title(format!(" needs attention: {} ", items.len()));
    frame.render_widget(Paragraph::new(lines).block(block), attention_at);
    hour(frame, fleet, chart_at);
    frame.render_widget(tables::queues(fleet), queues_at);
    frame.render_widget(tables::processes(fleet, processes_at.width), processes_at);
    frame.render_widget(tables::instances(fleet, instances_at.width), instances_at);
    first
}

/// Returns the counts of relays, as many as the line has room for.
fn counts(fleet: &Fleet, width: usize) -> Paragraph<'static> {
    let summary = &fleet.summary;
    let mut parts = vec![
        (format!(" {} synced", summary.synced), Color::Green),
        (format!("  {} pending", summary.pending), Color::Cyan),
        (format!("  {} failing", summary.retrying), Color::Yellow),
        (format!("  {} gave up", summary.gave_up), Color::Red),
        (format!("  {} off", summary.inactive), Color::Gray),
    ];
    if let Some(at) = summary.oldest_pending_at {
        let oldest = print::distance(at, fleet.now);
        parts.push((format!("  oldest pending {oldest}"), Color::Gray));
    }
    let mut room = width;
    let fits = parts.into_iter().take_while(|(words, _)| {
        let is_room = words.len() <= room;
        room = room.saturating_sub(words.len());
        is_room
    });
    let spans = fits.map(|(words, color)| Span::styled(words, Style::new().fg(color)));
    Paragraph::new(Line::from(spans.collect::<Vec<_>>()))
}

/// Returns a line per item, from `first` on, in at most `room` lines. What does not fit is marked: a line by
/// `…`, items by their number. Also returns the index of the first item shown.
fn attention(
    items: &[Item],
    now: DateTime<Utc>,
    width: usize,
    (first, room): (usize, usize),
) -> (usize, Vec<Line<'static>>) {
    if items.is_empty() {
        return (0, vec![Line::from("nothing: no relay, queue or lane has a problem").green()]);
    }
    // The last line counts the items that have no line.
    let shown = if items.len() > room { room - 1 } else { room };
    let first = first.min(items.len().saturating_sub(shown));
    let line = |item: &Item| {
        let line = Line::from(print::short(&status::line(item, now), width.max(2)));
        if item.is_grave { line.red() } else { line.yellow() }
    };
    let mut lines: Vec<Line<'static>> = items.iter().skip(first).take(shown).map(line).collect();
    let below = items.len().saturating_sub(first + shown);
    if items.len() > room {
        lines.push(Line::from(format!("{first} above, {below} below: ↑↓, or tender status")).red());
    }
    (first, lines)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(items: &[Item], first: usize) -> (usize, Vec<String>) {
        let (first, lines) = attention(items, DateTime::UNIX_EPOCH, 40, (first, 9));
        (first, lines.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_does_not_fit_is_counted_and_marked() {
        let item = |number: usize| Item::named(&format!("{number} relays gave up").repeat(3));
        let items: Vec<Item> = (1..=12).map(item).collect();
        let (_, top) = lines(&items, 0);
        assert_eq!(top.len(), 9);
        assert!(top[0].starts_with("1 relays gave up") && top[0].ends_with('…'), "{top:?}");
        assert!(top.iter().all(|line| line.chars().count() <= 40), "{top:?}");
        assert_eq!(top[8], "0 above, 4 below: ↑↓, or tender status");
        let (first, end) = lines(&items, 99);
        assert_eq!((first, end[8].as_str()), (4, "4 above, 0 below: ↑↓, or tender status"));
        assert!(end[7].starts_with("12 relays"), "{end:?}");
        assert!(lines(&[], 3).1[0].starts_with("nothing"));
        assert_eq!(lines(&items[..9], 3).1.len(), 9);
    }
}
