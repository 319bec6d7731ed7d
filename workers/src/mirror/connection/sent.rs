//! Events that we sent, and who waits for the upstream's answers.

use std::collections::{HashMap, hash_map::Entry};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Connection, locked};
use crate::mirror::error::StepError;

/// The upstream's answer to an event: whether it was accepted, and the reason.
pub(crate) type Answer = (bool, String);

/// Those who wait for an `OK`, by the id of the event.
#[derive(Debug, Default)]
pub(super) struct Sent(HashMap<String, Vec<oneshot::Sender<Answer>>>);

impl Sent {
    /// Adds a waiter. Returns whether nobody else waits for the answer to its event: a run that was
    /// ended early has left its waiters without saying so.
    fn add(&mut self, id: &str, waiter: oneshot::Sender<Answer>) -> bool {
        let waiting = self.0.entry(id.to_owned()).or_default();
        waiting.retain(|other| !other.is_closed());
        waiting.push(waiter);
        waiting.len() == 1
    }

    /// Tells every waiter of an event. Returns false if there is none.
    pub(super) fn tell(&mut self, id: &str, answer: &Answer) -> bool {
        let Some(waiting) = self.0.remove(id) else { return false };
        for waiter in waiting {
            let _no_longer_waits = waiter.send(answer.clone());
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Removes the waiters of an event that no longer wait.
    fn forget(&mut self, id: &str) {
        if let Entry::Occupied(mut waiting) = self.0.entry(id.to_owned()) {
            waiting.get_mut().retain(|waiter| !waiter.is_closed());
            if waiting.get().is_empty() {
                waiting.remove();
            }
        }
    }
}

impl Connection {
    /// Sends an event. The receiver gets the upstream's answer; it ends without one if the
    /// connection is lost. An event that waits for its answer already is not sent again: one answer
    /// tells all who wait.
    pub(crate) async fn publish(
        &self,
        id: &str,
        event: &Value,
    ) -> Result<oneshot::Receiver<Answer>, StepError> {
        self.send_for_answer("EVENT", id, event).await
    }

    /// Sends an event under `verb`, and returns the receiver of its answer.
    pub(super) async fn send_for_answer(
        &self,
        verb: &str,
        id: &str,
        event: &Value,
    ) -> Result<oneshot::Receiver<Answer>, StepError> {
        let (waiter, answer) = oneshot::channel();
        let is_first = locked(&self.0.sent).add(id, waiter);
        if self.lost().is_some() {
            drop(answer);
            self.forget(id);
            return Err(self.lost_error());
        }
        if is_first {
            self.send(&json!([verb, event])).await?;
        }
        Ok(answer)
    }

    /// Stops waiting for the answer to an event, after its receiver was dropped. Other waiters keep
    /// waiting. A late answer counts as one that was not asked for.
    pub(crate) fn forget(&self, id: &str) {
        locked(&self.0.sent).forget(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_tells_all_who_wait() {
        let mut sent = Sent::default();
        let ((first, mut one), (second, mut two)) = (oneshot::channel(), oneshot::channel());
        assert!(sent.add("a", first));
        assert!(!sent.add("a", second));
        assert!(sent.tell("a", &(true, "yes".to_owned())));
        assert_eq!(one.try_recv(), Ok((true, "yes".to_owned())));
        assert_eq!(two.try_recv(), Ok((true, "yes".to_owned())));
        assert!(!sent.tell("a", &(true, String::new())), "nobody waits any more");
    }

    #[test]
    fn an_event_of_a_run_that_ended_early_is_sent_again() {
        let mut sent = Sent::default();
        let ((first, one), (second, mut two)) = (oneshot::channel(), oneshot::channel());
        assert!(sent.add("a", first));
        drop(one);
        assert!(sent.add("a", second), "nobody waits for the first answer");
        assert!(sent.tell("a", &(true, String::new())));
        assert_eq!(two.try_recv(), Ok((true, String::new())));
    }

    #[test]
    fn who_stops_waiting_leaves_the_others() {
        let mut sent = Sent::default();
        let ((first, one), (second, mut two)) = (oneshot::channel(), oneshot::channel());
        sent.add("a", first);
        sent.add("a", second);
        drop(one);
        sent.forget("a");
        assert!(sent.tell("a", &(false, "no".to_owned())));
        assert_eq!(two.try_recv(), Ok((false, "no".to_owned())));
        let (third, three) = oneshot::channel();
        sent.add("b", third);
        drop(three);
        sent.forget("b");
        assert!(sent.is_empty());
    }
}
