//! The output of the demo: a live table on a terminal, else a line for each change.

use std::{collections::HashMap, io::IsTerminal};

use chrono::{DateTime, Utc};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tender_jobs::provision::relay::{Relay, SyncState};

pub(super) struct View {
    is_terminal: bool,
    bars: MultiProgress,
}

pub(super) struct Table {
    is_terminal: bool,
    rows: Vec<ProgressBar>,
    progress: ProgressBar,
    last: HashMap<String, String>,
}

impl View {
    pub(super) fn new() -> Self {
        Self { is_terminal: std::io::stderr().is_terminal(), bars: MultiProgress::new() }
    }

    /// Prints a line. Must not be called while the table is drawn.
    #[expect(clippy::print_stderr, reason = "the demo prints for people")]
    #[expect(clippy::unused_self, reason = "all output of the demo goes through the view")]
    pub(super) fn say(&self, text: &str) {
        eprintln!("{text}");
    }

    pub(super) fn table(&self, relays: usize) -> Table {
        let line = ProgressStyle::with_template("  {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressStyle::with_template("  {bar:40.green} {pos} of {len} synced, {elapsed}");
        let bar = bar.unwrap_or_else(|_| ProgressStyle::default_bar());
        let rows = (0..relays).map(|_| self.bars.add(ProgressBar::new(1).with_style(line.clone())));
        let rows: Vec<_> = rows.collect();
        let progress = self.bars.add(ProgressBar::new(relays as u64).with_style(bar));
        Table { is_terminal: self.is_terminal, rows, progress, last: HashMap::new() }
    }
}

impl Table {
    pub(super) fn show(&mut self, relays: &[Relay], now: DateTime<Utc>) {
        for (number, relay) in relays.iter().enumerate() {
            match self.rows.get(number) {
                Some(row) if self.is_terminal => row.set_message(colored(relay, now)),
                _ => self.tell(relay),
            }
        }
        let synced = relays.iter().filter(|relay| relay.synced).count();
        self.progress.set_position(synced as u64);
    }

    /// Prints a line if the state of the relay has changed.
    #[expect(clippy::print_stderr, reason = "the demo prints for people")]
    fn tell(&mut self, relay: &Relay) {
        let key = format!("{} {} {}", relay.sync_state().word(), relay.attempts, relay.sync_error);
        let before = self.last.insert(relay.host(), key.clone());
        if before.is_none_or(|before| before != key) {
            eprintln!("  {}", plain(relay));
        }
    }

    pub(super) fn finish(&self) {
        for row in self.rows.iter().chain([&self.progress]) {
            row.abandon();
        }
    }
}

fn plain(relay: &Relay) -> String {
    let state = relay.sync_state().word();
    let attempt = match relay.attempts {
        0 => String::new(),
        spent => format!("attempt {spent} of 7"),
    };
    format!("{:<24} {state:<9} {attempt:<14} {}", relay.host(), relay.sync_error)
        .trim_end()
        .to_owned()
}

fn colored(relay: &Relay, now: DateTime<Utc>) -> String {
    let color = match relay.sync_state() {
        SyncState::Synced => 32,
        SyncState::Pending => 36,
        SyncState::Failing => 33,
        SyncState::GaveUp => 31,
    };
    let wait = relay
        .retry_at
        .map_or_else(String::new, |at| format!("retry in {} s", (at - now).num_seconds().max(0)));
    let error: String = relay.sync_error.chars().take(60).collect();
    let state = relay.sync_state().word();
    let attempt =
        if relay.attempts == 0 { String::new() } else { format!("{} of 7", relay.attempts) };
    format!("{:<24} \x1b[{color}m{state:<9}\x1b[0m {attempt:<7} {wait:<18} {error}", relay.host())
}
