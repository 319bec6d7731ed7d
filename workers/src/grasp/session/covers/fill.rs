//! Which subscriptions a session opens first.

use std::collections::BTreeMap;

use tender_jobs::grasp::{coverage, family::Family};

use crate::{
    grasp::session::{Session, live::Live},
    mirror::error::StepError,
};

impl Live {
    /// Follows everything that is wanted: first what the relay has confirmed, then the rest.
    pub(in super::super) async fn fill(&mut self, session: &Session) -> Result<(), StepError> {
        let (db, relay, mut after) = (&session.context.db, session.lease.relay, None);
        while let Some((family, items)) = coverage::confirmed(db, relay, after.as_ref()).await? {
            after = items.last().map(|last| (family, last.clone()));
            self.cover(session, family, items, false).await?;
        }
        self.fill_wanting(session).await
    }

    /// Follows what is not confirmed, until the relay bears no more: the rest is followed when its history is
    /// fetched. Items that failed before stay apart from others, as in their batches, so that an item that the
    /// relay refuses costs no other item its subscription. For the same reason, they are neither packed nor polled.
    async fn fill_wanting(&mut self, session: &Session) -> Result<(), StepError> {
        let (db, relay, mut after) = (&session.context.db, session.lease.relay, None);
        while self.overflow.is_empty() {
            let page = coverage::unconfirmed(db, relay, after.as_ref()).await?;
            let Some((family, item, _)) = page.last() else { break };
            after = Some((family.clone(), item.clone()));
            for (family, items) in apart(page) {
                let items = self.unfollowed(family, &items);
                if items.is_empty() {
                    continue;
                }
                if !self.has_room(family, &items) {
                    return Ok(());
                }
                self.open(session, family, items, true).await?;
            }
        }
        Ok(())
    }
}

/// Returns the items of a page in parts that may be asked for together, the largest of each family first.
fn apart(page: Vec<(String, String, i32)>) -> Vec<(Family, Vec<String>)> {
    let mut groups: BTreeMap<(String, i32), Vec<String>> = BTreeMap::new();
    for (family, item, most) in page {
        groups.entry((family, most)).or_default().push(item);
    }
    let mut parts = Vec::new();
    for ((family, most), items) in groups.into_iter().rev() {
        let Some(family) = Family::parse(&family) else { continue };
        let most = usize::try_from(most).unwrap_or(1).max(1);
        parts.extend(items.chunks(most).map(|part| (family, part.to_vec())));
    }
    parts
}
