//! The answers of zooid: bounded reads, and errors whose texts are safe to store and to show.

use std::time::Duration;

use nostr::types::Timestamp;
use reqwest::{Response, StatusCode, Url, header::HeaderMap};
use secrecy::ExposeSecret;
use serde::Deserialize;
use tender_jobs::provision::relay::RelayId;

use super::{Zooid, ZooidError, identity, name_of, redact::redact};

/// The longest answer to a change, in bytes.
pub(super) const MAX_ANSWER: usize = 64 * 1024;
/// The longest list of members, in bytes: about 60,000 keys.
pub(super) const MAX_MEMBERS: usize = 4 * 1024 * 1024;
/// The longest text of an answer in an error, in characters.
const MAX_TEXT: usize = 300;
/// From this difference between zooid's clock and ours, in seconds, an error names the clocks. zooid
/// accepts 60 s.
const SKEW: i64 = 30;

/// The beginnings of zooid's refusals of a signature, with status 401.
const SIGNATURE_REFUSALS: [&str; 9] = [
    "missing authorization header",
    "invalid authorization header format",
    "invalid base64 encoding",
    "invalid event json",
    "invalid event kind",
    "invalid event signature",
    "event is outside the allowed time window",
    "event missing or invalid u tag",
    "event missing or invalid method tag",
];
/// zooid's refusal of a key, with status 403.
const KEY_REFUSAL: &str = "pubkey not in whitelist";
/// zooid's text for a relay that it does not have. Older versions send it with status 409.
const NOT_FOUND: &str = "relay not found";

/// An answer that describes an error.
#[derive(Deserialize)]
struct Words {
    error: Option<String>,
}

/// An answer without success, as far as it is read.
struct Refusal {
    url: Url,
    status: StatusCode,
    headers: HeaderMap,
    /// zooid's own words as it sent them, if the body is its JSON. They are only compared, never shown.
    words: Option<String>,
    /// The text, bounded and without secrets.
    text: String,
}

impl Zooid {
    /// Returns the error for an answer without success. Its text is bounded and holds no secrets.
    pub(super) async fn refused(&self, response: Response, relay: Option<&RelayId>) -> ZooidError {
        let (url, status) = (response.url().clone(), response.status());
        let headers = response.headers().clone();
        let bytes = match self.read(response, MAX_ANSWER).await {
            Ok(bytes) => bytes,
            Err(_) => b"(its answer is too long or broke off)".to_vec(),
        };
        let words: Option<Words> = serde_json::from_slice(&bytes).ok();
        let words = words.and_then(|words| words.error);
        let text = words.clone().unwrap_or_else(|| String::from_utf8_lossy(&bytes).into_owned());
        let text = self.redact(&text, relay).chars().take(MAX_TEXT).collect();
        self.classify(&Refusal { url, status, headers, words, text })
    }

    fn classify(&self, refusal: &Refusal) -> ZooidError {
        let Refusal { status, words, text, .. } = refusal;
        let words = words.as_deref();
        match *status {
            StatusCode::NOT_FOUND | StatusCode::CONFLICT if words == Some(NOT_FOUND) => {
                ZooidError::NotFound
            }
            StatusCode::NOT_FOUND => ZooidError::WrongServer { message: wrong_server(refusal) },
            StatusCode::FORBIDDEN if words == Some(KEY_REFUSAL) => {
                ZooidError::KeyRefused { status: *status, message: self.key_refused(refusal) }
            }
            StatusCode::UNAUTHORIZED if words.is_some_and(is_signature_refusal) => {
                ZooidError::KeyRefused { status: *status, message: signature_refused(refusal) }
            }
            status => ZooidError::Refused {
                status,
                message: with_advice(status, text),
                retry_after: retry_after(&refusal.headers),
                is_from_zooid: words.is_some(),
            },
        }
    }

