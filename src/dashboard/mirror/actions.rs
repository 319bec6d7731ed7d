//! Actions on upstreams.

use axum::extract::Path;
use tender_jobs::mirror::{
    lane::LaneKind,
    upstream::{self, Change, UpstreamError},
};
use tender_workers::mirror::orchestrate;
use uuid::Uuid;

use crate::dashboard::{
    Dashboard, PATH,
    actions::{Action, Answer, Asked, begin},
    parts::Problem,
};

pub(in crate::dashboard) async fn upstream(
    Path((id, verb)): Path<(String, String)>,
    asked: Asked,
) -> Answer {
    let dashboard = &asked.dashboard;
    let upstream = super::upstream::find(dashboard, &id).await?;
    let mode = LaneKind::parse_mode(&verb);
    let question = match verb.as_str() {
        "enable" => "Enable this upstream?",
        "disable" => "Stop all work on this upstream?",
        "reset" => {
            "Forget everything believed of this upstream? Its lanes start from the beginning. Stored events \
             are kept."
        }
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
    let who = &asked.viewer.who;
    match mode {
        Some(mode) => doing.done(Ok(trigger(dashboard, upstream.id, mode).await?)).await,
        None if verb == "reset" => {
            let removed = upstream::reset(&dashboard.db, Some(upstream.id), Some(who)).await?;
            Ok(doing.recorded(&format!("{removed} lanes start from the beginning.")))
        }
        None => match switch(dashboard, upstream.id, verb == "enable", who).await {
            Ok(words) => Ok(doing.recorded(words)),
            Err(UpstreamError::Database(error)) => Err(error.into()),
            Err(error) => doing.done(Err(error.to_string())).await,
        },
    }
}

/// Switches an upstream on or off, and records it in the transaction of the change.
async fn switch(
    dashboard: &Dashboard,
    upstream: Uuid,
    enabled: bool,
    who: &str,
) -> Result<&'static str, UpstreamError> {
    let change = Change { enabled: Some(enabled), by: Some(who.to_owned()), ..Change::default() };
    let changed = upstream::update(&dashboard.db, upstream, &change).await?;
    Ok(if changed.enabled {
        "The upstream is enabled."
    } else {
        "The upstream is disabled. Its running work stops within seconds."
    })
}

/// Starts a mode of the upstream now.
async fn trigger(
    dashboard: &Dashboard,
    upstream: Uuid,
    mode: LaneKind,
) -> Result<String, sqlx::Error> {
    let dispatched = orchestrate::dispatch(&dashboard.db, mode, Some(upstream), true).await?;
    Ok(match dispatched.first().and_then(|one| one.skipped) {
        Some(why) => format!("{mode} was not started: {why}."),
        None => format!("{mode} starts now."),
    })
}
