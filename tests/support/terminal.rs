//! Commands at a terminal, as an operator types them.

use std::{
    fs::File,
    io::{Read, Write},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::pty::{Winsize, openpty};
use tokio::process::{Child, Command};

/// A command at a terminal of its own; killed when dropped.
pub struct Terminal {
    child: Child,
    keyboard: File,
    written: Arc<Mutex<Vec<u8>>>,
    reader: tokio::task::JoinHandle<()>,
}

/// How a command ended, and everything that was on its screen, without colours.
pub struct Ended {
    pub code: i32,
    pub screen: String,
}

impl Terminal {
    /// Starts the executable at a terminal of `columns` columns and 24 lines, which is also its controlling
    /// terminal: the width is asked of that one.
    pub fn start(columns: u16, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).unwrap();
        let (screen, slave) = (File::from(pair.master), File::from(pair.slave));
        let keyboard = screen.try_clone().unwrap();
        let mut command = Command::new("setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_tender")]).args(arguments);
        command.env_clear().current_dir(std::env::temp_dir()).kill_on_drop(true);
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").envs(environment.iter().copied());
        command.stdin(Stdio::from(slave.try_clone().unwrap()));
        command.stdout(Stdio::from(slave.try_clone().unwrap())).stderr(Stdio::from(slave));
        let child = command.spawn().unwrap();
        let written = Arc::default();
        let reader = tokio::task::spawn_blocking({
            let written = Arc::clone(&written);
            move || read(screen, &written)
        });
        Self { child, keyboard, written, reader }
    }

    /// Runs a command at a terminal of 80 columns to its end.
    pub async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        Self::start(80, arguments, environment).ends().await
    }

    /// Types keys. What is typed before the command reads it waits for it.
    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Returns everything that was on the screen so far.
    pub fn screen(&self) -> String {
        plain(&String::from_utf8_lossy(&self.written.lock().unwrap()))
    }

    /// Waits until the command ends.
    pub async fn ends(mut self) -> Ended {
        let status = tokio::time::timeout(Duration::from_mins(2), self.child.wait()).await;
        let code = status.expect("it ends").unwrap().code().unwrap_or(-1);
        (&mut self.reader).await.unwrap();
        Ended { code, screen: self.screen() }
    }
}

/// Reads until the last process at the terminal has ended, which is an error of the read.
fn read(mut screen: File, written: &Mutex<Vec<u8>>) {
    let mut part = [0; 4096];
    while let Ok(length @ 1..) = screen.read(&mut part) {
        written.lock().unwrap().extend_from_slice(&part[..length]);
    }
}

/// Returns what a terminal shows of a text: without its escape sequences and carriage returns.
fn plain(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match character {
            '\u{1b}' => {
                // A sequence of `[`, parameters and one letter; other sequences have one character.
                if rest.next() == Some('[') {
                    let _letter = rest.by_ref().find(char::is_ascii_alphabetic);
                }
            }
            '\r' => {}
            character => shown.push(character),
        }
    }
    shown
}
