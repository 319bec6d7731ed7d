//! The answers of zooid: bounded reads, and error texts that are safe to store and to show.

use std::time::Duration;

use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{Zooid, ZooidError};

/// The longest answer to a change, in bytes.
pub(super) const MAX_ANSWER: usize = 64 * 1024;
/// The longest list of members, in bytes: about 60,000 keys.
pub(super) const MAX_MEMBERS: usize = 4 * 1024 * 1024;

/// An answer that describes an error.
#[derive(Deserialize)]
struct Words {
    error: Option<String>,
}

impl Zooid {
    /// Returns the error for an answer without success. Its text is bounded and holds none of our
    /// secrets.
    pub(super) async fn refused(
        &self,
        response: Response,
        secret: Option<&SecretString>,
    ) -> ZooidError {
        let status = response.status();
        let retry_after = retry_after(&response);
        let bytes = match self.read(response, MAX_ANSWER).await {
            Ok(bytes) => bytes,
            Err(_) => b"(its answer broke off)".to_vec(),
        };
        let words: Option<Words> = serde_json::from_slice(&bytes).ok();
        let text = words
            .and_then(|words| words.error)
            .unwrap_or_else(|| String::from_utf8_lossy(&bytes).chars().take(300).collect());
        let message = self.explain(status, &self.redact(&text, secret));
        ZooidError::Refused { status, message, retry_after }
    }

    /// Adds the remedy to zooid's text if the cause is the operator's configuration.
    fn explain(&self, status: StatusCode, text: &str) -> String {
        match status {
            StatusCode::FORBIDDEN => {
                format!("{text}; zooid refused our key: add {} to API_WHITELIST", self.robot_npub())
            }
            StatusCode::UNAUTHORIZED => format!(
                "{text}; zooid refused our signature: ZOOID_API_URL or ZOOID_INSTANCES must give \
                 zooid's own address, with scheme and port"
            ),
            _ => text.to_owned(),
        }
    }

    /// Removes our secrets from zooid's text, because zooid may repeat the request.
    fn redact(&self, text: &str, secret: Option<&SecretString>) -> String {
        let blossom = self.blossom().into_iter().flat_map(|b| [&b.access_key, &b.secret_key]);
        let livekit = self.livekit().into_iter().flat_map(|l| [&l.api_key, &l.api_secret]);
        secret
            .into_iter()
            .chain(blossom)
            .chain(livekit)
            .fold(text.to_owned(), |text, secret| text.replace(secret.expose_secret(), "[secret]"))
    }

    /// Reads an answer of at most `limit` bytes; a longer answer is an error.
    pub(super) async fn read(
        &self,
        mut response: Response,
        limit: usize,
    ) -> Result<Vec<u8>, ZooidError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + chunk.len() > limit {
                return Err(unreadable("zooid's answer is too long"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Returns the error for a request without an answer, with the innermost cause. The URL is left
    /// out, because it may hold the operator's credentials.
    pub(super) fn unreachable(&self, error: &reqwest::Error) -> ZooidError {
        if error.is_timeout() {
            let seconds = self.timeout().as_secs_f64();
            return unreadable(&format!("zooid did not answer within {seconds} s"));
        }
        let what = if error.is_connect() {
            "could not connect to zooid"
        } else {
            "zooid's answer broke off or could not be read"
        };
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause.and_then(std::error::Error::source) {
            cause = Some(inner);
        }
        unreadable(&cause.map_or_else(|| what.to_owned(), |cause| format!("{what}: {cause}")))
    }
}

/// Returns `Retry-After` if it is in seconds. zooid and the proxies in front of it do not send
/// dates.
fn retry_after(response: &Response) -> Option<Duration> {
    let header = response.headers().get("retry-after")?.to_str().ok()?;
    header.trim().parse().ok().map(Duration::from_secs)
}

/// Returns the error for an answer that cannot be used.
pub(super) fn unreadable(text: &str) -> ZooidError {
    ZooidError::Unreachable(text.to_owned())
}
