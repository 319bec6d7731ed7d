//! Items of coverage: which are missing, why, and when they are asked for next.

use chrono::{DateTime, Utc};
use tender_jobs::grasp::view::MissingRow;

/// How many items are read to be told together.
pub(crate) const READ: i64 = 1000;

/// Returns when an item that is not delivered is asked for next: `in flight`, a time, or that no attempt
/// follows.
fn next_of(one: &MissingRow, now: DateTime<Utc>) -> Next {
    match one.retry_at {
        _ if one.state == "in_flight" => Next::InFlight,
        Some(at) => Next::At(at.max(now)),
        None => Next::Never,
    }
}

/// When an item is asked for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is asked for now.
    InFlight,
    /// At this time.
    At(DateTime<Utc>),
    /// No attempt can succeed.
    Never,
}

/// Returns why an item is not delivered.
pub(crate) fn why(one: &MissingRow) -> String {
    let attempts = i64::from(one.attempts);
    match &one.reason {
        None => "not asked yet".to_owned(),
        Some(reason) if attempts == 0 || one.retry_at.is_none() => crate::words::visible(reason),
        Some(reason) => {
            format!(
                "{} failed: {}",
                crate::words::counted(attempts, "attempt"),
                crate::words::visible(reason)
            )
        }
    }
}

/// Returns how many of the items that are wanted were delivered, such as `3 of 4 items`.
pub(crate) fn delivered(confirmed: i64, items: i64) -> String {
    format!("{confirmed} of {}", crate::words::counted(items, "item"))
}

/// Returns a number of items of a family, such as `1 root` or `3 addresses`.
pub(crate) fn items(number: i64, family: &str) -> String {
    match family {
        "announcements" => "all announcements".to_owned(),
        "deletion" => format!("deletions by {}", crate::words::counted(number, "author")),
        family => crate::words::counted(number, family),
    }
}

/// Returns an item of coverage in words, such as `replies to 12ab…`.
fn item(family: &str, item: &str) -> String {
    let item = &crate::words::name(item);
    match family {
        "announcements" => "all announcements".to_owned(),
        "state" => format!("states of {item}"),
        "address" => format!("events of {item}"),
        "root" => format!("replies to {item}"),
        "deletion" => format!("deletions by {item}"),
        other => format!("{other} {item}"),
    }
}

/// Items of a family that a relay has not delivered, all for the same reason.
pub(crate) struct Group<'a> {
    /// The one that has been wanted for the longest time.
    pub(crate) first: &'a MissingRow,
    /// Their number.
    pub(crate) number: i64,
    /// When the first of them is asked for next.
    pub(crate) next: Next,
}

/// Puts items together that a relay has not delivered for the same reason, in the order of their first ones.
pub(crate) fn grouped(missing: &[MissingRow], now: DateTime<Utc>) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let alike = |group: &Group<'_>, one: &MissingRow| {
        let first = group.first;
        first.relay_id == one.relay_id
            && (&first.family, &first.state) == (&one.family, &one.state)
            && first.retry_at.is_some() == one.retry_at.is_some()
            && (first.attempts, &first.reason) == (one.attempts, &one.reason)
    };
    for one in missing {
        let next = next_of(one, now);
        match groups.iter_mut().find(|group| alike(group, one)) {
            Some(group) => group.add(next),
            None => groups.push(Group { first: one, number: 1, next }),
        }
    }
    groups
}

impl Group<'_> {
    fn add(&mut self, next: Next) {
        self.number += 1;
        if let (Next::At(ours), Next::At(theirs)) = (self.next, next) {
            self.next = Next::At(ours.min(theirs));
        }
    }

    /// Returns the items in words: the item if it is one, else their number.
    pub(crate) fn words(&self, shortened: fn(&str) -> String) -> String {
        match self.number {
            1 => item(&self.first.family, &shortened(&self.first.item)),
            number => items(number, &self.first.family),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(item: &str, reason: &str, seconds: i64) -> MissingRow {
        let at = DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(seconds);
        MissingRow {
            url: "wss://a.test".to_owned(),
            relay_id: uuid::Uuid::nil(),
            family: "state".to_owned(),
            item: item.to_owned(),
            state: "missing".to_owned(),
            attempts: 2,
            reason: Some(reason.to_owned()),
            retry_at: Some(at),
            wanted_at: at,
        }
    }

    #[test]
    fn items_that_miss_for_the_same_reason_are_told_together() {
        let rows =
            [missing("x", "silent", 9), missing("y", "closed", 1), missing("z", "silent", 5)];
        let groups = grouped(&rows, DateTime::UNIX_EPOCH);
        let told: Vec<_> = groups.iter().map(|group| group.words(str::to_owned)).collect();
        assert_eq!(told, ["2 states", "states of y"]);
        assert_eq!(groups[0].next, Next::At(DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(5)));
    }

    #[test]
    fn numbers_of_items_have_the_noun_of_their_family() {
        let told = [(1, "root"), (3, "address"), (1, "announcements"), (2, "deletion")];
        let told = told.map(|(number, family)| items(number, family));
        assert_eq!(told, ["1 root", "3 addresses", "all announcements", "deletions by 2 authors"]);
        assert_eq!(delivered(1, 1), "1 of 1 item");
    }
}
