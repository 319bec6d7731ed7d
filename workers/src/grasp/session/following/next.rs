//! What a session fetches next.

use std::time::Instant;

use tender_jobs::{
    grasp::{
        batch::{self, Again, Fetched},
        coverage::{self, filters},
        family::Purpose,
    },
    queue,
};

use super::{End, Following, TICK, held};
use crate::grasp::session::{
    covers::ROTATE,
    passes::OVERLAP,
    work::{self, Task},
};

impl Following {
    /// Begins as much work as the relay bears.
    pub(super) async fn pump(&mut self) -> Result<(), End> {
        if self.session.connection.lost().is_some() {
            return Ok(());
        }
        while !self.is_limited() && self.work.len() < self.live.bounds.batches {
            let Some(task) = self.next_task().await? else { break };
            self.work.spawn(work::run(self.session.clone(), task));
        }
        self.tell().await
    }

    /// Missing items come first, but leave a place for a verification.
    pub(super) async fn next_task(&mut self) -> Result<Option<Task>, End> {
        let places = self.live.bounds.batches;
        let reserved = usize::from(self.pass.is_some() && places > 1);
        if self.missing < places - reserved
            && let Some(task) = self.next_missing().await?
        {
            self.missing += 1;
            return Ok(Some(task));
        }
        if let Some(due) = self.polls.iter().position(|(at, _)| *at <= Instant::now()) {
            self.repairs += 1;
            return Ok(Some(self.polls.swap_remove(due).1));
        }
        if let Some(pass) = &mut self.pass
            && let Some(task) = pass.next(&self.session, self.live.bounds).await?
        {
            return Ok(Some(task));
        }
        self.end_pass().await?;
        self.rotation().await
    }

    /// Takes missing items in flight. They are followed live before their history is fetched.
    pub(super) async fn next_missing(&mut self) -> Result<Option<Task>, End> {
        let (db, lease) = (&self.session.context.db, self.session.lease);
        while self.plan_at.is_some_and(|at| at <= Instant::now()) {
            let Some(batch) = coverage::plan(db, lease).await? else {
                let due = coverage::next_due(db, lease.relay).await?;
                self.plan_at = due.map(|due| Instant::now() + due.clamp(TICK, ROTATE));
                return Ok(None);
            };
            let found = filters::of(batch.family, &batch.items, self.live.bounds);
            for (item, reason) in &found.unusable {
                let item = std::slice::from_ref(item);
                let refused = batch::refuse(db, &batch, item, reason, Again::Tomorrow).await?;
                held(refused)?;
            }
            let mut items = batch.items.clone();
            items.retain(|item| !found.unusable.iter().any(|(unusable, _)| unusable == item));
            if items.is_empty() {
                held(batch::confirm(db, &batch, Fetched::default()).await?)?;
                continue;
            }
            self.live.cover(&self.session, batch.family, items.clone()).await?;
            let (family, filters) = (batch.family, found.filters);
            let (purpose, batch) = (Purpose::Missing, Some(batch));
            return Ok(Some(Task {
                purpose,
                family,
                items,
                filters,
                since: 0,
                batch,
                failures: 0,
                repairs: false,
            }));
        }
        Ok(None)
    }

    /// Returns the poll of items that have no subscription, if one is due.
    pub(super) async fn rotation(&mut self) -> Result<Option<Task>, End> {
        let due = self.live.overflow.pop_front_if(|one| one.due <= Instant::now());
        let Some(mut polled) = due else { return Ok(None) };
        let (family, items) = (polled.family, polled.items.clone());
        let since = (polled.since - OVERLAP).max(1);
        polled.asked = queue::now(&self.session.context.db).await?.timestamp();
        polled.due = Instant::now() + ROTATE;
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
            repairs: false,
        }))
    }
}
