//! Extractors whose rejections are [`ApiError`]s.

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::request::Parts,
};
use serde::de::DeserializeOwned;
use tender_jobs::provision::relay::FieldError;

use super::{Api, ApiError};

/// The variable segment of a path. A segment that is not valid UTF-8 is rejected with 404.
pub(super) struct Segment(pub(super) String);

impl FromRequestParts<Api> for Segment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, api).await;
        path.map(|Path(text)| Self(text)).map_err(|_| ApiError::NotFound)
    }
}

/// The query string. A malformed query is rejected with 422.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Api> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let query = Query::<T>::from_request_parts(parts, api).await;
        query.map(|Query(value)| Self(value)).map_err(|rejection| {
            let problem = format!("cannot be read: {}", rejection.body_text());
            ApiError::Invalid(vec![FieldError::new("query", problem)])
        })
    }
}
