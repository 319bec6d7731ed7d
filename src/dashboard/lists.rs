//! What the pages with lists share: filters, and links to other pages of a list.

use maud::{Markup, html};
use serde::Serialize;

use super::PATH;

/// A field of a list's filters.
pub(super) enum Field<'a> {
    /// A text that the rows contain.
    Search { label: &'a str, name: &'a str, value: &'a str, hint: &'a str },
    /// One of some values, each with its words.
    Choice { label: &'a str, name: &'a str, chosen: &'a str, options: Vec<(&'a str, &'a str)> },
    /// A value that no field shows, and that a change of the others keeps.
    Kept { name: &'a str, value: &'a str },
}

impl<'a> Field<'a> {
    /// A choice that also has `any`, the empty value.
    pub(super) fn any(
        label: &'a str,
        name: &'a str,
        chosen: &'a str,
        options: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let options = [("", "any")].into_iter().chain(options).collect();
        Self::Choice { label, name, chosen, options }
    }
}

/// The filters of a list, such as `/followed`. If it is live, a script applies them to the live part.
pub(super) fn filters(list: &str, is_live: bool, fields: &[Field<'_>]) -> Markup {
    html! {
        form.filters method="get" action={ (PATH) (list) } role="search" data-filters=[is_live.then_some(list)] {
            @for field in fields { (labelled(field)) }
            button { "Show" }
        }
    }
}

fn labelled(field: &Field<'_>) -> Markup {
    html! {
        @match field {
            Field::Search { label, name, value, hint } => {
                label { (label) input type="search" name=(name) value=(value) placeholder=[(!hint.is_empty()).then_some(hint)]; }
            }
            Field::Choice { label, name, chosen, options } => {
                label { (label) select name=(name) {
                    @for (value, words) in options { option value=(value) selected[value == chosen] { (words) } }
                } }
            }
            Field::Kept { name, value } => {
                @if !value.is_empty() { input type="hidden" name=(name) value=(value); }
            }
        }
    }
}

/// The queries of a list's other pages; `None` for a page that does not exist.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pub(super) first: Option<String>,
    pub(super) previous: Option<String>,
    pub(super) next: Option<String>,
}

impl Pages {
    /// The links to these pages of a list.
    pub(super) fn of(&self, list: &str) -> Markup {
        let links = [
            (&self.first, None, "First page"),
            (&self.previous, Some("prev"), "Previous page"),
            (&self.next, Some("next"), "Next page"),
        ];
        html! {
            nav.pages aria-label="Pages" {
                @for (query, rel, words) in links {
                    @if let Some(query) = query { a rel=[rel] href={ (PATH) (list) (query) } { (words) } " " }
                }
            }
        }
    }
}

/// Returns the filters and the place of a list as a query: `?q=alpha`, or nothing.
pub(super) fn query_of(shown: &impl Serialize) -> String {
    match serde_urlencoded::to_string(shown) {
        Ok(query) if !query.is_empty() => format!("?{query}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_mark_what_is_chosen_and_escape_what_was_typed() {
        let q = Field::Search { label: "Search", name: "q", value: "<b>", hint: "" };
        let state = Field::any("State", "state", "dead", [("dead", "dead"), ("fault", "fault")]);
        let form = filters("/followed", true, &[q, state]).0;
        assert!(form.contains("data-filters=\"/followed\""), "{form}");
        assert!(form.contains("value=\"&lt;b&gt;\"") && !form.contains("placeholder"), "{form}");
        assert!(form.contains("<option value=\"dead\" selected>dead</option>"), "{form}");
        assert!(!filters("/jobs", false, &[]).0.contains("data-filters"));
    }

    #[test]
    fn only_pages_that_exist_are_linked() {
        let pages = Pages { next: Some("?after=x".to_owned()), ..Pages::default() };
        let links = pages.of("/jobs").0;
        assert!(links.contains("rel=\"next\" href=\"/dashboard/jobs?after=x\""), "{links}");
        assert_eq!(links.matches("<a ").count(), 1);
    }
}
