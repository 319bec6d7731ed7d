//! Subscriptions, and the routes of messages to them.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::json;
use tender_jobs::mirror::event::EventId;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{Connection, cut, locked};
use crate::mirror::{error::StepError, message::Message, socket::Outgoing};

/// The messages that may wait for one subscription. Then the socket is not read, which slows the
/// upstream down.
const BUFFER: usize = 1000;
/// The longest that a subscription may stop the socket from being read; then the subscription ends.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// A message for a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Event(String),
    Eose,
    /// The upstream closed the subscription, for this reason.
    Closed(String),
    NegMsg(String),
    /// The reason, and the most records that the upstream accepts.
    NegErr(String, Option<u64>),
    /// Only reconciliations get notices, because some upstreams refuse negentropy by a notice.
    Notice(String),
    /// The connection was lost, for this reason.
    Lost(String),
}

/// A subscription; dropping it closes it on the upstream too.
#[derive(Debug)]
pub(crate) struct Subscription {
    id: String,
    connection: Connection,
    heard: mpsc::Receiver<Heard>,
}

impl Connection {
    /// Opens a route. Its id is `prefix` and a random part; messages with this id go to the
    /// subscription.
    pub(crate) fn subscribe(&self, prefix: &str) -> Subscription {
        let random = Uuid::new_v4().simple().to_string();
        let id = format!("{prefix}_{}", &random[..if prefix == "fetch" { 8 } else { 16 }]);
        let (sender, heard) = mpsc::channel(BUFFER);
        if let Some(why) = self.lost() {
            let _room_for_one = sender.try_send(Heard::Lost(why));
        }
        locked(&self.0.routes).insert(id.clone(), sender);
        self.touch();
        Subscription { id, connection: self.clone(), heard }
    }

    /// Returns the number of open subscriptions.
    pub(crate) fn subscriptions(&self) -> usize {
        locked(&self.0.routes).len()
    }

    /// Returns the number of messages since the last call that were not asked for.
    pub(crate) fn take_strays(&self) -> i64 {
        self.0.strays.swap(0, Ordering::Relaxed)
    }

    /// Returns and forgets the events of a window, in Unix seconds, that came after the end of their
    /// page.
    pub(crate) fn take_late(&self, since: i64, until: i64) -> Vec<EventId> {
        self.0.late.take(since, until)
    }

    /// Returns and forgets the times of late events that no lane has taken for `age`, in Unix
    /// seconds.
    pub(crate) fn late_left(&self, age: Duration) -> Vec<i64> {
        self.0.late.take_left(age)
    }

    /// Hands a message to the subscription or upload that waits for it.
    pub(super) async fn route(&self, message: Message) {
        match message {
            Message::Event(id, event) if self.0.late.takes(&id, &event) => self.stray(),
            Message::Event(id, event) => self.deliver(&id, Heard::Event(event)).await,
            Message::Eose(id) => {
                self.0.late.ended(&id);
                self.deliver(&id, Heard::Eose).await;
            }
            Message::Closed(id, why) => self.deliver(&id, Heard::Closed(why)).await,
            Message::NegMsg(id, frame) => self.deliver(&id, Heard::NegMsg(frame)).await,
            Message::NegErr(id, why, most) => self.deliver(&id, Heard::NegErr(why, most)).await,
            Message::Ok(id, is_taken, reason) => {
                let waiting = locked(&self.0.sent).remove(&id);
                match waiting {
                    Some(waiting) => drop(waiting.send((is_taken, reason))),
                    None => self.stray(),
                }
            }
            Message::Notice(text) => self.notice(&text).await,
            Message::Auth(challenge) => self.answer(&challenge),
            Message::Unknown(verb) => {
                tracing::debug!(url = self.0.url, verb, "message has an unknown verb; ignored");
            }
        }
    }

    async fn deliver(&self, id: &str, heard: Heard) {
        let route = locked(&self.0.routes).get(id).cloned();
        let Some(route) = route else { return self.stray() };
        if route.try_send(heard.clone()).is_ok() {
            return;
        }
        // The buffer is full: the upstream waits with us, for a limited time.
        if route.send_timeout(heard, TAKEN_WITHIN).await.is_err() {
            locked(&self.0.routes).remove(id);
        }
    }

    fn stray(&self) {
        self.0.strays.fetch_add(1, Ordering::Relaxed);
    }

    async fn notice(&self, text: &str) {
        let notice = cut(text);
        tracing::debug!(url = self.0.url, notice, "notice received");
        let ids: Vec<String> =
            locked(&self.0.routes).keys().filter(|id| is_negentropy(id)).cloned().collect();
        for id in ids {
            self.deliver(&id, Heard::Notice(notice.clone())).await;
        }
    }
}

fn is_negentropy(id: &str) -> bool {
    id.starts_with("neg_")
}

impl Subscription {
    /// The id of the subscription on the upstream.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Names the window, in Unix seconds, whose events are late if they come after EOSE.
    pub(crate) fn is_page_of(&self, since: i64, until: i64) {
        self.connection.0.late.requested(&self.id, since, until);
    }

    /// Waits for the next message. Fails with [`StepError::Silent`] if there is none within
    /// `silence`, and with [`StepError::Connection`] if the connection is lost.
    pub(crate) async fn next(&mut self, silence: Duration) -> Result<Heard, StepError> {
        match tokio::time::timeout(silence, self.heard.recv()).await {
            Ok(Some(Heard::Lost(why))) => Err(StepError::Connection(why)),
            Ok(Some(heard)) => Ok(heard),
            Ok(None) => Err(self.connection.lost_error()),
            Err(_) => {
                let seconds = silence.as_secs();
                Err(StepError::Silent(format!("the upstream was silent for {seconds} s")))
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let was_open = locked(&self.connection.0.routes).remove(&self.id).is_some();
        self.connection.touch();
        if was_open {
            let verb = if is_negentropy(&self.id) { "NEG-CLOSE" } else { "CLOSE" };
            let close = json!([verb, self.id]).to_string();
            // A full channel means that the upstream takes no messages; then it may miss this one.
            let _full = self.connection.0.outgoing.try_send(Outgoing::Text(close));
        }
    }
}
