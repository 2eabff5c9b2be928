//! Metrics and signals, while an import goes on that does not end by itself.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use longshore_tests::data::disk;
use longshore_tests::http::{Fault, Page};
use longshore_tests::program::{run, signal};
use longshore_tests::promtool::check_metrics;

use super::Pod;
use crate::serving;

/// An import that stands still half-way, where its metrics are, and the rest of its log.
struct Half {
    child: Child,
    address: String,
    log: BufReader<std::process::ChildStderr>,
}

fn begin(pod: &Pod) -> Half {
    let mut child = pod.start();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    let address = loop {
        line.clear();
        assert!(
            log.read_line(&mut line).unwrap() > 0,
            "it ended without an address"
        );
        if let Some((_, rest)) = line.split_once("serving metrics address=") {
            break rest.trim().to_owned();
        }
    };
    Half {
        child,
        address,
        log,
    }
}

fn scrape(address: &str) -> String {
    let url = format!("https://{address}/metrics");
    // Nobody signed the certificate.
    let page = run(Command::new("curl").args(["--silent", "--insecure", "--fail", &url]));
    String::from_utf8(page).unwrap()
}

fn value(page: &str, metric: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(metric))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn metrics_tell_how_far_an_import_is_and_a_signal_ends_it() {
    let page = Page::of(disk(8_000_000, 1))
        .fault(Fault::Cut(1_000_000))
        .faults(&Fault::Stall(3_000_000), 20);
    let (_server, url) = serving("/disk.raw", page);
    let pod = Pod::http(&url);
    let mut half = begin(&pod);
    let until = Instant::now() + Duration::from_mins(1);
    let page = loop {
        let page = scrape(&half.address);
        if value(&page, "cdi_importer_read_bytes_total{").is_some_and(|read| read >= 3_000_000.0) {
            break page;
        }
        assert!(Instant::now() < until, "{page}");
        std::thread::yield_now();
    };
    let progress = value(
        &page,
        "kubevirt_cdi_import_progress_total{ownerUID=\"the-owner\"}",
    );
    assert!((37.0..100.0).contains(&progress.unwrap()), "{page}");
    assert!(page.contains("# TYPE kubevirt_cdi_import_progress_total counter\n"));
    assert!(
        page.contains("{ownerUID=\"the-owner\",phase=\"copying\"} 1\n"),
        "{page}"
    );
    let retries = value(&page, "cdi_importer_retries_total{");
    assert!(retries.unwrap() >= 1.0, "{page}");
    check_metrics(&page);
    // Other paths are not there.
    let other = Command::new("curl")
        .args([
            "--silent",
            "--insecure",
            "--fail",
            &format!("https://{}/", half.address),
        ])
        .status();
    assert_eq!(other.unwrap().code(), Some(22));
    let told = Instant::now();
    signal(&half.child, "TERM");
    let status = half.child.wait().unwrap();
    assert!(
        told.elapsed() < Duration::from_secs(20),
        "{:?}",
        told.elapsed()
    );
    assert_eq!(status.code(), Some(143));
    let message = std::fs::read_to_string(pod.path("termination-log")).unwrap();
    assert!(message.contains("\"reason\":\"Interrupted\""), "{message}");
    assert!(!pod.disk().exists());
    drop(half.log);
}

#[test]
fn an_address_that_is_taken_costs_only_the_metrics() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (_server, url) = serving("/disk.raw", Page::of(disk(100_000, 2)));
    let ended = Pod::http(&url)
        .set("LONGSHORE_METRICS_ADDRESS", &address)
        .run();
    ended.complete();
    assert!(
        ended.stderr.contains("there are no metrics"),
        "{}",
        ended.stderr
    );
}
