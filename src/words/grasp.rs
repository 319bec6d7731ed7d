//! What followed relays, repositories, items and services tell people.

mod item;
mod moment;
mod service;

use chrono::{DateTime, Utc};
use tender_jobs::grasp::view::{RelayRow, RelayState, RepoRow, Trouble};

pub(crate) use item::{Group, Next, READ, delivered, grouped, items, why};
pub(crate) use moment::moments;
pub(crate) use service::{new_limit, over_limit, refuses_others, stopped};

/// How a followed relay is, in words; and the time that belongs to them, if they end with `since` or
/// `until`.
pub(crate) struct Told {
    /// Such as `in step`, or `rate-limited until`.
    pub(crate) words: String,
    /// The time after them.
    pub(crate) at: Option<DateTime<Utc>>,
}

/// Returns the state of a followed relay in full, such as `dead since` and a time.
pub(crate) fn told(relay: &RelayRow) -> Told {
    let (end, at) = match relay.state {
        RelayState::Limited => (" until", relay.limited_until),
        RelayState::Dead => (" since", relay.failing_since),
        RelayState::Fault => (" since", relay.fault_since),
        RelayState::Unwanted => (" since", relay.unwanted_since),
        RelayState::NoRoom => (" since", Some(relay.next_attempt_at)),
        _ => ("", None),
    };
    Told { words: format!("{}{end}", state(relay.state, relay.fault.as_deref())), at }
}

/// Returns the state of a followed relay, such as `in step` or `fault: DNS`.
pub(crate) fn state(state: RelayState, fault: Option<&str>) -> String {
    match (state, fault) {
        (RelayState::Fault, Some(fault)) => format!("fault: {}", self::fault(fault)),
        _ => name(state).to_owned(),
    }
}

/// Returns the state without its fault.
pub(crate) fn name(state: RelayState) -> &'static str {
    match state {
        RelayState::InStep => "in step",
        RelayState::CatchingUp => "catching up",
        RelayState::Connecting => "connecting",
        RelayState::Waiting => "waiting",
        RelayState::Limited => "rate-limited",
        RelayState::Fault => "fault",
        RelayState::Dead => "dead",
        RelayState::NoRoom => "no room",
        RelayState::Unwanted => "unwanted",
    }
}

/// Returns a permanent fault in words.
pub(crate) fn fault(fault: &str) -> &str {
    match fault {
        "dns" => "DNS",
        "tls" => "TLS",
        "private" => "private address",
        other => other,
    }
}

/// Returns how the state of a followed relay is to be read: `good`, `busy`, `warn`, `bad` or `off`.
pub(crate) fn grade(state: RelayState) -> &'static str {
    match state {
        RelayState::InStep => "good",
        RelayState::CatchingUp | RelayState::Connecting => "busy",
        RelayState::Waiting | RelayState::Limited | RelayState::NoRoom => "warn",
        RelayState::Fault | RelayState::Dead => "bad",
        RelayState::Unwanted => "off",
    }
}

/// Returns since when a followed relay is in its state.
pub(crate) fn since(relay: &RelayRow) -> DateTime<Utc> {
    let told = told(relay).at.filter(|_| relay.state != RelayState::Limited);
    told.unwrap_or(relay.status_at)
}

/// Returns when the next attempt of a followed relay is due; `None` while a process holds it, and if none
/// follows.
pub(crate) fn next_try(relay: &RelayRow) -> Option<DateTime<Utc>> {
    let is_over = relay.state == RelayState::Unwanted || relay.holder.is_some();
    let due = relay.limited_until.map_or(relay.next_attempt_at, |at| at.max(relay.next_attempt_at));
    (!is_over).then_some(due)
}

/// Returns the process that holds a relay without the version and the random part of its name.
pub(crate) fn holder(process: &str) -> &str {
    match process.split(' ').collect::<Vec<_>>()[..] {
        [_version, place, _random] => place,
        _ => process,
    }
}

/// Returns the subscriptions of a followed relay, such as `12 open, 3 closed by the relay: “too many
/// subscriptions”`.
pub(crate) fn subscriptions(relay: &RelayRow) -> String {
    let closed = closed(relay).map(|closed| format!(", {closed}")).unwrap_or_default();
    let polled = match relay.overflow {
        0 => String::new(),
        overflow => format!(", {} more polled in turn", super::counted(overflow.into(), "filter")),
    };
    format!("{} open{closed}{polled}", relay.subscriptions)
}

/// Returns the subscriptions that the relay closed, with its words; `None` if it closed none.
pub(crate) fn closed(relay: &RelayRow) -> Option<String> {
    let reason = relay.closed_reason.as_deref().map(super::visible);
    let reason = reason.map(|reason| format!(": \u{201c}{reason}\u{201d}")).unwrap_or_default();
    let closed = relay.subscriptions_closed;
    (closed > 0).then(|| format!("{closed} closed by the relay{reason}"))
}

/// Returns the number of roots of a repository, such as `2 issues, patches and pull requests`.
pub(crate) fn roots(number: i64) -> String {
    match number {
        1 => "1 issue, patch or pull request".to_owned(),
        number => format!("{number} issues, patches and pull requests"),
    }
}

/// Returns the kind of a root in words.
pub(crate) fn root(kind: i32) -> &'static str {
    match kind {
        1617 => "patch",
        1618 => "pull request",
        1621 => "issue",
        _ => "root",
    }
}

/// Returns what followed relays need attention for, such as `2 followed relays are dead`.
pub(crate) fn trouble(trouble: &Trouble) -> String {
    let (relays, verb) = match trouble.relays {
        1 => ("1 followed relay".to_owned(), "is"),
        many => (format!("{many} followed relays"), "are"),
    };
    let how = match (trouble.state, &trouble.fault) {
        (RelayState::Dead, _) => {
            "dead: every attempt failed for a day; one attempt a day goes on".to_owned()
        }
        (RelayState::Fault, Some(fault)) => {
            format!("out of reach by a permanent fault: {}", self::fault(fault))
        }
        (RelayState::Limited, _) => "limiting our rate".to_owned(),
        (RelayState::NoRoom, _) => "due, and no process has room".to_owned(),
        (RelayState::CatchingUp, _) => "catching up for more than an hour".to_owned(),
        (RelayState::InStep, _) => {
            let reason = trouble.reason.as_deref().map(super::visible);
            let often = reason.map(|reason| format!(", most often because of: {reason}"));
            format!(
                "connected, but has not delivered items for more than an hour{}",
                often.unwrap_or_default()
            )
        }
        (other, _) => name(other).to_owned(),
    };
    format!("{relays} {verb} {how}")
}

/// Returns the relays of a repository that are not followed, such as `, and 2 more that exceed the limit per
/// announcement`; nothing if all are.
pub(crate) fn cut(repo: &RepoRow) -> String {
    let limits = [(repo.relays_cut, "per announcement"), (repo.relays_over, "of the service")];
    let over = limits.into_iter().filter(|(over, _)| *over > 0);
    let exceed = |over: i32| if over == 1 { "exceeds" } else { "exceed" };
    let told = over
        .map(|(over, limit)| format!(", and {over} more that {} the limit {limit}", exceed(over)));
    told.collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_word_and_a_fault_names_itself() {
        let words: Vec<&str> = RelayState::ALL.into_iter().map(name).collect();
        let unique: std::collections::BTreeSet<_> = words.iter().collect();
        assert_eq!(unique.len(), words.len());
        assert_eq!(state(RelayState::Fault, Some("dns")), "fault: DNS");
        assert_eq!(state(RelayState::InStep, None), "in step");
    }
}
