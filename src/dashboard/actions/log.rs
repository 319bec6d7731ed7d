//! The record of operators' actions: who did what by which way, what it changed, and how it ended.

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tender_jobs::console::operator::{self, Action, Outcome};

use crate::{
    dashboard::{
        Dashboard, PATH, export,
        layout::{self, Page},
        lists::{Field, Pages, filters, query_of},
        parts::{Problem, query, scroll, short_key, time},
        session::Viewer,
    },
    page::cut,
    search,
};

/// Actions on a page.
const SIZE: i64 = 50;
const VIAS: [(&str, &str); 3] = [("page", "page"), ("command", "command"), ("api", "API key")];

/// The filters, from the address. A value that is not understood is ignored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::dashboard) struct Shown {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    who: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    action: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    target: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    outcome: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    via: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(in crate::dashboard) before: String,
}

impl Shown {
    pub(in crate::dashboard) fn search(&self) -> operator::Search {
        let words = self.action.trim().replace([' ', '\0'], "_");
        operator::Search {
            who: search::normal(&self.who),
            action: (!words.is_empty()).then_some(words),
            target: search::normal(&self.target),
            outcome: Outcome::parse(&self.outcome),
            via: VIAS.iter().find(|(via, _)| *via == self.via).map(|(via, _)| (*via).to_owned()),
            within_secs: None,
            before: self.before.parse().ok(),
        }
    }
}

pub(in crate::dashboard) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    Query(shown): Query<Shown>,
) -> Result<Response, Problem> {
    let rows = operator::list(&dashboard.db, &shown.search(), SIZE + 1).await?;
    let (rows, next) = cut(rows, SIZE, |row| row.id);
    let at = |before: String| query_of(&Shown { before, ..shown.clone() });
    let first = (!shown.before.is_empty()).then(|| at(String::new()));
    let pages = Pages { first, next: next.map(|id| at(id.to_string())), ..Pages::default() };
    let page = Page {
        title: "Actions",
        section: "/actions",
        notice: None,
        fixed: html! { (filter_form(&shown)) (table(&rows)) (pages.of("/actions")) (export::links("actions", &query_of(&Shown { before: String::new(), ..shown.clone() }))) },
        live: None,
    };
    Ok(layout::page(&viewer, &page).into_response())
}

fn filter_form(shown: &Shown) -> Markup {
    let outcomes = Outcome::ALL.map(|outcome| (outcome.as_str(), outcome.as_str()));
    let text = |label, name, value, hint| Field::Search { label, name, value, hint };
    filters(
        "/actions",
        false,
        &[
            text("Who", "who", &shown.who, "key, user, host"),
            text("Action", "action", &shown.action, "relay delete"),
            text("Target", "target", &shown.target, "host, queue, job"),
            Field::any("Result", "outcome", &shown.outcome, outcomes),
            Field::any("By", "via", &shown.via, VIAS),
        ],
    )
}

fn table(actions: &[Action]) -> Markup {
    html! {
        @if actions.is_empty() { p { "No action of an operator matches." } } @else {
            (scroll("Actions", &html! {
                table.cards {
                    thead { tr { th { "When" } th { "Who" } th { "By" } th { "Action" } th { "Target" } th { "Result" } } }
                    tbody { @for action in actions { (row(action)) } }
                }
            }))
        }
    }
}

fn row(action: &Action) -> Markup {
    html! {
        tr id={ "action-" (action.id) } {
            td data-label="When" { (time(action.created_at)) }
            td data-label="Who" { a href={ (PATH) "/actions" (query(&[("who", &action.who)])) } title=(action.who) { (short_key(&action.who)) } }
            td data-label="By" { (action.via) }
            td data-label="Action" { (action.action.replace('_', " ")) }
            td.none[action.target.is_empty()] data-label="Target" { (target(action)) }
            td data-label="Result" { div.result { (badge(action.outcome)) " " (action.result) (changes(action)) } }
        }
    }
}

fn badge(outcome: Outcome) -> Markup {
    let class = match outcome {
        Outcome::Done => "good",
        Outcome::Refused => "warn",
        Outcome::Failed => "bad",
    };
    html! { span class={ "badge " (class) } { (outcome) } }
}

/// The target, with a link to what it names.
fn target(action: &Action) -> Markup {
    let target = action.target.as_str();
    let name = action.action.as_str();
    let to = if name.ends_with("_queue") {
        format!("/jobs{}", query(&[("queue", target)]))
    } else if name.ends_with("_job") {
        format!("/jobs/{target}")
    } else if name.starts_with("relay_") {
        format!("/relays{}", query(&[("q", target)]))
    } else if target.contains("://") {
        format!("/search{}", query(&[("q", target)]))
    } else {
        return html! { @if target.is_empty() { "–" } @else { (target) } };
    };
    html! { a href={ (PATH) (to) } { (target) } }
}

/// What the action changed: each field with its value before and after it.
fn changes(action: &Action) -> Markup {
    let fields = |value: &Option<Value>| {
        value.as_ref().and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let (before, after) = (fields(&action.before), fields(&action.after));
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    html! {
        @if !names.is_empty() {
            ul.changes {
                @for name in names {
                    li {
                        (name) ": "
                        @match (before.get(name), after.get(name)) {
                            (None, Some(new)) => { code { (new) } },
                            (Some(old), None) => { del { code { (old) } } },
                            (old, new) => {
                                code { (old.unwrap_or(&Value::Null)) } " → " code { (new.unwrap_or(&Value::Null)) }
                            },
                        }
                    }
                }
            }
        }
    }
}