    fn key_refused(&self, refusal: &Refusal) -> String {
        let Refusal { status, text, .. } = refusal;
        let (hex, npub) = (self.settings.robot.public_key().to_hex(), self.robot_npub());
        format!(
            "zooid answered {status}: {text}; zooid refused our key: add {hex} ({npub}), in hex, to \
             API_WHITELIST"
        )
    }

    /// Removes secrets from a text of zooid, because zooid may repeat the request or its document.
    fn redact(&self, text: &str, relay: Option<&RelayId>) -> String {
        let robot = &self.settings.robot;
        let relay = relay.map(|id| identity::secret(robot, id).to_secret_hex());
        let robot = robot.secret_key().to_secret_hex();
        let blossom = self.blossom().into_iter().flat_map(|b| [&b.access_key, &b.secret_key]);
        let livekit = self.livekit().into_iter().flat_map(|l| [&l.api_key, &l.api_secret]);
        let configured = blossom.chain(livekit).map(ExposeSecret::expose_secret);
        redact(text, configured.chain(relay.as_deref()).chain([robot.as_str()]))
    }

    /// Reads an answer of at most `limit` bytes; a longer answer is an error.
    pub(super) async fn read(
        &self,
        mut response: Response,
        limit: usize,
    ) -> Result<Vec<u8>, ZooidError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unanswered(&error))? {
            if bytes.len() + chunk.len() > limit {
                return Err(unreadable("zooid's answer is too long"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Returns the error for a request without an answer, with the innermost cause. The URL is left
    /// out, because it may hold the operator's credentials.
    pub(super) fn unanswered(&self, error: &reqwest::Error) -> ZooidError {
        let timeout = self.timeout();
        if error.is_connect() && error.is_timeout() {
            let seconds = super::connect_timeout(timeout).as_secs_f64();
            let text = format!("could not connect to zooid within {seconds} s");
            return ZooidError::Unreachable(text);
        }
        if error.is_timeout() {
            let message = format!("zooid did not answer within {} s", timeout.as_secs_f64());
            return ZooidError::Unanswered { message, is_timeout: true };
        }
        if error.is_connect() {
            return ZooidError::Unreachable(with_cause("could not connect to zooid", error));
        }
        if error.is_builder() {
            return ZooidError::Unreachable(with_cause("could not build the request", error));
        }
        unreadable(&with_cause("zooid's answer broke off or could not be read", error))
    }
}

/// Adds the innermost cause of an error to a text.
fn with_cause(text: &str, error: &reqwest::Error) -> String {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause.and_then(std::error::Error::source) {
        cause = Some(inner);
    }
    cause.map_or_else(|| text.to_owned(), |cause| format!("{text}: {cause}"))
}

/// Adds what to check to a refusal of the caller that is not in zooid's words: a proxy may have sent it. Any other
/// text is returned as it is.
fn with_advice(status: StatusCode, text: &str) -> String {
    let check = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "a proxy before zooid, or zooid, refused the robot's key: check the proxy's rules of access, and \
             that zooid's API_WHITELIST has the public key of ROBOT_SECRET"
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            "a proxy before zooid wants a login of its own: let it pass Tender's requests"
        }
        _ => return text.to_owned(),
    };
    let text = if text.trim().is_empty() { "(no text)" } else { text.trim() };
    format!("{text}; {check}")
}

/// zooid compares the request's host with `API_HOST` before all else, and answers 404 to any other.
fn wrong_server(refusal: &Refusal) -> String {
    let Refusal { url, status, text, .. } = refusal;
    let text = if text.trim().is_empty() { "(no text)" } else { text.trim() };
    format!(
        "zooid's API is not at {}: it answered {status}: {text}; ZOOID_API_URL or ZOOID_INSTANCES must \
         name the host and port that zooid's API_HOST has, and a proxy must pass the Host header on",
        origin(url)
    )
}

fn signature_refused(refusal: &Refusal) -> String {
    let Refusal { url, status, text, headers, .. } = refusal;
    let head = format!("zooid answered {status}: {text}; zooid refused our signature: ");
    match skew(headers).filter(|skew| skew.abs() > SKEW) {
        Some(skew) => {
            let (seconds, direction) = (skew.abs(), if skew < 0 { "behind" } else { "ahead of" });
            head + &format!(
                "zooid's clock is {seconds} s {direction} ours and it accepts 60 s; set both clocks \
                 by NTP"
            )
        }
        None => {
            head + &format!(
                "ZOOID_API_URL or ZOOID_INSTANCES must give zooid's own address with scheme and port, \
                 now {}; a proxy with TLS must send X-Forwarded-Proto: https",
                origin(url)
            )
        }
    }
}

fn is_signature_refusal(text: &str) -> bool {
    SIGNATURE_REFUSALS.iter().any(|refusal| text.starts_with(refusal))
}

/// Returns scheme, host and port of a URL.
fn origin(url: &Url) -> String {
    let mut url = url.clone();
    url.set_path("");
    name_of(&url)
}

/// Returns how far zooid's clock is ahead of ours, in seconds, from the header `Date`.
pub(super) fn skew(headers: &HeaderMap) -> Option<i64> {
    let theirs = seconds(httpdate::parse_http_date(headers.get("date")?.to_str().ok()?).ok()?)?;
    Some(theirs - i64::try_from(Timestamp::now().as_secs()).ok()?)
}

/// Returns `Retry-After`, which is in seconds or a date. A date is compared with the answer's own
/// `Date` if it has one, because the clocks may differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = seconds(httpdate::parse_http_date(text).ok()?)?;
    let now = i64::try_from(Timestamp::now().as_secs()).ok()? + skew(headers).unwrap_or_default();
    Some(Duration::from_secs(u64::try_from(until - now).unwrap_or_default()))
}

