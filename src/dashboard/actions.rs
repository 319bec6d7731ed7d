//! What operators do. Each action needs an operator's session, a form of that session and a
//! confirmation, is done by one call into the ledger, and is recorded with who, what and its result.

use axum::{
    Form,
    extract::{Path, State},
    http::{
        HeaderMap, HeaderValue,
        header::{REFERER, SET_COOKIE},
    },
    response::{IntoResponse, Redirect, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use maud::html;
use serde::Deserialize;
use tender_jobs::{
    operator,
    queue::{self, Matching, Steered, instance},
    relay::{self, By, MutationError, RelayId, Status},
};
use uuid::Uuid;

use super::{
    Dashboard, PATH,
    jobs::state_of,
    layout,
    parts::Problem,
    session::{Viewer, cookie_of},
};

/// The cookie that tells the next page what came of an action.
const NOTICE: &str = "tender_notice";

/// What every form of an action sends.
#[derive(Debug, Deserialize)]
pub(super) struct ActionForm {
    #[serde(default)]
    form_token: String,
    #[serde(default)]
    confirmed: String,
    #[serde(default)]
    instance: String,
    #[serde(default)]
    queue: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    error: String,
    /// The page to go back to, where the server had to ask in between.
    #[serde(default)]
    back: String,
}

/// An action that is about to be done.
struct Doing<'a> {
    dashboard: &'a Dashboard,
    viewer: &'a Viewer,
    action: String,
    target: String,
    /// Where to go afterwards.
    back: String,
}

impl Doing<'_> {
    fn by(&self) -> By {
        By { who: self.viewer.who.clone(), trace: None }
    }

    /// Records what came of it, and tells the next page.
    async fn done(self, result: Result<String, String>) -> Result<Response, Problem> {
        let words = match &result {
            Ok(words) => words.clone(),
            Err(words) => format!("Not done: {words}"),
        };
        let who = &self.viewer.who;
        tracing::info!(who, action = self.action, target = self.target, result = words, "operator");
        operator::record(&self.dashboard.db, who, &self.action, &self.target, &words).await?;
        let cookie = format!(
            "{NOTICE}={}; Path={PATH}; Max-Age=60; HttpOnly; SameSite=Strict",
            URL_SAFE_NO_PAD.encode(words)
        );
        Ok(([(SET_COOKIE, cookie)], Redirect::to(&self.back)).into_response())
    }
}

/// What came of the action before.
pub(super) fn notice(headers: &HeaderMap) -> Option<String> {
    let text = URL_SAFE_NO_PAD.decode(cookie_of(headers, NOTICE)?).ok()?;
    String::from_utf8(text).ok()
}

/// A notice is shown once.
pub(super) fn without_notice(mut response: Response) -> Response {
    let cookie = "tender_notice=; Path=/dashboard; Max-Age=0; HttpOnly; SameSite=Strict";
    response.headers_mut().append(SET_COOKIE, HeaderValue::from_static(cookie));
    response
}

/// Lets an action through: `Some` is the answer to give instead.
fn instead(
    viewer: &Viewer,
    headers: &HeaderMap,
    form: &ActionForm,
    question: &str,
    path: &str,
) -> Option<Response> {
    if !viewer.may_act() {
        return Some(Problem::Forbidden.into_response());
    }
    if !viewer.owns(&form.form_token) {
        return Some(Problem::Stale.into_response());
    }
    (form.confirmed != "yes").then(|| confirm(headers, form, question, path))
}

/// The question, for browsers without scripts.
fn confirm(headers: &HeaderMap, form: &ActionForm, question: &str, path: &str) -> Response {
    let page = back(headers, form, PATH);
    let fields = [
        ("form_token", &form.form_token),
        ("instance", &form.instance),
        ("queue", &form.queue),
        ("state", &form.state),
        ("error", &form.error),
        ("back", &page),
    ];
    let markup = html! {
        form method="post" action=(path) {
            @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
            input type="hidden" name="confirmed" value="yes";
            button { "Yes" }
        }
        p { a href=(page) { "No" } }
    };
    layout::bare(question, &markup).into_response()
}

