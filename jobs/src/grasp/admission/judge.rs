//! The rules of admission, without I/O: judges a batch of events for one service. The verdicts do not
//! depend on the order of the batch, because the rules are applied until nothing changes.

use std::collections::{BTreeSet, HashMap};

use super::{
    Service,
    lookup::{Lookup, Repo, Version},
    subject::Subject,
};
use crate::{
    grasp::{
        address::{GRASP_LIST, STATE, is_identifier},
        policy::{Reason, Rule},
    },
    mirror::event::EventId,
};

/// The most repositories through which one event is admitted.
const MAX_ADDRESSES: usize = 20;

/// The verdict on an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The event was admitted before.
    Stands(Rule),
    /// The event is admitted, through these repositories.
    Admitted(Rule, Vec<String>),
    /// The event is refused for now, or for good.
    Refused(Reason),
    /// A deletion covers the event, or only its author may publish it: the store refuses it.
    Deleted,
}

impl Verdict {
    /// Whether the event may enter the store, as far as the service is concerned.
    pub(super) fn admits(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// The judgement of a batch.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// The verdicts, in the order of the events.
    pub(super) verdicts: Vec<Verdict>,
    /// Repositories whose newest announcement is refused: address and place of the announcement.
    pub(super) leaving: Vec<(String, usize)>,
}

/// Judges events for a service. `is_own` says that the service's own relay sent them: then all of them
/// are admitted.
pub(super) fn judge(
    service: &Service,
    lookup: &Lookup,
    subjects: &[Subject<'_>],
    is_own: bool,
) -> Judgement {
    let mut court = Court::new(service, lookup, subjects, is_own);
    court.open();
    court.announcements();
    court.states();
    court.others();
    court.close()
}

/// A judgement in progress.
struct Court<'a, 'e> {
    service: &'a Service,
    lookup: &'a Lookup,
    subjects: &'a [Subject<'e>],
    is_own: bool,
    verdicts: Vec<Option<Verdict>>,
    repos: HashMap<String, Repo>,
    accepted: HashMap<EventId, Vec<String>>,
    addresses: HashMap<String, Vec<String>>,
    pointed: HashMap<String, Vec<String>>,
    leaving: Vec<(String, usize)>,
}

impl<'a, 'e> Court<'a, 'e> {
    fn new(
        service: &'a Service,
        lookup: &'a Lookup,
        subjects: &'a [Subject<'e>],
        is_own: bool,
    ) -> Self {
        Self {
            service,
            lookup,
            subjects,
            is_own,
            verdicts: vec![None; subjects.len()],
            repos: lookup.repos.clone(),
            accepted: lookup.accepted.clone(),
            addresses: lookup.addresses.clone(),
            pointed: lookup.pointed.clone(),
            leaving: Vec::new(),
        }
    }

    /// Decides what needs nothing but the event itself.
    fn open(&mut self) {
        for (place, subject) in self.subjects.iter().enumerate() {
            let event = subject.event;
            let verdict = if let Some(rule) = self.lookup.standing.get(&event.id) {
                Verdict::Stands(*rule)
            } else if self.lookup.deleted.contains(&event.id) {
                Verdict::Deleted
            } else if !self.is_own && self.service.policy.blocked_authors.contains(&event.pubkey) {
                Verdict::Refused(Reason::BlockedAuthor)
            } else if event.is_deletion() {
                Verdict::Admitted(Rule::Deletion, Vec::new())
            } else if event.kind == GRASP_LIST {
                Verdict::Admitted(Rule::GraspList, Vec::new())
            } else if subject.identifier().is_some_and(|identifier| !is_identifier(identifier)) {
                Verdict::Refused(Reason::BadIdentifier)
            } else {
                continue;
            };
            self.decide(place, verdict);
        }
    }

    /// Stores a verdict. An accepted event admits what it points to, and what points to it.
    fn decide(&mut self, place: usize, verdict: Verdict) {
        let verdict = match verdict {
            Verdict::Refused(_) if self.is_own => Verdict::Admitted(Rule::Own, Vec::new()),
            Verdict::Admitted(rule, through) if self.is_own && rule.carries() => {
                Verdict::Admitted(Rule::Own, through)
            }
            verdict => verdict,
        };
        let subject = &self.subjects[place];
        let carried = match &verdict {
            Verdict::Admitted(rule, through) if rule.carries() => Some(through.clone()),
            Verdict::Stands(rule) if rule.carries() => {
                Some(self.accepted.get(&subject.event.id).cloned().unwrap_or_default())
            }
            _ => None,
        };
        if let Some(through) = carried {
            let ids = subject.ids.iter().map(ToString::to_string);
            for target in ids.chain(subject.addresses.iter().cloned()) {
                self.pointed.entry(target).or_insert_with(|| through.clone());
            }
            self.accepted.entry(subject.event.id).or_insert_with(|| through.clone());
            if let Some(own) = subject.own.clone().filter(|_| subject.announcement.is_none()) {
                self.addresses.entry(own).or_insert(through);
            }
        }
        self.verdicts[place] = Some(verdict);
    }

    fn is_open(&self, place: usize) -> bool {
        self.verdicts[place].is_none()
    }

    /// Decides announcements: for each repository the newest, then the older ones.
    fn announcements(&mut self) {
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

    /// Decides states: the author must own or maintain an accepted repository with the identifier.
    fn states(&mut self) {
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
    fn others(&mut self) {
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

    fn close(self) -> Judgement {
        let orphan = || Verdict::Refused(Reason::Orphan);
        let verdicts = self.verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(orphan));
        Judgement { verdicts: verdicts.collect(), leaving: self.leaving }
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
