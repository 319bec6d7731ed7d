//! How a command fails: its words, and its exit code.

/// The command line is wrong: the command did nothing, and ends with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(String);

/// Returns the error of a wrong command line.
pub(super) fn usage(words: impl Into<String>) -> anyhow::Error {
    Usage(words.into()).into()
}

/// The fields of the ledger's messages, as they are typed.
const TYPED: [(&str, &str); 10] = [
    ("Url", "URL"),
    ("Direction", "--direction"),
    ("Config", "--config"),
    ("Notes", "--notes"),
    ("Names", "--name"),
    ("Name", "--name"),
    ("Bootstrap relays", "--bootstrap"),
    ("Bootstrap", "--bootstrap"),
    ("Max relays per announcement", "--max-relays-per-announcement"),
    ("Max relays", "--max-relays"),
];

/// Returns the error of fields that violate their rules. Each problem begins with its field.
pub(super) fn wrong_fields(problems: &[String]) -> anyhow::Error {
    let each = problems.iter().map(|problem| {
        let typed = TYPED.iter().find_map(|(field, typed)| {
            let rest = problem.strip_prefix(field)?;
            rest.starts_with(' ').then(|| format!("{typed}{rest}"))
        });
        typed.unwrap_or_else(|| problem.clone())
    });
    usage(each.collect::<Vec<_>>().join("; "))
}

/// Returns the exit code of a command that failed: 2 for a wrong command line, else 1.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() { 2 } else { 1 }
}

/// Returns an error with its causes, separated by colons. A cause whose words the error has already is left
/// out.
pub fn words(error: &anyhow::Error) -> String {
    let mut words = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn nothing_is_said_twice() {
        let error = anyhow!("refused").context("failed to store: refused").context("no relay");
        assert_eq!(words(&error), "no relay: failed to store: refused");
        assert_eq!(words(&anyhow!("a").context("b")), "b: a");
    }

    #[test]
    fn only_a_wrong_command_line_is_wrong_usage() {
        let wrong: anyhow::Result<()> = Err(usage("--rate is wrong"));
        assert_eq!(exit_code(&wrong.context("relay sync").expect_err("wrong")), 2);
        assert_eq!(exit_code(&anyhow!("--rate is wrong")), 1);
    }

    #[test]
    fn fields_are_named_as_they_are_typed() {
        let problems = ["Url must be valid", "Max relays must be low", "Urls"].map(str::to_owned);
        let words = wrong_fields(&problems).to_string();
        assert_eq!(words, "URL must be valid; --max-relays must be low; Urls");
    }
}
