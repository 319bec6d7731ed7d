//! Subscriptions, and the routes of messages to them.

use std::{
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::Duration,
};

use serde_json::json;
use tender_jobs::mirror::event::{self, Event, EventId, Limits, Unusable};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{Connection, budget::Held, cut, late::Window, locked};
use crate::mirror::{error::StepError, message::Message, socket::Outgoing};

/// The messages that may wait for one subscription. Then the socket is not read, which slows the
/// upstream down.
const BUFFER: usize = 1000;

/// A message for a subscription.
#[derive(Debug)]
pub(crate) enum Heard {
    Event(Received),
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

/// An event as it was received; it holds its bytes of the connection's budget.
#[derive(Debug)]
pub(crate) struct Received {
    /// The event as unparsed JSON, or only its claims if it is over the limit.
    event: Result<String, Unusable>,
    _held: Held,
}

impl Received {
    /// Parses the event.
    pub(crate) fn parse(&self, limits: Limits) -> Result<Event, Unusable> {
        event::parse(self.event.as_ref().map_err(|unusable| *unusable)?, limits)
    }

    /// The event as unparsed JSON; `None` if it is over the limit.
    pub(crate) fn json(&self) -> Option<&str> {
        self.event.as_deref().ok()
    }
}

/// A subscription; dropping it closes it on the upstream too.
#[derive(Debug)]
pub(crate) struct Subscription {
    id: String,
    connection: Connection,
    heard: mpsc::Receiver<(Heard, Held)>,
}

/// The sending end of a subscription's route.
pub(super) type Route = mpsc::Sender<(Heard, Held)>;

impl Connection {
    /// Opens a route. Its id is `prefix` and a random part; messages with this id go to the
    /// subscription.
    pub(crate) fn subscribe(&self, prefix: &str) -> Subscription {
        let random = Uuid::new_v4().simple().to_string();
        let id = format!("{prefix}_{}", &random[..if prefix == "fetch" { 8 } else { 16 }]);
        let (sender, heard) = mpsc::channel(BUFFER);
        locked(&self.0.routes).insert(id.clone(), sender.clone());
        if let Some(why) = self.lost() {
            let _room_for_one = sender.try_send((Heard::Lost(why), Held::default()));
        }
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

    /// Returns the events of a lane's window, in Unix seconds, that came after the end of their page,
    /// and forgets them.
    pub(crate) fn take_late(&self, lane: Uuid, since: i64, until: i64) -> Vec<EventId> {
        self.0.late.take(lane, since, until)
    }

    /// Returns the windows of pages whose events came late since the last call.
    pub(crate) fn untold_late(&self) -> Vec<Window> {
        self.0.late.untold()
    }

    /// Hands a message to the subscription or upload that waits for it. An error says why the
    /// connection must end.
    pub(super) async fn route(&self, message: Message) -> Result<(), String> {
        match message {
            Message::Event(id, event) if self.0.late.takes(&id, &event) => self.stray(),
            Message::Event(id, event) => self.event(&id, Ok(event)).await,
            Message::TooLarge(id, unusable) => self.event(&id, Err(unusable)).await,
            Message::Eose(id) => {
                self.0.late.ended(&id);
                self.deliver(&id, Heard::Eose).await;
            }
            Message::Closed(id, why) => self.deliver(&id, Heard::Closed(why)).await,
            Message::NegMsg(id, frame) => self.frame(&id, frame).await,
            Message::NegErr(id, why, most) => self.deliver(&id, Heard::NegErr(why, most)).await,
            Message::Ok(id, is_taken, reason) => {
                if !locked(&self.0.sent).tell(&id, &(is_taken, reason)) {
                    self.stray();
                }
            }
            Message::Notice(text) => self.notice(&text).await,
            Message::Auth(challenge) => self.0.auth.challenged(&challenge)?,
            Message::Unknown(verb) => {
                let verb = cut(&verb);
                tracing::debug!(
                    url = self.0.target.url,
                    verb,
                    "message has an unknown verb; ignored"
                );
            }
        }
        Ok(())
    }

    /// Delivers an event, which holds its bytes until its consumer drops it.
    async fn event(&self, id: &str, event: Result<String, Unusable>) {
        let size = event.as_ref().map_or(0, String::len);
        let deliver = |held| (Heard::Event(Received { event, _held: held }), Held::default());
        self.within_budget(id, size, deliver).await;
    }

    /// Delivers a negentropy frame, which holds its bytes until its consumer takes it.
    async fn frame(&self, id: &str, frame: String) {
        self.within_budget(id, frame.len(), |held| (Heard::NegMsg(frame), held)).await;
    }

    async fn deliver(&self, id: &str, heard: Heard) {
        self.within_budget(id, 0, |_| (heard, Held::default())).await;
    }

    /// Delivers a message of `size` bytes. If its route or the budget is full, the upstream waits
    /// with us, for a limited time. Messages without a size need no budget, because the number of
    /// messages of a route bounds them.
    async fn within_budget(
        &self,
        id: &str,
        size: usize,
        message: impl FnOnce(Held) -> (Heard, Held),
    ) {
        let route = locked(&self.0.routes).get(id).cloned();
        let Some(route) = route else { return self.stray() };
        let delivered = tokio::time::timeout(self.0.target.patience.route, async {
            let held = match size {
                0 => Held::default(),
                size => self.0.budget.take(size).await.map_err(|_| ())?,
            };
            route.reserve().await.map_err(|_| ())?.send(message(held));
            Ok::<(), ()>(())
        });
        if !matches!(delivered.await, Ok(Ok(()))) {
            locked(&self.0.routes).remove(id);
        }
    }

    fn stray(&self) {
        self.0.strays.fetch_add(1, Ordering::Relaxed);
    }

    async fn notice(&self, text: &str) {
        let notice = cut(text);
        tracing::debug!(url = self.0.target.url, notice, "notice received");
        if limits_rate(&notice) {
            self.0.limited.send_replace(Some(notice.clone()));
        }
        let ids: Vec<String> =
            locked(&self.0.routes).keys().filter(|id| is_negentropy(id)).cloned().collect();
        for id in ids {
            self.deliver(&id, Heard::Notice(notice.clone())).await;
        }
    }
}

/// Whether a notice says that the upstream limits our rate. Relays differ in their wording.
fn limits_rate(notice: &str) -> bool {
    let words = notice.to_lowercase();
    let has = |part: &str| words.contains(part);
    (has("rate") && has("limit")) || has("too many") || has("slow down") || has("throttl")
}

fn is_negentropy(id: &str) -> bool {
    id.starts_with("neg_")
}

impl Subscription {
    /// The id of the subscription on the upstream.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Names the window whose events are late if they come after EOSE.
    pub(crate) fn is_page_of(&self, window: Window) {
        self.connection.0.late.requested(&self.id, window);
    }

