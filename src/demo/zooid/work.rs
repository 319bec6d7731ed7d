//! What a call does to the relays. It goes on when the client has left, as in zooid.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{body::Bytes, http::Method};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Fault, Shared, document, lock, route::Route, state::State};

/// The status and the JSON of an answer.
pub(super) type Answer = (u16, Value);

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
    /// first. With [`Fault::Late`] the caller does not wait, and there is no answer either.
    pub(super) async fn start(self, down: CancellationToken) -> Option<Answer> {
        let (answered, answer) = oneshot::channel();
        let stop = self.shared.stop.clone();
        let is_late = matches!(self.fault, Some(Fault::Late(_)));
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
        self.wait().await;
        let (status, effect, answer) = match self.check() {
            Ok(checked) => checked,
            Err(refused) => return refused,
        };
        if matches!(effect, Effect::Nothing) {
            return (status, answer);
        }
        self.shared.core.spend(self.cost()).await;
        if let Some(Fault::Race(gate)) = &self.fault {
            gate.pass().await;
        }
        if let Err(error) = effect.apply(&mut lock(&self.shared.state), &self.change.relay_id) {
            return failed(&format!("failed to save config: {error}"));
        }
        self.is_created.store(self.change.method == Method::POST, Ordering::Relaxed);
        (status, answer)
    }

    async fn wait(&self) {
        match &self.fault {
            Some(Fault::Delay(delay)) => {
                let _time = tokio::time::timeout(*delay, std::future::pending::<()>()).await;
            }
            Some(Fault::Hold(gate) | Fault::Late(gate)) => gate.pass().await,
            _ => {}
        }
    }

    fn check(&self) -> Checked {
        let mut state = lock(&self.shared.state);
        if let Err(error) = state.refresh() {
            return Err(failed(&format!("failed to read configs: {error}")));
        }
        let is_older = lock(&self.shared.rules).is_older;
        self.change.check(&state, is_older)
    }

    /// Returns the time that a write takes: it reads the file of every relay.
    fn cost(&self) -> Duration {
        let files = u32::try_from(lock(&self.shared.state).files()).unwrap_or(u32::MAX);
        lock(&self.shared.rules).cost_per_relay.saturating_mul(files)
    }
}

/// What an accepted request does.
enum Effect {
    Nothing,
    Save(Value),
    Delete,
}

impl Effect {
    fn apply(self, state: &mut State, relay_id: &str) -> io::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Save(document) => state.write(relay_id, Some(document)),
            Self::Delete => state.write(relay_id, None),
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
    /// The body; `None` if it is too long or broke off.
    pub(super) body: Option<Bytes>,
}

impl Change {
    fn check(&self, state: &State, is_older: bool) -> Checked {
        let is_broken = state.broken.contains(&self.relay_id);
        let exists = is_broken || state.documents.contains_key(&self.relay_id);
        match (self.route, &self.method) {
            (Route::Relay, &Method::POST) if exists => {
                error(409, "relay with this id already exists")
            }
            (Route::Relay, &Method::POST) => self.write(state, 201, "relay created successfully"),
            (Route::Relay, _) if !exists && is_older => error(409, "relay not found"),
            _ if !exists => error(404, "relay not found"),
            (Route::Relay, &Method::PUT) => self.write(state, 200, "relay updated successfully"),
            (Route::Relay, &Method::DELETE) => {
                Ok((200, Effect::Delete, json!({ "message": "relay deleted successfully" })))
            }
            _ if is_broken => Err(failed("failed to load config: toml: invalid document")),
            (Route::Relay, _) => self.write(state, 200, "relay patched successfully"),
            (Route::Members, _) => {
                Ok((200, Effect::Nothing, json!({ "members": state.members(&self.relay_id) })))
            }
        }
    }

    fn write(&self, state: &State, status: u16, message: &str) -> Checked {
        let Some(body) = &self.body else {
            return error(400, "failed to read body: http: request body too large");
        };
        let wanted = match state.documents.get(&self.relay_id) {
            Some(present) if self.method == Method::PATCH => document::patched(present, body),
            _ => document::whole(body),
        };
        let wanted = wanted.map_err(|words| (400, json!({ "error": words })))?;
        if let Some(words) = state.conflict(&self.relay_id, &wanted) {
            return error(409, &words);
        }
        Ok((status, Effect::Save(wanted), json!({ "message": message })))
    }
}

fn error(status: u16, words: &str) -> Checked {
    Err((status, json!({ "error": words })))
}

fn failed(words: &str) -> Answer {
    (500, json!({ "error": words }))
}
