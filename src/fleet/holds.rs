//! What holds the syncs of all relays.

use tender_jobs::provision::{SYNC_RELAY, instance::Instance};

use super::Fleet;

impl Fleet {
    /// Returns why no sync starts now, if one cause holds all: the queue is paused, nobody serves it, or every zooid
    /// is out.
    pub fn holds_syncs(&self) -> Option<String> {
        if self.paused.iter().any(|one| one.queue == SYNC_RELAY) {
            return Some(format!("the queue {SYNC_RELAY} is paused"));
        }
        if !self.is_served(SYNC_RELAY) {
            return Some("no process takes syncs".to_owned());
        }
        let known: Vec<&Instance> = self.instances.iter().filter(|one| !one.is_forgotten).collect();
        let is_held = !known.is_empty() && known.iter().all(|one| one.is_out());
        is_held.then(|| match known.as_slice() {
            [one] => format!("zooid at {} is out", one.name),
            _ => "every zooid is out".to_owned(),
        })
    }
}
