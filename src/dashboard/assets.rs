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

/// The style sheet. Tables become cards where their frame is too narrow for their columns: small ones, with
/// at most five short columns, below 520 px; the others below 1,000 px.
const STYLES: &str = concat!(
    include_str!("assets/app.css"),
    "@container (max-width: 1000px) { table.cards:not(.small) {",
    include_str!("assets/cards.css"),
    "} }\n@container (max-width: 520px) { table.cards.small {",
    include_str!("assets/cards.css"),
    "} }\n",
);

/// Serves the files of the login page, without a session.
pub(super) async fn public(Path(file): Path<String>) -> Result<Response, Problem> {
    match file.as_str() {
        "app.css" => Ok(answer(CSS, STYLES)),
        "login.js" => Ok(answer(JS, include_str!("assets/login.js"))),
        "icon.svg" => Ok(answer("image/svg+xml", include_str!("assets/icon.svg"))),
        _ => Err(Problem::NotFound),
    }
}

/// Serves the other files, within a session.
pub(super) async fn private(Path(file): Path<String>) -> Result<Response, Problem> {
    match file.as_str() {
        "app.js" => Ok(answer(JS, include_str!("assets/app.js"))),
        "keys.js" => Ok(answer(JS, include_str!("assets/keys.js"))),
        "chart.js" => Ok(answer(JS, include_str!("assets/chart.js"))),
        "live.js" => Ok(answer(JS, include_str!("assets/live.js"))),
        "htmx.min.js" => Ok(answer(JS, include_str!("assets/htmx.min.js"))),
        "uplot.min.js" => Ok(answer(JS, include_str!("assets/uplot.min.js"))),
        "uplot.min.css" => Ok(answer(CSS, include_str!("assets/uplot.min.css"))),
        _ => Err(Problem::NotFound),
    }
}

fn answer(content_type: &'static str, text: &'static str) -> Response {
    let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "private, max-age=300")];
    (headers, text).into_response()
}
