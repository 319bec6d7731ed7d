//! The frame of every page.

use maud::{DOCTYPE, Markup, html};

use super::{
    PATH,
    parts::{short_key, time},
    session::Viewer,
};

/// Path and name of each section, in the order of the navigation.
const SECTIONS: [(&str, &str); 13] = [
    ("", "Fleet"),
    ("/charts", "Charts"),
    ("/relays", "Relays"),
    ("/upstreams", "Upstreams"),
    ("/events", "Events"),
    ("/repositories", "Repositories"),
    ("/followed", "Followed"),
    ("/parked", "Parked"),
    ("/queues", "Queues"),
    ("/jobs", "Jobs"),
    ("/schedule", "Schedule"),
    ("/processes", "Processes"),
    ("/actions", "Actions"),
];

/// The settings of htmx: no style of its own, and `<details>` stay as the reader left them.
const HTMX: &str =
    r#"{"includeIndicatorCSS": false, "morphIgnore": ["data-htmx-powered", "open"]}"#;

/// The parts of a page that differ from page to page.
pub(super) struct Page<'a> {
    pub(super) title: &'a str,
    /// The path of the page's section.
    pub(super) section: &'a str,
    /// The result of the action that led to this page.
    pub(super) notice: Option<String>,
    /// The live part: the path of its stream below `/live`, and its current markup.
    pub(super) live: Option<(&'a str, Markup)>,
    /// The part above the live one. It changes only when the page is loaded again.
    pub(super) fixed: Markup,
}

pub(super) fn page(viewer: &Viewer, page: &Page<'_>) -> Markup {
    titled(viewer, page, page.title)
}

/// A page whose tab has another title than its heading.
pub(super) fn titled(viewer: &Viewer, page: &Page<'_>, title: &str) -> Markup {
    let scripts = ["htmx.min.js", "uplot.min.js", "app.js", "keys.js", "chart.js", "live.js"];
    html! {
        (DOCTYPE)
        html lang="en" data-scheme=[viewer.scheme.as_str()] {
            (head(title, &scripts))
            body {
                a.skip href="#main" { "Skip to the content" }
                header {
                    a.brand href=(PATH) { "Tender" }
                    nav aria-label="Sections" {
                        @for (path, name) in SECTIONS {
                            a href={ (PATH) (path) } aria-current=[(path == page.section).then_some("page")] { (name) }
                        }
                    }
                    (find())
                    (who(viewer))
                }
                main #main {
                    div.head { h1 { (page.title) } (fresh(viewer, page.live.is_some())) }
                    div #banner .banner role="alert" hidden { span {} " " a hidden href={ (PATH) "/login" } { "Log in" } }
                    @if let Some(notice) = &page.notice { p.notice role="status" { (notice) } }
                    (page.fixed)
                    @if let Some((source, markup)) = &page.live {
                        div #live data-source={ (PATH) "/live" (source) } { (markup) }
                    }
                }
            }
        }
    }
}

/// The age of what is shown. A script updates it on a live page, and shows the switch.
fn fresh(viewer: &Viewer, is_live: bool) -> Markup {
    html! {
        p #fresh .fresh {
            @if is_live { span.badge.off { "not live" } " " }
            span.age { "read " (time(viewer.now)) }
            @if is_live { " " button type="button" hidden { "Pause" } }
        }
    }
}

/// The search over everything. The key / leads to it.
fn find() -> Markup {
    html! {
        form.find role="search" aria-label="Everything" method="get" action={ (PATH) "/search" } {
            input #find type="search" name="q" aria-label="Search everything" placeholder="Search ( / )" maxlength="400";
        }
    }
}

fn who(viewer: &Viewer) -> Markup {
    let scheme = viewer.scheme;
    html! {
        form.scheme method="post" action={ (PATH) "/scheme" } {
            button name="scheme" value=(scheme.next().name()) title={ "Colours: " (scheme.name()) "; change to " (scheme.next().name()) } {
                (scheme.name())
            }
        }
        form.who method="post" action={ (PATH) "/logout" } {
            span title=(viewer.who) { (short_key(&viewer.who)) " · " (viewer.role.as_str()) }
            input type="hidden" name="form_token" value=(viewer.form_token);
            button { "Log out" }
        }
    }
}

fn head(title: &str, scripts: &[&str]) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta name="htmx-config" content=(HTMX);
            title { (title) " · Tender" }
            link rel="icon" type="image/svg+xml" href={ (PATH) "/public/icon.svg" };
            link rel="stylesheet" href={ (PATH) "/public/app.css" };
            @for script in scripts {
                script src={ (PATH) "/assets/" (script) } defer {}
            }
        }
    }
}

/// A page without navigation, for the login, questions and errors.
pub(super) fn bare(title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(title, &[]))
            body.bare {
                main #main {
                    p.brand { "Tender" }
                    h1 { (title) }
                    (content)
                }
            }
        }
    }
}
