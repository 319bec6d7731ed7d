//! The keys of `tender top`, read on a thread of their own.

use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

/// Longest wait for a key before the thread checks whether to end.
const WAIT: Duration = Duration::from_millis(200);

/// The keys, as the foot of the screen names them.
pub(super) const HELP: &str = "q quit  p pause  ↑↓ scroll";

/// What a key, or a change of the terminal, asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    End,
    Pause,
    Down,
    Up,
    Resize,
}

/// Reads keys on a separate thread. The thread ends when the receiver is dropped.
pub(super) fn pressed() -> mpsc::Receiver<Key> {
    let (sender, receiver) = mpsc::channel(8);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            let Ok(true) = event::poll(WAIT) else { continue };
            let key = match event::read() {
                Ok(Event::Resize(..)) => Key::Resize,
                Ok(Event::Key(key)) => match meaning(key) {
                    Some(key) => key,
                    None => continue,
                },
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

fn meaning(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    Some(match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Key::End,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::End,
        KeyCode::Char('p' | ' ') => Key::Pause,
        KeyCode::Char('j') | KeyCode::Down => Key::Down,
        KeyCode::Char('k') | KeyCode::Up => Key::Up,
        _ => return None,
    })
}
