//! The refusal of an upgrade, and how long the upstream wants us to wait.

use std::{sync::PoisonError, time::Duration};

use yawc::WebSocketError;

use super::guard::Response;
use crate::mirror::error::{Fault, StepError};

/// The longest wait that an upstream can ask for.
const MAX_WAIT: Duration = Duration::from_hours(24);

/// Returns the error of a refused upgrade.
pub(super) fn refused(url: &str, error: WebSocketError, response: &Response) -> StepError {
    let status = match error {
        WebSocketError::InvalidStatusCode(status) => status,
        WebSocketError::Redirected { status_code, .. } => status_code,
        error => {
            let reason = format!("failed to connect to {url}: {error}");
            return if is_of_protocol(&error) {
                StepError::Unreachable { fault: Fault::Protocol, reason }
            } else {
                StepError::Connection(reason)
            };
        }
    };
    let header = response.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match (status, retry_after(&String::from_utf8_lossy(&header))) {
        (429 | 503, Some(asked)) => waits(url, status, asked),
        (429, None) => StepError::RateLimited(format!("{url} answered 429 Too Many Requests")),
        _ => {
            let reason = format!("{url} answered {status} instead of a websocket");
            match status {
                200..=404 => StepError::Unreachable { fault: Fault::Protocol, reason },
                _ => StepError::Connection(reason),
            }
        }
    }
}

/// Whether the host answered, and not as a websocket.
fn is_of_protocol(error: &WebSocketError) -> bool {
    matches!(
        error,
        WebSocketError::InvalidUpgradeHeader
            | WebSocketError::InvalidConnectionHeader
            | WebSocketError::InvalidSecWebsocketVersion
    )
}

fn waits(url: &str, status: u16, asked: Duration) -> StepError {
    let after = asked.min(MAX_WAIT);
    let ours = if after < asked { "; the next attempt is in a day" } else { "" };
    let seconds = asked.as_secs();
    let reason = format!("{url} answered {status} and asked us to wait {seconds} s{ours}");
    StepError::RetryAfter { reason, after }
}

/// Returns the value of `Retry-After`. A date counts from the response's own `Date`,
/// because the upstream's clock may differ from ours. Source: RFC 9110, section 10.2.3.
fn retry_after(header: &str) -> Option<Duration> {
    let field = |name: &str| {
        header.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let value = field("retry-after")?;
    let after = if let Ok(seconds) = value.parse() {
        Duration::from_secs(seconds)
    } else {
        let until = httpdate::parse_http_date(value).ok()?;
        let now = httpdate::parse_http_date(field("date")?).ok()?;
        until.duration_since(now).unwrap_or_default()
    };
    Some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_seconds_or_a_date_and_bounded() {
        let of = |fields: &str| retry_after(&format!("HTTP/1.1 429 Too Many\r\n{fields}\r\n\r\n"));
        let seconds = Duration::from_secs;
        assert_eq!(of("Retry-After: 120"), Some(seconds(120)));
        assert_eq!(of("retry-after:99999999"), Some(seconds(99_999_999)));
        let error = waits("wss://a.test", 429, seconds(86_400_000));
        assert_eq!(error.retry_after(), Some(seconds(86_400)));
        let text = error.to_string();
        assert!(text.contains("wait 86400000 s; the next attempt is in a day"), "{text}");
        assert_eq!(of("server: x"), None);
        assert_eq!(of("retry-after: soon"), None);
        let date =
            "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:50:37 GMT";
        assert_eq!(of(date), Some(seconds(60)));
        assert_eq!(of("Retry-After: Sun, 06 Nov 1994 08:50:37 GMT"), None);
    }
}
