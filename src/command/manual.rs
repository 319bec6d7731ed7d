//! `completions` and `man`: made from the definition of the commands.

use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, print};

/// Prints the completions of a shell.
pub(super) fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tender", &mut script);
    print::line(String::from_utf8(script)?.trim_end())
}

/// Writes one page per command into a directory, which is created if it does not exist.
pub(super) fn man(dir: &Path, as_json: bool) -> anyhow::Result<()> {
    let name = dir.display();
    let written = std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .and_then(|()| Ok(std::fs::read_dir(dir)?.count()));
    let pages = written.with_context(|| format!("failed to write the man pages to {name}"))?;
    let words = format!("{pages} files in {name}; `man {name}/tender.1` shows the first");
    print::done(as_json, &words)
}
