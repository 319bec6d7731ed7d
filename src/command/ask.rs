//! The question that a command asks before it destroys something.

use std::io::{BufRead, IsTerminal};

use anyhow::bail;
use clap::Args;

use super::{failure::usage, print};

/// The answer that was given beforehand.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Yes {
    /// Do not ask for confirmation. Without a terminal to ask at, this is required.
    #[arg(long, short = 'y')]
    yes: bool,
}

impl Yes {
    /// Asks `question` on standard error and reads the answer, unless `--yes` was given. Every answer except
    /// `y`, `Y` and `yes` means no, and so does the end of the input.
    ///
    /// # Errors
    /// The answer is no: exit code 1. There is no terminal to ask at: exit code 2.
    pub(super) async fn or_asks(self, question: &str) -> anyhow::Result<()> {
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            return Err(usage(format!(
                "nothing was done: {question} There is no terminal to ask at; --yes confirms it"
            )));
        }
        print::ask(&format!("{question} [y/N]"))?;
        let answer = tokio::task::spawn_blocking(|| {
            let mut answer = String::new();
            std::io::stdin().lock().read_line(&mut answer).map(|_| answer)
        });
        if matches!(answer.await??.trim(), "y" | "Y" | "yes") {
            return Ok(());
        }
        bail!("nothing was done: the question was not answered with y")
    }
}
