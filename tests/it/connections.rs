//! Clients that open connections and do not use them.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    api::{TestApi, header, strict},
    eventually, patiently, settings,
};

async fn connect(api: &TestApi) -> TcpStream {
    TcpStream::connect(api.base_url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// What the server sends until it closes the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let _read_or_reset = patiently("the server closes it", stream.read_to_end(&mut bytes)).await;
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_connection_without_a_whole_head_is_closed() {
    let short = |config: &mut tender::config::ApiConfig| {
        config.connections.head_timeout = Duration::from_millis(200);
    };
    let api = TestApi::with(settings(), short).await;
    let silent = connect(&api).await;
    let mut half = connect(&api).await;
    half.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nx-").await.unwrap();
    let mut idle = connect(&api).await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_eq!(rest(silent).await, "");
    rest(half).await;
    assert!(rest(idle).await.starts_with("HTTP/1.1 200 OK"), "an answer, then idle");
}

#[tokio::test]
async fn one_address_cannot_take_every_connection() {
    let few = |config: &mut tender::config::ApiConfig| {
        config.connections.total = 30;
        config.connections.per_address = 20;
    };
    let api = TestApi::with(settings(), few).await;
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(connect(&api).await);
    }
    let refused = rest(connect(&api).await).await;
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 503"), "{refused}");
    let url = format!("{}/healthz", api.base_url);
    let answer = TestApi::stranger().get(&url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "another address is served");
    drop(open);
    eventually("the address is served again", async || {
        api.http.get(&url).send().await.is_ok_and(|answer| answer.status() == StatusCode::OK)
    })
    .await;
}

#[tokio::test]
async fn forged_requests_are_limited_by_address_and_leave_the_named_key_alone() {
    let api = TestApi::with_rate(2).await;
    let path = format!("/tenants/{}/relays", api.tenant.public_key().to_hex());
    let url = format!("{}{path}", api.base_url);
    let mut forged = strict(&api.tenant, &url, "GET", 0);
    forged.sig = strict(&api.admin, &url, "GET", 0).sig;
    let forged = header(&forged);
    let stranger = TestApi::stranger();
    let mut statuses = Vec::new();
    for _ in 0..200 {
        let answer = stranger.get(&url).header("authorization", &forged).send().await.unwrap();
        statuses.push(answer.status());
    }
    assert_eq!(statuses[0], StatusCode::UNAUTHORIZED);
    assert!(statuses.contains(&StatusCode::TOO_MANY_REQUESTS));
    let (status, _) = api.call(Method::GET, &path, None).await;
    assert_eq!(status, StatusCode::OK, "the tenant has its whole rate");
}
