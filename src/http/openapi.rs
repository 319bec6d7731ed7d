//! The OpenAPI document. The routes bring their own descriptions, so that each route of the router is in
//! it. This module adds what they share.

use axum::Json;
use utoipa::{
    OpenApi, PartialSchema, ToSchema,
    openapi::{
        Content, HttpMethod, PathItem, RefOr, ResponseBuilder,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn},
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};

use super::stats;

#[derive(OpenApi)]
#[openapi(
    info(title = "Tender", description = "Provisions the relays of a Nostr relay host on \
        zooid, mirrors events with other relays, and follows the relays that git repositories \
        name.\n\n\
        Answers are {\"data\": …} or {\"error\": \"…\"}, except below /api/v1."),
    components(schemas(Failure)),
    security(("nostr" = [])),
)]
struct Head;

/// Why a request was not done.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct Failure {
    /// What failed, why, and what to do.
    error: String,
}

/// The answers of every route with authentication.
const SHARED: [(&str, &str); 3] = [
    ("401", "not authenticated"),
    ("429", "too many requests; Retry-After has the wait in seconds"),
    ("500", "internal error; the server's log has the cause"),
];

/// Returns what an answer means whose route does not say more.
fn meaning(status: &str) -> &'static str {
    match status {
        "200" => "done",
        "201" => "created",
        "202" => "accepted: a worker does the rest",
        "204" => "done; the answer has no body",
        "303" => "go to the address in Location",
        "400" => "the body cannot be read",
        "404" => "it does not exist, or belongs to somebody else",
        "409" => "the state of the thing does not allow it",
        "413" => "the body is longer than 64 KiB",
        "422" => "a field or a parameter is invalid; the answer names it",
        "502" => "zooid did not answer as it must",
        _ => "not available now; the answer says why",
    }
}

/// Returns the OpenAPI document of all routes.
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = Head::openapi();
    document.merge(super::routes().into_openapi());
    document.merge(stats::routes().into_openapi());
    add_schemes(&mut document);
    for (path, item) in &mut document.paths.paths {
        complete(path, item);
    }
    document
}

/// Returns this document.
#[utoipa::path(get, path = "/openapi.json", tag = "probes", security(()), responses((status = 200)))]
pub(super) async fn show() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}

/// Returns each operation of a document: its method, its path, and the statuses of its answers.
pub(super) fn operations() -> Vec<(&'static str, String, Vec<String>)> {
    let mut all = Vec::new();
    for (path, mut item) in document().paths.paths {
        for (method, operation) in of_item(&mut item) {
            let statuses = operation.responses.responses.keys().cloned().collect();
            all.push((name_of(&method), path.clone(), statuses));
        }
    }
    all
}

fn add_schemes(document: &mut utoipa::openapi::OpenApi) {
    let scheme = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
        "Authorization",
        "`Nostr <base64 event>`: a NIP-98 event for this request, or a session event with the \
         base URL as u and the method GET, at most 15 minutes old",
    )));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("nostr", scheme);
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.add_security_scheme("bearer", bearer);
}

/// Gives each operation of a path a name of its own, its path parameters, and the answers that all share.
fn complete(path: &str, item: &mut PathItem) {
    let words = |c: char| !c.is_ascii_alphanumeric();
    for (method, operation) in of_item(item) {
        let words = path.split(words).filter(|word| !word.is_empty());
        let words = std::iter::once(name_of(&method)).chain(words);
        operation.operation_id = Some(words.collect::<Vec<_>>().join("_").to_lowercase());
        for name in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
            name_parameter(operation, name);
        }
        if is_protected(operation) {
            share(operation);
        }
        for (status, answer) in &mut operation.responses.responses {
            if let RefOr::T(answer) = answer
                && answer.description.is_empty()
            {
                meaning(status).clone_into(&mut answer.description);
            }
        }
    }
}

fn of_item(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    [
        (HttpMethod::Get, item.get.as_mut()),
        (HttpMethod::Put, item.put.as_mut()),
        (HttpMethod::Post, item.post.as_mut()),
        (HttpMethod::Patch, item.patch.as_mut()),
        (HttpMethod::Delete, item.delete.as_mut()),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation?)))
}

fn name_of(method: &HttpMethod) -> &'static str {
    match method {
        HttpMethod::Put => "PUT",
        HttpMethod::Post => "POST",
        HttpMethod::Patch => "PATCH",
        HttpMethod::Delete => "DELETE",
        _ => "GET",
    }
}

fn name_parameter(operation: &mut Operation, name: &str) {
    let parameters = operation.parameters.get_or_insert_default();
    let is_named = |one: &RefOr<Parameter>| matches!(one, RefOr::T(one) if one.name == name && one.parameter_in == ParameterIn::Path);
    if parameters.iter().any(is_named) {
        return;
    }
    let meaning = match name {
        "pubkey" => "the tenant's public key in hex",
        "address" => "kind:public key:identifier",
        _ => "id of the row",
    };
    let parameter: Parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .description(Some(meaning))
        .schema(Some(String::schema()))
        .build();
    parameters.push(RefOr::T(parameter));
}

/// Whether an operation requires authentication. One without is declared with `security(())`.
fn is_protected(operation: &Operation) -> bool {
    let declared = operation.security.as_ref();
    declared.is_none_or(|all| {
        all.iter()
            .any(|one| serde_json::to_value(one).is_ok_and(|one| one != serde_json::json!({})))
    })
}

fn share(operation: &mut Operation) {
    for (status, meaning) in SHARED {
        let content =
            Content::new(Some(RefOr::Ref(utoipa::openapi::Ref::from_schema_name("Failure"))));
        let answer = ResponseBuilder::new()
            .description(meaning)
            .content("application/json", content)
            .build();
        operation.responses.responses.insert(status.to_owned(), answer.into());
    }
}
