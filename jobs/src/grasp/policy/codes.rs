//! The names of the rules that admit an event, and of the reasons that refuse one.

use std::fmt;

/// Declares an enum whose variants have a code for rows and a sentence for people.
macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $code:literal, $sentence:literal;)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every variant, in the order in which documents list them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code in rows, metrics and pages.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// What it means, as a sentence for people.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }

            /// Returns the variant with this code; `None` if there is none.
            pub fn parse(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == code)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

codes! {
    /// The rule that admits an event to a service.
    Rule {
        /// See the sentence.
        Own = "own", "The service's own relay has accepted the event.";
        /// See the sentence.
        NamesService = "names-service", "The announcement names the service both as a clone URL and as a relay.";
        /// See the sentence.
        Maintainer = "maintainer", "An accepted announcement with the same identifier lists the author as a maintainer.";
        /// See the sentence.
        Archive = "archive", "The service accepts every announcement.";
        /// See the sentence.
        State = "state", "The author maintains an accepted repository with this identifier.";
        /// See the sentence.
        Repository = "repository", "The event points to an accepted repository, or to another accepted addressable event.";
        /// See the sentence.
        Event = "event", "The event points to an accepted event.";
        /// See the sentence.
        Referenced = "referenced", "An accepted event points to the event.";
        /// See the sentence.
        GraspList = "grasp-list", "Users' lists of GRASP services are always accepted.";
        /// See the sentence.
        Deletion = "deletion", "Deletions are always accepted.";
    }
}

impl Rule {
    /// Whether the acceptance of an event by this rule admits events that point to it, or to which it
    /// points. Deletions and grasp lists are accepted from everyone, so that they admit nothing.
    pub fn carries(self) -> bool {
        !matches!(self, Self::GraspList | Self::Deletion)
    }
}

codes! {
    /// Why a service refuses an event, for now or for good.
    Reason {
        /// See the sentence.
        BlockedAuthor = "blocked-author", "The service's policy blocks the author. It waits for a change of the policy.";
        /// See the sentence.
        BlockedRepository = "blocked-repository", "The service's policy blocks the repository. It waits for a change of the policy.";
        /// See the sentence.
        NotAllowed = "not-allowed", "The service's policy lists the repositories that it accepts, and this one is not among them. It waits for a change of the policy.";
        /// See the sentence.
        BadIdentifier = "bad-identifier", "The identifier is missing, is `.` or `..`, or contains a slash, a backslash or U+0000. It is refused for good.";
        /// See the sentence.
        CloneTags = "several-clone-tags", "The announcement has several `clone` tags; NIP-34 has one with all URLs. It is refused for good.";
        /// See the sentence.
        NamesAnother = "names-another-service", "The announcement does not name the service both as a clone URL and as a relay. It waits for an accepted announcement with the same identifier that lists the author as a maintainer.";
        /// See the sentence.
        Outdated = "outdated", "A newer announcement of the repository is known, and it does not name the service. It is refused for good.";
        /// See the sentence.
        NotMaintainer = "not-a-maintainer", "No accepted repository with this identifier has the author as its owner or maintainer. It waits for an accepted announcement that does.";
        /// See the sentence.
        Orphan = "orphan", "The event points to nothing that is accepted, and no accepted event points to it. It waits for one of them.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back() {
        for rule in Rule::ALL {
            assert_eq!(Rule::parse(rule.as_str()), Some(*rule));
        }
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        }
    }
}
