//! zooid's management API: URLs, signatures, bounded answers. No database here.

mod auth;
mod body;

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

use metrics::{counter, histogram};
use nostr::{key::Keys, nips::nip19::ToBech32};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use tender_jobs::{queue::instance::Instances, relay::Relay};

use crate::trace;
pub use body::{Blossom, Livekit};

/// Longest wait for one request, from connect to the last byte.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The most that is read of an answer to a change.
const MAX_ANSWER: usize = 64 * 1024;
/// The most that is read of a list of members: about 60,000 keys.
const MAX_MEMBERS: usize = 4 * 1024 * 1024;

/// Where zooid is and how to speak to it.
#[derive(Debug, Clone)]
pub struct ZooidSettings {
    /// The API for every domain that has no instance of its own.
    pub default_url: Url,
    /// zooid domain → API.
    pub instances: HashMap<String, Url>,
    /// Signs every request.
    pub robot: Keys,
    /// Where relays keep media, if not on zooid's own disk.
    pub blossom: Option<Blossom>,
    /// Where relays hold calls.
    pub livekit: Option<Livekit>,
}

/// A client for all instances.
pub struct Zooid {
    http: Client,
    settings: ZooidSettings,
}

impl fmt::Debug for Zooid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zooid")
            .field("default_url", &self.settings.default_url.as_str())
            .finish_non_exhaustive()
    }
}

/// Why a request did not succeed, by what it means for the caller.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ZooidError {
    /// zooid answered with another status than success.
    #[error("zooid answered {status}: {message}")]
    Refused {
        /// What it answered.
        status: StatusCode,
        /// Its words in one bounded line, without our secrets.
        message: String,
        /// How long it asked us to wait (429, 503).
        retry_after: Option<Duration>,
    },
    /// No answer, or none that could be read.
    #[error("{0}")]
    Unreachable(String),
}

/// The two shapes that the API answers with.
#[derive(Deserialize)]
struct Words {
    error: Option<String>,
}

#[derive(Deserialize)]
struct Members {
    members: Vec<String>,
}

