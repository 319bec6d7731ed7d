//! Records actions that an error of the server prevented.

use std::sync::{Arc, OnceLock};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use tender_jobs::console::operator::{Entry, Outcome};

use crate::dashboard::{Dashboard, session::Viewer};

/// The name and the target of the action that a request began.
#[derive(Debug, Clone, Default)]
pub(in crate::dashboard) struct Begun(Arc<OnceLock<(String, String)>>);

impl Begun {
    pub(super) fn set(&self, name: &str, target: &str) {
        self.0.get_or_init(|| (name.to_owned(), target.to_owned()));
    }
}

/// Records the action of a request that is answered with a status of 5xx. If the database is the cause, the log
/// has the line only.
pub(in crate::dashboard) async fn record(
    State(dashboard): State<Dashboard>,
    mut request: Request,
    next: Next,
) -> Response {
    let begun = Begun::default();
    request.extensions_mut().insert(begun.clone());
    let who = request.extensions().get::<Viewer>().map(|viewer| viewer.who.clone());
    let response = next.run(request).await;
    let status = response.status();
    if let (Some(who), Some((name, target)), true) = (who, begun.0.get(), status.is_server_error())
    {
        let words = format!("answered {status}; the server's log has the cause");
        let entry = Entry::new(&who, name, target, &words).ended(Outcome::Failed);
        if let Err(error) = entry.record(&dashboard.db).await {
            tracing::warn!(who, name, target, %error, "could not record an action that failed");
        }
    }
    response
}