/// Returns the Unix time of an instant, in seconds.
fn seconds(time: std::time::SystemTime) -> Option<i64> {
    i64::try_from(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// Returns the error for an answer that cannot be used.
pub(super) fn unreadable(text: &str) -> ZooidError {
    ZooidError::Unanswered { message: text.to_owned(), is_timeout: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_refusal_of_the_caller_says_what_to_check_and_others_are_left_alone() {
        for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
            let told = with_advice(status, "<h1>Forbidden</h1>");
            assert!(told.starts_with("<h1>Forbidden</h1>; a proxy before zooid"), "{told}");
            assert!(told.contains("API_WHITELIST") && told.contains("ROBOT_SECRET"), "{told}");
        }
        let proxy = with_advice(StatusCode::PROXY_AUTHENTICATION_REQUIRED, " \n");
        assert!(proxy.starts_with("(no text); a proxy"), "{proxy}");
        assert_eq!(with_advice(StatusCode::BAD_REQUEST, "no name"), "no name");
    }

    #[test]
    fn retry_after_is_in_seconds_or_a_date() {
        assert_eq!(retry_after(&headers(&[("retry-after", " 7 ")])), Some(Duration::from_secs(7)));
        let date = "Wed, 21 Oct 2026 07:28:00 GMT";
        for (until, seconds) in [("07:30:00", 120), ("07:28:00", 0), ("07:00:00", 0)] {
            let until = date.replace("07:28:00", until);
            let wait = retry_after(&headers(&[("date", date), ("retry-after", &until)])).unwrap();
            // The clock may pass a second between two looks.
            assert!(wait.as_secs().abs_diff(seconds) <= 1, "{until}: {wait:?}");
        }
        let old_forms = ["Wednesday, 21-Oct-26 07:29:00 GMT", "Wed Oct 21 07:29:00 2026"];
        for until in old_forms {
            let wait = retry_after(&headers(&[("date", date), ("retry-after", until)])).unwrap();
            assert!(wait.as_secs().abs_diff(60) <= 1, "{until}: {wait:?}");
        }
        assert_eq!(retry_after(&headers(&[("retry-after", "soon")])), None);
        assert_eq!(retry_after(&headers(&[])), None);
    }
}
