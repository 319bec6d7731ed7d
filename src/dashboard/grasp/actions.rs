//! Actions on followed relays.

use axum::extract::Path;
use tender_jobs::grasp::view;

use crate::dashboard::{
    PATH,
    actions::{Action, Answer, Asked, begin},
};

/// Makes the verification of a followed relay due now.
pub(in crate::dashboard) async fn resync(Path(id): Path<String>, asked: Asked) -> Answer {
    let dashboard = &asked.dashboard;
    let one = super::relay::find(dashboard, &id).await?;
    let action = Action {
        name: "resync_grasp".to_owned(),
        target: one.url.clone(),
        question: "Verify everything that this relay has delivered now?",
        path: format!("{PATH}/followed/{id}/resync"),
        otherwise: format!("{PATH}/followed/{id}"),
    };
    let doing = begin!(asked, action);
    let relays = view::request_resync(&dashboard.db, Some(&one.url)).await?;
    let done = match relays {
        0 => Err("the relay is not followed any more".to_owned()),
        _ => Ok("The verification starts as soon as the relay is connected.".to_owned()),
    };
    doing.done(done).await
}
