//! Authentication to an upstream (NIP-42). A challenge is answered as soon as it arrives; a step
//! that was refused waits for the result and is then repeated.

use std::time::Duration;

use nostr::{
    event::{Event, EventBuilder, FinalizeEvent, Kind, Tag},
    key::Keys,
};
use serde_json::json;
use tokio::sync::oneshot;

use super::{Connection, locked};
use crate::mirror::error::StepError;

/// The longest wait for a challenge, and for the answer to an authentication.
const AUTH_WITHIN: Duration = Duration::from_secs(10);

/// The state of the authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Auth {
    /// No challenge was received.
    Unasked,
    /// The answer to a challenge was sent.
    Asked,
    Done,
    /// The upstream refused the answer, for this reason.
    Refused(String),
}

impl Connection {
    /// Waits until the upstream has accepted our authentication. The caller repeats the step that
    /// was refused.
    pub(crate) async fn authenticated(&self) -> Result<(), StepError> {
        if self.0.key.is_none() {
            return Err(StepError::Auth(
                "the upstream requires authentication, and no key is configured; set \
                 RELAY_PRIVATE_KEY"
                    .to_owned(),
            ));
        }
        let mut auth = self.0.auth.subscribe();
        let decided = auth.wait_for(|auth| matches!(auth, Auth::Done | Auth::Refused(_)));
        let Ok(Ok(decided)) = tokio::time::timeout(AUTH_WITHIN, decided).await else {
            return Err(StepError::Auth(
                "the upstream requires authentication, but sent no challenge, or did not answer \
                 ours, within 10 s"
                    .to_owned(),
            ));
        };
        match &*decided {
            Auth::Refused(reason) => {
                Err(StepError::Auth(format!("the upstream refused our authentication: {reason}")))
            }
            _ => Ok(()),
        }
    }

    /// Answers a challenge in a separate task, because signing must not stop the socket from being
    /// read. Without a key, the challenge stays unanswered.
    pub(super) fn answer(&self, challenge: &str) {
        let Some(key) = self.0.key.clone() else { return };
        let (connection, challenge) = (self.clone(), challenge.to_owned());
        connection.0.auth.send_replace(Auth::Asked);
        tokio::spawn(async move {
            let Some(event) = signed(&key, &connection.0.url, &challenge) else { return };
            if let Some(auth) = connection.authenticate(&event).await {
                connection.0.auth.send_replace(auth);
            }
        });
    }

    /// Sends the answer to a challenge and waits for the result; `None` if the connection is lost.
    async fn authenticate(&self, event: &Event) -> Option<Auth> {
        let (sender, answer) = oneshot::channel();
        locked(&self.0.sent).insert(event.id.to_hex(), sender);
        self.send(&json!(["AUTH", event])).await.ok()?;
        Some(match tokio::time::timeout(AUTH_WITHIN, answer).await {
            Ok(Ok((true, _))) => Auth::Done,
            Ok(Ok((false, reason))) => Auth::Refused(reason),
            _ => Auth::Refused("no answer within 10 s".to_owned()),
        })
    }
}

fn signed(key: &Keys, url: &str, challenge: &str) -> Option<Event> {
    let event = EventBuilder::new(Kind::Authentication, "")
        .tag(Tag::custom("relay", [url]))
        .tag(Tag::custom("challenge", [challenge]));
    event.finalize(key).ok()
}
