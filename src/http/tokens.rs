//! Bearer tokens of requests. A flood of wrong tokens costs the database no more queries than the
//! limit of failed requests allows.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use secrecy::SecretString;
use tender_jobs::console::api_key::{self, Holder};

use super::{Api, ApiError};
use crate::tokens;

/// The least time between two reads of the active keys.
const READ_EVERY: Duration = Duration::from_secs(2);

/// The digests of active keys, as they were read last. They only decide which requests are counted
/// before the database is asked; every request is checked there.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    digests: HashSet<[u8; 32]>,
    read_at: Option<Instant>,
}

impl Tokens {
    fn has(&self, digest: &[u8; 32]) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).digests.contains(digest)
    }

    /// Whether the digests are to be read; then no other request reads them.
    fn begins_to_read(&self) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = known.read_at.is_none_or(|at| at.elapsed() >= READ_EVERY);
        if is_due {
            known.read_at = Some(Instant::now());
        }
        is_due
    }

    fn set(&self, digests: HashSet<[u8; 32]>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).digests = digests;
    }
}

/// Returns the active key of a token, after both limits; `None` if the token is wrong. `address` is
/// that of the client.
pub(super) async fn holder(
    api: &Api,
    secret: &SecretString,
    token: Option<&str>,
    address: &str,
) -> Result<Option<Holder>, ApiError> {
    let digest = token.and_then(|token| tokens::digest_of(secret, token));
    let is_known = match digest {
        Some(digest) => is_known(api, &digest).await?,
        None => false,
    };
    if !is_known {
        api.limits.check_failed(address).map_err(ApiError::TooManyRequests)?;
    }
    let Some(digest) = digest else { return Ok(None) };
    let holder = api_key::authenticate(&api.db, &digest).await?;
    if let Some(holder) = &holder {
        let limited = api.limits.check_authenticated(&format!("key {}", holder.id), address);
        limited.map_err(ApiError::TooManyRequests)?;
    }
    Ok(holder)
}

async fn is_known(api: &Api, digest: &[u8; 32]) -> Result<bool, ApiError> {
    if !api.tokens.has(digest) && api.tokens.begins_to_read() {
        api.tokens.set(api_key::digests(&api.db).await?.into_iter().collect());
    }
    Ok(api.tokens.has(digest))
}
