//! The rules of a service's fields.

use serde_json::Value;

use super::ServiceError;
use crate::{
    grasp::{address::host_of, policy::Policy},
    mirror::upstream::UpstreamUrl,
};

/// The most names, and the most bootstrap relays.
const MAX_ENTRIES: usize = 20;

/// Collects what is wrong with some fields.
#[derive(Default)]
pub(super) struct Check {
    problems: Vec<String>,
}

impl Check {
    /// Parses the address of a relay. `is_private_allowed` says whether its host may be one that is certain
    /// not to be public.
    pub(super) fn url(
        &mut self,
        field: &str,
        text: &str,
        is_private_allowed: bool,
    ) -> Option<UpstreamUrl> {
        let url = UpstreamUrl::parse(text).and_then(|url| {
            if !is_private_allowed && url.is_private() {
                Err("must have a public address; an operator can allow others with `--private`")
            } else {
                Ok(url)
            }
        });
        url.map_err(|problem| self.problems.push(format!("{field} {problem}"))).ok()
    }

    /// Parses names of hosts; each occurs once.
    pub(super) fn names(&mut self, names: &[String]) -> Vec<String> {
        if names.len() > MAX_ENTRIES {
            self.problems.push(format!("Names are more than {MAX_ENTRIES}"));
        }
        let mut hosts: Vec<String> = Vec::new();
        for name in names {
            let is_host = !name.is_empty() && !name.contains(['/', '@', '?', '#', '\\', ' ']);
            match host_of(&format!("https://{name}")).filter(|_| is_host) {
                Some(host) if hosts.contains(&host) => {}
                Some(host) => hosts.push(host),
                None => self.problems.push(format!(
                    "Name {name:?} must be a host, with a port unless it is the scheme's, such as git.example.com"
                )),
            }
        }
        hosts
    }

    /// Parses the addresses of bootstrap relays; each occurs once.
    pub(super) fn bootstrap(&mut self, urls: &[String], is_private_allowed: bool) -> Vec<String> {
        if urls.len() > MAX_ENTRIES {
            self.problems.push(format!("Bootstrap relays are more than {MAX_ENTRIES}"));
        }
        let urls = urls.iter().filter_map(|url| self.url("Bootstrap", url, is_private_allowed));
        let mut urls: Vec<String> = urls.map(|url| url.as_str().to_owned()).collect();
        urls.sort_unstable();
        urls.dedup();
        urls
    }

    pub(super) fn policy(&mut self, policy: Option<&Value>) {
        if let Some(Err(problems)) = policy.map(Policy::parse) {
            self.problems.extend(problems);
        }
    }

    pub(super) fn limit(&mut self, field: &str, limit: Option<i32>, most: i32) {
        if limit.is_some_and(|limit| !(1..=most).contains(&limit)) {
            self.problems.push(format!("{field} must be from 1 to {most}"));
        }
    }

    /// Adds a problem.
    pub(super) fn refuse(&mut self, problem: &str) {
        self.problems.push(problem.to_owned());
    }

    /// Returns the problems as an error.
    pub(super) fn end(self) -> Result<(), ServiceError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(self.problems)) }
    }
}
