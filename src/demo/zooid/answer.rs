//! A call to the stand-in: authentication, planned fault, change and answer.

use std::{sync::Arc, time::Instant};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{Method, StatusCode, header::CONTENT_TYPE},
    response::Response,
};
use futures_util::stream;
use hyper::body::Incoming;
use nostr::key::PublicKey;
use serde_json::{Value, json};

use super::{Call, Fault, Shared, State, auth, document, lock};

/// The longest body that zooid accepts, in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// The status and the JSON of an answer.
type Answer = (u16, Value);

/// Answers a request. Returns `None` if the connection must be dropped.
pub(super) async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Option<Response> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let caller = match auth::check(&parts.headers, &parts.method, path, &shared.whitelist) {
        Ok(caller) => caller,
        Err((status, words)) => return Some(json_response(status, &json!({ "error": words }))),
    };
    let Some((relay_id, route)) = route(path) else {
        return Some(json_response(404, &json!({ "error": "not found" })));
    };
    let body = to_bytes(Body::new(body), MAX_BODY).await;
    let mut call = InFlight::start(shared, &parts.method, relay_id);
    let fault = lock(&shared.state).next_fault(relay_id);
    match &fault {
        Some(Fault::DropBefore) => return None,
        Some(Fault::Delay(delay)) => {
            let _time = tokio::time::timeout(*delay, shared.stop.cancelled()).await;
        }
        Some(Fault::Hold(gate)) => {
            let _passed_or_stopped = shared.stop.run_until_cancelled(gate.pass()).await;
        }
        Some(Fault::Status(status, retry_after)) => {
            call.end(*status, false);
            let error = json!({ "error": format!("stand-in fault {status}") });
            return Some(with_retry_after(json_response(*status, &error), *retry_after));
        }
        _ => {}
    }
    let mut state = lock(&shared.state);
    let request = Apply { state: &mut state, relay_id, caller };
    let (status, answer) = match route {
        Route::Relay => request.change(&parts.method, body.ok().as_ref()),
        Route::Members => request.members(&parts.method),
    };
    drop(state);
    let created = parts.method == Method::POST && status == 201;
    match fault {
        Some(Fault::DropAfter) => {
            call.call.created = created;
            None
        }
        Some(Fault::Garbage) => {
            call.end(200, created);
            Some(Response::new(Body::from("<html>502 Bad Gateway</html>")))
        }
        Some(Fault::HalfAnswer) => {
            call.end(status, created);
            Some(half(status))
        }
        _ => {
            call.end(status, created);
            Some(json_response(status, &answer))
        }
    }
}

enum Route {
    Relay,
    Members,
}

fn route(path: &str) -> Option<(&str, Route)> {
    let rest = path.strip_prefix("/relay/")?;
    match rest.split_once('/') {
        None if !rest.is_empty() => Some((rest, Route::Relay)),
        Some((id, "members")) => Some((id, Route::Members)),
        _ => None,
    }
}

/// A call in flight. Records overlapping calls for one relay, and the call itself when it is
/// dropped.
struct InFlight {
    shared: Arc<Shared>,
    call: Call,
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
        Self { shared: shared.clone(), call }
    }

    fn end(&mut self, status: u16, created: bool) {
        self.call.status = Some(status);
        self.call.created = created;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        if let Some(running) = state.in_flight.get_mut(&self.call.relay_id) {
            *running -= 1;
        }
        state.calls.push(self.call.clone());
    }
}

struct Apply<'a> {
    state: &'a mut State,
    relay_id: &'a str,
    caller: PublicKey,
}

impl Apply<'_> {
    fn change(self, method: &Method, body: Option<&Bytes>) -> Answer {
        let exists = self.state.documents.contains_key(self.relay_id);
        match *method {
            Method::POST if exists => error(409, "relay with this id already exists"),
            Method::PUT | Method::PATCH | Method::DELETE if !exists => {
                error(404, "relay not found")
            }
            Method::POST => self.write(body, false, 201, "relay created successfully"),
            Method::PUT => self.write(body, false, 200, "relay updated successfully"),
            Method::PATCH => self.write(body, true, 200, "relay patched successfully"),
            Method::DELETE => {
                self.state.remove(self.relay_id);
                (200, json!({ "message": "relay deleted successfully" }))
            }
            _ => error(405, "method not allowed"),
        }
    }

    fn write(self, body: Option<&Bytes>, is_patch: bool, status: u16, message: &str) -> Answer {
        let Some(body) = body else { return error(400, "failed to read request body") };
        let Ok(sent @ Value::Object(_)) = serde_json::from_slice::<Value>(body) else {
            return error(400, "invalid json");
        };
        let mut wanted = match self.state.documents.get(self.relay_id) {
            Some(document) if is_patch => document.clone(),
            _ => json!({}),
        };
        document::merge(&mut wanted, sent);
        if let Some(problem) = document::problem(&wanted) {
            return error(400, problem);
        }
        for field in ["schema", "host"] {
            let value = wanted[field].as_str().unwrap_or_default();
            let owner = self.state.owners.get(&format!("{field}:{value}"));
            if owner.is_some_and(|owner| owner != self.relay_id) {
                return error(409, &format!("{field} {value:?} is already in use"));
            }
        }
        self.state.save(self.relay_id, wanted);
        (status, json!({ "message": message }))
    }

    fn members(self, method: &Method) -> Answer {
        if *method != Method::GET {
            return error(405, "method not allowed");
        }
        if !self.state.documents.contains_key(self.relay_id) {
            return error(404, "relay not found");
        }
        let known = self.state.members.get(self.relay_id).cloned();
        let mut members = known.unwrap_or_else(|| vec![self.caller.to_hex()]);
        members.sort();
        (200, json!({ "members": members }))
    }
}

fn error(status: u16, words: &str) -> Answer {
    (status, json!({ "error": words }))
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
