//! States, and the events that accepted ones connect.

use super::{Court, Verdict};
use crate::grasp::{
    address::STATE,
    admission::lookup::Repo,
    policy::{Reason, Rule},
};

/// The most repositories through which one event is admitted.
const MAX_ADDRESSES: usize = 20;

impl Court<'_, '_> {
    /// Decides states: the author must own or maintain an accepted repository with the identifier.
    pub(super) fn states(&mut self) {
        for (place, subject) in self.subjects.iter().enumerate() {
            if subject.event.kind != STATE || !self.is_open(place) {
                continue;
            }
            let identifier = subject.identifier().unwrap_or_default();
            let author = subject.event.pubkey;
            let is_of = |repo: &Repo| {
                repo.identifier == identifier
                    && !repo.has_left
                    && (repo.pubkey == author || repo.maintainers.contains(&author))
            };
            let through = self.repos.iter().filter(|(_, repo)| is_of(repo));
            let mut through: Vec<String> = through.map(|(address, _)| address.clone()).collect();
            through.sort_unstable();
            through.truncate(MAX_ADDRESSES);
            let verdict = if through.is_empty() {
                Verdict::Refused(Reason::NotMaintainer)
            } else {
                Verdict::Admitted(Rule::State, through)
            };
            self.decide(place, verdict);
        }
    }

    /// Decides all other events, until nothing changes; the rest are orphans.
    pub(super) fn others(&mut self) {
        let mut open: Vec<usize> =
            (0..self.subjects.len()).filter(|place| self.is_open(*place)).collect();
        loop {
            let before = open.len();
            open.retain(|place| match self.connection(*place) {
                Some((rule, through)) => {
                    self.decide(*place, Verdict::Admitted(rule, through));
                    false
                }
                None => true,
            });
            if open.len() == before {
                break;
            }
        }
        for place in open {
            self.decide(place, Verdict::Refused(Reason::Orphan));
        }
    }

    /// What connects an event with accepted ones, and the repositories through which it does.
    fn connection(&self, place: usize) -> Option<(Rule, Vec<String>)> {
        let subject = &self.subjects[place];
        let is_repo = |address: &&String| self.repos.get(*address).is_some_and(|r| !r.has_left);
        let repos: Vec<String> =
            subject.addresses.iter().filter(is_repo).take(MAX_ADDRESSES).cloned().collect();
        if !repos.is_empty() {
            return Some((Rule::Repository, repos));
        }
        let mut addresses = subject.addresses.iter();
        if let Some(through) = addresses.find_map(|address| self.addresses.get(address)) {
            return Some((Rule::Repository, through.clone()));
        }
        let mut parents = subject.ids.iter().filter_map(|id| self.accepted.get(id)).peekable();
        if parents.peek().is_some() {
            return Some((Rule::Event, union(parents)));
        }
        let by_id = self.pointed.get(&subject.event.id.to_string());
        let by_address = || subject.own.as_ref().and_then(|own| self.pointed.get(own));
        let through = by_id.or_else(by_address)?;
        Some((Rule::Referenced, through.clone()))
    }
}

/// Returns the first repositories of some lists, each once.
fn union<'a>(lists: impl Iterator<Item = &'a Vec<String>>) -> Vec<String> {
    let mut union: Vec<String> = Vec::new();
    for address in lists.flatten() {
        if union.len() < MAX_ADDRESSES && !union.contains(address) {
            union.push(address.clone());
        }
    }
    union
}
