//! Scripts and styles, compiled into the executable. `assets/README.md` names the origin of the
//! vendored ones.

use axum::{
    extract::Path,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use super::parts::Problem;

const JS: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
/// htmx and its extension in one file. htmx looks for live parts as soon as it has run; an extension that
/// arrives later would never open their streams.
const HTMX: &str =
    concat!(include_str!("assets/htmx.min.js"), "\n", include_str!("assets/hx-sse.min.js"));

/// Serves the files of the login page, without a session.
pub(super) async fn public(Path(file): Path<String>) -> Result<Response, Problem> {
    match file.as_str() {
        "app.css" => Ok(answer(CSS, include_str!("assets/app.css"))),
        "login.js" => Ok(answer(JS, include_str!("assets/login.js"))),
        "icon.svg" => Ok(answer("image/svg+xml", include_str!("assets/icon.svg"))),
        _ => Err(Problem::NotFound),
    }
}

/// Serves the other files, within a session.
pub(super) async fn private(Path(file): Path<String>) -> Result<Response, Problem> {
    match file.as_str() {
        "app.js" => Ok(answer(JS, include_str!("assets/app.js"))),
        "htmx.js" => Ok(answer(JS, HTMX)),
        "uplot.min.js" => Ok(answer(JS, include_str!("assets/uplot.min.js"))),
        "uplot.min.css" => Ok(answer(CSS, include_str!("assets/uplot.min.css"))),
        _ => Err(Problem::NotFound),
    }
}

fn answer(content_type: &'static str, text: &'static str) -> Response {
    let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "private, max-age=300")];
    (headers, text).into_response()
}
