//! What a probe that an operator asked for found.

use std::time::Duration;

use tender_jobs::provision::instance::Probe;

/// How long an answer over HTTP waits for what a probe finds: a request is cut after 15 s.
pub(crate) const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// Returns what the probe of an instance found, in sentences.
pub(crate) fn found(name: &str, probe: &Probe) -> String {
    match probe {
        Probe::NotOpen => format!("The breaker of zooid at {name} is not open; nothing changed."),
        Probe::Answered => {
            format!("zooid at {name} answered: its breaker is closed, and its relays go on.")
        }
        Probe::Failed { error, refuses_key, next_at } => {
            let what = if *refuses_key { "refused the key" } else { "failed" };
            let next_at = next_at.format("%F %T UTC");
            format!("zooid at {name} {what}: {error}. The next probe is at {next_at}.")
        }
        Probe::Awaited { has_job: true } => format!(
            "zooid at {name} was not probed yet: the next free worker of sync-relay does it. If the \
             instance stays out, look whether the queue is paused and a worker runs."
        ),
        Probe::Awaited { has_job: false } => format!(
            "zooid at {name} was not probed yet: no relay waits for it. The next change of a relay is \
             the probe."
        ),
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn a_failed_probe_is_told_with_its_error_and_the_next_one() {
        let probe = |refuses_key| Probe::Failed {
            error: "zooid answered 401 Unauthorized: no".to_owned(),
            refuses_key,
            next_at: DateTime::from_timestamp(1_700_000_000, 0).expect("an instant"),
        };
        assert_eq!(
            found("http://z", &probe(true)),
            "zooid at http://z refused the key: zooid answered 401 Unauthorized: no. The next probe is at \
             2023-11-14 22:13:20 UTC."
        );
        assert!(found("http://z", &probe(false)).starts_with("zooid at http://z failed: zooid"));
    }
}
