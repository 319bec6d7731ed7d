//! Announcements: the newest one of a repository decides whether the service has it.

use std::collections::{BTreeSet, HashMap};

use super::{Court, Verdict};
use crate::grasp::{
    admission::{
        lookup::{Repo, Version},
        subject::Subject,
    },
    policy::{Reason, Rule},
};

impl Court<'_, '_> {
    /// Decides announcements: for each repository the newest, then the older ones.
    pub(super) fn announcements(&mut self) {
        let mut heads = self.heads();
        // Until its newest announcement is admitted, a repository may have left.
        for (address, places) in &heads {
            if self.is_open(places[0])
                && self.is_newest(address, places[0])
                && let Some(repo) = self.repos.get_mut(address)
            {
                repo.has_left = true;
            }
        }
        while self.admit_heads(&heads) {}
        for (address, places) in &mut heads {
            self.refuse_head(address, places[0]);
            for place in places.drain(..).skip(1) {
                self.judge_older(address, place);
            }
        }
        self.drop_unreached();
    }

    /// Lets repositories leave whose authors no announcement lists any more that leads to the service.
    fn drop_unreached(&mut self) {
        let announced = self.subjects.iter().filter(|subject| subject.announcement.is_some());
        let identifiers: BTreeSet<&str> = announced.filter_map(Subject::identifier).collect();
        for identifier in identifiers {
            let reached = self.maintainers(identifier, "");
            let is_left = |repo: &&mut Repo| {
                repo.identifier == identifier
                    && repo.by_maintainer
                    && !reached.contains(&repo.pubkey)
            };
            self.repos.values_mut().filter(is_left).for_each(|repo| repo.has_left = true);
        }
    }

    /// The announcements of the batch by address, newest first.
    fn heads(&self) -> Vec<(String, Vec<usize>)> {
        let mut heads: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, subject) in self.subjects.iter().enumerate() {
            if self.verdicts[place] != Some(Verdict::Deleted)
                && let Some(address) = subject.repo()
            {
                heads.entry(address).or_default().push(place);
            }
        }
        let mut heads: Vec<_> = heads.into_iter().collect();
        for (_, places) in &mut heads {
            places.sort_by_key(|place| std::cmp::Reverse(self.version(*place)));
        }
        heads.sort_unstable();
        heads
    }

    fn version(&self, place: usize) -> Version {
        let event = self.subjects[place].event;
        Version::new(event.created_at, event.id)
    }

    /// Whether no newer announcement of the repository is known.
    fn is_newest(&self, address: &str, place: usize) -> bool {
        let known = self.lookup.repos.get(address).map(|repo| repo.newest);
        known.is_none_or(|known| known <= self.version(place)) && !self.is_outdated(address, place)
    }

    /// Whether a newer announcement of the repository is known that is not admitted.
    fn is_outdated(&self, address: &str, place: usize) -> bool {
        let version = self.version(place);
        let left = self.lookup.repos.get(address).filter(|repo| repo.has_left);
        left.is_some_and(|repo| repo.newest > version)
            || self.lookup.outside.get(address).is_some_and(|outside| *outside > version)
    }

    /// Admits the newest announcements for which a rule speaks now; false if there is none.
    fn admit_heads(&mut self, heads: &[(String, Vec<usize>)]) -> bool {
        let mut has_changed = false;
        for (address, places) in heads
            .iter()
            .filter(|(_, places)| self.verdicts[places[0]].is_none())
            .collect::<Vec<_>>()
        {
            if let Ok(rule) = self.rule_of(address, places[0]) {
                self.admit_announcement(address, places[0], rule);
                has_changed = true;
            }
        }
        has_changed
    }

    /// The rule that admits an announcement, or the reason that refuses it.
    fn rule_of(&self, address: &str, place: usize) -> Result<Rule, Reason> {
        let Some(announcement) = &self.subjects[place].announcement else {
            return Err(Reason::BadIdentifier);
        };
        if self.is_own {
            return Ok(Rule::Own);
        }
        if let Some(reason) = self.service.policy.refuses(address) {
            return Err(reason);
        }
        if announcement.clone_tags > 1 {
            return Err(Reason::CloneTags);
        }
        if self.is_outdated(address, place) {
            return Err(Reason::Outdated);
        }
        if announcement.names(&self.service.names) {
            return Ok(Rule::NamesService);
        }
        if self.service.policy.accept_all {
            return Ok(Rule::Archive);
        }
        let author = &self.subjects[place].event.pubkey;
        let identifier = self.subjects[place].identifier().unwrap_or_default();
        let is_maintainer = self.maintainers(identifier, address).contains(author);
        is_maintainer.then_some(Rule::Maintainer).ok_or(Reason::NamesAnother)
    }

    /// The recursive maintainer set of the repositories with an identifier that name the service, without
    /// the repository `except`.
    fn maintainers(&self, identifier: &str, except: &str) -> BTreeSet<[u8; 32]> {
        let of = |(address, repo): &(&String, &Repo)| {
            repo.identifier == identifier && !repo.has_left && *address != except
        };
        let mut repos: Vec<&Repo> = self.repos.iter().filter(of).map(|(_, repo)| repo).collect();
        let mut set = BTreeSet::new();
        loop {
            let before = repos.len();
            repos.retain(|repo| {
                let is_reached = !repo.by_maintainer || set.contains(&repo.pubkey);
                if is_reached {
                    set.insert(repo.pubkey);
                    set.extend(repo.maintainers.iter().copied());
                }
                !is_reached
            });
            if repos.len() == before {
                return set;
            }
        }
    }

    fn admit_announcement(&mut self, address: &str, place: usize, rule: Rule) {
        let subject = &self.subjects[place];
        if self.is_newest(address, place)
            && let Some(announcement) = &subject.announcement
        {
            let repo = Repo {
                pubkey: subject.event.pubkey,
                identifier: subject.identifier().unwrap_or_default().to_owned(),
                newest: self.version(place),
                has_left: false,
                by_maintainer: rule == Rule::Maintainer,
                maintainers: announcement.maintainers.clone(),
            };
            self.repos.insert(address.to_owned(), repo);
        }
        self.decide(place, Verdict::Admitted(rule, vec![address.to_owned()]));
    }

    /// Refuses the newest announcement of a repository if it is still open. An accepted repository then
    /// leaves the service.
    fn refuse_head(&mut self, address: &str, place: usize) {
        let is_late = !self.is_newest(address, place);
        if self.is_open(place) {
            let reason = self.rule_of(address, place).err().unwrap_or(Reason::NamesAnother);
            self.decide(place, Verdict::Refused(reason));
        }
        let has_left = matches!(self.verdicts[place], Some(Verdict::Refused(_)));
        if has_left
            && !is_late
            && let Some(repo) = self.repos.get_mut(address)
        {
            repo.has_left = true;
            self.leaving.push((address.to_owned(), place));
        }
    }

    /// Decides an announcement that has a newer one in the batch.
    fn judge_older(&mut self, address: &str, place: usize) {
        if !self.is_open(place) {
            return;
        }
        let is_accepted = self.repos.get(address).is_some_and(|repo| !repo.has_left);
        let rule = if is_accepted { self.rule_of(address, place) } else { Err(Reason::Outdated) };
        let verdict = match rule {
            Ok(rule) => Verdict::Admitted(rule, vec![address.to_owned()]),
            Err(reason) => Verdict::Refused(reason),
        };
        self.decide(place, verdict);
    }
}
