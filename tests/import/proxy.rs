//! Proxies that the environment names. Each case is a process of its own: the environment is read once.

use std::env;
use std::process::Command;

use longshore_tests::data::disk;
use longshore_tests::http::{Fault, Page, Server};

use super::{Import, open, options};

/// Tells the test below that it is the process of a case, and what to read.
const URL: &str = "LONGSHORE_TEST_PROXY_URL";

#[test]
fn a_proxy_of_the_environment_is_used_unless_excepted() {
    let expected = disk(200_000, 1);
    if let Ok(url) = env::var(URL) {
        Import::of(open(&url, &options()).as_mut()).made(&expected);
        return;
    }
    let run = |url: &str, variables: &[(&str, &str)]| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([
            "--exact",
            "proxy::a_proxy_of_the_environment_is_used_unless_excepted",
        ]);
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command.envs(variables.iter().copied()).env(URL, url);
        let out = command.output().unwrap();
        assert!(out.status.success(), "{out:?}");
        assert!(
            String::from_utf8_lossy(&out.stdout).contains("1 passed"),
            "{out:?}"
        );
    };
    let page = || Page::of(expected.clone()).fault(Fault::Cut(50_000));

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
