//! What a session fetches next.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tender_jobs::{
    grasp::{
        batch::{self, Again, Batch, Fetched},
        coverage::{
            self,
            filters::{self, Unusable},
        },
        family::Purpose,
    },
    queue,
};

use super::{End, Following, TICK, held};
use crate::grasp::session::{
    covers::ROTATE,
    live::Missed,
    passes::{OVERLAP, Pass},
    work::{self, Task},
};

impl Following {
    /// Begins as much work as the relay bears.
    pub(super) async fn pump(&mut self) -> Result<(), End> {
        if self.session.connection.lost().is_some() {
            return Ok(());
        }
        while !self.is_limited()
            && self.work.len() < self.live.bounds.batches
            && self.refusals.allow(self.work.len())
        {
            let Some(task) = self.next_task().await? else { break };
            self.work.spawn(work::run(self.session.clone(), task));
        }
        self.tell().await
    }

    /// Missing items come first, but leave a place for other work. If there is only one place, they take
    /// turns.
    pub(super) async fn next_task(&mut self) -> Result<Option<Task>, End> {
        let (places, others) = (self.live.bounds.batches, self.has_other_work());
        if takes_missing(places, self.missing, others, self.was_missing)
            && let Some(task) = self.next_missing().await?
        {
            self.missing += 1;
            self.was_missing = true;
            return Ok(Some(task));
        }
        self.was_missing = false;
        self.next_other().await
    }

    fn has_other_work(&self) -> bool {
        let with_refused = self.takes_refused();
        self.pass.as_ref().is_some_and(Pass::is_ready)
            || self.live.has_repair(with_refused)
            || self.live.due_poll(with_refused).is_some()
    }

    /// Whether work may begin that the relay has refused before.
    fn takes_refused(&self) -> bool {
        self.refusals.allow_refused(self.work.len())
    }

    /// Repairs, the verification and polls take turns.
    async fn next_other(&mut self) -> Result<Option<Task>, End> {
        for _ in 0..3 {
            self.turn = (self.turn + 1) % 3;
            let task = match self.turn {
                0 => self.live.next_repair(self.takes_refused()).map(repair),
                1 => self.rotation().await?,
                _ => self.next_part().await?,
            };
            if task.is_some() {
                return Ok(task);
            }
        }
        Ok(None)
    }

    async fn next_part(&mut self) -> Result<Option<Task>, End> {
        if let Some(pass) = &mut self.pass
            && let Some(task) = pass.next(&self.session, self.live.bounds).await?
        {
            return Ok(Some(task));
        }
        self.end_pass().await?;
        Ok(None)
    }

    /// Takes missing items in flight. They are followed live before their history is fetched.
    pub(super) async fn next_missing(&mut self) -> Result<Option<Task>, End> {
        let session = self.session.clone();
        let db = &session.context.db;
        while self.plan_at.is_some_and(|at| at <= Instant::now()) {
            let Some(batch) = self.plan().await? else { return Ok(None) };
            let found = filters::of(batch.family, &batch.items, self.live.bounds);
            self.changes += 1;
            for ((reason, is_final), items) in by_reason(&found.unusable) {
                let again = if is_final { Again::Never } else { Again::Tomorrow };
                held(batch::refuse(db, &batch, &items, reason, again).await?)?;
            }
            let mut items = batch.items.clone();
            items.retain(|item| !found.unusable.iter().any(|unusable| unusable.item == *item));
            if items.is_empty() {
                held(batch::confirm(db, &batch, Fetched::default()).await?)?;
                continue;
            }
            self.live.cover(&self.session, batch.family, items.clone(), true).await?;
            let (family, filters) = (batch.family, found.filters);
            let walked = work::walked(&self.session, family, &filters).await?;
            let is_refused = batch.is_refused;
            let (purpose, batch) = (Purpose::Missing, Some(batch));
            return Ok(Some(Task {
                purpose,
                family,
                items,
                filters,
                since: 0,
                batch,
                failures: 0,
                repairs: None,
                walked,
                is_refused,
            }));
        }
        Ok(None)
    }

