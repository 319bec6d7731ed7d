//! The body of the next request to zooid, and its difference from the last one that zooid accepted.

use maud::{Markup, html};
use serde_json::Value;
use tender_jobs::provision::relay::Relay;

use crate::dashboard::Dashboard;

/// A document, indented.
pub(super) fn pretty(document: &Value) -> String {
    serde_json::to_string_pretty(document).unwrap_or_default()
}

/// The body of the next request, and its difference from the last one that zooid accepted.
pub(super) fn section(dashboard: &Dashboard, relay: &Relay, sent: Option<&Value>) -> Markup {
    let next = dashboard.zooid.as_ref().map(|zooid| zooid.preview(relay));
    html! {
        section aria-labelledby="body" {
            h2 #body { "Request to zooid" }
            @match &next {
                None => p { "Not shown: zooid is not configured in this process." },
                Some(next) => {
                    (difference(sent, next))
                    details #next-body {
                        summary { "The body of the next " (if relay.provisioned_at.is_some() { "PATCH" } else { "POST" }) }
                        pre.scroll tabindex="0" { (pretty(next)) }
                    }
                }
            }
        }
    }
}

fn difference(sent: Option<&Value>, next: &Value) -> Markup {
    let Some(sent) = sent else { return html! { p { "zooid has accepted no request yet." } } };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    flatten("", sent, &mut before);
    flatten("", next, &mut after);
    let lacks = |lines: &[(String, String)], line: &(String, String)| !lines.contains(line);
    let changed: Vec<_> = after.iter().filter(|line| lacks(&before, line)).collect();
    let gone: Vec<_> = before.iter().filter(|line| lacks(&after, line)).collect();
    html! {
        @if changed.is_empty() && gone.is_empty() {
            p { "The same as the last request that zooid accepted." }
        } @else {
            p { "Differences from the last request that zooid accepted:" }
            pre.diff.scroll tabindex="0" {
                @for (path, value) in gone { span.gone { "- " (path) ": " (value) "\n" } }
                @for (path, value) in changed { span.new { "+ " (path) ": " (value) "\n" } }
            }
        }
    }
}

/// Adds a document to `lines`, a line per value with its path.
fn flatten(path: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    let Value::Object(fields) = value else {
        return lines.push((path.to_owned(), value.to_string()));
    };
    for (name, value) in fields {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        flatten(&path, value, lines);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_differ_by_line() {
        let next = json!({"host": "b", "info": {"name": "x"}});
        let markup = difference(Some(&json!({"host": "a", "info": {"name": "x"}})), &next);
        let text = markup.into_string();
        assert!(text.contains("- host: &quot;a&quot;") && text.contains("+ host: &quot;b&quot;"));
        assert!(!text.contains("info.name"), "{text}");
        assert!(
            difference(Some(&next), &next).into_string().contains("The same as the last request")
        );
    }
}
