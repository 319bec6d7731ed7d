//! The rules of admission of a service: what an operator can set, and the names of rules and reasons.

mod codes;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::address::RepoAddress;

pub use codes::{Reason, Rule};

/// The most entries of one list.
const MAX_ENTRIES: usize = 10_000;

/// The rules that an operator sets for a service. The empty policy admits every repository that names
/// the service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Public keys whose events are refused.
    pub blocked_authors: BTreeSet<[u8; 32]>,
    /// Repositories that are refused, by address.
    pub blocked_repositories: BTreeSet<String>,
    /// The only repositories that are admitted, by address; empty admits all.
    pub allowed_repositories: BTreeSet<String>,
    /// Whether announcements are admitted that do not name the service, as an archive does.
    pub accept_all: bool,
}

impl Policy {
    /// Reads a policy from JSON: an object with the fields of [`Policy`], each optional. Public keys have
    /// 64 hex characters; repositories are addresses.
    ///
    /// # Errors
    /// The rules that it violates, for people; each message names its field.
    pub fn parse(value: &Value) -> Result<Self, Vec<String>> {
        let Some(object) = value.as_object() else {
            return Err(vec!["Policy must be a JSON object".to_owned()]);
        };
        let mut problems = Vec::new();
        let fields =
            ["blocked_authors", "blocked_repositories", "allowed_repositories", "accept_all"];
        for name in object.keys().filter(|name| !fields.contains(&name.as_str())) {
            problems.push(format!("Policy {name} is unknown; it has: {}", fields.join(", ")));
        }
        let policy = Self {
            blocked_authors: list(object, "blocked_authors", key, &mut problems),
            blocked_repositories: list(object, "blocked_repositories", address, &mut problems),
            allowed_repositories: list(object, "allowed_repositories", address, &mut problems),
            accept_all: match object.get("accept_all") {
                None => false,
                Some(Value::Bool(accepts)) => *accepts,
                Some(_) => {
                    problems.push("Policy accept_all must be true or false".to_owned());
                    false
                }
            },
        };
        if problems.is_empty() { Ok(policy) } else { Err(problems) }
    }

    /// Why no announcement of this repository is admitted; `None` if one may be.
    pub fn refuses(&self, address: &str) -> Option<Reason> {
        if self.blocked_repositories.contains(address) {
            return Some(Reason::BlockedRepository);
        }
        let is_out =
            !self.allowed_repositories.is_empty() && !self.allowed_repositories.contains(address);
        is_out.then_some(Reason::NotAllowed)
    }
}

fn list<T: Ord>(
    object: &Map<String, Value>,
    name: &str,
    entry: fn(&str) -> Result<T, &'static str>,
    problems: &mut Vec<String>,
) -> BTreeSet<T> {
    let Some(value) = object.get(name) else { return BTreeSet::new() };
    let Some(values) = value.as_array().filter(|values| values.len() <= MAX_ENTRIES) else {
        problems.push(format!("Policy {name} must be a list of at most {MAX_ENTRIES} texts"));
        return BTreeSet::new();
    };
    let read = values.iter().filter_map(|value| match value.as_str().map(entry) {
        Some(Ok(entry)) => Some(entry),
        Some(Err(problem)) => {
            problems.push(format!("Policy {name}: {value} {problem}"));
            None
        }
        None => {
            problems.push(format!("Policy {name}: {value} is not a text"));
            None
        }
    });
    read.collect()
}

fn key(text: &str) -> Result<[u8; 32], &'static str> {
    let mut key = [0; 32];
    let read = hex::decode_to_slice(text, &mut key);
    read.map(|()| key).map_err(|_| "is not a public key of 64 hex characters")
}

fn address(text: &str) -> Result<String, &'static str> {
    let address = RepoAddress::parse(text).map(|address| address.to_string());
    address.ok_or("is not an address such as 30617:<public key>:<identifier>")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_mistake_names_its_field() {
        let policy = json!({
            "blocked_authors": ["x"], "blocked_repositories": [1], "allowed_repositories": {},
            "accept_all": 1, "more": 1,
        });
        let problems = Policy::parse(&policy).expect_err("invalid").join("\n");
        for name in [
            "blocked_authors",
            "blocked_repositories",
            "allowed_repositories",
            "accept_all",
            "more",
        ] {
            assert!(problems.contains(&format!("Policy {name}")), "{name}: {problems}");
        }
        assert!(Policy::parse(&json!([])).is_err());
    }

    #[test]
    fn a_block_goes_before_a_list_of_allowed_repositories() {
        let address = |name: &str| format!("30617:{}:{name}", "ab".repeat(32));
        let policy = json!({
            "blocked_repositories": [address("a")], "allowed_repositories": [address("a"), address("b")],
        });
        let policy = Policy::parse(&policy).expect("valid");
        assert_eq!(policy.refuses(&address("a")), Some(Reason::BlockedRepository));
        assert_eq!(policy.refuses(&address("b")), None);
        assert_eq!(policy.refuses(&address("c")), Some(Reason::NotAllowed));
        assert_eq!(Policy::default().refuses(&address("c")), None);
    }
}
