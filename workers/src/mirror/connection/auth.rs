//! Authentication to an upstream (NIP-42). A challenge is only kept when it arrives; it is answered
//! when the upstream refuses a step with `auth-required`, once. The step is then repeated.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nostr::{
    event::{Event, EventBuilder, FinalizeEvent, Kind, Tag},
    key::Keys,
};
use serde_json::json;
use tokio::sync::{Mutex, watch};

use super::{Connection, locked};
use crate::mirror::error::StepError;

/// The longest wait for a challenge, and for the answer to an authentication.
const AUTH_WITHIN: Duration = Duration::from_secs(10);
/// More different challenges than this in a minute end the connection.
const MAX_CHALLENGES: u32 = 100;
/// The longest challenge, in bytes.
const MAX_CHALLENGE: usize = 1024;

/// A challenge of the upstream.
type Challenge = Arc<str>;

/// The challenges of an upstream, and our answer.
#[derive(Debug)]
pub(super) struct Auth {
    /// The newest challenge.
    newest: watch::Sender<Option<Challenge>>,
    /// Since when challenges are counted, and how many different ones came since.
    challenges: std::sync::Mutex<(Instant, u32)>,
    /// The challenge that was answered last, with the result. Whoever holds the lock authenticates;
    /// the others wait for the result.
    answered: Mutex<Option<(Challenge, Result<(), String>)>>,
}

impl Auth {
    pub(super) fn new() -> Self {
        Self {
            newest: watch::Sender::new(None),
            challenges: std::sync::Mutex::new((Instant::now(), 0)),
            answered: Mutex::new(None),
        }
    }

    /// Keeps a challenge. An upstream may repeat its challenge as often as it refuses a step. An
    /// error says why the connection must end.
    pub(super) fn challenged(&self, challenge: &str) -> Result<(), String> {
        if challenge.len() > MAX_CHALLENGE {
            return Err(format!("a challenge is longer than {MAX_CHALLENGE} bytes"));
        }
        let is_known = |newest: &Option<Challenge>| newest.as_deref() == Some(challenge);
        if is_known(&self.newest.borrow()) {
            return Ok(());
        }
        let mut counted = locked(&self.challenges);
        if counted.0.elapsed() > Duration::from_mins(1) {
            *counted = (Instant::now(), 0);
        }
        counted.1 += 1;
        if counted.1 > MAX_CHALLENGES {
            return Err(format!(
                "the upstream sent more than {MAX_CHALLENGES} challenges in a minute"
            ));
        }
        self.newest.send_replace(Some(Challenge::from(challenge)));
        Ok(())
    }

    /// Returns the newest challenge, or waits for the first one.
    async fn challenge(&self) -> Option<Challenge> {
        let mut newest = self.newest.subscribe();
        let first = newest.wait_for(Option::is_some);
        tokio::time::timeout(AUTH_WITHIN, first).await.ok()?.ok()?.clone()
    }
}

impl Connection {
    /// Authenticates after the upstream refused a step with `auth-required`. The caller repeats the
    /// step. Concurrent callers share one authentication, and a challenge is answered once.
    pub(crate) async fn authenticated(&self) -> Result<(), StepError> {
        let key = self.0.key.as_ref().ok_or_else(|| {
            StepError::Auth(
                "the upstream requires authentication, and no key is configured; set \
                 RELAY_PRIVATE_KEY"
                    .to_owned(),
            )
        })?;
        let mut result = Err("it sent no challenge within 10 s".to_owned());
        let mut answered = self.0.auth.answered.lock().await;
        // A second round, if the upstream sent another challenge meanwhile.
        for _ in 0..2 {
            let Some(newest) = self.0.auth.challenge().await else { break };
            result = match answered.as_ref() {
                Some((challenge, result)) if *challenge == newest => result.clone(),
                _ => self.answer(key, &newest).await?,
            };
            *answered = Some((newest, result.clone()));
            if result.is_ok() {
                return Ok(());
            }
        }
        result.map_err(|why| {
            StepError::Auth(format!("the upstream requires authentication, which failed: {why}"))
        })
    }

    /// Returns the challenge whose answer the upstream has accepted, if it was the last one.
    pub(crate) async fn accepted_challenge(&self) -> Option<Arc<str>> {
        let answered = self.0.auth.answered.lock().await;
        answered
            .as_ref()
            .filter(|(_, result)| result.is_ok())
            .map(|(challenge, _)| challenge.clone())
    }

    /// Answers a challenge. Returns the upstream's decision.
    async fn answer(&self, key: &Keys, challenge: &str) -> Result<Result<(), String>, StepError> {
        let Some(event) = signed(key, &self.0.target.url, challenge) else {
            return Ok(Err("our answer could not be signed".to_owned()));
        };
        let id = event.id.to_hex();
        let answer = self.send_for_answer("AUTH", &id, &json!(event)).await?;
        match tokio::time::timeout(AUTH_WITHIN, answer).await {
            Ok(Ok((true, _))) => Ok(Ok(())),
            Ok(Ok((false, reason))) => Ok(Err(reason)),
            Ok(Err(_)) => Err(self.lost_error()),
            Err(_) => {
                self.forget(&id);
                Ok(Err("it did not answer within 10 s".to_owned()))
            }
        }
    }
}

fn signed(key: &Keys, url: &str, challenge: &str) -> Option<Event> {
    let event = EventBuilder::new(Kind::Authentication, "")
        .tag(Tag::custom("relay", [url]))
        .tag(Tag::custom("challenge", [challenge]));
    event.finalize(key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_challenge_costs_nothing_and_too_many_end_the_connection() {
        let auth = Auth::new();
        for _ in 0..5000 {
            assert_eq!(auth.challenged("the same"), Ok(()));
        }
        let other = (0..5000).find_map(|index| auth.challenged(&format!("no. {index}")).err());
        assert!(other.expect("an error").contains("challenges in a minute"));
        assert!(Auth::new().challenged(&"x".repeat(MAX_CHALLENGE + 1)).is_err());
    }
}
