//! The answers to an event, by the reaction that they need.

use tender_jobs::mirror::event::outgoing::Verdict;

/// The words of a relay, such as zooid, that takes events from their authors only.
const AUTHORS_ONLY: &str = "on behalf of others";

/// The answer to an event. Source: NIP-01, NIP-42.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Final(Verdict),
    /// The reason concerns us and not the event, so further events are likely to be rejected too.
    Refusal(String),
    /// The upstream takes events from their authors only.
    AuthorsOnly(String),
    RateLimited(String),
    Auth(String),
}

/// Reads an `OK`: whether the upstream took the event, and its reason.
pub(super) fn answer(is_taken: bool, reason: &str) -> Answer {
    let prefix = reason.split_once(':').map_or("", |(prefix, _)| prefix);
    let rejected = || Answer::Final(Verdict::Rejected(reason.to_owned()));
    match (is_taken, prefix) {
        (_, "duplicate") => Answer::Final(Verdict::Duplicate),
        (true, _) => Answer::Final(Verdict::Accepted),
        (false, "rate-limited") => Answer::RateLimited(reason.to_owned()),
        (false, "auth-required") => Answer::Auth(reason.to_owned()),
        (false, "restricted") if reason.contains(AUTHORS_ONLY) => {
            Answer::AuthorsOnly(reason.to_owned())
        }
        (false, "blocked" | "restricted") => Answer::Refusal(reason.to_owned()),
        (false, "invalid" | "pow" | "mute" | "replaced" | "deleted") => rejected(),
        (false, _) => Answer::Final(Verdict::Pending(reason.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_prefix_has_its_verdict() {
        let rejected = |words: &str| Answer::Final(Verdict::Rejected(words.to_owned()));
        let authors = "restricted: you cannot publish events on behalf of others";
        for (is_taken, words, wanted) in [
            (true, "", Answer::Final(Verdict::Accepted)),
            (true, "duplicate: have it", Answer::Final(Verdict::Duplicate)),
            (false, "duplicate: have it", Answer::Final(Verdict::Duplicate)),
            (false, "invalid: id", rejected("invalid: id")),
            (false, "pow: 20", rejected("pow: 20")),
            (false, "replaced: newer", rejected("replaced: newer")),
            (false, "deleted: by its author", rejected("deleted: by its author")),
            (false, "blocked: you", Answer::Refusal("blocked: you".to_owned())),
            (false, "restricted: members", Answer::Refusal("restricted: members".to_owned())),
            (false, authors, Answer::AuthorsOnly(authors.to_owned())),
            (false, "error: disk", Answer::Final(Verdict::Pending("error: disk".to_owned()))),
            (false, "hm", Answer::Final(Verdict::Pending("hm".to_owned()))),
            (false, "rate-limited: slow", Answer::RateLimited("rate-limited: slow".to_owned())),
            (false, "auth-required: who", Answer::Auth("auth-required: who".to_owned())),
        ] {
            assert_eq!(answer(is_taken, words), wanted, "{words}");
        }
    }
}
