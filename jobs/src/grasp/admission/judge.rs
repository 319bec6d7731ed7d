//! The rules of admission, without I/O: judges a batch of events for one service. The verdicts do not
//! depend on the order of the batch, because the rules are applied until nothing changes.
//!
//! - `announcements`: the repositories that the service has. `others`: what belongs to them.

mod announcements;
mod others;

use std::collections::{HashMap, HashSet};

use super::{
    Service,
    lookup::{Lookup, Repo},
    subject::Subject,
};
use crate::{
    grasp::{
        address::{GRASP_LIST, is_identifier},
        policy::{Reason, Rule},
    },
    mirror::event::EventId,
};

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

    /// The verdict on an event of the service's own relay: the service has accepted it already.
    fn of_own(self) -> Self {
        match self {
            Self::Refused(_) => Self::Admitted(Rule::Own, Vec::new()),
            Self::Admitted(rule, through) if rule.carries() => Self::Admitted(Rule::Own, through),
            verdict => verdict,
        }
    }
}

/// The judgement of a batch.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// The verdicts, in the order of the events.
    pub(super) verdicts: Vec<Verdict>,
    /// Repositories whose newest announcement is refused: address and place of the announcement.
    pub(super) leaving: Vec<(String, usize)>,
    /// The repositories of the batch that the service had before, by address.
    pub(super) held: HashSet<String>,
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
            if let Some(verdict) = self.obvious(subject) {
                self.decide(place, verdict);
            }
        }
    }

    fn obvious(&self, subject: &Subject<'_>) -> Option<Verdict> {
        let event = subject.event;
        let is_blocked = || self.service.policy.blocked_authors.contains(&event.pubkey);
        let is_bad = |identifier| !is_identifier(identifier);
        if let Some(rule) = self.lookup.standing.get(&event.id) {
            Some(Verdict::Stands(*rule))
        } else if self.lookup.deleted.contains(&event.id) {
            Some(Verdict::Deleted)
        } else if !self.is_own && is_blocked() {
            Some(Verdict::Refused(Reason::BlockedAuthor))
        } else if event.is_deletion() {
            Some(Verdict::Admitted(Rule::Deletion, Vec::new()))
        } else if event.kind == GRASP_LIST {
            Some(Verdict::Admitted(Rule::GraspList, Vec::new()))
        } else {
            subject
                .identifier()
                .is_some_and(is_bad)
                .then_some(Verdict::Refused(Reason::BadIdentifier))
        }
    }

    /// Stores a verdict. An accepted event admits what it points to, and what points to it.
    fn decide(&mut self, place: usize, verdict: Verdict) {
        let verdict = if self.is_own { verdict.of_own() } else { verdict };
        let subject = &self.subjects[place];
        match &verdict {
            Verdict::Admitted(rule, through) if rule.carries() => {
                self.connect(subject, through.clone());
            }
            Verdict::Stands(rule) if rule.carries() => {
                let through = self.accepted.get(&subject.event.id).cloned();
                self.connect(subject, through.unwrap_or_default());
            }
            _ => {}
        }
        self.verdicts[place] = Some(verdict);
    }

    /// Notes what an accepted event admits.
    fn connect(&mut self, subject: &Subject<'_>, through: Vec<String>) {
        let ids = subject.ids.iter().map(ToString::to_string);
        for target in ids.chain(subject.addresses.iter().cloned()) {
            self.pointed.entry(target).or_insert_with(|| through.clone());
        }
        self.accepted.entry(subject.event.id).or_insert_with(|| through.clone());
        if let Some(own) = subject.own.clone().filter(|_| subject.announcement.is_none()) {
            self.addresses.entry(own).or_insert(through);
        }
    }

    fn is_open(&self, place: usize) -> bool {
        self.verdicts[place].is_none()
    }

    fn close(self) -> Judgement {
        let orphan = || Verdict::Refused(Reason::Orphan);
        let verdicts = self.verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(orphan));
        let held = self.lookup.repos.iter().filter(|(_, repo)| !repo.has_left);
        Judgement {
            verdicts: verdicts.collect(),
            leaving: self.leaving,
            held: held.map(|(address, _)| address.clone()).collect(),
        }
    }
}