/// The page that the form was on, if it is one of ours.
fn back(headers: &HeaderMap, form: &ActionForm, otherwise: &str) -> String {
    let is_ours = |path: &str| {
        let rest = path.strip_prefix(PATH);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
            && !path.contains("//")
    };
    let referer = headers.get(REFERER).and_then(|referer| referer.to_str().ok());
    let referer = referer.and_then(|url| url.find(PATH).map(|at| &url[at..]));
    let pages = [Some(form.back.as_str()), referer, Some(otherwise)];
    let page = pages.into_iter().flatten().find(|path| is_ours(path));
    page.unwrap_or(PATH).to_owned()
}

pub(super) async fn relay(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Path((id, action)): Path<(String, String)>,
    Form(form): Form<ActionForm>,
) -> Result<Response, Problem> {
    let relay = super::relay::find(&dashboard, &id).await?;
    let (question, status) = match action.as_str() {
        "sync" => ("Send this relay to zooid again, now?", None),
        "activate" => ("Switch this relay on?", Some(Status::Active)),
        "deactivate" => ("Switch this relay off?", Some(Status::Inactive)),
        "delinquent" => ("Switch this relay off as delinquent?", Some(Status::Delinquent)),
        _ => return Err(Problem::NotFound),
    };
    let path = format!("{PATH}/relays/{id}/{action}");
    if let Some(answer) = instead(&viewer, &headers, &form, question, &path) {
        return Ok(answer);
    }
    let back = back(&headers, &form, &format!("{PATH}/relays/{id}"));
    let action = format!("relay_{action}");
    let doing =
        Doing { dashboard: &dashboard, viewer: &viewer, action, target: relay.host(), back };
    let result = change(&dashboard, &relay.id, status, &doing.by()).await;
    doing.done(result.map_err(|error| error.to_string())).await
}

async fn change(
    dashboard: &Dashboard,
    id: &RelayId,
    status: Option<Status>,
    by: &By,
) -> Result<String, MutationError> {
    let db = &dashboard.db;
    let Some(status) = status else {
        let relay = relay::request_sync(db, id, by).await?;
        return Ok(format!("{} goes to zooid now.", relay.host()));
    };
    let requested = relay::set_status(db, id, status, by).await?;
    let host = requested.relay.host();
    Ok(if requested.changed {
        format!("{host} is {} now; zooid hears of it.", status.as_str())
    } else {
        format!("{host} was {} already.", status.as_str())
    })
}

pub(super) async fn queue(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Path((name, action)): Path<(String, String)>,
    Form(form): Form<ActionForm>,
) -> Result<Response, Problem> {
    let is_pause = match action.as_str() {
        "pause" => true,
        "resume" => false,
        _ => return Err(Problem::NotFound),
    };
    if !queue::QUEUES.contains(&name.as_str()) {
        return Err(Problem::NotFound);
    }
    let question = if is_pause { "Pause this queue?" } else { "Let this queue go on?" };
    let path = format!("{PATH}/queues/{name}/{action}");
    if let Some(answer) = instead(&viewer, &headers, &form, question, &path) {
        return Ok(answer);
    }
    let (db, back) = (&dashboard.db, back(&headers, &form, &format!("{PATH}/queues")));
    let action = format!("{action}_queue");
    let doing =
        Doing { dashboard: &dashboard, viewer: &viewer, action, target: name.clone(), back };
    let changed = if is_pause {
        queue::pause(db, &name, &viewer.who).await
    } else {
        queue::resume(db, &name).await
    };
    let words = match (is_pause, changed?) {
        (true, true) => format!("{name} is paused: what runs ends, nothing new starts."),
        (true, false) => format!("{name} was paused already."),
        (false, true) => format!("{name} goes on."),
        (false, false) => format!("{name} was not paused."),
    };
    doing.done(Ok(words)).await
}

