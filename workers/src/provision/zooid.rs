//! The client of zooid's management API. It signs every request, reads bounded answers and does not
//! use the database.
//!
//! - `auth`: the NIP-98 signature. `body`: a relay as zooid's document. `answer`: reads and errors.

mod answer;
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
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;
use tender_jobs::provision::{instance::Instances, relay::Relay};

use crate::runtime::trace;
use answer::{MAX_ANSWER, MAX_MEMBERS, unreadable};
pub use body::{Blossom, Livekit};

/// The usual [`ZooidSettings::timeout`].
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings of the client.
#[derive(Debug, Clone)]
pub struct ZooidSettings {
    /// The API for every domain without an entry in `instances`.
    pub default_url: Url,
    /// The API by zooid domain.
    pub instances: HashMap<String, Url>,
    /// The key that signs every request.
    pub robot: Keys,
    /// The bucket for media; `None` if zooid stores them on its own disk.
    pub blossom: Option<Blossom>,
    /// The server for calls; `None` if relays have no calls.
    pub livekit: Option<Livekit>,
    /// The longest duration of one request, from the connect to the last byte. An attempt sends no
    /// request that could end after its lease of 30 s: with more than 25 s it sends none.
    pub timeout: Duration,
}

/// A client for all zooid instances.
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

/// A request to zooid failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ZooidError {
    /// zooid answered with a status other than 2xx.
    #[error("zooid answered {status}: {message}")]
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// zooid's text, bounded and without our secrets.
        message: String,
        /// The delay that zooid asked for in `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// There was no answer, or it could not be used; the text gives the reason.
    #[error("{0}")]
    Unreachable(String),
}

#[derive(Deserialize)]
struct Members {
    members: Vec<String>,
}

impl Zooid {
    /// Returns a client that keeps connections open and does not follow redirects.
    ///
    /// # Errors
    /// TLS could not be set up.
    pub fn new(settings: ZooidSettings) -> Result<Self, reqwest::Error> {
        let http = Client::builder()
            .timeout(settings.timeout)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("tender/", env!("CARGO_PKG_VERSION")))
            .pool_max_idle_per_host(64)
            .build()?;
        Ok(Self { http, settings })
    }

    /// Creates the relay with `POST /relay/{id}`, under a new secret that only zooid stores.
    ///
    /// # Errors
    /// See [`ZooidError`]. After [`ZooidError::Unreachable`] the relay may have been created.
    pub async fn create(&self, relay: &Relay) -> Result<(), ZooidError> {
        let secret = SecretString::from(Keys::generate().secret_key().to_secret_hex());
        let body = body::post(relay, &secret, self.blossom(), self.livekit());
        self.change(Method::POST, relay, &body, Some(&secret)).await
    }

    /// Changes the relay to its wanted state with `PATCH /relay/{id}`.
    ///
    /// # Errors
    /// See [`ZooidError`]. After [`ZooidError::Unreachable`] the relay may have been changed.
    pub async fn patch(&self, relay: &Relay) -> Result<(), ZooidError> {
        let body = body::patch(relay, self.blossom(), self.livekit());
        self.change(Method::PATCH, relay, &body, None).await
    }

    /// Returns the body of a change of this relay, with every secret masked, for display.
    pub fn preview(&self, relay: &Relay) -> Value {
        body::preview(relay, self.blossom(), self.livekit())
    }

    /// Returns the public keys of the members in hex, from `GET /relay/{id}/members`.
    ///
    /// # Errors
    /// See [`ZooidError`].
    pub async fn members(&self, relay: &Relay) -> Result<Vec<String>, ZooidError> {
        let url = self.url(relay, "/members")?;
        let response = self.send(Method::GET, url, None).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.refused(response, None).await);
        }
        let bytes = self.read(response, MAX_MEMBERS).await?;
        let answer: Members = serde_json::from_slice(&bytes)
            .map_err(|_| unreadable("zooid's list of members has an unexpected JSON shape"))?;
        Ok(answer.members)
    }

    /// Returns the zooid instances by domain. The name of an instance is its URL without
    /// credentials.
    pub fn instances(&self, max_in_flight: u32) -> Instances {
        let domains = self.settings.instances.iter();
        Instances {
            default: name_of(&self.settings.default_url),
            by_domain: domains.map(|(domain, url)| (domain.clone(), name_of(url))).collect(),
            max_in_flight: max_in_flight.into(),
        }
    }

    /// Checks that each instance answers and accepts our key. Returns the result by the API's URL.
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

    /// Requests the members of a relay that cannot exist. zooid answers 404 only to an accepted
    /// key.
    async fn check_one(&self, base: &Url) -> Result<(), ZooidError> {
        let url = endpoint(base, "00000000-0000-0000-0000-000000000000", "/members")?;
        let response = self.send(Method::GET, url, None).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(()),
            _ => Err(self.refused(response, None).await),
        }
    }

    /// Returns our public key, which zooid's `API_WHITELIST` must contain, as an npub.
    pub fn robot_npub(&self) -> String {
        let key = self.settings.robot.public_key();
        key.to_bech32().unwrap_or_else(|_| key.to_hex())
    }

    /// Returns the longest duration of one request.
    pub(super) fn timeout(&self) -> Duration {
        self.settings.timeout
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
        // A proxy may answer 200 with a page of its own; only a JSON object confirms the change.
        let bytes = self.read(response, MAX_ANSWER).await?;
        let answer: Option<Value> = serde_json::from_slice(&bytes).ok();
        match answer {
            Some(Value::Object(_)) => Ok(()),
            _ => Err(unreadable("zooid answered with success, but the body is no JSON object")),
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
        sent.map_err(|error| self.unreachable(&error))
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

/// Returns the name of an instance: its URL without credentials, query and fragment.
pub fn name_of(url: &Url) -> String {
    let mut url = url.clone();
    // Fails only for URLs that cannot have credentials; http URLs can.
    let _no_user = url.set_username("").and_then(|()| url.set_password(None));
    url.set_query(None);
    url.set_fragment(None);
    url.as_str().trim_end_matches('/').to_owned()
}

/// Returns `<base>/relay/<id><suffix>`.
fn endpoint(base: &Url, relay_id: &str, suffix: &str) -> Result<Url, ZooidError> {
    let path = format!("{}/relay/{relay_id}{suffix}", base.path().trim_end_matches('/'));
    base.join(&path).map_err(|error| unreadable(&format!("zooid's URL is invalid: {error}")))
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
