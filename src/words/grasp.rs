//! What followed relays, items and parked events tell people.

use chrono::{DateTime, Utc};
use tender_jobs::grasp::view::{Moment, RelayRow, RelayState, RepoRow, Trouble};

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

/// Returns an item of coverage in words, such as `replies to 12ab…`.
pub(crate) fn item(family: &str, item: &str) -> String {
    let item = &super::name(item);
    match family {
        "announcements" => "all announcements".to_owned(),
        "state" => format!("states of {item}"),
        "address" => format!("events of {item}"),
        "root" => format!("replies to {item}"),
        "deletion" => format!("deletions by {item}"),
        other => format!("{other} {item}"),
    }
}

/// Returns a number of repositories in words.
pub(crate) fn repositories(number: i64) -> String {
    if number == 1 { "1 repository".to_owned() } else { format!("{number} repositories") }
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

/// Returns one sentence if the relay of a service refuses events that others signed, with the relay's words;
/// `None` if it takes them.
pub(crate) fn refuses_others(url: &str, reason: Option<&str>) -> Option<String> {
    let reason = reason?;
    Some(format!(
        "{url} refuses events that others signed (\u{201c}{reason}\u{201d}): what Tender accepts from other \
         relays does not reach it; allow Tender's key there, or use a relay that takes such events"
    ))
}

/// Returns one sentence if the mirror does not fetch from the relay of a service, or does not upload to it;
/// `None` if it does both.
pub(crate) fn stopped(url: &str, has_feed: bool, has_uploads: bool) -> Option<String> {
    let what = match (has_feed, has_uploads) {
        (true, true) => return None,
        (false, true) => "its own feed is off",
        (true, false) => "nothing is uploaded to it",
        (false, false) => "its own feed is off, and nothing is uploaded to it",
    };
    Some(format!("{url}: {what}; `tender mirror show {url}` shows the settings of its upstream"))
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

/// Returns how many relays exceed the limit of a service.
pub(crate) fn over_limit(url: &str, limit: i32, over: i32) -> String {
    format!("{url} follows at most {limit} relays; {over} more are named and not followed")
}

/// Returns the relays of a repository that are not followed, such as `, and 2 more that exceed the limit per
/// announcement`; nothing if all are.
pub(crate) fn cut(repo: &RepoRow) -> String {
    let limits = [(repo.relays_cut, "per announcement"), (repo.relays_over, "of the service")];
    let over = limits.into_iter().filter(|(over, _)| *over > 0);
    let told = over.map(|(over, limit)| format!(", and {over} more that exceed the limit {limit}"));
    told.collect::<Vec<_>>().concat()
}

/// Returns what happened to a repository, such as `accepted kind 1621 (live)`.
pub(crate) fn moment(moment: &Moment) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let from = moment.relay.as_ref().map(|relay| format!(" from {relay}")).unwrap_or_default();
    if moment.what == "confirmed" {
        let (items, family) = (moment.items.unwrap_or_default(), text(&moment.family));
        return format!("{items} {family} items delivered{from}");
    }
    let kind = moment.kind.map(|kind| format!(" of kind {kind}")).unwrap_or_default();
    let (source, rule) = (text(&moment.source), text(&moment.rule));
    format!("accepted an event{kind}{from} ({source}; rule {rule})")
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
