//! Proxies that the environment names. Each case is a process of its own: the environment is read once.

use std::env;
use std::io::{BufRead, BufReader};
use std::io::{Write, copy};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use longshore_importer::{HttpError, SourceOptions};
use longshore_tests::data::disk;
use longshore_tests::http::{Authority, Fault, Page, Server};

use super::{Import, chain, open, options, refused};

/// Tells the test below that it is the process of a case, and what to read.
const URL: &str = "LONGSHORE_TEST_PROXY_URL";

/// What else the process is told: the file of the proxy's authority, and of the server's.
const PROXY_CA: &str = "LONGSHORE_TEST_PROXY_CA";
const CA: &str = "LONGSHORE_TEST_CA";
/// The import must end for want of a certificate that is believed.
const REFUSED: &str = "LONGSHORE_TEST_REFUSED";

fn bytes() -> Vec<u8> {
    disk(200_000, 1)
}

/// The process of a case.
#[test]
fn a_case_of_a_proxy() {
    let Ok(url) = env::var(URL) else { return };
    let files = |name| env::var_os(name).map(PathBuf::from).into_iter().collect();
    let options = SourceOptions {
        ca: files(CA),
        proxy_ca: files(PROXY_CA),
        ..options()
    };
    if env::var_os(REFUSED).is_none() {
        Import::of(open(&url, &options).as_mut()).made(&bytes());
        return;
    }
    let error = refused(&url, &options);
    assert!(matches!(error, HttpError::Tls { .. }), "{}", chain(&error));
}

#[track_caller]
fn run(url: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "proxy::a_case_of_a_proxy"]);
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command.envs(variables.iter().copied()).env(URL, url);
    let out = command.output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.contains("1 passed"), "{out:?}");
}

fn page() -> Page {
    Page::of(bytes()).fault(Fault::Cut(50_000))
}

#[test]
fn a_proxy_of_the_environment_is_used_unless_excepted() {
    // The proxy answers for a host that does not exist.
    let proxy = Server::start([("/disk.raw", page())]);
    let address = format!("http://{}", proxy.address());
    let far = "http://disks.invalid/disk.raw";
    run(far, &[("http_proxy", &address)]);
    let requests = proxy.log().requests;
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|r| r.target == far), "{requests:?}");

    // A name and password for the proxy go to the proxy.
    let with_user = format!("http://jane:s3cret@{}", proxy.address());
    run(far, &[("http_proxy", &with_user)]);
    let last = proxy.log().requests.pop().unwrap();
    assert_eq!(
        last.header("proxy-authorization"),
        Some("Basic amFuZTpzM2NyZXQ=")
    );
    assert_eq!(last.header("authorization"), None);

    // An exception is asked directly.
    let near = Server::start([("/disk.raw", page())]);
    run(
        &near.url("/disk.raw"),
        &[
            ("http_proxy", "http://127.0.0.1:1"),
            ("no_proxy", "127.0.0.1"),
        ],
    );
    assert_eq!(near.log().requests.len(), 2);
}

/// A proxy that leads every tunnel to one server, whatever it is asked for: as one that looks inside does.
fn tunnels_to(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            thread::spawn(move || {
                let mut lines = BufReader::new(client.try_clone().unwrap());
                let mut line = String::new();
                lines.read_line(&mut line).unwrap();
                assert!(line.starts_with("CONNECT "), "{line}");
                let mut agent = String::new();
                while line.trim() != "" {
                    line.clear();
                    lines.read_line(&mut line).unwrap();
                    if line.to_ascii_lowercase().starts_with("user-agent:") {
                        agent.clone_from(&line);
                    }
                }
                // It is all that such a proxy sees of who asks. Without it there is no answer.
                assert!(agent.contains(" cdi-golang-importer longshore/"), "{agent}");
                let server = TcpStream::connect(server).unwrap();
                let (mut back, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                to.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").unwrap();
                thread::spawn(move || {
                    // Either side may close first.
                    let _ = copy(&mut back, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
                let mut server = server;
                let _ = copy(&mut lines, &mut server);
                let _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    address
}

#[test]
fn a_proxys_authority_vouches_for_what_the_proxy_is_asked_for_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let file = directory.path().join("proxy.pem");
    authority.write(&file);
    let ca = file.to_str().unwrap();
    let refused = (REFUSED, "yes");

    // The proxy itself speaks TLS.
    let proxy = Server::start_tls(&authority, [("/disk.raw", page())]);
    let address = format!("https://{}", proxy.address());
    let far = "http://disks.invalid/disk.raw";
    run(far, &[("http_proxy", &address), (PROXY_CA, ca)]);
    let asked = proxy.log().requests;
    assert!(asked.iter().all(|r| r.target == far), "{asked:?}");
    run(far, &[("http_proxy", &address), refused]);

    // It looks inside, and shows a certificate of its own for the server.
    let far = "https://disks.invalid/disk.raw";
    let inside = Server::start_tls_as(&authority, &["disks.invalid"], [("/disk.raw", page())]);
    let tunnel = format!("http://{}", tunnels_to(inside.address()));
    run(far, &[("https_proxy", &tunnel), (PROXY_CA, ca)]);
    run(far, &[("https_proxy", &tunnel), refused]);

    // A server that is asked without it is not believed on its word, only on that of its own authority.
    let near = Server::start_tls(&authority, [("/disk.raw", page())]);
    let url = near.url("/disk.raw");
    let excepted = [("https_proxy", tunnel.as_str()), ("no_proxy", "127.0.0.1")];
    let [proxy, none] = excepted;
    run(&url, &[proxy, none, (PROXY_CA, ca), refused]);
    run(&url, &[(PROXY_CA, ca), refused]);
    run(&url, &[proxy, none, (PROXY_CA, ca), (CA, ca)]);
}
