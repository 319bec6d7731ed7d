//! The routes of zooid's API. zooid chooses the route before it authenticates the request.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::Response,
};

/// The resource that a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Relay,
    Members,
}

/// Returns the relay's id and the resource, or the answer of Go's router. `host` is `API_HOST`; `None` if
/// the API is switched off.
pub(super) fn choose(
    host: Option<&str>,
    headers: &HeaderMap,
    method: &Method,
    path: &str,
) -> Result<(String, Route), Box<Response>> {
    let asked = headers.get(header::HOST).map(HeaderValue::as_bytes);
    if host.is_none() || asked != host.map(str::as_bytes) {
        return Err(plain(404, "Not Found").into());
    }
    if path.contains("//") {
        return Err(redirect(path).into());
    }
    let Some((id, route)) = parse(path) else {
        return Err(plain(404, "404 page not found").into());
    };
    let (is_allowed, allow) = match route {
        Route::Relay => (
            matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE),
            "DELETE, PATCH, POST, PUT",
        ),
        Route::Members => (matches!(*method, Method::GET | Method::HEAD), "GET, HEAD"),
    };
    if is_allowed {
        return Ok((decoded(id), route));
    }
    let mut refusal = plain(405, "Method Not Allowed");
    refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    Err(refusal.into())
}

fn parse(path: &str) -> Option<(&str, Route)> {
    let rest = path.strip_prefix("/relay/")?;
    match rest.split_once('/') {
        None if !rest.is_empty() => Some((rest, Route::Relay)),
        Some((id, "members")) if !id.is_empty() => Some((id, Route::Members)),
        _ => None,
    }
}

fn redirect(path: &str) -> Response {
    let mut clean = path.to_owned();
    while clean.contains("//") {
        clean = clean.replace("//", "/");
    }
    let mut response = plain(307, "Temporary Redirect");
    if let Ok(location) = HeaderValue::from_str(&clean) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn plain(status: u16, words: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{words}\n")));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_FOUND);
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// Returns a URL or a path without its percent encoding.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code =
            after.get(..2).filter(|_| first == b'%').and_then(|code| str::from_utf8(code).ok());
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
