//! A call to the stand-in as its client sees it: route, authentication, planned fault and answer.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant, UNIX_EPOCH},
};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use futures_util::stream;
use hyper::body::Incoming;
use nostr::types::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Call, Fault, Rules, Shared, auth, lock, route,
    work::{Change, Work},
};

/// The longest body that zooid accepts, in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// Answers a request. Returns `None` if the connection must be dropped.
///
/// zooid runs a request to its end even if the client leaves, so the change is made in a task of its
/// own. Only the end of the server, `down`, ends that task.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    down: CancellationToken,
) -> Option<Response> {
    let rules = lock(&shared.rules).clone();
    let now = now(&rules);
    let mut response = respond(shared, &rules, now, request, down).await?;
    let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(now).unwrap_or_default());
    if let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(time)) {
        response.headers_mut().insert(header::DATE, date);
    }
    Some(response)
}

/// Returns the server's Unix time.
fn now(rules: &Rules) -> i64 {
    i64::try_from(Timestamp::now().as_secs()).unwrap_or(i64::MAX) + rules.clock_ahead_secs
}

async fn respond(
    shared: &Arc<Shared>,
    rules: &Rules,
    now: i64,
    request: Request<Incoming>,
    down: CancellationToken,
) -> Option<Response> {
    let (parts, body) = request.into_parts();
    let (mut headers, method, path) = (parts.headers, parts.method, parts.uri.path());
    if rules.is_behind_tls {
        headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    }
    let (relay_id, route) = match route::choose(rules.host.as_deref(), &headers, &method, path) {
        Ok(chosen) => chosen,
        Err(refusal) => return Some(*refusal),
    };
    if let Err((status, words)) = auth::check(&headers, &method, path, &rules.whitelist, now) {
        return Some(json_response(status, &json!({ "error": words })));
    }
    let body = to_bytes(Body::new(body), MAX_BODY).await.ok();
    let mut call = InFlight::start(shared, &method, &relay_id);
    let fault = lock(&shared.state).next_fault(&relay_id);
    if let Some(Fault::DropBefore) = fault {
        return None;
    }
    if let Some((status, response)) = refusal(fault.as_ref(), &headers, body.as_ref()) {
        call.end(status);
        return Some(response);
    }
    let work = Work {
        shared: shared.clone(),
        change: Change { relay_id, method, route, body },
        fault: fault.clone(),
        is_created: call.is_created.clone(),
    };
    let (status, answer) = work.start(down).await?;
    if let Some(Fault::DropAfter) = fault {
        return None;
    }
    let (status, response) = match fault {
        Some(Fault::Garbage) => (200, page("502 Bad Gateway")),
        Some(Fault::HalfAnswer) => (status, half(status)),
        _ => (status, json_response(status, &answer)),
    };
    call.end(status);
    Some(response)
}

/// Returns the answer to a fault that refuses the request.
fn refusal(
    fault: Option<&Fault>,
    headers: &HeaderMap,
    body: Option<&Bytes>,
) -> Option<(u16, Response)> {
    match *fault? {
        Fault::Status(status, retry_after) => {
            let error = json!({ "error": format!("stand-in fault {status}") });
            Some((status, with_retry_after(json_response(status, &error), retry_after)))
        }
        Fault::Proxy(status) => {
            let mut response = page(&format!("proxy error {status}"));
            *response.status_mut() = status_code(status);
            Some((status, response))
        }
        Fault::Echo(status) => {
            let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
            let text = |bytes: Option<&[u8]>| {
                String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
            };
            let (header, body) = (text(authorization), text(body.map(AsRef::as_ref)));
            let error = json!({ "error": format!("refused: {header} {body}") });
            Some((status, json_response(status, &error)))
        }
        _ => None,
    }
}

/// A call in flight: its client waits. Records overlapping calls for one relay, and the call itself
/// when it is dropped.
struct InFlight {
    shared: Arc<Shared>,
    call: Call,
    is_created: Arc<AtomicBool>,
}

impl InFlight {
    fn start(shared: &Arc<Shared>, method: &Method, relay_id: &str) -> Self {
        let (method, relay_id) = (method.to_string(), relay_id.to_owned());
        let at = Instant::now();
        let mut state = lock(&shared.state);
        let running = state.in_flight.entry(relay_id.clone()).or_default();
        *running += 1;
        if *running > 1 && method != "GET" {
            state.overlaps.push(relay_id.clone());
        }
        let total = state.in_flight.values().sum();
        state.most_in_flight = state.most_in_flight.max(total);
        drop(state);
        let call = Call { method, relay_id, status: None, at, created: false };
        Self { shared: shared.clone(), call, is_created: Arc::default() }
    }

    fn end(&mut self, status: u16) {
        self.call.status = Some(status);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        if let Some(running) = state.in_flight.get_mut(&self.call.relay_id) {
            *running -= 1;
        }
        state.calls.push((self.call.clone(), self.is_created.clone()));
    }
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::OK)
}

fn json_response(status: u16, answer: &Value) -> Response {
    let mut response = Response::new(Body::from(answer.to_string()));
    *response.status_mut() = status_code(status);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Returns a page as a proxy has it.
fn page(words: &str) -> Response {
    Response::new(Body::from(format!("<html>{words}</html>")))
}

fn with_retry_after(mut response: Response, seconds: Option<u64>) -> Response {
    if let Some(seconds) = seconds {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// Returns an answer whose body breaks off.
fn half(status: u16) -> Response {
    let part = stream::iter([
        Ok(Bytes::from_static(b"{\"message\": \"rel")),
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted)),
    ]);
    let mut response = Response::new(Body::from_stream(part));
    *response.status_mut() = status_code(status);
    response
}
