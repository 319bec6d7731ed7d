//! Which subscriptions are open: one set of filters per up to 100 items. New items get new subscriptions.
//! When there are too many, small covers are packed: the packed one is opened first, then those that it
//! replaces are closed, so that every item is covered at any time. What does not fit is polled in turn.

use std::time::{Duration, Instant};

use tender_jobs::{
    grasp::{
        coverage::{self, ITEMS, filters},
        family::Family,
    },
    queue,
};

use super::{
    Session,
    live::{Cover, Live, Polled, stand},
};
use crate::mirror::error::StepError;

/// How often the items are polled that have no subscription.
pub(super) const ROTATE: Duration = Duration::from_mins(15);

impl Live {
    /// Follows everything that the relay has confirmed.
    pub(super) async fn fill(&mut self, session: &Session) -> Result<(), StepError> {
        let (db, relay, mut after) = (&session.context.db, session.lease.relay, None);
        while let Some((family, items)) = coverage::confirmed(db, relay, after.as_ref()).await? {
            after = items.last().map(|last| (family, last.clone()));
            self.cover(session, family, items).await?;
        }
        Ok(())
    }

    /// Follows items, unless they are followed already.
    pub(super) async fn cover(
        &mut self,
        session: &Session,
        family: Family,
        mut items: Vec<String>,
    ) -> Result<(), StepError> {
        items.retain(|item| !self.covers(family, item));
        if items.is_empty() {
            return Ok(());
        }
        items.sort_unstable();
        let needed = filters::of(family, &items, self.bounds).filters.len();
        if self.count() + needed > self.bounds.live {
            self.pack(session).await?;
        }
        if self.count() + needed > self.bounds.live && !self.covers.is_empty() {
            let since = queue::now(&session.context.db).await?.timestamp();
            self.overflow.push_back(Polled {
                family,
                items,
                due: Instant::now() + ROTATE,
                since,
                asked: since,
            });
            return Ok(());
        }
        self.open(session, family, items).await
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
    ) -> Result<(), StepError> {
        let mut standing = Vec::new();
        for filter in filters::of(family, &items, self.bounds).filters {
            standing.push(stand(session, filter, 0).await?);
        }
        self.covers.push(Cover { family, items, standing });
        Ok(())
    }

    /// Replaces small covers of one family by packed ones.
    async fn pack(&mut self, session: &Session) -> Result<(), StepError> {
        for family in Family::ALL {
            while let Some(small) = self.packable(family) {
                let mut items: Vec<String> =
                    small.iter().flat_map(|index| self.covers[*index].items.clone()).collect();
                items.sort_unstable();
                let db = &session.context.db;
                let wanted =
                    coverage::still_wanted(db, session.lease.relay, family, &items).await?;
                if !wanted.is_empty() {
                    self.open(session, family, wanted).await?;
                }
                // From the last to the first, so that the positions stay right.
                for index in small.into_iter().rev() {
                    self.covers.remove(index);
                }
            }
        }
        Ok(())
    }

    /// Returns the positions of covers that fit into one, in order; `None` if there are not two.
    fn packable(&self, family: Family) -> Option<Vec<usize>> {
        let mut sizes: Vec<(usize, usize)> = self
            .covers
            .iter()
            .enumerate()
            .filter(|(_, cover)| cover.family == family && cover.items.len() < ITEMS)
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
