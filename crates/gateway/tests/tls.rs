//! TLS and CORS.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stand outside #[test] functions")]

mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gateway::config::TlsFiles;
use gateway::{Config, ServeError, limits};
use server::{Answer, Server, answer, null_source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A certificate for localhost, in files.
fn files(folder: &Path) -> TlsFiles {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let place = |name: &str, text: String| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    TlsFiles {
        certificates: place("cert.pem", cert.pem()),
        key: place("key.pem", signing_key.serialize_pem()),
    }
}

/// A client that trusts this certificate alone.
async fn connect(
    server: &Server,
    files: &TlsFiles,
    protocol: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    use rustls_pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    roots.add(rustls_pki_types::CertificateDer::from_pem_file(&files.certificates).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(server.address).await?;
    TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await
}

#[tokio::test]
async fn who_has_the_certificate_is_answered_over_tls_and_nobody_without() {
    let folder = tempfile::tempdir().unwrap();
    let tls = files(folder.path());
    let config = Config { models: vec![null_source()], tls: Some(tls.clone()), ..Config::default() };
    let server = Server::start_loading(config).await;
    let mut stream = connect(&server, &tls, b"http/1.1").await.unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    assert_eq!(answer(&said).status, 200);
    // HTTP/2 is offered, and answers with its settings frame.
    let mut stream = connect(&server, &tls, b"h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "a SETTINGS frame");
    // Plain text is no TLS.
    assert_ne!(server.get("/live").await.status, 200);
    // Another certificate is not trusted.
    let other = tempfile::tempdir().unwrap();
    assert!(connect(&server, &files(other.path()), b"http/1.1").await.is_err());
    // Who never greets is let go.
    tokio::time::pause();
    let started = tokio::time::Instant::now();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.read_to_end(&mut said).await.unwrap();
    assert!(started.elapsed() >= limits::HEAD_TIME);
}

#[tokio::test]
async fn files_that_are_none_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let good = files(folder.path());
    let (missing, empty) = (folder.path().join("missing.pem"), folder.path().join("empty.pem"));
    std::fs::write(&empty, "").unwrap();
    let another = tempfile::tempdir().unwrap();
    for (certificates, key, wrong) in [
        (&missing, &good.key, &missing),
        (&empty, &good.key, &empty),
        (&good.certificates, &missing, &missing),
        (&good.certificates, &good.certificates, &good.certificates),
        // The key of another certificate.
        (&good.certificates, &files(another.path()).key, &another.path().join("key.pem")),
    ] {
        let tls = TlsFiles { certificates: certificates.clone(), key: key.clone() };
        let config = Config { models: vec![null_source()], tls: Some(tls), ..Config::default() };
        match Server::start_loading(config).await.ended().await {
            Err(ServeError::Tls { file, .. }) => assert_eq!(&file, wrong),
            other => panic!("{other:?}"),
        }
    }
}

/// What a browser asks before a page of this origin may ask.
async fn preflight(server: &Server, origin: &str) -> Answer {
    let head = format!(
        "OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\norigin: {origin}\r\n\
         access-control-request-method: POST\r\naccess-control-request-headers: authorization,content-type\r\n\r\n"
    );
    server.send(&head, b"").await
}

#[tokio::test]
async fn pages_of_named_origins_may_ask() {
    let allowed = "https://app.example";
    for (cors, origin, expected) in [
        (vec![], allowed, None),
        (vec![allowed], allowed, Some(allowed)),
        (vec![allowed, "http://b.example"], "http://b.example", Some("http://b.example")),
        (vec![allowed], "https://evil.example", None),
        (vec![allowed], "https://app.example.evil", None),
        (vec![allowed], "null", None),
        (vec!["*"], "https://evil.example", Some("*")),
    ] {
        let cors: Vec<String> = cors.into_iter().map(str::to_owned).collect();
        let server =
            Server::start(Config { models: vec![null_source()], cors: cors.clone(), ..Config::default() })
                .await;
        let line = |answer: &Answer| {
            let line = answer.head.lines().find(|line| line.starts_with("access-control-allow-origin: "));
            line.map(|line| line.rsplit(' ').next().unwrap().to_owned())
        };
        let asked = preflight(&server, origin).await;
        assert_eq!(line(&asked).as_deref(), expected, "{cors:?} {origin}");
        if expected.is_some() {
            // `*` would not let a key through.
            for line in ["access-control-allow-methods: post", "access-control-allow-headers: authorization"]
            {
                assert!(asked.status == 200 && asked.head.contains(line), "{}", asked.head);
            }
        }
        // The answer itself says it too; without it the browser keeps it from the page.
        let head =
            format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\norigin: {origin}\r\n\r\n");
        let answer = server.send(&head, b"").await;
        assert_eq!((answer.status, line(&answer).as_deref()), (200, expected));
    }
}
