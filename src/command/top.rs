//! `top`: the overview of the fleet in a terminal, live.

mod keys;
mod screen;
mod tables;

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use serde_json::json;
use sqlx::PgPool;

use super::{failure::usage, load, print, with_database};
use crate::{config::Needs, fleet::Fleet};
use keys::Key;

/// Interval between two reads of the overview.
const LOOK: Duration = Duration::from_secs(1);

/// What the screen shows.
#[derive(Default)]
struct View {
    /// The last overview that was read.
    fleet: Option<Fleet>,
    /// When it was read.
    read_at: Option<Instant>,
    /// Why the last read failed.
    error: Option<String>,
    /// Whether the operator stopped the updates.
    is_frozen: bool,
    /// How many items that need attention are above the first one shown.
    scroll: usize,
}

impl View {
    /// Takes a new overview, or keeps the last one beside the error.
    fn take(&mut self, read: Result<Fleet, sqlx::Error>) {
        match read {
            Ok(fleet) => {
                (self.fleet, self.read_at, self.error) = (Some(fleet), Some(Instant::now()), None);
            }
            Err(error) => self.error = Some(error.to_string()),
        }
    }

    /// Handles a key. The result is false if it ends the command.
    fn press(&mut self, key: Key) -> bool {
        match key {
            Key::End => return false,
            Key::Pause => self.is_frozen = !self.is_frozen,
            Key::Down => self.scroll += 1,
            Key::Up => self.scroll = self.scroll.saturating_sub(1),
            Key::Resize => {}
        }
        true
    }
}

/// Shows the fleet until q, Esc or Ctrl-C. With `--json`, prints one overview and ends.
pub(super) async fn run(as_json: bool) -> anyhow::Result<()> {
    if !as_json && !std::io::stdout().is_terminal() {
        return Err(usage(
            "`tender top` needs a terminal: use `tender status` or `tender top --json`",
        ));
    }
    let config = load(Needs::Database, "off")?;
    with_database(&config, async |database| {
        if as_json {
            let fleet = Fleet::read(&database.pool).await?;
            return print::json(&json!({ "fleet": fleet, "attention": fleet.attention() }));
        }
        let mut terminal = ratatui::try_init()?;
        let watched = watch(&database.pool, &mut terminal).await;
        ratatui::try_restore()?;
        watched
    })
    .await
}

async fn watch(db: &PgPool, terminal: &mut ratatui::DefaultTerminal) -> anyhow::Result<()> {
    let mut keys = keys::pressed();
    let mut looks = tokio::time::interval(LOOK);
    let mut view = View::default();
    loop {
        terminal.draw(|frame| screen::draw(frame, &mut view))?;
        tokio::select! {
            _ = looks.tick() => {
                if !view.is_frozen {
                    view.take(Fleet::read(db).await);
                }
            }
            key = keys.recv() => {
                if !key.is_some_and(|key| view.press(key)) {
                    return Ok(());
                }
            }
        }
    }
}
