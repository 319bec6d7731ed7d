//! Which subscriptions are open: one set of filters per up to 100 items. New items get new subscriptions.
//! When there are too many, small covers are packed: the packed one is opened first. Those that it replaces
//! are read until the relay has confirmed it, so that no event is lost in between; if the relay refuses it,
//! they stay. What does not fit is polled in turn.
//!
//! - `fill`: which subscriptions are opened first.

mod fill;

use std::time::{Duration, Instant};

use tender_jobs::{
    grasp::{
        coverage::{self, ITEMS, filters},
        family::Family,
    },
    queue,
};

use uuid::Uuid;

use super::{
    Session,
    live::{Cover, Dropped, Live, Polled, Standing, stand},
};
use crate::mirror::error::StepError;

/// How often the items are polled that have no subscription.
pub(super) const ROTATE: Duration = Duration::from_mins(15);
/// How long a poll keeps its items up to date: a poll takes time itself.
pub(super) const CURRENT_FOR: Duration = Duration::from_mins(20);
/// The pause before covers are packed again, if the relay refused a packed one.
const PACK_AGAIN: Duration = Duration::from_mins(15);
/// After so many failed polls in a row, items are missing.
const HOPELESS: u32 = 3;

impl Live {
    /// Follows items, unless they are followed already or no filter can name them. `is_wanting` says that their
    /// history has yet to come.
    pub(super) async fn cover(
        &mut self,
        session: &Session,
        family: Family,
        items: Vec<String>,
        is_wanting: bool,
    ) -> Result<(), StepError> {
        self.recover(family, &items);
        let items = self.unfollowed(family, &items);
        if items.is_empty() || self.try_open(session, family, &items, is_wanting).await? {
            return Ok(());
        }
        let since = queue::now(&session.context.db).await?.timestamp();
        self.overflow.push_back(Polled::new(family, items, since, is_wanting));
        Ok(())
    }

    /// Follows items whose history has come, unless they are followed already. If they were not while it came,
    /// events since the second `begun` may be missed.
    pub(super) async fn follow(
        &mut self,
        session: &Session,
        family: Family,
        items: &[String],
        begun: Option<i64>,
    ) -> Result<(), StepError> {
        let items = self.unfollowed(family, items);
        if items.is_empty() {
            return Ok(());
        }
        let db = &session.context.db;
        let mut items = coverage::still_wanted(db, session.lease.relay, family, &items).await?;
        items.sort_unstable();
        let now = queue::now(db).await?.timestamp();
        let since = begun.unwrap_or(now).min(now);
        self.recover(family, &items);
        if items.is_empty() || self.try_open(session, family, &items, false).await? {
            let opened = self.covers.last_mut().filter(|cover| cover.items == items);
            let standing = opened.into_iter().flat_map(|cover| &mut cover.standing);
            standing.for_each(|one| one.miss(since));
        } else {
            self.overflow.push_back(Polled::new(family, items, since, false).behind(now - since));
        }
        Ok(())
    }

    /// Returns those of the items that are not followed and that a filter can name, sorted.
    fn unfollowed(&self, family: Family, items: &[String]) -> Vec<String> {
        let mut items = items.to_vec();
        items.retain(|item| !self.covers(family, item));
        let unusable = filters::of(family, &items, self.bounds).unusable;
        items.retain(|item| !unusable.iter().any(|unusable| unusable.item == *item));
        items.sort_unstable();
        items
    }

    /// Opens the subscriptions of items, if the relay bears them. Returns whether it does.
    async fn try_open(
        &mut self,
        session: &Session,
        family: Family,
        items: &[String],
        is_wanting: bool,
    ) -> Result<bool, StepError> {
        if !self.has_room(family, items) {
            self.pack(session).await?;
        }
        let has_room = self.has_room(family, items);
        if has_room {
            self.open(session, family, items.to_vec(), is_wanting).await?;
        }
        Ok(has_room)
    }

    fn has_room(&self, family: Family, items: &[String]) -> bool {
        let needed = filters::of(family, items, self.bounds).filters.len();
        self.covers.is_empty() || self.count() + needed <= self.bounds.live
    }

    fn covers(&self, family: Family, item: &String) -> bool {
        let has = |of: Family, items: &[String]| of == family && items.binary_search(item).is_ok();
        self.covers.iter().any(|cover| has(cover.family, &cover.items))
            || self.overflow.iter().any(|polled| has(polled.family, &polled.items))
    }

    async fn open(
        &mut self,
        session: &Session,
        family: Family,
        items: Vec<String>,
        is_wanting: bool,
    ) -> Result<Uuid, StepError> {
        let (id, mut standing) = (Uuid::new_v4(), Vec::new());
        let at = queue::now(&session.context.db).await?.timestamp();
        for filter in filters::of(family, &items, self.bounds).filters {
            standing.push(stand(session, filter, at).await?);
        }
        self.covers.push(Cover { id, successor: None, family, items, standing, is_wanting });
        Ok(id)
    }

