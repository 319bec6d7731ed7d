//! The stream to an upstream: TCP to an address that was checked, and TLS.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use reqwest::Url;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Host;
use yawc::MaybeTlsStream;

use crate::mirror::{
    address,
    error::{Fault, StepError},
};

/// The longest wait for one address of a host.
const ADDRESS_WITHIN: Duration = Duration::from_secs(8);

/// A stream to an upstream.
pub(super) type Stream = MaybeTlsStream<TcpStream>;

/// Returns the TLS settings: the authorities of the web, and `more` authorities.
pub(in crate::mirror) fn tls(more: &[CertificateDer<'static>]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    roots.add_parsable_certificates(more.iter().cloned());
    let provider = Arc::new(ring::default_provider());
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    #[expect(clippy::expect_used, reason = "ring supports both versions")]
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .expect("ring supports TLS 1.2 and 1.3");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// Connects to the host of a URL.
///
/// # Errors
/// [`StepError::Connection`], or [`StepError::Unreachable`] if the host or its certificate is at fault.
pub(super) async fn dial(
    url: &Url,
    allow_private: bool,
    tls: &Arc<ClientConfig>,
) -> Result<Stream, StepError> {
    let failed = |error: &dyn std::fmt::Display| {
        StepError::Connection(format!("failed to connect to {url}: {error}"))
    };
    let addresses = address::resolve(url, allow_private).await?;
    let stream = first_of(&addresses).await.map_err(|error| failed(&error))?;
    let _slower_without = stream.set_nodelay(true);
    if url.scheme() != "wss" {
        return Ok(MaybeTlsStream::Plain(stream));
    }
    let name = server_name(url).ok_or_else(|| failed(&"its host is not a name for TLS"))?;
    let secured = TlsConnector::from(tls.clone()).connect(name, stream).await;
    secured.map(MaybeTlsStream::Tls).map_err(|error| {
        let is_of_tls =
            error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some();
        let reason = format!("failed to connect to {url}: TLS failed: {error}");
        if is_of_tls {
            StepError::Unreachable { fault: Fault::Tls, reason }
        } else {
            StepError::Connection(reason)
        }
    })
}

fn server_name(url: &Url) -> Option<ServerName<'static>> {
    match url.host()? {
        Host::Domain(name) => ServerName::try_from(name.to_owned()).ok(),
        Host::Ipv4(address) => Some(ServerName::IpAddress(address.into())),
        Host::Ipv6(address) => Some(ServerName::IpAddress(address.into())),
    }
}

/// Connects to the first address that accepts.
async fn first_of(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut last = "it has no address".to_owned();
    for address in addresses {
        match tokio::time::timeout(ADDRESS_WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => last = format!("no answer within {} s", ADDRESS_WITHIN.as_secs()),
        }
    }
    Err(last)
}