    /// Polls for the next message, without a limit of time. Fails as [`next`](Self::next) does.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Heard, StepError>> {
        self.heard.poll_recv(cx).map(|message| self.heard_of(message))
    }

    fn heard_of(&self, message: Option<(Heard, Held)>) -> Result<Heard, StepError> {
        match message {
            Some((Heard::Lost(why), _)) => Err(StepError::Connection(why)),
            Some((heard, _held)) => Ok(heard),
            None if self.connection.lost().is_none() => Err(StepError::Silent(format!(
                "this process did not process the upstream's messages within {} s; it or its \
                 database is overloaded",
                self.connection.0.target.patience.route.as_secs()
            ))),
            None => Err(self.connection.lost_error()),
        }
    }

    /// Whether nothing more can be heard, because this process did not process what came in time.
    pub(crate) fn is_over(&self) -> bool {
        self.heard.is_closed() && self.heard.is_empty()
    }

    /// Waits for the next message. Fails with [`StepError::Silent`] if there is none within
    /// `silence`, or if earlier messages were not processed in time, and with
    /// [`StepError::Connection`] if the connection is lost.
    pub(crate) async fn next(&mut self, silence: Duration) -> Result<Heard, StepError> {
        if let Ok(message) = tokio::time::timeout(silence, self.heard.recv()).await {
            return self.heard_of(message);
        }
        let seconds = silence.as_secs();
        Err(StepError::Silent(format!("the upstream was silent for {seconds} s")))
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
            let _full = self.connection.0.outgoing.try_send(Outgoing::Text(close, None));
        }
    }
}
