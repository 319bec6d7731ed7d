//! A call to the stand-in as its client sees it: authentication, planned fault and answer.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{Method, StatusCode, header::CONTENT_TYPE},
    response::Response,
};
use futures_util::stream;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Call, Fault, Shared, auth, lock,
    work::{Change, Route, Work},
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
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let caller = match auth::check(&parts.headers, &parts.method, path, &shared.whitelist) {
        Ok(caller) => caller,
        Err((status, words)) => return Some(json_response(status, &json!({ "error": words }))),
    };
    let Some((relay_id, route)) = route(path) else {
        return Some(json_response(404, &json!({ "error": "not found" })));
    };
    let body = to_bytes(Body::new(body), MAX_BODY).await.ok();
    let mut call = InFlight::start(shared, &parts.method, relay_id);
    let fault = lock(&shared.state).next_fault(relay_id);
    match &fault {
        Some(Fault::DropBefore) => return None,
        Some(Fault::Status(status, retry_after)) => {
            call.end(*status);
            let error = json!({ "error": format!("stand-in fault {status}") });
            return Some(with_retry_after(json_response(*status, &error), *retry_after));
        }
        _ => {}
    }
    let work = Work {
        shared: shared.clone(),
        change: Change { relay_id: relay_id.to_owned(), method: parts.method, route, caller, body },
        fault: fault.clone(),
        is_created: call.is_created.clone(),
    };
    let (status, answer) = work.start(down, matches!(fault, Some(Fault::Late(_)))).await?;
    if let Some(Fault::DropAfter) = fault {
        return None;
    }
    call.end(status);
    Some(match fault {
        Some(Fault::Garbage) => {
            call.end(200);
            Response::new(Body::from("<html>502 Bad Gateway</html>"))
        }
        Some(Fault::HalfAnswer) => half(status),
        _ => json_response(status, &answer),
    })
}

fn route(path: &str) -> Option<(&str, Route)> {
    let rest = path.strip_prefix("/relay/")?;
    match rest.split_once('/') {
        None if !rest.is_empty() => Some((rest, Route::Relay)),
        Some((id, "members")) => Some((id, Route::Members)),
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

fn json_response(status: u16, answer: &Value) -> Response {
    let mut response = Response::new(Body::from(answer.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let json = axum::http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn with_retry_after(mut response: Response, seconds: Option<u64>) -> Response {
    if let Some(seconds) = seconds {
        response.headers_mut().insert("retry-after", seconds.into());
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
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    response
}
