//! Actions on what needs attention: snooze an item, list it again, sync the relays of a cause.

use serde_json::{Value, json};
use sqlx::PgPool;
use tender_jobs::{
    console::{
        operator::Begun,
        snooze::{self, LONGEST_HOURS, LONGEST_REASON},
    },
    provision::relay::{self, COUNT_CAP, CauseRequested},
};

use super::{
    PATH,
    actions::{Action, Answer, Asked, begin},
    parts::{count, numbered},
};

fn action(asked: &Asked, name: &str, question: &'static str) -> Action {
    Action {
        name: format!("{name}_attention"),
        target: asked.form.key.clone(),
        question,
        path: format!("{PATH}/attention/{name}"),
        otherwise: PATH.to_owned(),
    }
}

pub(super) async fn snooze(asked: Asked) -> Answer {
    let form = &asked.form;
    let doing = begin!(asked, action(&asked, "snooze", "Snooze this item?"));
    let reason = form.reason.trim();
    let hours = form.hours.parse().ok().filter(|hours| (1..=LONGEST_HOURS).contains(hours));
    let (Some(hours), 1..=LONGEST_REASON, 1..=400) =
        (hours, reason.chars().count(), form.key.chars().count())
    else {
        let words = format!(
            "a snooze needs a reason of at most {LONGEST_REASON} characters, and 1 to {LONGEST_HOURS} hours"
        );
        return doing.done(Err(words)).await;
    };
    let size = form.size.parse().unwrap_or(1);
    let doing =
        doing.changed(Value::Null, json!({ "reason": reason, "hours": hours, "size": size }));
    let mut tx = doing.open().await?;
    snooze::begin(&mut *tx, &form.key, reason, &asked.viewer.who, size, hours).await?;
    let answer = doing.commit(tx, Ok(format!("Snoozed for {hours} h: {reason}"))).await;
    asked.dashboard.fleet.forget().await;
    answer
}

pub(super) async fn wake(asked: Asked) -> Answer {
    let doing = begin!(asked, action(&asked, "wake", "List this item again?"));
    let mut tx = doing.open().await?;
    let words = if snooze::end(&mut *tx, &asked.form.key).await? {
        "The item is listed again."
    } else {
        "The item was not snoozed; nothing changed."
    };
    let answer = doing.commit(tx, Ok(words.to_owned())).await;
    asked.dashboard.fleet.forget().await;
    answer
}

pub(super) async fn sync(asked: Asked) -> Answer {
    let question = "Send the relays that gave up for this cause to zooid again now?";
    let doing = begin!(asked, action(&asked, "sync", question));
    let (cause, by) = (asked.form.key.clone(), doing.by());
    let work = move |db: PgPool, record: Begun| async move {
        relay::request_cause(&db, &cause, &by, record).await.map(words)
    };
    doing.in_steps(work).await
}

fn words(requested: CauseRequested) -> String {
    let CauseRequested { relays, left } = requested;
    let relays = i64::try_from(relays).unwrap_or(i64::MAX);
    let done = match relays {
        0 => "No relay gave up for this cause any more; nothing changed.".to_owned(),
        1 => "1 relay goes to zooid next.".to_owned(),
        _ => format!("{} go to zooid next.", numbered(relays, "relay")),
    };
    if left == 0 {
        return done;
    }
    format!("{done} {} left: press the button again.", count(left, left >= COUNT_CAP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_says_how_many_are_left() {
        let said = |relays, left| words(CauseRequested { relays, left });
        assert_eq!(said(1, 0), "1 relay goes to zooid next.");
        assert_eq!(said(52_000, 0), "52,000 relays go to zooid next.");
        assert_eq!(
            said(52_000, COUNT_CAP),
            "52,000 relays go to zooid next. 10,000+ left: press the button again."
        );
    }
}
