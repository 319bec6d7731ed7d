//! The flags that every command takes.

use std::sync::OnceLock;

use clap::{ArgAction, Args};

/// The flags of this process. Like the width of its terminal, they hold for everything that it prints.
static FLAGS: OnceLock<Flags> = OnceLock::new();

/// The flags that concern what is printed, beside `--json`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct Flags {
    /// Show every column of a table, and nothing cut, in a narrow terminal too.
    #[arg(long, global = true)]
    pub(super) wide: bool,
    /// Print results and errors only: no notes, no progress, no warnings.
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Log more to standard error: once what happens, twice every step, three times everything.
    #[arg(long, short, global = true, action = ArgAction::Count)]
    verbose: u8,
}

impl Flags {
    /// Sets the flags of this process. The first call counts.
    pub(super) fn set(self) {
        let _set_before = FLAGS.set(self);
    }

    /// Returns the flags of this process; none before [`Flags::set`].
    pub(super) fn get() -> Self {
        FLAGS.get().copied().unwrap_or_default()
    }

    /// Returns the level of the log that the flags ask for; `None` if they say nothing of it.
    pub(super) fn level(self) -> Option<&'static str> {
        match (self.quiet, self.verbose) {
            (true, _) => Some("error"),
            (false, 0) => None,
            (false, 1) => Some("info"),
            (false, 2) => Some("debug"),
            (false, _) => Some("trace"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        flags: Flags,
    }

    #[test]
    fn the_log_follows_the_flags() {
        let level = |flags: &[&str]| {
            let typed = Typed::try_parse_from([&["tender"], flags].concat());
            typed.ok().map(|typed| typed.flags.level())
        };
        assert_eq!(level(&[]), Some(None));
        assert_eq!(level(&["-q"]), Some(Some("error")));
        assert_eq!(level(&["-v"]), Some(Some("info")));
        assert_eq!(level(&["-vv"]), Some(Some("debug")));
        assert_eq!(level(&["-vvvv"]), Some(Some("trace")));
        assert_eq!(level(&["-q", "-v"]), None, "they contradict each other");
    }
}
