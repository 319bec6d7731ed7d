//! What a call does to the relays. It goes on when the client has left, as in zooid.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{body::Bytes, http::Method};
use nostr::key::PublicKey;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Fault, Shared, State, document, lock};

/// The status and the JSON of an answer.
pub(super) type Answer = (u16, Value);

/// The resource that a path names.
#[derive(Debug, Clone, Copy)]
pub(super) enum Route {
    Relay,
    Members,
}

/// A request that was read and may be applied.
pub(super) struct Work {
    pub(super) shared: Arc<Shared>,
    pub(super) change: Change,
    pub(super) fault: Option<Fault>,
    /// Set when the call has created the relay.
    pub(super) is_created: Arc<AtomicBool>,
}

impl Work {
    /// Starts the work in a task of its own, and waits for its answer. `None` if the server ended
    /// first; with `is_late` the caller does not wait, and there is no answer either.
    pub(super) async fn start(self, down: CancellationToken, is_late: bool) -> Option<Answer> {
        let (answered, answer) = oneshot::channel();
        let stop = self.shared.stop.clone();
        tokio::spawn(async move {
            let done = down.run_until_cancelled(self.run());
            if let Some(Some(answer)) = stop.run_until_cancelled(done).await {
                // The client may have left.
                let _gone = answered.send(answer);
            }
        });
        if is_late {
            return None;
        }
        answer.await.ok()
    }

    /// Waits as the fault says, checks the request, and applies it.
    async fn run(self) -> Answer {
        match &self.fault {
            Some(Fault::Delay(delay)) => {
                let _time = tokio::time::timeout(*delay, std::future::pending::<()>()).await;
            }
            Some(Fault::Hold(gate) | Fault::Late(gate)) => gate.pass().await,
            _ => {}
        }
        let checked = self.change.check(&lock(&self.shared.state));
        if let Some(Fault::Race(gate)) = &self.fault {
            gate.pass().await;
        }
        let (status, effect, answer) = match checked {
            Ok(checked) => checked,
            Err(refused) => return refused,
        };
        effect.apply(&mut lock(&self.shared.state), &self.change.relay_id);
        let is_created = self.change.method == Method::POST;
        self.is_created.store(is_created, Ordering::Relaxed);
        (status, answer)
    }
}

/// What an accepted request does.
enum Effect {
    Nothing,
    Save(Value),
    Delete,
}

impl Effect {
    fn apply(self, state: &mut State, relay_id: &str) {
        match self {
            Self::Nothing => {}
            Self::Save(document) => state.save(relay_id, document),
            Self::Delete => state.remove(relay_id),
        }
    }
}

/// The status, the effect and the JSON of a request that is accepted, or the answer that refuses it.
type Checked = Result<(u16, Effect, Value), Answer>;

/// A request.
pub(super) struct Change {
    pub(super) relay_id: String,
    pub(super) method: Method,
    pub(super) route: Route,
    pub(super) caller: PublicKey,
    /// The body; `None` if it is too long or broke off.
    pub(super) body: Option<Bytes>,
}

impl Change {
    fn check(&self, state: &State) -> Checked {
        match self.route {
            Route::Relay => self.check_relay(state),
            Route::Members => self.members(state),
        }
    }

    fn check_relay(&self, state: &State) -> Checked {
        let exists = state.documents.contains_key(&self.relay_id);
        match self.method {
            Method::POST if exists => error(409, "relay with this id already exists"),
            Method::PUT | Method::PATCH | Method::DELETE if !exists => {
                error(404, "relay not found")
            }
            Method::POST => self.write(state, 201, "relay created successfully"),
            Method::PUT => self.write(state, 200, "relay updated successfully"),
            Method::PATCH => self.write(state, 200, "relay patched successfully"),
            Method::DELETE => {
                Ok((200, Effect::Delete, json!({ "message": "relay deleted successfully" })))
            }
            _ => error(405, "method not allowed"),
        }
    }

    fn write(&self, state: &State, status: u16, message: &str) -> Checked {
        let Some(body) = &self.body else { return error(400, "failed to read request body") };
        let Ok(sent @ Value::Object(_)) = serde_json::from_slice::<Value>(body) else {
            return error(400, "invalid json");
        };
        let mut wanted = match state.documents.get(&self.relay_id) {
            Some(document) if self.method == Method::PATCH => document.clone(),
            _ => json!({}),
        };
        document::merge(&mut wanted, sent);
        if let Some(problem) = document::problem(&wanted) {
            return error(400, problem);
        }
        for field in ["schema", "host"] {
            let value = wanted[field].as_str().unwrap_or_default();
            let owner = state.owners.get(&format!("{field}:{value}"));
            if owner.is_some_and(|owner| *owner != self.relay_id) {
                return error(409, &format!("{field} {value:?} is already in use"));
            }
        }
        Ok((status, Effect::Save(wanted), json!({ "message": message })))
    }

    fn members(&self, state: &State) -> Checked {
        if self.method != Method::GET {
            return error(405, "method not allowed");
        }
        if !state.documents.contains_key(&self.relay_id) {
            return error(404, "relay not found");
        }
        let known = state.members.get(&self.relay_id).cloned();
        let mut members = known.unwrap_or_else(|| vec![self.caller.to_hex()]);
        members.sort();
        Ok((200, Effect::Nothing, json!({ "members": members })))
    }
}

fn error(status: u16, words: &str) -> Checked {
    Err((status, json!({ "error": words })))
}
