//! Tokens of event sync's API: made once, shown once, and recognised by their HMAC under the server's
//! secret, so that neither rows nor logs hold what opens anything.

use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use sqlx::PgPool;
use tender_jobs::api_key::{self, ApiKey};
use uuid::Uuid;

use crate::dashboard::random_token;

/// What every token begins with.
const PREFIX: &str = "rlk_";
/// Characters of a token that are kept, to tell keys apart.
const SHOWN: usize = 8;
/// Characters of a token: the prefix, and 32 bytes in URL-safe base64.
pub const LENGTH: usize = 47;

/// A new key with its token, which nobody sees again.
#[derive(Debug)]
pub struct NewKey {
    /// Its row.
    pub key: ApiKey,
    /// What opens the API.
    pub token: String,
}

/// Makes a key.
///
/// # Errors
/// The database did not answer.
pub async fn create(db: &PgPool, secret: &SecretString, name: &str) -> Result<NewKey, sqlx::Error> {
    let token = format!("{PREFIX}{}", random_token());
    let key = api_key::create(db, name, &token[..SHOWN], &digest(secret, &token)).await?;
    Ok(NewKey { key, token })
}

/// The active key that a token opens. Looked up by its digest: what takes how long says nothing of the
/// token.
///
/// # Errors
/// The database did not answer.
pub async fn authenticate(
    db: &PgPool,
    secret: &SecretString,
    token: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    if token.len() != LENGTH || !token.starts_with(PREFIX) {
        return Ok(None);
    }
    api_key::authenticate(db, &digest(secret, token)).await
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn digest(secret: &SecretString, token: &str) -> [u8; 32] {
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes())
        .expect("any length is a key");
    hmac.update(token.as_bytes());
    hmac.finalize().into_bytes().into()
}
