//! What operators do. Each action needs an operator's session, a form of that session and a
//! confirmation, is done by one call into the ledger, and is recorded with who, what and its result.

use axum::{
    Form,
    extract::{FromRequest, Path, Request},
    http::{
        HeaderMap, HeaderValue,
        header::{REFERER, SET_COOKIE},
    },
    response::{IntoResponse, Redirect, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use maud::html;
use serde::Deserialize;
use sqlx::PgPool;
use tender_jobs::{
    lane::{self, LaneKind},
    operator,
    queue::{self, Matching, Steered, instance},
    relay::{self, By, MutationError, RelayId, Status},
    upstream::{self, Change},
};
use tender_workers::sync::orchestrate;
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

/// What every action gets.
pub(super) struct Asked {
    dashboard: Dashboard,
    viewer: Viewer,
    headers: HeaderMap,
    form: ActionForm,
}

impl FromRequest<Dashboard> for Asked {
    type Rejection = Problem;

    async fn from_request(request: Request, dashboard: &Dashboard) -> Result<Self, Problem> {
        let viewer = request.extensions().get::<Viewer>().cloned().ok_or(Problem::NotFound)?;
        let headers = request.headers().clone();
        let form = Form::<ActionForm>::from_request(request, dashboard).await;
        let Form(form) = form.map_err(|_| Problem::Stale)?;
        Ok(Self { dashboard: dashboard.clone(), viewer, headers, form })
    }
}

/// An action, as it is asked about and recorded.
struct Action {
    /// Its name in the record.
    name: String,
    /// With which thing.
    target: String,
    /// What is asked once.
    question: &'static str,
    /// Where its form goes.
    path: String,
    /// Where to go afterwards, when the page of the form is not known.
    otherwise: String,
}

/// An action that is about to be done.
struct Doing<'a> {
    asked: &'a Asked,
    action: Action,
}

impl Asked {
    /// Lets an action through, or gives the answer instead: a refusal, or the question.
    fn begin(&self, action: Action) -> Result<Doing<'_>, Box<Response>> {
        if !self.viewer.may_act() {
            return Err(Box::new(Problem::Forbidden.into_response()));
        }
        if !self.viewer.owns(&self.form.form_token) {
            return Err(Box::new(Problem::Stale.into_response()));
        }
        if self.form.confirmed == "yes" {
            Ok(Doing { asked: self, action })
        } else {
            Err(Box::new(self.confirm(&action)))
        }
    }

    /// The question, for browsers without scripts.
    fn confirm(&self, action: &Action) -> Response {
        let (form, page) = (&self.form, self.back(&action.otherwise));
        let fields = [
            ("form_token", &form.form_token),
            ("instance", &form.instance),
            ("queue", &form.queue),
            ("state", &form.state),
            ("error", &form.error),
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

    /// The page that the form was on, if it is one of ours.
    fn back(&self, otherwise: &str) -> String {
        let is_ours = |path: &str| {
            let rest = path.strip_prefix(PATH);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
                && !path.contains("//")
        };
        let referer = self.headers.get(REFERER).and_then(|referer| referer.to_str().ok());
        let referer = referer.and_then(|url| url.find(PATH).map(|at| &url[at..]));
        let pages = [Some(self.form.back.as_str()), referer, Some(otherwise)];
        let page = pages.into_iter().flatten().find(|path| is_ours(path));
        page.unwrap_or(PATH).to_owned()
    }
}

impl Doing<'_> {
    fn by(&self) -> By {
        By { who: self.asked.viewer.who.clone(), trace: None }
    }

    /// Records what came of it, and tells the next page.
    async fn done(self, result: Result<String, String>) -> Answer {
        let words = result.unwrap_or_else(|words| format!("Not done: {words}"));
        let (who, action) = (&self.asked.viewer.who, &self.action);
        tracing::info!(who, action.name, action.target, result = words, "operator");
        let db = &self.asked.dashboard.db;
        operator::record(db, who, &action.name, &action.target, &words).await?;
        let cookie = format!(
            "{NOTICE}={}; Path={PATH}; Max-Age=60; HttpOnly; SameSite=Strict",
            URL_SAFE_NO_PAD.encode(words)
        );
        let page = self.asked.back(&action.otherwise);
        Ok(([(SET_COOKIE, cookie)], Redirect::to(&page)).into_response())
    }
}

type Answer = Result<Response, Problem>;

/// The action that may be done now; or else returns what is to be answered instead.
macro_rules! begin {
    ($asked:expr, $action:expr) => {
        match $asked.begin($action) {
            Ok(doing) => doing,
            Err(answer) => return Ok(*answer),
        }
    };
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

pub(super) async fn relay(Path((id, verb)): Path<(String, String)>, asked: Asked) -> Answer {
    let db = &asked.dashboard.db;
    let relay = super::relay::find(&asked.dashboard, &id).await?;
    let (question, status) = match verb.as_str() {
        "sync" => ("Send this relay to zooid again, now?", None),
        "activate" => ("Switch this relay on?", Some(Status::Active)),
        "deactivate" => ("Switch this relay off?", Some(Status::Inactive)),
        "delinquent" => ("Switch this relay off as delinquent?", Some(Status::Delinquent)),
        _ => return Err(Problem::NotFound),
    };
    let action = Action {
        name: format!("relay_{verb}"),
        target: relay.host(),
        question,
        path: format!("{PATH}/relays/{id}/{verb}"),
        otherwise: format!("{PATH}/relays/{id}"),
    };
    let doing = begin!(asked, action);
    let changed = change(db, &relay.id, status, &doing.by()).await;
    doing.done(changed.map_err(|error| error.to_string())).await
}

async fn change(
    db: &PgPool,
    id: &RelayId,
    status: Option<Status>,
    by: &By,
) -> Result<String, MutationError> {
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

pub(super) async fn queue(Path((queue, verb)): Path<(String, String)>, asked: Asked) -> Answer {
    let db = &asked.dashboard.db;
    let question = match verb.as_str() {
        "pause" => "Pause this queue?",
        "resume" => "Let this queue go on?",
        _ => return Err(Problem::NotFound),
    };
    if !queue::QUEUES.contains(&queue.as_str()) {
        return Err(Problem::NotFound);
    }
    let action = Action {
        name: format!("{verb}_queue"),
        target: queue.clone(),
        question,
        path: format!("{PATH}/queues/{queue}/{verb}"),
        otherwise: format!("{PATH}/queues"),
    };
    let doing = begin!(asked, action);
    let words = if verb == "pause" {
        if queue::pause(db, &queue, &asked.viewer.who).await? {
            format!("{queue} is paused: what runs ends, nothing new starts.")
        } else {
            format!("{queue} was paused already.")
        }
    } else {
        if queue::resume(db, &queue).await? {
            format!("{queue} goes on.")
        } else {
            format!("{queue} was not paused.")
        }
    };
    doing.done(Ok(words)).await
}

pub(super) async fn job(Path((id, verb)): Path<(String, String)>, asked: Asked) -> Answer {
    let db = &asked.dashboard.db;
    let question = match verb.as_str() {
        "retry" => "Retry this job, now?",
        "cancel" => "Cancel this job?",
        _ => return Err(Problem::NotFound),
    };
    let action = Action {
        name: format!("{verb}_job"),
        target: id.clone(),
        question,
        path: format!("{PATH}/jobs/{id}/{verb}"),
        otherwise: format!("{PATH}/jobs/{id}"),
    };
    let doing = begin!(asked, action);
    let steered = if verb == "retry" {
        queue::retry(db, &id, &doing.by()).await
    } else {
        queue::cancel(db, &id, &doing.by()).await
    };
    let words = steered.map(|steered| match steered {
        Steered::RelayRequeued(_) => "Its relay has a new job, due now.".to_owned(),
        Steered::Requeued => "It is due now.".to_owned(),
        Steered::Cancelled => "It will not run.".to_owned(),
    });
    doing.done(words.map_err(|error| error.to_string())).await
}

pub(super) async fn upstream(Path((id, verb)): Path<(String, String)>, asked: Asked) -> Answer {
    let dashboard = &asked.dashboard;
    let upstream = super::upstreams::find(dashboard, &id).await?;
    let mode = LaneKind::parse_mode(&verb);
    let question = match verb.as_str() {
        "enable" => "Work on this upstream again?",
        "disable" => "Stop all work on this upstream?",
        "reset" => "Forget the progress of all its lanes? They begin anew; events stay.",
        _ if mode.is_some() => "Start this now?",
        _ => return Err(Problem::NotFound),
    };
    let action = Action {
        name: format!("upstream_{verb}"),
        target: upstream.url.clone(),
        question,
        path: format!("{PATH}/upstreams/{id}/{verb}"),
        otherwise: format!("{PATH}/upstreams/{id}"),
    };
    let doing = begin!(asked, action);
    let words = match mode {
        Some(mode) => trigger(dashboard, upstream.id, mode).await?,
        None if verb == "reset" => {
            let removed = lane::reset(&dashboard.db, Some(upstream.id)).await?;
            format!("{removed} lanes begin anew.")
        }
        None => {
            let change = Change { enabled: Some(verb == "enable"), ..Change::default() };
            match upstream::update(&dashboard.db, upstream.id, &change).await {
                Ok(changed) if changed.enabled => "It is worked on again.".to_owned(),
                Ok(_) => "Its work stops within seconds.".to_owned(),
                Err(error) => return doing.done(Err(error.to_string())).await,
            }
        }
    };
    doing.done(Ok(words)).await
}

async fn trigger(
    dashboard: &Dashboard,
    upstream: Uuid,
    mode: LaneKind,
) -> Result<String, sqlx::Error> {
    let settings = &dashboard.config.sync;
    let dispatched =
        orchestrate::dispatch(&dashboard.db, settings, mode, Some(upstream), true).await?;
    Ok(match dispatched.first().and_then(|one| one.skipped) {
        Some(why) => format!("Nothing to start: {why}."),
        None => format!("{mode} starts now."),
    })
}

pub(super) async fn retry_all(asked: Asked) -> Answer {
    let form = &asked.form;
    let action = Action {
        name: "retry_all".to_owned(),
        target: format!("queue {} state {} error {}", form.queue, form.state, form.error),
        question: "Retry all jobs that match?",
        path: format!("{PATH}/jobs/retry-all"),
        otherwise: format!("{PATH}/jobs"),
    };
    let doing = begin!(asked, action);
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (queue, error, state) = (text(&form.queue), text(&form.error), state_of(&form.state));
    let matching = Matching { queue, state, error };
    let retried = queue::retry_all(&asked.dashboard.db, &matching, &doing.by()).await;
    let words = retried.map(|retried| format!("{retried} go again."));
    doing.done(words.map_err(|error| error.to_string())).await
}

pub(super) async fn probe(asked: Asked) -> Answer {
    let instance = &asked.form.instance;
    let action = Action {
        name: "probe_instance".to_owned(),
        target: instance.clone(),
        question: "Try this zooid now?",
        path: format!("{PATH}/instances/probe"),
        otherwise: PATH.to_owned(),
    };
    let doing = begin!(asked, action);
    let words = if instance::probe_now(&asked.dashboard.db, instance).await? {
        "The next waiting job is its probe."
    } else {
        "Its breaker is not open."
    };
    doing.done(Ok(words.to_owned())).await
}

pub(super) async fn reconcile(asked: Asked) -> Answer {
    let action = Action {
        name: "reconcile".to_owned(),
        target: String::new(),
        question: "Enqueue every pending relay that has no job, now?",
        path: format!("{PATH}/reconcile"),
        otherwise: PATH.to_owned(),
    };
    let doing = begin!(asked, action);
    let name = format!("{}@asked-{}", queue::RECONCILE, Uuid::new_v4());
    queue::enqueue_once(&asked.dashboard.db, queue::RECONCILE, &name).await?;
    doing.done(Ok("Reconcile runs now.".to_owned())).await
}
