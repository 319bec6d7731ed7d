//! Actions of operators. An action requires an operator's session, a form of that session and a
//! confirmation. It is one call into the ledger, and it is recorded with the operator, its name, its
//! target, what it changed and its result, also if it was refused or failed.

pub(super) mod failed;
pub(super) mod log;
mod steps;

use std::collections::BTreeMap;

use axum::{
    Form,
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, header::SET_COOKIE},
    response::{IntoResponse, Redirect, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use maud::html;
use serde::{Deserialize, de::value::MapDeserializer};
use serde_json::Value;
use sqlx::{PgExecutor, Postgres, Transaction};
use tender_jobs::{
    console::operator::{Entry, Outcome},
    provision::relay::By,
    queue::LONGEST_REASON,
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
    /// Every field of the form, in its order. A name may come several times.
    pub(super) fields: Vec<(String, String)>,
}

impl FromRequest<Dashboard> for Asked {
    type Rejection = Problem;

    async fn from_request(request: Request, dashboard: &Dashboard) -> Result<Self, Problem> {
        let viewer = request.extensions().get::<Viewer>().cloned().ok_or(Problem::NotFound)?;
        let headers = request.headers().clone();
        let begun = request.extensions().get::<failed::Begun>().cloned().unwrap_or_default();
        let fields = Form::<Vec<(String, String)>>::from_request(request, dashboard).await;
        let Form(fields) = fields.map_err(|_| Problem::Stale)?;
        let form = ActionForm::deserialize(MapDeserializer::<_, serde::de::value::Error>::new(
            single(&fields).into_iter(),
        ));
        let form = form.map_err(|_| Problem::Stale)?;
        Ok(Self { dashboard: dashboard.clone(), viewer, headers, begun, form, fields })
    }
}

/// The first field of each name.
fn single(fields: &[(String, String)]) -> BTreeMap<String, String> {
    let mut first = BTreeMap::new();
    for (name, value) in fields {
        first.entry(name.clone()).or_insert_with(|| value.clone());
    }
    first
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
        let question = action.question;
        self.begin_with(action, question).await
    }

    /// Like [`Asked::begin`], with a question that depends on the form.
    pub(super) async fn begin_with(
        &self,
        action: Action,
        question: &str,
    ) -> Result<Doing<'_>, Box<Response>> {
        self.allow(&action.name, &action.target).await?;
        self.begun.set(&action.name, &action.target);
        if self.form.confirmed == "yes" {
            Ok(Doing { asked: self, action, changed: (Value::Null, Value::Null) })
        } else {
            Err(Box::new(self.confirm(&action, question)))
        }
    }

    /// Checks that the form is of an operator and of this session, before anything is read for it. Otherwise
    /// records and returns the refusal of this action.
    pub(super) async fn allow(&self, action: &str, target: &str) -> Result<(), Box<Response>> {
        let (problem, why) = if !self.viewer.may_act() {
            (Problem::Forbidden, "a viewer cannot act")
        } else if !self.viewer.owns(&self.form.form_token) {
            (Problem::Stale, "the form belongs to another session")
        } else {
            return Ok(());
        };
        let entry = Entry::new(&self.viewer.who, action, target, why).ended(Outcome::Refused);
        let recorded = entry.record(&self.dashboard.db).await;
        Err(Box::new(recorded.map_or_else(Problem::from, |()| problem).into_response()))
    }

    /// Renders the question, with every field of the form.
    pub(super) fn confirm(&self, action: &Action, question: &str) -> Response {
        let page = self.back(&action.otherwise);
        let kept = self.fields.iter().filter(|(name, _)| name != "confirmed" && name != "back");
        let markup = html! {
            form method="post" action=(action.path) {
                @for (name, value) in kept { input type="hidden" name=(name) value=(value); }
                input type="hidden" name="back" value=(page);
                input type="hidden" name="confirmed" value="yes";
                button { "Yes" }
            }
            p { a href=(page) { "No" } }
        };
        layout::bare(question, &markup).into_response()
    }

    /// The first value of a field; empty if the form has none.
    pub(super) fn field(&self, name: &str) -> &str {
        let value = self.fields.iter().find(|(field, _)| field == name);
        value.map_or("", |(_, value)| value)
    }

    /// The reason that the operator gives.
    ///
    /// # Errors
    /// What the operator must correct.
    pub(super) fn reason(&self) -> Result<&str, String> {
        let reason = self.form.reason.trim();
        let is_good = (1..=LONGEST_REASON).contains(&reason.chars().count());
        if is_good && !reason.contains('\0') {
            return Ok(reason);
        }
        Err(format!("the action needs a reason of 1 to {LONGEST_REASON} characters"))
    }

    pub(super) fn by(&self) -> By {
        By { who: self.viewer.who.clone(), trace: None }
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
        self.asked.by()
    }

    /// Says what the action changed, for its record.
    pub(super) fn changed(self, before: Value, after: Value) -> Self {
        Self { changed: (before, after), ..self }
    }

    /// Opens the transaction of the action, for [`Doing::commit`].
    pub(super) async fn open(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        tender_jobs::database::begin(&self.asked.dashboard.db).await
    }

    /// Records the result in the transaction of the action, commits both, and redirects to the page of the form, which
    /// shows the result. A process that dies before leaves neither.
    pub(super) async fn commit(
        self,
        mut tx: Transaction<'static, Postgres>,
        result: Result<String, String>,
    ) -> Answer {
        let words = self.record(&mut *tx, result).await?;
        tx.commit().await?;
        Ok(self.recorded(&words))
    }

    /// Records the result of an action that is not a transaction, and redirects as [`Doing::commit`] does.
    pub(super) async fn done(self, result: Result<String, String>) -> Answer {
        let words = self.record(&self.asked.dashboard.db, result).await?;
        Ok(self.recorded(&words))
    }

    async fn record(
        &self,
        db: impl PgExecutor<'_>,
        result: Result<String, String>,
    ) -> Result<String, sqlx::Error> {
        let outcome = if result.is_ok() { Outcome::Done } else { Outcome::Refused };
        let words = result.unwrap_or_else(|words| format!("Not done: {words}."));
        let (who, action) = (&self.asked.viewer.who, &self.action);
        let mut entry = Entry::new(who, &action.name, &action.target, &words).ended(outcome);
        if outcome == Outcome::Done {
            entry = entry.changed(&self.changed.0, &self.changed.1);
        }
        entry.record(db).await?;
        Ok(words)
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
