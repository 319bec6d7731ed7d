//! Queries of lists: filters, and pages by key.

use serde::Deserialize;
use tender_jobs::grasp::{policy::Reason, view::RelayState};
use uuid::Uuid;

use crate::http::v1::V1Error;

/// Rows on a page, unless the query says otherwise.
const SIZE: i64 = 100;
/// The most rows on a page.
const MOST: i64 = 1000;

/// The query of a list. Parameters that a list does not have are ignored.
#[derive(Debug, Default, Deserialize)]
pub(in crate::http) struct Asked {
    pub(super) q: Option<String>,
    reason: Option<String>,
    after: Option<String>,
    service: Option<String>,
    state: Option<String>,
    missing: Option<String>,
    limit: Option<String>,
}

fn invalid<T>(problem: String) -> Result<T, V1Error> {
    Err(V1Error::Invalid(vec![problem]))
}

impl Asked {
    pub(super) fn limit(&self) -> Result<i64, V1Error> {
        let Some(text) = &self.limit else { return Ok(SIZE) };
        match text.parse() {
            Ok(limit @ 1..=MOST) => Ok(limit),
            _ => invalid(format!("limit must be a number from 1 to {MOST}")),
        }
    }

    pub(super) fn service(&self) -> Result<Option<Uuid>, V1Error> {
        match self.service.as_deref().map(str::parse).transpose() {
            Ok(service) => Ok(service),
            Err(_) => invalid("service must be the id of a service".to_owned()),
        }
    }

    pub(super) fn state(&self) -> Result<Option<RelayState>, V1Error> {
        let Some(text) = &self.state else { return Ok(None) };
        let state = RelayState::parse(text);
        if state.is_none() {
            let all = RelayState::ALL.map(RelayState::as_str).join(", ");
            return invalid(format!("state must be one of {all}"));
        }
        Ok(state)
    }

    pub(super) fn reason(&self) -> Result<Option<String>, V1Error> {
        let Some(code) = &self.reason else { return Ok(None) };
        if Reason::parse(code).is_none() {
            let all: Vec<_> = Reason::ALL.iter().map(|one| one.as_str()).collect();
            return invalid(format!("reason must be one of {}", all.join(", ")));
        }
        Ok(Some(code.clone()))
    }

    pub(super) fn missing(&self) -> Result<bool, V1Error> {
        match self.missing.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => invalid("missing must be true or false".to_owned()),
        }
    }

    /// Returns the place after which the page begins, as `parse` reads its mark.
    pub(super) fn after<T>(&self, parse: fn(&str) -> Option<T>) -> Result<Option<T>, V1Error> {
        match self.after.as_deref().map(parse) {
            Some(None) => invalid("after must be copied from the answer before".to_owned()),
            after => Ok(after.flatten()),
        }
    }
}
