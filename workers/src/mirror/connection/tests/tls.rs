//! TLS, with a certificate of a test authority for 127.0.0.1.

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio_rustls::TlsAcceptor;

use super::*;

const AUTHORITY: &[u8] = include_bytes!("ca.der");
const CERTIFICATE: &[u8] = include_bytes!("relay.der");
const KEY: &[u8] = include_bytes!("key.der");

/// Starts an upstream that speaks TLS and echoes messages. Returns `host:port`.
async fn secure_upstream() -> String {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(KEY.to_vec()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(CERTIFICATE.to_vec())], key)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    raw_upstream(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let Ok(mut server) = tokio_tungstenite::accept_async(stream).await else { return };
            while let Some(Ok(message)) = server.next().await {
                let _gone = server.send(message).await;
            }
        }
    })
    .await
}

fn trusting() -> Arc<ClientConfig> {
    socket::tls(&[CertificateDer::from(AUTHORITY.to_vec())])
}

#[tokio::test]
async fn a_trusted_certificate_is_accepted() {
    let url = format!("wss://{}", secure_upstream().await);
    let connection = Connection::open(opening(&url, None, trusting())).await.expect("trusted");
    let mut subscription = connection.subscribe("poll");
    connection.send(&json!(["EOSE", subscription.id()])).await.expect("sent");
    assert!(matches!(subscription.next(PATIENCE).await, Ok(Heard::Eose)));
}

#[tokio::test]
async fn an_untrusted_certificate_or_another_name_is_refused() {
    let address = secure_upstream().await;
    let url = format!("wss://{address}");
    let error = Connection::open(opening(&url, None, socket::tls(&[]))).await;
    assert!(error.expect_err("refused").to_string().contains("TLS failed"));
    let url = url.replace("127.0.0.1", "localhost");
    let error = Connection::open(opening(&url, None, trusting())).await;
    assert!(error.expect_err("refused").to_string().contains("TLS failed"));
}
