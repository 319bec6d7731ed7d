//! Actions on relays and zooid instances.

use axum::extract::Path;
use serde_json::json;
use sqlx::PgConnection;
use tender_jobs::{
    provision::{
        RECONCILE, instance,
        relay::{self, By, MutationError, RelayId, Status},
    },
    queue::{self, NewJob},
};

use crate::{
    dashboard::{
        PATH,
        actions::{Action, Answer, Asked, begin},
        parts::Problem,
    },
    words::probe::{ANSWERED_WITHIN, found},
};

pub(in crate::dashboard) async fn relay(
    Path((id, verb)): Path<(String, String)>,
    asked: Asked,
) -> Answer {
    let relay = super::relay::find(&asked.dashboard, &id).await?;
    let (question, status) = match verb.as_str() {
        "sync" => ("Send this relay to zooid again now?", None),
        "activate" => ("Switch this relay on?", Some(Status::Active)),
        "deactivate" => ("Switch this relay off?", Some(Status::Inactive)),
        "delinquent" => ("Switch this relay off as delinquent?", Some(Status::Delinquent)),
        "delete" => ("Delete this relay, on zooid and here, for good?", Some(Status::Deleting)),
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
    let mut tx = doing.open().await?;
    let changed = change(&mut tx, &relay.id, status, &doing.by()).await;
    let after = status.map_or(relay.status, |status| status);
    let doing = doing.changed(json!({ "status": relay.status }), json!({ "status": after }));
    match changed {
        Err(MutationError::Database(error)) => Err(error.into()),
        changed => doing.commit(tx, changed.map_err(|error| error.to_string())).await,
    }
}

/// Requests a sync, or changes the status if there is one.
async fn change(
    db: &mut PgConnection,
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
        format!("{host} is {} now. The change is on its way to zooid.", status.as_str())
    } else {
        format!("{host} was {} before; nothing changed.", status.as_str())
    })
}

pub(in crate::dashboard) async fn probe(asked: Asked) -> Answer {
    let instance = &asked.form.instance;
    let action = Action {
        name: "probe_instance".to_owned(),
        target: instance.clone(),
        question: "Probe this zooid instance now?",
        path: format!("{PATH}/instances/probe"),
        otherwise: PATH.to_owned(),
    };
    let doing = begin!(asked, action);
    let probe = instance::probe(&asked.dashboard.db, instance, ANSWERED_WITHIN).await?;
    asked.dashboard.fleet.forget().await;
    doing.done(Ok(found(instance, &probe))).await
}

pub(in crate::dashboard) async fn reconcile(asked: Asked) -> Answer {
    let action = Action {
        name: "reconcile".to_owned(),
        target: String::new(),
        question: "Enqueue a job now for every pending relay that has none?",
        path: format!("{PATH}/reconcile"),
        otherwise: PATH.to_owned(),
    };
    let doing = begin!(asked, action);
    let job = NewJob::new(RECONCILE, &json!({ "v": 1 }));
    let mut tx = doing.open().await?;
    queue::enqueue(&mut *tx, &[job]).await?;
    doing.commit(tx, Ok("A reconcile job is due now.".to_owned())).await
}
