//! apalis's board, read-only, behind the same login. Its files expect to be at the root of a site, so
//! it runs in a frame whose first script moves its requests under our path.

use std::convert::Infallible;

use apalis_board::axum::{
    framework::{ApiBuilder, RegisterRoute},
    ui::ServeUI,
};
use axum::{
    Router,
    extract::{Path, Request, State},
    http::{
        HeaderValue, Method, StatusCode,
        header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_FRAME_OPTIONS},
    },
    middleware::{self, Next},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures_util::{FutureExt, StreamExt, stream};
use maud::{DOCTYPE, Markup, html};
use tender_jobs::queue::{self, QUEUES};

use super::{
    Dashboard, PATH,
    layout::{self, Page},
    parts::Problem,
    session::Viewer,
};

/// The board's scripts are WebAssembly, and its styles are inline here and there.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; \
    style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; \
    connect-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'";

pub(super) fn router(dashboard: &Dashboard) -> Router<Dashboard> {
    let api = QUEUES.iter().fold(ApiBuilder::new(Router::new()), |api, queue| {
        api.register(queue, queue::board(&dashboard.db, queue))
    });
    let framed = Router::new()
        .route("/board/frame", get(frame))
        .route("/board/files/{file}", get(file))
        .layer(middleware::from_fn(framed_headers));
    Router::new()
        .route("/board", get(page))
        .nest(
            "/board/api/v1",
            api.build()
                .with_state(())
                .layer(middleware::from_fn_with_state(dashboard.clone(), quiet_events)),
        )
        .merge(framed)
        .layer(middleware::from_fn(only_read))
}

/// The board would let anyone put jobs into the queue.
async fn only_read(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        next.run(request).await
    } else {
        StatusCode::METHOD_NOT_ALLOWED.into_response()
    }
}

/// The board would stream the log of this process, to whoever looks, and never end. It gets a stream
/// without events that ends with the process.
async fn quiet_events(
    State(dashboard): State<Dashboard>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if !request.uri().path().ends_with("/events") {
        return Ok(next.run(request).await);
    }
    let permit = dashboard.streams.try_acquire_owned().map_err(|_| Problem::Busy)?;
    let end = dashboard.shutdown.cancelled_owned().map(move |()| drop(permit));
    let events = stream::pending::<Result<Event, Infallible>>().take_until(end);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

async fn framed_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    response
}

async fn page(State(_): State<Dashboard>, viewer: Viewer) -> Markup {
    let page = Page {
        title: "Board",
        section: "/board",
        notice: None,
        fixed: html! {
            p.quiet { "The queue as apalis's own board shows it. To look at only." }
            iframe.board src={ (PATH) "/board/frame" } title="apalis board" {}
        },
        live: None,
    };
    layout::page(&viewer, &page)
}

async fn frame() -> Markup {
    let files = Files::find();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { "apalis board" }
                link rel="stylesheet" href={ (PATH) "/board/files/" (files.css) };
                script src={ (PATH) "/board/files/start.js" } type="module"
                    data-base={ (PATH) "/board" } data-script=(files.js) data-wasm=(files.wasm) {}
            }
            body class="h-screen overflow-hidden bg-background-dimmed text-white" {}
        }
    }
}

/// The board's files; their names carry a hash.
struct Files {
    js: String,
    wasm: String,
    css: String,
}

impl Files {
    fn find() -> Self {
        let index = ServeUI::get_file("index.html").and_then(|file| file.contents_utf8());
        let index = index.unwrap_or_default();
        let named = |suffix: &str| {
            let mut names = index.split(['"', '\'']).filter(|text| text.ends_with(suffix));
            names.next().unwrap_or_default().trim_start_matches('/').to_owned()
        };
        Self { js: named(".js"), wasm: named(".wasm"), css: named(".css") }
    }
}

async fn file(Path(name): Path<String>) -> Result<Response, Problem> {
    if name == "start.js" {
        let text = include_str!("assets/board.js");
        return Ok(([(CONTENT_TYPE, "text/javascript; charset=utf-8")], text).into_response());
    }
    let file = ServeUI::get_file(&name).filter(|file| file.path().as_os_str() == name.as_str());
    let contents = file.ok_or(Problem::NotFound)?.contents().to_vec();
    Ok(([(CONTENT_TYPE, ServeUI::content_type(&name))], contents).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boards_files_are_found_in_its_index() {
        let files = Files::find();
        for name in [&files.js, &files.wasm, &files.css] {
            assert!(
                ServeUI::get_file(name)
                    .is_some_and(|file| file.path().as_os_str() == name.as_str()),
                "{name}"
            );
        }
    }
}
