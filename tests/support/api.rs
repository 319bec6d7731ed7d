//! The API on a free port, and clients that sign for it.

use std::{net::SocketAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use nostr::{
    event::{Event, EventBuilder, FinalizeEvent, Kind, Tag},
    key::Keys,
    types::Timestamp,
};
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use tender::{
    config::{ApiConfig, ConnectionLimits},
    http::{self, Api},
};
use tender_workers::provision::Settings;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{DOMAIN, World};

pub struct TestApi {
    pub world: World,
    pub base_url: String,
    pub admin: Keys,
    pub tenant: Keys,
    pub http: reqwest::Client,
    _stop: DropGuard,
}

impl TestApi {
    pub async fn new() -> Self {
        Self::with_rate(10_000).await
    }

    pub async fn with_rate(rate_limit: u32) -> Self {
        Self::with(super::settings(), |config| config.rate_limit = rate_limit).await
    }

    pub async fn with(settings: Settings, tune: impl FnOnce(&mut ApiConfig)) -> Self {
        let world = World::with(settings, |_| {}).await;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let admin = Keys::generate();
        let mut config = config_of(base_url.clone(), admin.public_key());
        tune(&mut config);
        let stop = CancellationToken::new();
        let api = Api::new(world.db.clone(), Some(Arc::clone(&world.context.zooid)), config);
        tokio::spawn(http::serve(listener, api, stop.clone()));
        Self {
            world,
            base_url,
            admin,
            tenant: Keys::generate(),
            http: reqwest::Client::new(),
            _stop: stop.drop_guard(),
        }
    }

    /// Another process on the same ledger, with another configuration; its base URL.
    pub async fn beside(&self, tune: impl FnOnce(&mut ApiConfig)) -> (String, DropGuard) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let mut config = config_of(base_url.clone(), self.admin.public_key());
        tune(&mut config);
        let (stop, zooid) = (CancellationToken::new(), Arc::clone(&self.world.context.zooid));
        let api = Api::new(self.world.db.clone(), Some(zooid), config);
        tokio::spawn(http::serve(listener, api, stop.clone()));
        (base_url, stop.drop_guard())
    }

    /// A request with a strict event, as the tenant.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        self.call_as(&self.tenant, method, path, body).await
    }

    pub async fn call_as(
        &self,
        keys: &Keys,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let event = strict(keys, &format!("{}{path}", self.base_url), method.as_str(), 0);
        let body = body.map(|body| body.to_string().into_bytes());
        answer(self.send(method, path, Some(&header(&event)), body).await).await
    }

    /// A client whose connections come from another address than those of [`TestApi::http`].
    pub fn stranger() -> reqwest::Client {
        reqwest::Client::builder()
            .local_address(std::net::IpAddr::from([127, 0, 0, 2]))
            .build()
            .unwrap()
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        body: Option<Vec<u8>>,
    ) -> Response {
        let mut request = self.http.request(method, format!("{}{path}", self.base_url));
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        request.send().await.unwrap()
    }
}

fn config_of(base_url: String, admin: nostr::key::PublicKey) -> ApiConfig {
    ApiConfig {
        bind: SocketAddr::from(([127, 0, 0, 1], 0)),
        base_url,
        admins: vec![admin],
        relay_domain: DOMAIN.to_owned(),
        domains: vec![DOMAIN.to_owned(), "other.test".to_owned(), "far.test".to_owned()],
        instances: tender_jobs::provision::instance::Instances {
            timeout: std::time::Duration::ZERO,
            default: "http://zooid.test".to_owned(),
            by_domain: [("far.test".to_owned(), "http://other-zooid.test".to_owned())].into(),
            max_in_flight: 32,
        },
        relays_per_tenant: 100,
        rate_limit: 10_000,
        connections: ConnectionLimits::default(),
        proxies: tender::config::Proxies::default(),
        stats_auth: true,
        metrics_bind: None,
        backoff: tender_jobs::provision::backoff::Backoff::default(),
        exhausted_after: std::time::Duration::from_hours(6),
        viewers: vec![],
        dashboard_password: None,
        key_secret: Some("a secret of the tests".into()),
        allow_private_upstreams: false,
    }
}

pub async fn answer(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// An event of kind 27235 whose time is `shift` seconds from now.
pub fn strict(keys: &Keys, url: &str, method: &str, shift: i64) -> Event {
    event(keys, Kind::HttpAuth, vec![tag("u", url), tag("method", method)], shift)
}

pub fn event(keys: &Keys, kind: Kind, tags: Vec<Tag>, shift: i64) -> Event {
    let at = Timestamp::now().as_secs().checked_add_signed(shift).unwrap();
    EventBuilder::new(kind, "")
        .tags(tags)
        .custom_created_at(Timestamp::from(at))
        .finalize(keys)
        .unwrap()
}

pub fn tag(name: &str, value: &str) -> Tag {
    Tag::custom(name, [value])
}

pub fn header(event: &Event) -> String {
    format!("Nostr {}", STANDARD.encode(serde_json::to_string(event).unwrap()))
}
