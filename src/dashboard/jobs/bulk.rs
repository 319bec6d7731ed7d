//! What an operator does to several jobs: the form around the list, the question, the deed.

use axum::extract::Query;
use maud::{Markup, html};
use serde::Deserialize;
use sqlx::PgPool;
use tender_jobs::{
    console::operator::Begun,
    provision::relay::By,
    queue::COUNT_CAP,
    steer::{self, Bounds, Bulk, Verb},
};

use super::Shown;
use crate::dashboard::{
    PATH,
    actions::{Action, Answer, Asked},
    parts::Problem,
    session::Viewer,
};
use crate::selection::{self, Selected};

/// The most jobs that a page counts.
pub(super) const COUNTED: i64 = 1000;
/// The most jobs that a form may name.
const MOST_NAMED: usize = 500;

/// The most jobs that the record of an action names; it counts the others.
const WRITTEN: usize = 25;

/// What the operator was asked about, in the address of the form that confirms.
#[derive(Debug, Default, Deserialize)]
pub(in crate::dashboard) struct Counted {
    counted: Option<i64>,
}

/// The form with the list inside. The server asks for the confirmation, so that the question has the exact count.
pub(super) fn form(viewer: &Viewer, shown: &Shown, all: &str, table: &Markup) -> Markup {
    if !viewer.may_act() {
        return html! { (table) };
    }
    html! {
        form #steer .steer method="post" action={ (PATH) "/jobs/steer" } {
            input type="hidden" name="form_token" value=(viewer.form_token);
            @for (name, value) in shown.filters() { input type="hidden" name=(name) value=(value); }
            fieldset {
                legend { "With" }
                label { input type="radio" name="scope" value="named" id="scope-named" checked; "the selected jobs" }
                label { input type="radio" name="scope" value="all" id="scope-all"; "all that match (" (all) ")" }
                label.all hidden { input type="checkbox" id="pick-all"; "select this page" }
                button name="verb" value="retry" { "Retry …" }
                button.grave name="verb" value="cancel" { "Cancel …" }
                button.grave name="verb" value="delete" { "Delete …" }
            }
            (table)
        }
    }
}

/// The jobs that a form means.
enum Scope {
    Named(Vec<String>),
    Matching(Shown),
}

impl Scope {
    /// `None` if the form is malformed.
    fn of(asked: &Asked) -> Option<Self> {
        if asked.field("scope") == "all" {
            let field = |name| asked.field(name).to_owned();
            let shown = Shown {
                host: field("host"),
                tenant: field("tenant"),
                queue: field("queue"),
                state: field("state"),
                error: field("error"),
                age: field("age"),
                ..Shown::default()
            };
            return shown.is_understood().then_some(Self::Matching(shown));
        }
        let named = asked.fields.iter().filter(|(name, _)| name == "job");
        let named: Vec<String> = named.map(|(_, id)| id.clone()).collect();
        (named.len() <= MOST_NAMED && named.iter().all(|id| !id.contains('\0')))
            .then_some(Self::Named(named))
    }

    /// How the record of actions names the jobs.
    fn words(&self) -> String {
        match self {
            Self::Named(ids) => {
                let (first, rest) = ids.split_at(ids.len().min(WRITTEN));
                let more = if rest.is_empty() {
                    String::new()
                } else {
                    format!(" and {} more", rest.len())
                };
                format!("selected: {}{more}", first.join(" "))
            }
            Self::Matching(shown) => {
                let filters = shown.filters().into_iter();
                selection::described(filters.map(|(name, value)| (name, value.to_owned())))
            }
        }
    }

    async fn find(self, db: &PgPool) -> Result<Jobs, sqlx::Error> {
        Ok(match self {
            Self::Named(ids) => Jobs::Named(ids),
            Self::Matching(shown) => Jobs::Matching(shown.selection().find(db).await?),
        })
    }
}

/// The jobs that a form means now.
enum Jobs {
    Named(Vec<String>),
    Matching(Selected),
}

impl Jobs {
    /// Counts the jobs whose state allows it, at most [`COUNT_CAP`].
    async fn count(&self, db: &PgPool, verb: Verb) -> Result<i64, sqlx::Error> {
        match self {
            Self::Named(ids) => steer::count_named(db, verb, ids).await,
            Self::Matching(found) => {
                steer::count_matching(db, verb, &found.filter, COUNT_CAP).await
            }
        }
    }

    async fn steer(
        &self,
        db: &PgPool,
        verb: Verb,
        by: &By,
        record: Begun,
    ) -> Result<Bulk, sqlx::Error> {
        match self {
            Self::Named(ids) => steer::named(db, verb, ids, by, record).await,
            Self::Matching(found) => {
                steer::matching(db, verb, &found.filter, Bounds::PAGE, by, record).await
            }
        }
    }

    /// Whether only some of the relays or upstreams that match are reached.
    fn is_cut(&self) -> bool {
        matches!(self, Self::Matching(Selected { is_cut: true, .. }))
    }
}

/// Asks with the count, then acts. If more jobs match at the confirmation than at the question, it asks again.
pub(in crate::dashboard) async fn steer(Query(before): Query<Counted>, asked: Asked) -> Answer {
    if let Err(refused) = asked.allow("steer_jobs", "").await {
        return Ok(*refused);
    }
    let verb = Verb::parse(asked.field("verb")).ok_or(Problem::NotFound)?;
    let scope = Scope::of(&asked).ok_or(Problem::NotFound)?;
    let target = scope.words();
    let jobs = scope.find(&asked.dashboard.db).await?;
    let (counted, is_cut) = (jobs.count(&asked.dashboard.db, verb).await?, jobs.is_cut());
    let action = Action {
        name: format!("{}_jobs", verb.as_str()),
        target,
        question: "Do this?",
        path: format!("{PATH}/jobs/steer?counted={counted}"),
        otherwise: format!("{PATH}/jobs"),
    };
    let question = selection::question(verb, counted, is_cut);
    if before.counted.is_some_and(|before| counted > before) {
        return Ok(asked.confirm(&action, &format!("More jobs match now. {question}")));
    }
    let doing = match asked.begin_with(action, &question).await {
        Ok(doing) => doing,
        Err(answer) => return Ok(*answer),
    };
    let by = asked.by();
    let work = move |db: PgPool, record: Begun| async move {
        let bulk = jobs.steer(&db, verb, &by, record).await?;
        Ok(selection::done(verb, bulk, is_cut))
    };
    doing.in_steps(work).await
}
