//! The API's own keys. A token is returned only once, when its key is created.

use axum::{
    Extension, Json, body::Bytes, extract::State, http::StatusCode, response::IntoResponse,
};
use serde_json::{Value, json};
use tender_jobs::console::api_key::{self, Holder};

use super::{body::KeyBody, json_of, record};
use crate::http::{
    Api,
    extract::Segment,
    v1::{Answer, V1Error, id_of},
};
use crate::tokens;

/// Returns the active API keys.
#[utoipa::path(get, path = "/api_keys", tag = "mirror", security(("bearer" = [])),
    responses((status = 200), (status = 401)))]
pub(in crate::http) async fn api_keys(State(api): State<Api>) -> Answer {
    Ok(Json(api_key::list(&api.db, false).await?).into_response())
}

/// Creates an API key. Its token is returned only once.
#[utoipa::path(post, path = "/api_keys", tag = "mirror", security(("bearer" = [])), request_body = KeyBody,
    responses((status = 201), (status = 400), (status = 401), (status = 422)))]
pub(in crate::http) async fn create_key(
    State(api): State<Api>,
    Extension(holder): Extension<Holder>,
    bytes: Bytes,
) -> Answer {
    let body = json_of(&bytes)?;
    let wrapper = body.get("api_key").and_then(Value::as_object);
    let wrapper = wrapper.ok_or(V1Error::Bad("the body must have an object api_key"))?;
    let name = wrapper.get("name").and_then(Value::as_str).unwrap_or_default().trim();
    key_name(name).map_err(|problem| V1Error::Invalid(vec![problem]))?;
    let Some(secret) = &api.config.key_secret else { return Err(V1Error::Unauthorized) };
    let mut tx = tender_jobs::database::begin(&api.db).await?;
    let new = tokens::create(&mut *tx, secret, name).await?;
    record(&mut *tx, &holder, "create_key", &new.key.prefix, name).await?;
    tx.commit().await?;
    let mut body = json!({
        "id": new.key.id, "name": new.key.name, "token": new.token,
        "key_prefix": new.key.prefix, "created_at": new.key.created_at,
    });
    body["message"] = json!("Keep this token; it is not shown again.");
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// Checks the name of an API key. The error is a message for the caller.
pub(crate) fn key_name(name: &str) -> Result<(), String> {
    match name.chars().count() {
        0 => Err("Name can't be blank".to_owned()),
        length if length > api_key::MAX_NAME => {
            Err(format!("Name has more than {} characters", api_key::MAX_NAME))
        }
        _ if name.contains('\0') => Err("Name must not contain U+0000".to_owned()),
        _ => Ok(()),
    }
}

/// Revokes an API key at once. Revoking it again is harmless.
#[utoipa::path(delete, path = "/api_keys/{id}", tag = "mirror", security(("bearer" = [])),
    responses((status = 204), (status = 401), (status = 404)))]
pub(in crate::http) async fn revoke_key(
    State(api): State<Api>,
    Extension(holder): Extension<Holder>,
    Segment(id): Segment,
) -> Answer {
    let mut tx = tender_jobs::database::begin(&api.db).await?;
    let key = api_key::revoke(&mut *tx, id_of(&id)?).await?.ok_or(V1Error::NotFound)?;
    record(&mut *tx, &holder, "revoke_key", &key.prefix, &key.name).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
