//! Services: what they lack, and their limits.

use std::cmp::Ordering;

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

/// Returns how many relays exceed the limit of a service.
pub(crate) fn over_limit(url: &str, limit: i32, over: i32) -> String {
    let are = if over == 1 { "is" } else { "are" };
    let most = crate::words::counted(i64::from(limit), "relay");
    format!("{url} follows at most {most}; {over} more {are} named and not followed")
}

/// Returns what a new limit of relays in total does; `None` if it is the former one.
pub(crate) fn new_limit(before: i32, after: i32) -> Option<String> {
    let most = crate::words::counted(i64::from(after), "relay");
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
