//! Commands at a terminal, as an operator types them.

use std::{
    fs::File,
    io::{Read, Write},
    process::Stdio,
    time::Duration,
};

use nix::pty::{Winsize, openpty};
use tokio::process::{Child, Command};

/// A command at a terminal of its own; killed when dropped.
pub struct Terminal {
    child: Child,
    keyboard: File,
    reader: tokio::task::JoinHandle<String>,
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
        let (mut screen, slave) = (File::from(pair.master), File::from(pair.slave));
        let keyboard = screen.try_clone().unwrap();
        let mut command = Command::new("setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_tender")]).args(arguments);
        command.env_clear().current_dir(std::env::temp_dir()).kill_on_drop(true);
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").envs(environment.iter().copied());
        command.stdin(Stdio::from(slave.try_clone().unwrap()));
        command.stdout(Stdio::from(slave.try_clone().unwrap())).stderr(Stdio::from(slave));
        let child = command.spawn().unwrap();
        let reader = tokio::task::spawn_blocking(move || {
            let mut text = Vec::new();
            // The end of the last process at a terminal is an error of the read.
            let _ended = screen.read_to_end(&mut text);
            plain(&String::from_utf8_lossy(&text))
        });
        Self { child, keyboard, reader }
    }

    /// Types keys. What is typed before the command reads it waits for it.
    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the command ends.
    pub async fn ends(mut self) -> Ended {
        let status = tokio::time::timeout(Duration::from_mins(2), self.child.wait()).await;
        let code = status.expect("it ends").unwrap().code().unwrap_or(-1);
        Ended { code, screen: self.reader.await.unwrap() }
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
