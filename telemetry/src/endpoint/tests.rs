use super::*;
use std::sync::atomic::AtomicUsize;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

/// Believes everyone, as whoever scrapes a pod does.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn session() -> ClientConnection {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

fn ask(address: SocketAddr, request: &[u8]) -> io::Result<String> {
    let mut line = rustls::StreamOwned::new(session(), TcpStream::connect(address)?);
    line.write_all(request)?;
    let mut text = String::new();
    line.read_to_string(&mut text)?;
    Ok(text)
}

fn start() -> (Endpoint, Arc<AtomicUsize>) {
    let rendered = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&rendered);
    let endpoint = Endpoint::start((Ipv4Addr::LOCALHOST, 0).into(), move || {
        let n = count.fetch_add(1, Ordering::SeqCst);
        format!("n {n}\n")
    });
    (endpoint.unwrap(), rendered)
}

#[test]
fn metrics_are_served_to_get_and_to_nothing_else() {
    let (endpoint, rendered) = start();
    let at = endpoint.address();
    for (request, status, body) in [
        (
            "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
            "200",
            "\r\n\r\nn 0\n",
        ),
        ("GET /metrics?a=b HTTP/1.0\r\n\r\n", "200", "\r\n\r\nn 1\n"),
        ("GET / HTTP/1.1\r\n\r\n", "404", "/metrics"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405", "GET"),
        ("GET /metrics\r\n\r\n", "400", "HTTP/1"),
        ("GET /metrics HTTP/2.0\r\n\r\n", "400", "HTTP/1"),
    ] {
        let answer = ask(at, request.as_bytes()).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(answer.contains(body), "{answer}");
    }
    assert_eq!(rendered.load(Ordering::SeqCst), 2);
}

#[test]
fn an_endless_request_is_cut() {
    let (endpoint, _) = start();
    let endless = [
        b"GET /metrics HTTP/1.1\r\nX: ".to_vec(),
        vec![b'a'; 1 << 20],
    ]
    .concat();
    // Cut in one way or another: while it is sent, or instead of an answer.
    if let Ok(answer) = ask(endpoint.address(), &endless) {
        assert_eq!(answer, "");
    }
    ask(endpoint.address(), b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
}

#[test]
fn clients_that_say_nothing_do_not_keep_others_out() {
    let (endpoint, _) = start();
    let silent: Vec<_> = (0..4 * MOST)
        .map(|_| TcpStream::connect(endpoint.address()).unwrap())
        .collect();
    let answer = ask(endpoint.address(), b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    assert!(answer.ends_with("n 0\n"), "{answer}");
    // The oldest were cut for it.
    let mut first = &silent[0];
    assert_eq!(first.read(&mut [0; 1]).unwrap_or(0), 0);
}

#[test]
fn an_address_that_is_taken_is_named_and_a_dropped_one_is_free() {
    let (endpoint, _) = start();
    let at = endpoint.address();
    let refused = Endpoint::start(at, String::new).unwrap_err();
    assert!(matches!(refused, EndpointError::Listen { address, .. } if address == at));
    drop(endpoint);
    let until = Instant::now() + Duration::from_secs(30);
    while TcpListener::bind(at).is_err() {
        assert!(Instant::now() < until, "still taken");
        thread::yield_now();
    }
}
