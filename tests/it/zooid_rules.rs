//! The stand-in follows zooid's rules: routes, authentication, statuses and words, in zooid's order.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use nostr::{
    event::{EventBuilder, FinalizeEvent, Kind, Tag},
    key::Keys,
    types::Timestamp,
};
use reqwest::{Client, Method, RequestBuilder, redirect};
use serde_json::{Value, json};
use tender::demo::zooid::ZooidStandIn;

use crate::support::install_tls;

const ID: &str = "0b6d9f0e-5b1c-4c7e-9b43-1c1f6b8f2a10";
const PUBKEY: &str = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

struct Api {
    zooid: ZooidStandIn,
    robot: Keys,
    http: Client,
}

/// What a signature may get wrong.
struct Signed {
    kind: u16,
    at: i64,
    url: Option<String>,
    method: Option<&'static str>,
}

impl Default for Signed {
    fn default() -> Self {
        Self { kind: 27235, at: 0, url: None, method: None }
    }
}

impl Api {
    async fn new() -> Self {
        install_tls();
        let robot = Keys::generate();
        let zooid = ZooidStandIn::start(vec![robot.public_key()]).await.unwrap();
        let http = Client::builder().redirect(redirect::Policy::none()).build().unwrap();
        Self { zooid, robot, http }
    }

    fn authorization(&self, method: &Method, path: &str, how: &Signed) -> String {
        let url = how.url.clone().unwrap_or_else(|| format!("{}{path}", self.zooid.url()));
        let at = Timestamp::from(Timestamp::now().as_secs().checked_add_signed(how.at).unwrap());
        let event = EventBuilder::new(Kind::from(how.kind), "")
            .tag(Tag::custom("u", [url]))
            .tag(Tag::custom("method", [how.method.unwrap_or(method.as_str())]))
            .custom_created_at(at)
            .finalize(&self.robot)
            .unwrap();
        format!("Nostr {}", STANDARD.encode(serde_json::to_vec(&event).unwrap()))
    }

    fn request(&self, method: &Method, path: &str) -> RequestBuilder {
        self.http.request(method.clone(), format!("{}{path}", self.zooid.url()))
    }

    fn signed(&self, method: &Method, path: &str) -> RequestBuilder {
        let authorization = self.authorization(method, path, &Signed::default());
        self.request(method, path).header("authorization", authorization)
    }

    /// The status and zooid's message or error of a signed request.
    async fn call(&self, method: Method, path: &str, body: &str) -> (u16, String) {
        told(self.signed(&method, path).body(body.to_owned())).await
    }

    async fn relay(&self, method: Method, body: &Value) -> (u16, String) {
        self.call(method, &format!("/relay/{ID}"), &body.to_string()).await
    }

    async fn refusal(&self, how: Signed) -> (u16, String) {
        let path = format!("/relay/{ID}/members");
        let authorization = self.authorization(&Method::GET, &path, &how);
        told(self.request(&Method::GET, &path).header("authorization", authorization)).await
    }
}

/// The status and the text of an answer: its message or error if it is JSON, else the text itself.
async fn told(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    assert!(response.headers().contains_key("date"));
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let json: Option<Value> = serde_json::from_str(&text).ok();
    let words = json.and_then(|json| {
        let words = json.get("error").or_else(|| json.get("message"))?.as_str()?;
        Some(words.to_owned())
    });
    (status, words.unwrap_or_else(|| text.trim_end().to_owned()))
}

fn is(answer: &(u16, String), status: u16, words: &str) {
    assert_eq!((answer.0, answer.1.as_str()), (status, words));
}

fn document(host: &str, schema: &str) -> Value {
    json!({ "host": host, "schema": schema, "secret": "01".repeat(32), "info": { "pubkey": PUBKEY } })
}

#[tokio::test]
async fn the_route_is_chosen_before_the_signature_is_checked() {
    let api = Api::new().await;
    for (method, path, status, words) in [
        (Method::GET, "/", 404, "404 page not found"),
        (Method::PATCH, "/relay/x/", 404, "404 page not found"),
        (Method::PATCH, "/relay", 404, "404 page not found"),
        (Method::GET, "/relay/x", 405, "Method Not Allowed"),
        (Method::POST, "/relay/x/members", 405, "Method Not Allowed"),
        (Method::PATCH, "//relay/x", 307, "Temporary Redirect"),
    ] {
        is(&told(api.request(&method, path)).await, status, words);
    }
    is(&told(api.request(&Method::PATCH, "/relay/x")).await, 401, "missing authorization header");
    let allowed = api.request(&Method::GET, "/relay/x").send().await.unwrap();
    assert_eq!(allowed.headers()["allow"], "DELETE, PATCH, POST, PUT");
}