impl Zooid {
    /// A client. It keeps connections open, follows no redirect and trusts no answer's size.
    ///
    /// # Errors
    /// TLS could not be set up.
    pub fn new(settings: ZooidSettings) -> Result<Self, reqwest::Error> {
        let http = Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("tender/", env!("CARGO_PKG_VERSION")))
            .pool_max_idle_per_host(64)
            .build()?;
        Ok(Self { http, settings })
    }

    /// `POST /relay/{id}`: creates the relay with a fresh secret, which nobody keeps but zooid.
    ///
    /// # Errors
    /// [`ZooidError`].
    pub async fn create(&self, relay: &Relay) -> Result<(), ZooidError> {
        let secret = SecretString::from(Keys::generate().secret_key().to_secret_hex());
        let body = body::post(relay, &secret, self.blossom(), self.livekit());
        self.change(Method::POST, relay, &body, Some(&secret)).await
    }

    /// `PATCH /relay/{id}`: changes it to what is wanted.
    ///
    /// # Errors
    /// [`ZooidError`].
    pub async fn patch(&self, relay: &Relay) -> Result<(), ZooidError> {
        let body = body::patch(relay, self.blossom(), self.livekit());
        self.change(Method::PATCH, relay, &body, None).await
    }

    /// The body that a change of this relay would send, with every secret masked: for people.
    pub fn preview(&self, relay: &Relay) -> Value {
        body::preview(relay, self.blossom(), self.livekit())
    }

    /// `GET /relay/{id}/members`: the members' keys in hex.
    ///
    /// # Errors
    /// [`ZooidError`].
    pub async fn members(&self, relay: &Relay) -> Result<Vec<String>, ZooidError> {
        let url = self.url(relay, "/members")?;
        let response = self.send(Method::GET, url, None).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.refused(response, None).await);
        }
        let bytes = read(response, MAX_MEMBERS).await?;
        let answer: Members = serde_json::from_slice(&bytes)
            .map_err(|_| unreadable("zooid's list of members is no JSON of the expected shape"))?;
        Ok(answer.members)
    }

    /// Which instance serves which domain, by name: its URL without credentials.
    pub fn instances(&self, max_in_flight: u32) -> Instances {
        let domains = self.settings.instances.iter();
        Instances {
            default: name_of(&self.settings.default_url),
            by_domain: domains.map(|(domain, url)| (domain.clone(), name_of(url))).collect(),
            max_in_flight: max_in_flight.into(),
        }
    }

    /// Whether each instance answers and knows our key: the API's URL with what it said.
    pub async fn check(&self) -> Vec<(String, Result<(), ZooidError>)> {
        let mut urls: Vec<&Url> = self.settings.instances.values().collect();
        urls.push(&self.settings.default_url);
        urls.sort();
        urls.dedup();
        let mut found = Vec::new();
        for url in urls {
            found.push((url.to_string(), self.check_one(url).await));
        }
        found
    }

    /// Asks for the members of a relay that cannot be: "not found" is an answer to a known key.
    async fn check_one(&self, base: &Url) -> Result<(), ZooidError> {
        let url = endpoint(base, "00000000-0000-0000-0000-000000000000", "/members")?;
        let response = self.send(Method::GET, url, None).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(()),
            _ => Err(self.refused(response, None).await),
        }
    }

    /// The public key that an operator puts on `API_WHITELIST`.
    pub fn robot_npub(&self) -> String {
        let key = self.settings.robot.public_key();
        key.to_bech32().unwrap_or_else(|_| key.to_hex())
    }

    async fn change(
        &self,
        method: Method,
        relay: &Relay,
        body: &Value,
        secret: Option<&SecretString>,
    ) -> Result<(), ZooidError> {
        let url = self.url(relay, "")?;
        let response = self.send(method, url, Some(body)).await?;
        if !response.status().is_success() {
            return Err(self.refused(response, secret).await);
        }
        // A proxy's welcome page is a 200 too: only zooid's JSON says that the change was made.
        let bytes = read(response, MAX_ANSWER).await?;
        let answer: Option<Value> = serde_json::from_slice(&bytes).ok();
        match answer {
            Some(Value::Object(_)) => Ok(()),
            _ => {
                Err(unreadable("zooid's answer is no JSON object, though its status says success"))
            }
        }
    }

    #[tracing::instrument(name = "zooid", skip_all, fields(method = %method))]
    async fn send(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> Result<Response, ZooidError> {
        let bytes = body.map(Value::to_string);
        let authorization = auth::header(&self.settings.robot, &method, &url, bytes.as_deref())?;
        let mut request =
            self.http.request(method.clone(), url).header("authorization", authorization);
        if let Some(bytes) = bytes {
            request = request.header("content-type", "application/json").body(bytes);
        }
        if let Some(traceparent) = trace::current() {
            request = request.header("traceparent", traceparent);
        }
        let started = Instant::now();
        let sent = request.send().await;
        histogram!("tender_zooid_request_duration_seconds").record(started.elapsed().as_secs_f64());
        let class = sent.as_ref().map_or("error", |response| class(response.status()));
        counter!("tender_zooid_requests_total", "method" => method.to_string(), "class" => class)
            .increment(1);
        sent.map_err(|error| unreachable(&error))
    }

    /// The error of an answer without success, in words that are safe to show and to store.
    async fn refused(&self, response: Response, secret: Option<&SecretString>) -> ZooidError {
        let status = response.status();
        let retry_after = retry_after(&response);
        let bytes = match read(response, MAX_ANSWER).await {
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

    /// zooid's words, with what an operator has to do where it is an operator's mistake.
    fn explain(&self, status: StatusCode, text: &str) -> String {
        match status {
            StatusCode::FORBIDDEN => {
                format!("{text}; zooid refused our key: add {} to API_WHITELIST", self.robot_npub())
            }
            StatusCode::UNAUTHORIZED => format!(
                "{text}; zooid refused our signature: its address must be as in ZOOID_API_URL or \
                 ZOOID_INSTANCES, scheme and port included"
            ),
            _ => text.to_owned(),
        }
    }

    /// Should zooid repeat what we sent, our secrets do not go further.
    fn redact(&self, text: &str, secret: Option<&SecretString>) -> String {
        let blossom = self.blossom().into_iter().flat_map(|b| [&b.access_key, &b.secret_key]);
        let livekit = self.livekit().into_iter().flat_map(|l| [&l.api_key, &l.api_secret]);
        secret
            .into_iter()
            .chain(blossom)
            .chain(livekit)
            .fold(text.to_owned(), |text, secret| text.replace(secret.expose_secret(), "[secret]"))
    }

    fn blossom(&self) -> Option<&Blossom> {
        self.settings.blossom.as_ref()
    }

    fn livekit(&self) -> Option<&Livekit> {
        self.settings.livekit.as_ref()
    }

    fn url(&self, relay: &Relay, suffix: &str) -> Result<Url, ZooidError> {
        let base = self.settings.instances.get(&relay.zooid_domain);
        endpoint(base.unwrap_or(&self.settings.default_url), relay.id.as_str(), suffix)
    }
}

/// An instance's name: where it is, and no secret.
fn name_of(url: &Url) -> String {
    let mut url = url.clone();
    // Refused only by URLs that cannot have a user; http has.
    let _no_user = url.set_username("").and_then(|()| url.set_password(None));
    url.set_query(None);
    url.set_fragment(None);
    url.as_str().trim_end_matches('/').to_owned()
}

/// `<base>/relay/<id><suffix>`.
fn endpoint(base: &Url, relay_id: &str, suffix: &str) -> Result<Url, ZooidError> {
    let path = format!("{}/relay/{relay_id}{suffix}", base.path().trim_end_matches('/'));
    base.join(&path).map_err(|error| unreadable(&format!("zooid's URL is wrong: {error}")))
}

/// Reads an answer of at most `limit` bytes.
async fn read(mut response: Response, limit: usize) -> Result<Vec<u8>, ZooidError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
        if bytes.len() + chunk.len() > limit {
            return Err(unreadable("zooid's answer is too long"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// `Retry-After` in seconds; its form as a date is not used by zooid or the proxies before it.
fn retry_after(response: &Response) -> Option<Duration> {
    let header = response.headers().get("retry-after")?.to_str().ok()?;
    header.trim().parse().ok().map(Duration::from_secs)
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "other",
    }
}

fn unreadable(text: &str) -> ZooidError {
    ZooidError::Unreachable(text.to_owned())
}

/// What failed on the way, without the URL (it is the operator's own) and with the innermost cause.
fn unreachable(error: &reqwest::Error) -> ZooidError {
    let what = if error.is_timeout() {
        "zooid did not answer within 5 s"
    } else if error.is_connect() {
        "could not connect to zooid"
    } else {
        "zooid's answer broke off or could not be read"
    };
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause.and_then(std::error::Error::source) {
        cause = Some(inner);
    }
    ZooidError::Unreachable(match cause {
        Some(cause) if !error.is_timeout() => format!("{what}: {cause}"),
        _ => what.to_owned(),
    })
}