pub(super) async fn job(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Path((id, action)): Path<(String, String)>,
    Form(form): Form<ActionForm>,
) -> Result<Response, Problem> {
    let is_retry = match action.as_str() {
        "retry" => true,
        "cancel" => false,
        _ => return Err(Problem::NotFound),
    };
    let question = if is_retry { "Retry this job, now?" } else { "Cancel this job?" };
    if let Some(answer) =
        instead(&viewer, &headers, &form, question, &format!("{PATH}/jobs/{id}/{action}"))
    {
        return Ok(answer);
    }
    let back = back(&headers, &form, &format!("{PATH}/jobs/{id}"));
    let action = format!("{action}_job");
    let doing = Doing { dashboard: &dashboard, viewer: &viewer, action, target: id.clone(), back };
    let (db, by) = (&dashboard.db, doing.by());
    let steered =
        if is_retry { queue::retry(db, &id, &by).await } else { queue::cancel(db, &id, &by).await };
    let words = steered.map(|steered| match steered {
        Steered::RelayRequeued(_) => "Its relay has a new job, due now.".to_owned(),
        Steered::Requeued => "It is due now.".to_owned(),
        Steered::Cancelled => "It will not run.".to_owned(),
    });
    doing.done(words.map_err(|error| error.to_string())).await
}

pub(super) async fn retry_all(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Form(form): Form<ActionForm>,
) -> Result<Response, Problem> {
    let question = "Retry all jobs that match?";
    if let Some(answer) =
        instead(&viewer, &headers, &form, question, &format!("{PATH}/jobs/retry-all"))
    {
        return Ok(answer);
    }
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (queue, error, state) = (text(&form.queue), text(&form.error), state_of(&form.state));
    let target = format!("queue {} state {} error {}", form.queue, form.state, form.error);
    let back = back(&headers, &form, &format!("{PATH}/jobs"));
    let action = "retry_all".to_owned();
    let doing = Doing { dashboard: &dashboard, viewer: &viewer, action, target, back };
    let matching = Matching { queue, state, error };
    let retried = queue::retry_all(&dashboard.db, &matching, &doing.by()).await;
    let words = retried.map(|retried| format!("{retried} go again."));
    doing.done(words.map_err(|error| error.to_string())).await
}

pub(super) async fn probe(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Form(form): Form<ActionForm>,
) -> Result<Response, Problem> {
    let question = "Try this zooid now?";
    if let Some(answer) =
        instead(&viewer, &headers, &form, question, &format!("{PATH}/instances/probe"))
    {
        return Ok(answer);
    }
    let (action, target) = ("probe_instance".to_owned(), form.instance.clone());
    let back = back(&headers, &form, PATH);
    let doing = Doing { dashboard: &dashboard, viewer: &viewer, action, target, back };
    let words = if instance::probe_now(&dashboard.db, &form.instance).await? {
        "The next waiting job is its probe."
    } else {
        "Its breaker is not open."
    };
    doing.done(Ok(words.to_owned())).await
}

pub(super) async fn reconcile(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Form(form): Form<ActionForm>,
) -> Result<Response, Problem> {
    let question = "Enqueue every pending relay that has no job, now?";
    if let Some(answer) = instead(&viewer, &headers, &form, question, &format!("{PATH}/reconcile"))
    {
        return Ok(answer);
    }
    let name = format!("{}@asked-{}", queue::RECONCILE, Uuid::new_v4());
    queue::enqueue_once(&dashboard.db, queue::RECONCILE, &name).await?;
    let (action, target) = ("reconcile".to_owned(), String::new());
    let back = back(&headers, &form, PATH);
    let doing = Doing { dashboard: &dashboard, viewer: &viewer, action, target, back };
    doing.done(Ok("Reconcile runs now.".to_owned())).await
}
