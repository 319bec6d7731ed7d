//! One trace from the request through the job's row to the call of zooid, at a real collector.

use std::sync::{Arc, Mutex};

use axum::{Json, Router, extract::State, routing::post};
use nostr::key::Keys;
use serde_json::Value;

use crate::{
    stand_in,
    support::{
        World,
        api::{header, strict},
        eventually,
        process::Tender,
        server::free_port,
    },
};

type Spans = Arc<Mutex<Vec<Value>>>;

async fn take(State(spans): State<Spans>, Json(sent): Json<Value>) -> Json<Value> {
    let each = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    for resource in each(&sent, "resourceSpans") {
        for scope in each(&resource, "scopeSpans") {
            spans.lock().unwrap().extend(each(&scope, "spans"));
        }
    }
    Json(serde_json::json!({}))
}

/// A collector that keeps what it is sent.
async fn collector() -> (String, Spans) {
    let spans = Spans::default();
    let router = Router::new().route("/v1/traces", post(take)).with_state(spans.clone());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, spans)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_one_trace_from_the_request_to_zooid() {
    let (world, zooid) = (World::new().await, stand_in().await);
    let (endpoint, spans) = collector().await;
    let bind = format!("127.0.0.1:{}", free_port());
    let settings = [
        ("API_BIND", bind.as_str()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ];
    let mut service = Tender::start(&world, &zooid.url(), &["serve"], &settings);
    let url = format!("http://{bind}/relays");
    let (http, tenant) = (reqwest::Client::new(), Keys::generate());
    eventually("the relay is created", async || {
        let event = strict(&tenant, &url, "POST", 0);
        let request = http.post(&url).header("authorization", header(&event));
        let answer = request.body(r#"{"subdomain": "traced"}"#).send().await;
        answer.is_ok_and(|answer| answer.status() == 201)
    })
    .await;
    eventually("zooid has it", async || zooid.len() == 1).await;
    let named = |name: &str| -> Vec<Value> {
        let spans = spans.lock().unwrap();
        spans.iter().filter(|span| span["name"] == name).cloned().collect()
    };
    let request_of =
        |trace: &Value| named("request").into_iter().find(|request| request["traceId"] == *trace);
    eventually("the spans arrive", async || {
        let syncs = named("sync_relay");
        let is_followed = syncs.first().is_some_and(|sync| request_of(&sync["traceId"]).is_some());
        is_followed && !named("zooid").is_empty()
    })
    .await;
    let (call, sync) = (named("zooid").remove(0), named("sync_relay").remove(0));
    assert_eq!(call["traceId"], sync["traceId"]);
    assert_eq!(call["parentSpanId"], sync["spanId"], "the call is part of the attempt");
    let request = request_of(&sync["traceId"]).expect("the attempt follows the request's trace");
    assert_eq!(sync["parentSpanId"], request["spanId"]);
    service.kill().await;
}
