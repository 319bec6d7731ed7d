//! The password of the dashboard. Its hash takes 19 MiB and tens of milliseconds, so that the logins that are hashed, and
//! those that wait, are bounded: a flood of them delays a login, and nothing else.

use std::{sync::Arc, time::Duration};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// The longest password that is hashed, in bytes.
const LONGEST: usize = 1024;
/// The logins that are hashed or wait at the same time.
const PLACES: usize = 32;
/// The longest wait of a login for its hash.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Too many logins wait for their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy;

/// The hash of the password, and its queue.
pub(super) struct Password {
    hash: Option<String>,
    /// One hash at a time. A hash that has begun holds its permit to its end, also if its client leaves.
    slot: Arc<Semaphore>,
    places: Semaphore,
    longest_wait: Duration,
}

impl Password {
    pub(super) fn new(password: Option<&SecretString>) -> Self {
        let hash = password.and_then(|password| match hashed(password.expose_secret()) {
            Ok(hash) => Some(hash),
            Err(error) => {
                tracing::error!(%error, "DASHBOARD_PASSWORD cannot be used; login by password is off");
                None
            }
        });
        Self {
            hash,
            slot: Arc::new(Semaphore::new(1)),
            places: Semaphore::new(PLACES),
            longest_wait: LONGEST_WAIT,
        }
    }

    /// Whether this is the password.
    ///
    /// # Errors
    /// [`Busy`] if 32 logins are hashed or wait already, or if the turn did not come within 5 s.
    pub(super) async fn is(&self, given: String) -> Result<bool, Busy> {
        let Some(hash) = self.hash.clone().filter(|_| given.len() <= LONGEST) else {
            return Ok(false);
        };
        let _place = self.places.try_acquire().map_err(|_| Busy)?;
        let turn = timeout(self.longest_wait, self.slot.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| Busy)?.map_err(|_| Busy)?;
        let verified = tokio::task::spawn_blocking(move || verify(&hash, &given, turn));
        Ok(verified.await.unwrap_or(false))
    }
}

fn verify(hash: &str, given: &str, _turn: OwnedSemaphorePermit) -> bool {
    let hash = PasswordHash::new(hash);
    hash.is_ok_and(|hash| Argon2::default().verify_password(given.as_bytes(), &hash).is_ok())
}

/// Returns the hash of the password. A password that is a hash already is returned as it is.
fn hashed(password: &str) -> anyhow::Result<String> {
    if password.starts_with("$argon2") {
        return Ok(PasswordHash::new(password)?.to_string());
    }
    Ok(Argon2::default().hash_password(password.as_bytes())?.to_string())
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    fn password() -> Password {
        Password::new(Some(&SecretString::from("right")))
    }

    #[tokio::test]
    async fn the_password_is_right_and_others_are_wrong() {
        let password = password();
        assert_eq!(password.is("right".to_owned()).await, Ok(true));
        assert_eq!(password.is("wrong".to_owned()).await, Ok(false));
        assert_eq!(Password::new(None).is("right".to_owned()).await, Ok(false));
    }

    #[tokio::test]
    async fn logins_wait_for_their_turn_and_no_longer_than_they_may() {
        let password = Password { longest_wait: Duration::ZERO, ..password() };
        let turn = password.slot.clone().acquire_owned().await.expect("open");
        let all = join_all((0..40).map(|_| password.is("right".to_owned())));
        assert_eq!(all.await, vec![Err(Busy); 40]);
        assert_eq!(password.places.available_permits(), PLACES, "all places are free again");
        drop(turn);
        assert_eq!(password.is("right".to_owned()).await, Ok(true));
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let password = Password { longest_wait: Duration::MAX, ..password() };
        let _turn = password.slot.clone().acquire_owned().await.expect("open");
        let _places = password.places.acquire_many(32).await.expect("open");
        let refused = timeout(Duration::from_secs(30), password.is("right".to_owned())).await;
        assert_eq!(refused.expect("it does not wait"), Err(Busy));
    }

    #[tokio::test]
    async fn a_hash_that_has_begun_holds_its_turn_when_its_client_leaves() {
        // Some seconds of work: the look at the slot comes long before its end.
        let slow = "$argon2id$v=19$m=19456,t=60,p=1$c2FsdHNhbHQ$MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";
        let password = Password::new(Some(&SecretString::from(slow)));
        let mut login = Box::pin(password.is("right".to_owned()));
        assert!(timeout(Duration::ZERO, &mut login).await.is_err(), "the hash has begun");
        drop(login);
        assert_eq!(password.places.available_permits(), PLACES, "the client has left");
        assert!(password.slot.try_acquire().is_err(), "the hash has not ended");
    }
}
