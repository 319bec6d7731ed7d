//! The frame of every page.

use maud::{DOCTYPE, Markup, html};

use super::{PATH, parts::short_key, session::Viewer};

/// The sections, in the order of the navigation.
const SECTIONS: [(&str, &str); 8] = [
    ("", "Fleet"),
    ("/relays", "Relays"),
    ("/upstreams", "Upstreams"),
    ("/events", "Events"),
    ("/queues", "Queues"),
    ("/jobs", "Jobs"),
    ("/actions", "Actions"),
    ("/board", "Board"),
];

/// A page's own part.
pub(super) struct Page<'a> {
    pub(super) title: &'a str,
    /// Its section's path.
    pub(super) section: &'a str,
    /// What came of the action before.
    pub(super) notice: Option<String>,
    /// Where its live part comes from, and what it is now.
    pub(super) live: Option<(&'a str, Markup)>,
    /// What does not change by itself, above it.
    pub(super) fixed: Markup,
}

pub(super) fn page(viewer: &Viewer, page: &Page<'_>) -> Markup {
    let scripts = ["htmx.min.js", "hx-sse.min.js", "uplot.min.js", "app.js"];
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(page.title, &scripts))
            body {
                a.skip href="#main" { "To the content" }
                header {
                    a.brand href=(PATH) { "Tender" }
                    nav aria-label="Sections" {
                        @for (path, name) in SECTIONS {
                            a href={ (PATH) (path) } aria-current=[(path == page.section).then_some("page")] { (name) }
                        }
                    }
                    (who(viewer))
                }
                main #main {
                    h1 { (page.title) }
                    @if let Some(notice) = &page.notice { p.notice role="status" { (notice) } }
                    (page.fixed)
                    @if let Some((source, markup)) = &page.live {
                        div #live hx-sse:connect={ (PATH) "/live" (source) } hx-swap="innerMorph" { (markup) }
                    }
                }
            }
        }
    }
}

fn who(viewer: &Viewer) -> Markup {
    html! {
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
            meta name="htmx-config" content=r#"{"includeIndicatorCSS": false}"#;
            title { (title) " · Tender" }
            link rel="icon" type="image/svg+xml" href={ (PATH) "/public/icon.svg" };
            link rel="stylesheet" href={ (PATH) "/public/app.css" };
            @for script in scripts {
                script src={ (PATH) "/assets/" (script) } defer {}
            }
        }
    }
}

/// A page without navigation: before the login, and when something is wrong.
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
