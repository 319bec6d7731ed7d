//! The client of zooid's management API. It signs every request, reads bounded answers and does not
//! use the database.
//!
//! - `auth`: the NIP-98 signature. `body`: a relay as zooid's document. `identity`: a relay's secret.
//! - `answer`: reads of answers. `error`: what can fail. `redact`: no secret in an error's text.
//! - `check`: whether an instance answers and accepts our key.

mod answer;
mod auth;
mod body;
mod check;
mod error;
mod identity;
mod redact;

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
use tender_jobs::provision::{
    instance::Instances,
    relay::{Relay, RelayId},
};

use crate::runtime::trace;
use answer::{MAX_ANSWER, MAX_MEMBERS, unreadable};
pub use body::{Blossom, Livekit};
pub use check::Checked;
pub use error::ZooidError;

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
            .connect_timeout(connect_timeout(settings.timeout))
            .redirect(redirect::Policy::none())
            .user_agent(concat!("tender/", env!("CARGO_PKG_VERSION")))
            .pool_max_idle_per_host(64)
            .build()?;
        Ok(Self { http, settings })
    }

    /// Creates the relay with `POST /relay/{id}`, under its derived identity.
    ///
    /// # Errors
    /// See [`ZooidError`].
    pub async fn create(&self, relay: &Relay) -> Result<(), ZooidError> {
        self.change(Method::POST, relay, Some(&self.whole(relay))).await
    }

    /// Changes the relay to its wanted state with `PATCH /relay/{id}`. Its identity stays.
    ///
    /// # Errors
    /// See [`ZooidError`].
    pub async fn patch(&self, relay: &Relay) -> Result<(), ZooidError> {
        let body = body::patch(relay, self.blossom(), self.livekit());
        self.change(Method::PATCH, relay, Some(&body)).await
    }

    /// Replaces the relay's whole document with `PUT /relay/{id}`, which zooid also accepts for a file
    /// that it cannot read. The relay has its derived identity afterwards.
    ///
    /// # Errors
    /// See [`ZooidError`].
    pub async fn replace(&self, relay: &Relay) -> Result<(), ZooidError> {
        self.change(Method::PUT, relay, Some(&self.whole(relay))).await
    }

    /// Deletes the relay with `DELETE /relay/{id}`.
    ///
    /// # Errors
    /// See [`ZooidError`]. After [`ZooidError::NotFound`] the relay is gone.
    pub async fn delete(&self, relay: &Relay) -> Result<(), ZooidError> {
        self.change(Method::DELETE, relay, None).await
    }

    /// Returns the public key, in hex, under which [`create`](Self::create) and
    /// [`replace`](Self::replace) put a relay. A relay that an earlier release created has another.
    pub fn identity(&self, relay_id: &RelayId) -> String {
        identity::keys(&self.settings.robot, relay_id).public_key().to_hex()
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
            return Err(self.refused(response, Some(&relay.id)).await);
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
            timeout: self.settings.timeout,
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
        body: Option<&Value>,
    ) -> Result<(), ZooidError> {
        let url = self.url(relay, "")?;
        let response = self.send(method, url, body).await?;
        if !response.status().is_success() {
            return Err(self.refused(response, Some(&relay.id)).await);
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
        sent.map_err(|error| self.unanswered(&error))
    }

    /// Returns the whole document of a relay, with its secret.
    fn whole(&self, relay: &Relay) -> Value {
        let secret = identity::secret(&self.settings.robot, &relay.id);
        let secret = SecretString::from(secret.to_secret_hex());
        body::post(relay, &secret, self.blossom(), self.livekit())
    }

    fn blossom(&self) -> Option<&Blossom> {
        self.settings.blossom.as_ref()
    }

    fn livekit(&self) -> Option<&Livekit> {
        self.settings.livekit.as_ref()
    }

    fn url(&self, relay: &Relay, suffix: &str) -> Result<Url, ZooidError> {
        endpoint(self.base(relay), relay.id.as_str(), suffix)
    }

    /// Returns the API of a relay's instance.
    fn base(&self, relay: &Relay) -> &Url {
        self.settings.instances.get(&relay.zooid_domain).unwrap_or(&self.settings.default_url)
    }
}

/// Returns how long a connection may take to open. It is shorter than a request, so that a request that
/// was never sent is told from one that was not answered.
fn connect_timeout(timeout: Duration) -> Duration {
    timeout / 2
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
    base.join(&path)
        .map_err(|error| ZooidError::Unreachable(format!("zooid's URL is invalid: {error}")))
}

/// The classes of answers as metrics name them; `error` if there was none.
pub const CLASSES: [&str; 6] = ["2xx", "3xx", "4xx", "5xx", "other", "error"];

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "other",
    }
}