#[tokio::test]
async fn only_the_host_of_the_api_is_served() {
    let api = Api::new().await;
    api.relay(Method::POST, &document("a.test", "a")).await;
    for host in [Some("api.test"), None] {
        api.zooid.tune(|rules| rules.host = host.map(str::to_owned));
        is(&api.relay(Method::PATCH, &json!({})).await, 404, "Not Found");
        is(&told(api.request(&Method::GET, "/")).await, 404, "Not Found");
    }
}

#[tokio::test]
async fn a_signature_is_checked_in_zooids_order() {
    let api = Api::new().await;
    let path = format!("/relay/{ID}/members");
    for (header, words) in [
        ("Nostr", "invalid authorization header format"),
        ("Bearer abc", "invalid authorization header format"),
        ("Nostr !!", "invalid base64 encoding: "),
        ("nOSTR e30x", "invalid event json: "),
        ("Nostr e30=", "invalid event kind: expected 27235, got 0"),
    ] {
        let request = api.request(&Method::GET, &path).header("authorization", header);
        let (status, text) = told(request).await;
        assert!(status == 401 && text.starts_with(words), "{header}: {status} {text}");
    }
    let window = "event is outside the allowed time window";
    let tag = "event missing or invalid u tag";
    for (how, words) in [
        (
            Signed { kind: 1, at: 90, ..Signed::default() },
            "invalid event kind: expected 27235, got 1",
        ),
        (Signed { at: -62, url: Some("x".into()), ..Signed::default() }, window),
        (Signed { at: 62, ..Signed::default() }, window),
        (Signed { url: Some(api.zooid.url()), method: Some("POST"), ..Signed::default() }, tag),
        (
            Signed {
                url: Some(format!("https{}{path}", &api.zooid.url()[4..])),
                ..Signed::default()
            },
            tag,
        ),
        (
            Signed { method: Some("POST"), ..Signed::default() },
            "event missing or invalid method tag",
        ),
    ] {
        is(&api.refusal(how).await, 401, words);
    }
    for at in [-55, 55] {
        let answer = api.refusal(Signed { at, ..Signed::default() }).await;
        is(&answer, 404, "relay not found");
    }
}

#[tokio::test]
async fn a_forged_signature_is_refused_and_the_id_is_not_compared() {
    let api = Api::new().await;
    let path = format!("/relay/{ID}/members");
    let header = api.authorization(&Method::GET, &path, &Signed::default());
    let event = STANDARD.decode(header.trim_start_matches("Nostr ")).unwrap();
    let mut event: Value = serde_json::from_slice(&event).unwrap();
    let ask = async |event: &Value| {
        let header = format!("Nostr {}", STANDARD.encode(event.to_string()));
        told(api.request(&Method::GET, &path).header("authorization", header)).await
    };
    event["id"] = json!("0".repeat(64));
    is(&ask(&event).await, 404, "relay not found");
    event["content"] = json!("forged");
    is(&ask(&event).await, 401, "invalid event signature");
}

#[tokio::test]
async fn only_lower_case_keys_on_the_whitelist_are_let_in() {
    let api = Api::new().await;
    let key = api.robot.public_key().to_hex();
    let refused = "pubkey not in whitelist";
    for (whitelist, status, words) in [
        (vec![key.clone()], 404, "relay not found"),
        (vec![key.to_uppercase()], 403, refused),
        (vec![], 403, refused),
    ] {
        api.zooid.tune(|rules| rules.whitelist = whitelist);
        is(&api.relay(Method::PATCH, &json!({})).await, status, words);
    }
}

#[tokio::test]
async fn each_write_has_its_statuses_and_words() {
    let api = Api::new().await;
    let whole = document("a.test", "a");
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        is(&api.relay(method, &json!([])).await, 404, "relay not found");
    }
    is(&api.relay(Method::POST, &whole).await, 201, "relay created successfully");
    is(&api.relay(Method::POST, &json!([])).await, 409, "relay with this id already exists");
    is(&api.relay(Method::PUT, &whole).await, 200, "relay updated successfully");
    is(&api.relay(Method::PATCH, &Value::Null).await, 200, "relay patched successfully");
    let patch = json!({ "INFO": { "Name": "A" }, "x": 1 });
    is(&api.relay(Method::PATCH, &patch).await, 200, "relay patched successfully");
    assert_eq!(api.zooid.documents()[ID]["info"]["name"], "A");
    let head = api.signed(&Method::HEAD, &format!("/relay/{ID}/members"));
    assert_eq!(head.send().await.unwrap().status(), 200);
    let (status, text) = api.relay(Method::PATCH, &json!({ "inactive": 1 })).await;
    assert!(status == 400 && text.starts_with("json: cannot unmarshal number"), "{text}");
    let long = json!({ "info": { "description": "x".repeat(1024 * 1024) } });
    let too_long = "failed to read body: http: request body too large";
    is(&api.relay(Method::PATCH, &long).await, 400, too_long);
    is(&api.relay(Method::DELETE, &Value::Null).await, 200, "relay deleted successfully");
    assert!(api.zooid.is_empty());
}

