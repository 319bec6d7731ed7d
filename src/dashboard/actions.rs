//! Actions of operators. An action requires an operator's session, a form of that session and a
//! confirmation. It is one call into the ledger, and it is recorded with the operator, its name, its
//! target, what it changed and its result, also if it was refused or failed.

pub(super) mod failed;
pub(super) mod log;

use axum::{
    Form,
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, header::SET_COOKIE},
    response::{IntoResponse, Redirect, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use maud::html;
use serde::Deserialize;
use serde_json::Value;
use tender_jobs::{
    console::operator::{Entry, Outcome},
    provision::relay::By,
};

use super::{
    Dashboard, PATH, layout,
    parts::{Problem, is_ours},
    scheme::came_from,
    session::{Viewer, cookie_of},
};

/// The cookie that carries the result of an action to the next page.
const NOTICE: &str = "tender_notice";

/// The fields of the forms of all actions.
#[derive(Debug, Deserialize)]
pub(super) struct ActionForm {
    #[serde(default)]
    form_token: String,
    #[serde(default)]
    confirmed: String,
    #[serde(default)]
    pub(super) instance: String,
    #[serde(default)]
    pub(super) queue: String,
    #[serde(default)]
    pub(super) state: String,
    #[serde(default)]
    pub(super) error: String,
    /// The key of an item that needs attention, or a cause.
    #[serde(default)]
    pub(super) key: String,
    #[serde(default)]
    pub(super) reason: String,
    #[serde(default)]
    pub(super) hours: String,
    /// How many things the item counted on the page.
    #[serde(default)]
    pub(super) size: String,
    /// The page to return to, if the server asked for the confirmation.
    #[serde(default)]
    back: String,
}

/// The request for an action.
pub(super) struct Asked {
    pub(super) dashboard: Dashboard,
    pub(super) viewer: Viewer,
    headers: HeaderMap,
    begun: failed::Begun,
    pub(super) form: ActionForm,
}

impl FromRequest<Dashboard> for Asked {
    type Rejection = Problem;

    async fn from_request(request: Request, dashboard: &Dashboard) -> Result<Self, Problem> {
        let viewer = request.extensions().get::<Viewer>().cloned().ok_or(Problem::NotFound)?;
        let headers = request.headers().clone();
        let begun = request.extensions().get::<failed::Begun>().cloned().unwrap_or_default();
        let form = Form::<ActionForm>::from_request(request, dashboard).await;
        let Form(form) = form.map_err(|_| Problem::Stale)?;
        Ok(Self { dashboard: dashboard.clone(), viewer, headers, begun, form })
    }
}

/// An action: its question and its record.
pub(super) struct Action {
    /// The name in the record of actions.
    pub(super) name: String,
    /// The target of the action: host, queue or job id.
    pub(super) target: String,
    /// The question that the operator confirms.
    pub(super) question: &'static str,
    /// The path that the form posts to.
    pub(super) path: String,
    /// The page to return to if the form's page is unknown.
    pub(super) otherwise: String,
}

/// An action that was confirmed.
pub(super) struct Doing<'a> {
    asked: &'a Asked,
    action: Action,
    changed: (Value, Value),
}

