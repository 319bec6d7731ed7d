//! What followed relays, items and parked events tell people.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use tender_jobs::grasp::view::{MissingRow, Moment, RelayRow, RelayState, RepoRow, Trouble};

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

/// Returns when an item that is not delivered is asked for next: `in flight`, a time, or that no attempt
/// follows.
pub(crate) fn next_of(one: &MissingRow, now: DateTime<Utc>) -> Next {
    match one.retry_at {
        _ if one.state == "in_flight" => Next::InFlight,
        Some(at) => Next::At(at.max(now)),
        None => Next::Never,
    }
}

/// When an item is asked for next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is asked for now.
    InFlight,
    /// At this time.
    At(DateTime<Utc>),
    /// No attempt can succeed.
    Never,
}

/// Returns why an item is not delivered, without the relay's escapes.
pub(crate) fn why(one: &MissingRow) -> String {
    let attempts = i64::from(one.attempts);
    match &one.reason {
        None => "not asked yet".to_owned(),
        Some(reason) if attempts == 0 || one.retry_at.is_none() => super::visible(reason),
        Some(reason) => {
            format!("{} failed: {}", super::counted(attempts, "attempt"), super::visible(reason))
        }
    }
}

/// Returns how many of the items that are wanted were delivered, such as `3 of 4 items`.
pub(crate) fn delivered(confirmed: i64, items: i64) -> String {
    format!("{confirmed} of {}", super::counted(items, "item"))
}

/// Returns a number of items of a family, such as `1 root` or `3 addresses`.
pub(crate) fn items(number: i64, family: &str) -> String {
    match family {
        "announcements" => "all announcements".to_owned(),
        "deletion" => format!("deletions by {}", super::counted(number, "author")),
        family => super::counted(number, family),
    }
}

/// Returns the process that holds a relay without the version and the random part of its name.
pub(crate) fn holder(process: &str) -> &str {
    match process.split(' ').collect::<Vec<_>>()[..] {
        [_version, place, _random] => place,
        _ => process,
    }
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
    let are = if over == 1 { "is" } else { "are" };
    let most = super::counted(i64::from(limit), "relay");
    format!("{url} follows at most {most}; {over} more {are} named and not followed")
}

/// Returns what a new limit of relays in total does; `None` if it is the former one.
pub(crate) fn new_limit(before: i32, after: i32) -> Option<String> {
    let most = super::counted(i64::from(after), "relay");
    let then = match after.cmp(&before) {
        Ordering::Equal => return None,
        Ordering::Less => {
            "if it follows more, the newest of them are dropped, and `tender grasp show` counts them as over the \
             limit"
        }
        Ordering::Greater => "relays over the former limit are followed within minutes",
    };
    Some(format!("it follows at most {most}: {then}"))
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

/// Returns what happened to a repository, such as `accepted kind 1621 (live)`.
pub(crate) fn moment(moment: &Moment) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let from = moment.relay.as_ref().map(|relay| format!(" from {relay}")).unwrap_or_default();
    if moment.what == "confirmed" {
        let (items, family) = (moment.items.unwrap_or_default(), text(&moment.family));
        return format!("{} delivered{from}", self::items(items, &family));
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