#[tokio::test]
async fn a_conflict_names_what_the_first_file_has() {
    let api = Api::new().await;
    api.zooid.put("1", document("b.test", "one"));
    api.zooid.put("2", document("two.test", "a"));
    let host = "host \"b.test\" is already in use";
    is(&api.relay(Method::POST, &document("b.test", "a")).await, 409, host);
    api.zooid.put("0", document("zero.test", "a"));
    let schema = "schema \"a\" is already in use";
    is(&api.relay(Method::POST, &document("b.test", "a")).await, 409, schema);
    is(&api.relay(Method::POST, &document("B.test", "c")).await, 201, "relay created successfully");
    is(&api.relay(Method::PATCH, &json!({ "host": "b.test" })).await, 409, host);
}

#[tokio::test]
async fn a_broken_file_is_replaced_or_deleted_and_nothing_else() {
    let api = Api::new().await;
    let whole = document("a.test", "a");
    api.relay(Method::POST, &whole).await;
    api.zooid.break_file(ID);
    is(&api.relay(Method::POST, &whole).await, 409, "relay with this id already exists");
    assert_eq!(api.relay(Method::PATCH, &json!({})).await.0, 500);
    assert_eq!(api.call(Method::GET, &format!("/relay/{ID}/members"), "").await.0, 500);
    is(&api.relay(Method::PUT, &whole).await, 200, "relay updated successfully");
    assert_eq!(api.relay(Method::PATCH, &json!({})).await.0, 200);
    api.zooid.break_file(ID);
    is(&api.relay(Method::DELETE, &whole).await, 200, "relay deleted successfully");
}

#[tokio::test]
async fn an_older_zooid_says_409_for_a_relay_that_it_does_not_have() {
    let api = Api::new().await;
    api.zooid.tune(|rules| rules.is_older = true);
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        is(&api.relay(method, &json!({})).await, 409, "relay not found");
    }
    let members = api.call(Method::GET, &format!("/relay/{ID}/members"), "").await;
    is(&members, 404, "relay not found");
}

#[tokio::test]
async fn an_owner_who_has_left_stays_a_member() {
    let api = Api::new().await;
    api.relay(Method::POST, &document("a.test", "a")).await;
    let next = Keys::generate().public_key().to_hex();
    api.relay(Method::PATCH, &json!({ "inactive": true, "info": { "pubkey": next } })).await;
    let members = api.signed(&Method::GET, &format!("/relay/{ID}/members"));
    let answer: Value = members.send().await.unwrap().json().await.unwrap();
    let mut expected = vec![PUBKEY.to_owned(), next];
    expected.sort();
    assert_eq!(answer, json!({ "members": expected }));
}

#[tokio::test]
async fn the_date_follows_the_servers_clock() {
    let api = Api::new().await;
    api.zooid.tune(|rules| rules.clock_ahead_secs = 3600);
    is(&api.refusal(Signed::default()).await, 401, "event is outside the allowed time window");
    let answer = api.refusal(Signed { at: 3600, ..Signed::default() }).await;
    is(&answer, 404, "relay not found");
}

#[tokio::test]
async fn writes_share_one_core() {
    let api = Api::new().await;
    for number in 0..20 {
        api.zooid
            .put(&format!("{number}"), document(&format!("{number}.test"), &format!("s{number}")));
    }
    api.zooid.tune(|rules| rules.cost_per_relay = Duration::from_millis(2));
    let started = std::time::Instant::now();
    let paths: Vec<String> = (0..5).map(|number| format!("/relay/{number}")).collect();
    let writes = paths.iter().map(|path| api.call(Method::PATCH, path, "{}"));
    let answers = futures_util::future::join_all(writes).await;
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
    assert!(started.elapsed() >= Duration::from_millis(200), "5 writes of 40 ms of one core");
}
