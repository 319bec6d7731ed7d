//! Resolves the host of an upstream, and refuses addresses that are not public. The caller connects
//! to the addresses that were checked, without a second lookup: the answer of a name server may
//! change between two lookups.

use std::net::{IpAddr, SocketAddr};

use reqwest::Url;
use tender_jobs::mirror::address::is_public;
use url::Host;

use super::error::{Fault, StepError};

/// The most addresses of a host that are tried.
const MAX_ADDRESSES: usize = 4;

/// Returns the addresses of a URL's host. Unless `allow_private`, all of them are public.
///
/// # Errors
/// [`StepError::Connection`] if the name server did not answer, else [`StepError::Unreachable`]. Its text is the same for a name that does not exist and for an
/// address that is not public, so that it tells a caller of the API nothing about our network.
pub(crate) async fn resolve(url: &Url, allow_private: bool) -> Result<Vec<SocketAddr>, StepError> {
    let (mut addresses, is_temporary) = match lookup(url).await {
        Ok(addresses) => (addresses, false),
        Err(error) => (Vec::new(), is_temporary(&error)),
    };
    addresses.truncate(MAX_ADDRESSES);
    let fault = if addresses.is_empty() { Fault::Dns } else { Fault::Private };
    let is_allowed = |address: &SocketAddr| allow_private || is_public(address.ip());
    if !addresses.is_empty() && addresses.iter().all(is_allowed) {
        return Ok(addresses);
    }
    let host = url.host_str().unwrap_or_default();
    let reason = if allow_private {
        format!("the name {host} did not resolve; check the name")
    } else {
        format!(
            "the name {host} did not resolve, or has no public address; check the name; only if the \
             relay is in your own network, allow it by `tender mirror update {url} --private true`"
        )
    };
    Err(if is_temporary {
        StepError::Connection(reason)
    } else {
        StepError::Unreachable { fault, reason }
    })
}

/// Whether the name server may answer later. The error's text is all that the library gives.
fn is_temporary(error: &std::io::Error) -> bool {
    error.to_string().to_lowercase().contains("temporary failure")
}

async fn lookup(url: &Url) -> std::io::Result<Vec<SocketAddr>> {
    let port = url.port_or_known_default().unwrap_or(443);
    match url.host() {
        Some(Host::Ipv4(address)) => Ok(vec![SocketAddr::new(IpAddr::V4(address), port)]),
        Some(Host::Ipv6(address)) => Ok(vec![SocketAddr::new(IpAddr::V6(address), port)]),
        Some(Host::Domain(name)) => {
            tokio::net::lookup_host((name, port)).await.map(Iterator::collect)
        }
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn error_of(url: &str) -> String {
        let url = url.parse().expect("a URL");
        resolve(&url, false).await.expect_err("refused").to_string()
    }

    #[tokio::test]
    async fn private_addresses_are_refused_unless_they_are_allowed() {
        for url in [
            "ws://127.0.0.1:1",
            "ws://[::1]:1",
            "ws://[::ffff:169.254.169.254]",
            "ws://0.0.0.0:80",
            "ws://2130706433",
            "ws://0x7f.1",
            "ws://localhost:1",
        ] {
            assert!(error_of(url).await.contains("no public address"), "{url}");
        }
        let url = "ws://127.0.0.1:7777".parse().expect("a URL");
        let allowed = resolve(&url, true).await.expect("allowed");
        assert_eq!(allowed, ["127.0.0.1:7777".parse().expect("an address")]);
    }

    #[tokio::test]
    async fn a_private_name_and_an_unknown_name_have_the_same_error() {
        let private = error_of("ws://localhost").await.replace("localhost", "NAME");
        let unknown = error_of("ws://nothing.invalid").await.replace("nothing.invalid", "NAME");
        assert_eq!(private, unknown);
    }
}