impl Asked {
    /// Checks that the action may be done now. Otherwise returns the response: a refusal, or the
    /// question. A refusal is recorded.
    pub(super) async fn begin(&self, action: Action) -> Result<Doing<'_>, Box<Response>> {
        self.begun.set(&action.name, &action.target);
        let (problem, why) = if !self.viewer.may_act() {
            (Problem::Forbidden, "a viewer cannot act")
        } else if !self.viewer.owns(&self.form.form_token) {
            (Problem::Stale, "the form belongs to another session")
        } else if self.form.confirmed == "yes" {
            return Ok(Doing { asked: self, action, changed: (Value::Null, Value::Null) });
        } else {
            return Err(Box::new(self.confirm(&action)));
        };
        let entry = Entry::new(&self.viewer.who, &action.name, &action.target, why);
        let recorded = entry.ended(Outcome::Refused).record(&self.dashboard.db).await;
        Err(Box::new(recorded.map_or_else(Problem::from, |()| problem).into_response()))
    }

    /// Renders the question, for browsers without scripts.
    fn confirm(&self, action: &Action) -> Response {
        let (form, page) = (&self.form, self.back(&action.otherwise));
        let fields = [
            ("form_token", &form.form_token),
            ("instance", &form.instance),
            ("queue", &form.queue),
            ("state", &form.state),
            ("error", &form.error),
            ("key", &form.key),
            ("reason", &form.reason),
            ("hours", &form.hours),
            ("size", &form.size),
            ("back", &page),
        ];
        let markup = html! {
            form method="post" action=(action.path) {
                @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
                input type="hidden" name="confirmed" value="yes";
                button { "Yes" }
            }
            p { a href=(page) { "No" } }
        };
        layout::bare(action.question, &markup).into_response()
    }

    /// Returns the page that the form was on, if it is a page of the dashboard.
    fn back(&self, otherwise: &str) -> String {
        let from = came_from(&self.headers);
        let pages = [Some(self.form.back.as_str()), from.as_deref(), Some(otherwise)];
        let page = pages.into_iter().flatten().find(|path| is_ours(path));
        page.unwrap_or(PATH).to_owned()
    }
}

impl Doing<'_> {
    pub(super) fn by(&self) -> By {
        By { who: self.asked.viewer.who.clone(), trace: None }
    }

    /// Says what the action changed, for its record.
    pub(super) fn changed(self, before: Value, after: Value) -> Self {
        Self { changed: (before, after), ..self }
    }

    /// Records the result and redirects to the page of the form, which shows it.
    pub(super) async fn done(self, result: Result<String, String>) -> Answer {
        let outcome = if result.is_ok() { Outcome::Done } else { Outcome::Refused };
        let words = result.unwrap_or_else(|words| format!("Not done: {words}."));
        let (who, action) = (&self.asked.viewer.who, &self.action);
        let mut entry = Entry::new(who, &action.name, &action.target, &words).ended(outcome);
        if outcome == Outcome::Done {
            entry = entry.changed(&self.changed.0, &self.changed.1);
        }
        entry.record(&self.asked.dashboard.db).await?;
        Ok(self.recorded(&words))
    }

    /// Redirects to the page of the form, which shows the result. The change itself has recorded it, in its
    /// transaction.
    pub(super) fn recorded(self, words: &str) -> Response {
        let (who, action) = (&self.asked.viewer.who, &self.action);
        tracing::info!(who, action.name, action.target, result = words, "operator");
        let cookie = format!(
            "{NOTICE}={}; Path={PATH}; Max-Age=60; HttpOnly; SameSite=Strict",
            URL_SAFE_NO_PAD.encode(words)
        );
        let page = self.asked.back(&action.otherwise);
        ([(SET_COOKIE, cookie)], Redirect::to(&page)).into_response()
    }
}

pub(super) type Answer = Result<Response, Problem>;

/// Returns the confirmed action, or returns the response from the calling function.
macro_rules! begin {
    ($asked:expr, $action:expr) => {
        match $asked.begin($action).await {
            Ok(doing) => doing,
            Err(answer) => return Ok(*answer),
        }
    };
}
pub(super) use begin;

/// Returns the result of the previous action, from its cookie.
pub(super) fn notice(headers: &HeaderMap) -> Option<String> {
    let text = URL_SAFE_NO_PAD.decode(cookie_of(headers, NOTICE)?).ok()?;
    String::from_utf8(text).ok()
}

/// Removes the cookie of a result, because a result is shown once.
pub(super) fn without_notice(mut response: Response) -> Response {
    let cookie = "tender_notice=; Path=/dashboard; Max-Age=0; HttpOnly; SameSite=Strict";
    response.headers_mut().append(SET_COOKIE, HeaderValue::from_static(cookie));
    response
}