    /// Opens packed covers beside small ones of one family, which they replace later.
    async fn pack(&mut self, session: &Session) -> Result<(), StepError> {
        if self.pack_from > Instant::now() {
            return Ok(());
        }
        for family in Family::ALL {
            while let Some(small) = self.packable(family) {
                let mut items: Vec<String> =
                    small.iter().flat_map(|index| self.covers[*index].items.clone()).collect();
                items.sort_unstable();
                let db = &session.context.db;
                let mut wanted =
                    coverage::still_wanted(db, session.lease.relay, family, &items).await?;
                wanted.sort_unstable();
                // Without an item, the packed cover has no filter, and is confirmed at once.
                let is_wanting = small.iter().all(|index| self.covers[*index].is_wanting);
                let packed = self.open(session, family, wanted, is_wanting).await?;
                for index in small {
                    self.covers[index].successor = Some(packed);
                }
            }
        }
        Ok(())
    }

    fn is_successor(&self, id: Uuid) -> bool {
        self.covers.iter().any(|cover| cover.successor == Some(id))
    }

    /// Ends the packing whose outcome is known: the replaced covers go if the relay has confirmed the packed
    /// one, which goes itself if the relay refused it.
    pub(super) async fn settle_packed(&mut self, session: &Session) -> Result<(), StepError> {
        let mut packed: Vec<Uuid> =
            self.covers.iter().filter_map(|cover| cover.successor).collect();
        packed.dedup();
        for id in packed {
            let Some(index) = self.covers.iter().position(|cover| cover.id == id) else { continue };
            let standing = &self.covers[index].standing;
            if standing.iter().all(Standing::is_sure) {
                self.replace(session, index).await?;
            } else if standing.iter().any(Standing::is_closed) {
                self.covers.remove(index);
                self.pack_from = Instant::now() + PACK_AGAIN;
                let replaced = self.covers.iter_mut().filter(|cover| cover.successor == Some(id));
                replaced.for_each(|cover| cover.successor = None);
                self.shed(session).await?;
            }
        }
        Ok(())
    }

    /// Takes the events that wait for the replaced covers, and closes these. The packed one repairs what
    /// they may have missed.
    async fn replace(&mut self, session: &Session, packed: usize) -> Result<(), StepError> {
        let id = self.covers[packed].id;
        while let Some(message) = self.waiting(id).await {
            self.take(session, message).await?;
        }
        let of_it = self.covers.iter().filter(|cover| cover.successor == Some(id));
        let missed = of_it.flat_map(|cover| &cover.standing).filter_map(Standing::missed).min();
        if let Some(since) = missed {
            self.covers[packed].standing.iter_mut().for_each(|one| one.miss(since));
        }
        self.covers.retain(|cover| cover.successor != Some(id));
        self.covers.retain(|cover| !cover.standing.is_empty());
        Ok(())
    }

    /// Polls the newest covers instead that exceed the limit, because the relay refused a packed one.
    async fn shed(&mut self, session: &Session) -> Result<(), StepError> {
        let (id, mut shed) = (Uuid::new_v4(), Vec::new());
        for index in (1..self.covers.len()).rev() {
            if self.count() > self.bounds.live && self.covers[index].successor.is_none() {
                self.covers[index].successor = Some(id);
            }
        }
        while let Some(message) = self.waiting(id).await {
            self.take(session, message).await?;
        }
        let now = queue::now(&session.context.db).await?.timestamp();
        self.covers.retain(|cover| {
            let is_shed = cover.successor == Some(id);
            if is_shed {
                let missed = cover.standing.iter().filter_map(Standing::missed).min();
                let (items, since) = (cover.items.clone(), missed.unwrap_or(now).min(now));
                shed.push(Polled::new(cover.family, items, since, cover.is_wanting));
            }
            !is_shed
        });
        self.overflow.extend(shed);
        Ok(())
    }

    /// Drops the covers and polls that a relay refuses in every way. Returns them; their items are then missing.
    pub(super) fn drop_hopeless(&mut self) -> Vec<Dropped> {
        let mut dropped = Vec::new();
        self.covers.retain(|cover| {
            let hopeless = cover.standing.iter().find(|one| one.is_hopeless());
            dropped.extend(hopeless.map(|one| {
                let (items, filters) = (cover.items.clone(), cover.standing.len());
                Dropped { family: cover.family, items, filters, reason: one.words.clone() }
            }));
            hopeless.is_none()
        });
        self.overflow.retain(|polled| {
            let is_kept = polled.failures < HOPELESS;
            if !is_kept {
                let (items, reason) = (polled.items.clone(), polled.reason.clone());
                dropped.push(Dropped { family: polled.family, items, filters: 0, reason });
            }
            is_kept
        });
        let kept: Vec<Uuid> = self.covers.iter().map(|cover| cover.id).collect();
        for cover in &mut self.covers {
            cover.successor = cover.successor.filter(|id| kept.contains(id));
        }
        dropped
    }

    /// Returns the positions of covers that fit into one, in order; `None` if there are not two.
    fn packable(&self, family: Family) -> Option<Vec<usize>> {
        let mut sizes: Vec<(usize, usize)> = self
            .covers
            .iter()
            .enumerate()
            .filter(|(_, cover)| cover.family == family && cover.items.len() < ITEMS)
            .filter(|(_, cover)| cover.successor.is_none() && !self.is_successor(cover.id))
            .map(|(index, cover)| (cover.items.len(), index))
            .collect();
        sizes.sort_unstable();
        let mut sum = 0;
        sizes.retain(|(size, _)| {
            sum += size;
            sum <= ITEMS
        });
        let mut small: Vec<usize> = sizes.into_iter().map(|(_, index)| index).collect();
        small.sort_unstable();
        (small.len() > 1).then_some(small)
    }
}