    /// Returns the next batch; without one, stores when to look again.
    async fn plan(&mut self) -> Result<Option<Batch>, End> {
        let (db, lease) = (&self.session.context.db, self.session.lease);
        let with_refused = self.takes_refused();
        let batch = if with_refused {
            coverage::plan(db, lease).await?
        } else {
            coverage::plan_unrefused(db, lease).await?
        };
        if batch.is_none() {
            let due = if with_refused {
                coverage::next_due(db, lease.relay).await?
            } else {
                coverage::next_unrefused(db, lease.relay).await?
            };
            self.plan_at = self.next_plan(due);
        }
        Ok(batch)
    }

    /// When to look for missing items again. The next ones are due after `due`; without those that the relay
    /// has refused, if these wait.
    fn next_plan(&self, due: Option<Duration>) -> Option<Instant> {
        let soon = Instant::now() + TICK;
        let due = due.map(|due| Instant::now() + due.min(ROTATE));
        let refused = if self.takes_refused() { None } else { self.refusals.refused_from() };
        due.into_iter().chain(refused).min().map(|at| at.max(soon))
    }

    /// Returns the poll of items that have no subscription, if one is due.
    pub(super) async fn rotation(&mut self) -> Result<Option<Task>, End> {
        let due = self.live.due_poll(self.takes_refused());
        let Some(mut polled) = due.and_then(|index| self.live.overflow.remove(index)) else {
            return Ok(None);
        };
        let is_refused = polled.is_wanting;
        let (family, items) = (polled.family, polled.items.clone());
        let since = (polled.since - OVERLAP).max(1);
        polled.asked = queue::now(&self.session.context.db).await?.timestamp();
        polled.begun = Instant::now();
        polled.due = polled.begun + ROTATE;
        self.live.overflow.push_back(polled);
        let filters = filters::of(family, &items, self.live.bounds).filters;
        let purpose = Purpose::Rotation;
        Ok(Some(Task {
            purpose,
            family,
            items,
            filters,
            since,
            batch: None,
            failures: 0,
            repairs: None,
            walked: Vec::new(),
            is_refused,
        }))
    }
}

/// The items that no filter can name, by the reason and whether it is final.
fn by_reason(unusable: &[Unusable]) -> BTreeMap<(&str, bool), Vec<String>> {
    let mut reasons = BTreeMap::<_, Vec<String>>::new();
    for one in unusable {
        let items = reasons.entry((one.reason.as_str(), one.is_final)).or_default();
        items.push(one.item.clone());
    }
    reasons
}

/// Fetches what a closed subscription may have missed.
fn repair(missed: Missed) -> Task {
    let Missed { standing, family, items, filter, since, is_wanting: is_refused } = missed;
    let (purpose, filters) = (Purpose::Reconnect, vec![filter]);
    let (since, repairs) = ((since - OVERLAP).max(1), Some(standing));
    let (batch, failures, walked) = (None, 0, Vec::new());
    Task { purpose, family, items, filters, since, batch, failures, repairs, walked, is_refused }
}

/// Whether a place is for missing items: with other work, they leave it one of several places, and take turns
/// with it at a single one.
fn takes_missing(places: usize, missing: usize, others: bool, was_missing: bool) -> bool {
    let reserved = usize::from(others && places > 1);
    let yields = others && places == 1 && was_missing;
    !yields && missing < places - reserved
}

#[cfg(test)]
mod tests {
    use super::takes_missing;

    #[test]
    fn missing_items_leave_a_place_for_polls_and_verifications() {
        assert!(takes_missing(3, 2, false, true), "without other work they take all places");
        assert!(!takes_missing(3, 3, false, true));
        assert!(takes_missing(3, 1, true, true));
        assert!(!takes_missing(3, 2, true, true), "one place is reserved");
    }

    #[test]
    fn missing_items_and_other_work_take_turns_at_a_single_place() {
        assert!(takes_missing(1, 0, true, false));
        assert!(!takes_missing(1, 0, true, true));
        assert!(takes_missing(1, 0, false, true));
    }
}
