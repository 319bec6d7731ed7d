//! The record of operators' actions.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use tender_jobs::console::operator::{self, Action};

use crate::dashboard::{
    Dashboard,
    layout::{self, Page},
    parts::{Problem, scroll, short_key, time},
    session::Viewer,
};

/// The number of actions on the page.
const ACTIONS: i64 = 200;

pub(in crate::dashboard) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
) -> Result<Response, Problem> {
    let last = operator::last(&dashboard.db, ACTIONS).await?;
    let page = Page {
        title: "Actions",
        section: "/actions",
        notice: None,
        fixed: table(&last),
        live: None,
    };
    Ok(layout::page(&viewer, &page).into_response())
}

fn table(actions: &[Action]) -> Markup {
    html! {
        p { "The last " (ACTIONS) " actions of operators, the most recent first. The timeline of a relay also lists its own changes." }
        @if actions.is_empty() { p { "No operator has acted yet." } } @else {
            (scroll("Actions", &html! {
                table.cards {
                    thead { tr { th { "When" } th { "Operator" } th { "Action" } th { "Target" } th { "Result" } } }
                    tbody { @for action in actions { (row(action)) } }
                }
            }))
        }
    }
}

fn row(action: &Action) -> Markup {
    html! {
        tr {
            td data-label="When" { (time(action.created_at)) }
            td data-label="Operator" { code title=(action.who) { (short_key(&action.who)) } }
            td data-label="Action" { (action.action.replace('_', " ")) }
            td data-label="Target" { (action.target) }
            td data-label="Result" { (action.result) }
        }
    }
}
