//! The colours of the pages: those of the system, or light, or dark. The choice is a cookie, so pages have it
//! from their first byte, also without scripts.

use axum::{
    Form,
    http::{
        HeaderMap,
        header::{REFERER, SET_COOKIE},
    },
    response::{IntoResponse, Redirect, Response},
};
use serde::Deserialize;

use super::{PATH, parts::is_ours, session::cookie_of};

const COOKIE: &str = "tender_scheme";
const YEAR: u32 = 365 * 24 * 3600;

/// The colours that a reader chose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scheme {
    /// As the system says.
    #[default]
    System,
    Light,
    Dark,
}

impl Scheme {
    /// Returns the choice in the cookies of a request.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match cookie_of(headers, COOKIE) {
            Some("light") => Self::Light,
            Some("dark") => Self::Dark,
            _ => Self::System,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    /// Returns the attribute of the page; `None` if the system decides.
    pub(super) fn as_str(self) -> Option<&'static str> {
        (self != Self::System).then(|| self.name())
    }

    /// Returns the choice that the button offers.
    pub(super) const fn next(self) -> Self {
        match self {
            Self::System => Self::Light,
            Self::Light => Self::Dark,
            Self::Dark => Self::System,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Choice {
    scheme: Scheme,
}

/// Sets the cookie and returns to the page of the button. It needs no token: a foreign page could at most
/// change colours, and the cookie of the session does not come with its form.
pub(super) async fn choose(headers: HeaderMap, Form(choice): Form<Choice>) -> Response {
    let name = choice.scheme.name();
    let cookie = format!("{COOKIE}={name}; Path={PATH}; Max-Age={YEAR}; HttpOnly; SameSite=Strict");
    ([(SET_COOKIE, cookie)], Redirect::to(&came_from(&headers).unwrap_or_else(|| PATH.to_owned())))
        .into_response()
}

/// Returns the page of the dashboard that a form was on.
pub(super) fn came_from(headers: &HeaderMap) -> Option<String> {
    let referer = headers.get(REFERER)?.to_str().ok()?;
    let page = &referer[referer.find(PATH)?..];
    is_ours(page).then(|| page.to_owned())
}
