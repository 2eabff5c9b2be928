//! Disks on nbdkit and qemu-nbd.

use std::process::Command;
use std::time::{Duration, Instant};

use longshore_importer::{NbdError, SourceOptions, source_from};
use longshore_tests::nbd::{Line, Server};
use longshore_tests::program::{digest, free_address, have, longshore, run, said, shell};

use super::{MIB, Place, chain, fails, imports, options};

/// Data of [`Place::disk`], in whole blocks of the filesystem.
const DATA: u64 = 70_000 + 40 * 4096 + 6 * MIB + 5000 + 40 * 4096;

#[test]
fn holes_of_a_disk_are_not_read() {
    if !have("nbdkit") {
        return;
    }
    let place = Place::new();
    let disk = place.disk("in.raw", 1);
    let server = Server::nbdkit(&["file", disk.to_str().unwrap()]);
    let report = imports(&server.url(), &options(), &disk);
    assert!(report.bytes_read <= DATA, "{report:?}");
    assert_eq!(report.virtual_size, 64 * MIB);
}

#[test]
fn servers_that_tell_no_extents_or_speak_simply_are_read_whole() {
    if !have("nbdkit") {
        return;
    }
    let place = Place::new();
    let disk = place.disk("in.raw", 2);
    for args in [&["--filter=noextents"][..], &["--no-sr"]] {
        let mut args = args.to_vec();
        args.extend(["file", disk.to_str().unwrap()]);
        let server = Server::nbdkit(&args);
        let report = imports(&server.url(), &options(), &disk);
        assert_eq!(report.bytes_read, 64 * MIB);
        // What is zero is not written for all that.
        assert!(report.bytes_written <= DATA, "{report:?}");
    }
}

#[test]
fn many_requests_are_under_way_at_the_same_time() {
    if !have("nbdkit") {
        return;
    }
    let place = Place::new();
    let disk = place.disk("in.raw", 3);
    let log = place.path("log");
    let log_arg = format!("logfile={}", log.display());
    // The delay keeps requests with the server until others have come.
    let args = ["--filter=log", "--filter=delay", "file"];
    let mut args = args.to_vec();
    args.extend([disk.to_str().unwrap(), "rdelay=200ms", &log_arg]);
    let server = Server::nbdkit(&args);
    imports(&server.url(), &options(), &disk);
    drop(server);
    let log = std::fs::read_to_string(log).unwrap();
    let (mut now, mut most) = (0, 0);
    for line in log.lines() {
        if line.contains("...Read id=") {
            now -= 1;
        } else if line.contains(" Read id=") {
            now += 1;
            most = most.max(now);
        }
    }
    assert!(most >= 8, "{most} at once:\n{log}");
}

#[test]
fn a_read_that_fails_is_tried_again_on_its_own() {
    if !have("nbdkit") {
        return;
    }
    let place = Place::new();
    let disk = place.disk("in.raw", 4);
    let path = disk.to_str().unwrap();
    let server = Server::nbdkit(&["--filter=error", "file", path, "error-pread-rate=30%"]);
    imports(&server.url(), &options(), &disk);
}

#[test]
fn a_read_that_always_fails_ends_the_import() {
    if !have("nbdkit") {
        return;
    }
    let place = Place::new();
    let disk = place.disk("in.raw", 5);
    let path = disk.to_str().unwrap();
    let server = Server::nbdkit(&["--filter=error", "file", path, "error-pread-rate=100%"]);
    let error: NbdError = fails(&server.url(), &options());
    let NbdError::GaveUp { attempts, source } = error else {
        panic!("{}", chain(&error));
    };
    assert_eq!(attempts, options().retries + 1);
    assert!(matches!(*source, NbdError::Failed { action: "read", .. }));
    // What the server says will not change is not asked for again.
    let args = [
        "--filter=error",
        "file",
        path,
        "error=EINVAL",
        "error-pread-rate=1",
    ];
    let server = Server::nbdkit(&args);
    let error: NbdError = fails(&server.url(), &options());
    assert!(
        matches!(error, NbdError::Failed { .. }),
        "{}",
        chain(&error)
    );
}

#[test]
fn extents_that_can_not_be_told_are_read() {
    if !have("nbdkit") {
        return;
    }
    let place = Place::new();
    let disk = place.disk("in.raw", 6);
    let path = disk.to_str().unwrap();
    let server = Server::nbdkit(&["--filter=error", "file", path, "error-extents-rate=1"]);
    let report = imports(&server.url(), &options(), &disk);
    assert_eq!(report.bytes_read, 64 * MIB);
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    if !have("nbdkit") {
        return;
    }
    let place = Place::new();
    let disk = place.disk("in.raw", 7);
    let path = disk.to_str().unwrap();
    let server = Server::nbdkit(&["--filter=delay", "file", path, "rdelay=100"]);
    let impatient = SourceOptions {
        stall_timeout: Duration::from_secs(5),
        // The first attempt tells: nbdkit 1.32 may abort when its client has left it.
        retries: 0,
        ..options()
    };
    let started = Instant::now();
    let error: NbdError = fails(&server.url(), &impatient);
    let stalled = match &error {
        NbdError::GaveUp { source, .. } => source,
        error => error,
    };
    assert!(
        matches!(stalled, NbdError::Stalled { .. }),
        "{}",
        chain(&error)
    );
    assert!(started.elapsed() < Duration::from_mins(1));
}

/// A disk of 40 MiB without holes: large enough for more than one connection.
fn full_disk(place: &Place, seed: u64) -> std::path::PathBuf {
    let path = place.path("full.raw");
    std::fs::write(&path, longshore_tests::data::disk(40 << 20, seed)).unwrap();
    path
}

#[test]
fn several_connections_are_made_where_the_server_allows_them_and_the_disk_is_worth_it() {
    if !have("nbdkit") {
        return;
    }
    let place = Place::new();
    let (full, small) = (full_disk(&place, 31), place.disk("small.raw", 32));
    let alone = SourceOptions {
        connections: 1,
        ..options()
    };
    let forbidden = ["--filter=multi-conn", "multi-conn-mode=disable"];
    for (disk, args, options, expected) in [
        (&full, &[][..], options(), 4),
        (&full, &[], alone, 1),
        (&full, &forbidden, options(), 1),
        (&small, &[], options(), 1),
    ] {
        // 16 reads at a time, and 20 ms for each: what one connection brings is never quick.
        let mut all = vec![
            "--filter=delay",
            "file",
            disk.to_str().unwrap(),
            "rdelay=20ms",
        ];
        all.extend(args.iter().filter(|arg| !arg.starts_with("--")));
        for filter in args.iter().filter(|arg| arg.starts_with("--")) {
            all.insert(0, filter);
        }
        let server = Server::nbdkit(&all);
        let line = Line::to(&server, Vec::new());
        imports(&line.url(), &options, disk);
        assert_eq!(line.connections(), expected, "{all:?}");
    }
}

#[test]
fn the_loss_of_some_of_several_connections_costs_what_was_under_way_on_them() {
    if !have("qemu-nbd") {
        return;
    }
    let place = Place::new();
    let disk = full_disk(&place, 33);
    // Slow, so that more connections are worth it.
    let image = format!(
        "driver=throttle,throttle-group=slow,file.driver=file,file.filename={}",
        disk.display()
    );
    let slow = "throttle-group,id=slow,x-bps-read=80000000";
    let server = Server::qemu_with(&["--object", slow, "--image-opts"], image.as_ref());
    // The second to go is the first one; one breaks in its greeting, and no more are tried for.
    for breaks in [
        vec![22_000_001, 1_000_003, 3_000_001, u64::MAX],
        vec![u64::MAX, 700_001, 10],
    ] {
        let line = Line::to(&server, breaks.clone());
        let report = imports(&line.url(), &options(), &disk);
        assert_eq!(line.connections(), breaks.len());
        assert_eq!(report.bytes_read, 40 * MIB);
    }
    // All of them: it begins with one again.
    let line = Line::to(&server, vec![17_000_000, 100_000, 200_000, 300_000]);
    imports(&line.url(), &options(), &disk);
    assert!(line.connections() > 4);
}

/// nbdkit 1.32 aborts (an assertion) when a client leaves in the middle of answers; qemu-nbd does not.
#[test]
fn a_line_that_breaks_is_made_again_and_little_is_read_twice() {
    if !have("qemu-nbd") {
        return;
    }
    let place = Place::new();
    let disk = place.disk("in.raw", 8);
    let server = Server::qemu("raw", &disk);
    // In the greeting, in the middle of an answer, and later.
    let line = Line::to(&server, vec![100, 1000, 700_001, 2_000_003]);
    let report = imports(&line.url(), &options(), &disk);
    assert_eq!(line.connections(), 5);
    // Bytes that came whole are counted once.
    assert!(report.bytes_read <= DATA, "{report:?}");
}

#[test]
fn a_line_that_never_holds_ends_the_import() {
    if !have("qemu-nbd") {
        return;
    }
    let place = Place::new();
    let disk = place.disk("in.raw", 9);
    let server = Server::qemu("raw", &disk);
    let line = Line::to(&server, vec![2000; 100]);
    let error: NbdError = fails(&line.url(), &options());
    let NbdError::GaveUp { source, .. } = error else {
        panic!("{}", chain(&error));
    };
    assert!(matches!(*source, NbdError::Broken { .. }));
}

#[test]
fn qemu_gives_what_its_images_have() {
    if !have("qemu-nbd") || !have("qemu-img") {
        return;
    }
    let place = Place::new();
    let disk = place.disk("in.raw", 10);
    let image = place.path("in.qcow2");
    shell(
        &place.path(""),
        "qemu-img convert -c -O qcow2 in.raw in.qcow2",
    );
    let server = Server::qemu("qcow2", &image);
    let report = imports(&server.url(), &options(), &disk);
    // By clusters.
    assert!(report.bytes_read < 16 * MIB, "{report:?}");
}

#[test]
fn a_disk_that_looks_like_an_image_is_a_disk() {
    if !have("nbdkit") || !have("qemu-img") {
        return;
    }
    let place = Place::new();
    let disk = place.disk("in.raw", 11);
    let image = place.path("in.qcow2");
    shell(&place.path(""), "qemu-img convert -O qcow2 in.raw in.qcow2");
    let server = Server::nbdkit(&["file", image.to_str().unwrap()]);
    imports(&server.url(), &options(), &image);
    // Unless someone says what it is.
    let out = place.path("out.raw");
    let mut import = longshore();
    import.args(["import", "--from", "qcow2", &server.url()]);
    run(import.arg(&out));
    super::same(&out, &disk);
}

#[test]
fn the_command_imports_shows_and_maps_a_disk_over_tcp() {
    if !have("nbdkit") || !have("sha256sum") {
        return;
    }
    let place = Place::new();
    let disk = place.disk("in.raw", 12);
    let address = free_address();
    let pid = place.path("pid");
    let mut nbdkit = Command::new("nbdkit");
    nbdkit.args(["-i", "127.0.0.1", "-p", &address.port().to_string(), "-P"]);
    run(nbdkit.arg(&pid).arg("file").arg(&disk));
    let url = format!("nbd://{address}/");
    let shown = run(longshore().args(["info", "--json", &url]));
    let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
    assert_eq!(shown["format"], "raw");
    assert_eq!(shown["virtualSize"], 64 * MIB);
    let map = run(longshore().args(["map", "--json", &url]));
    let map: serde_json::Value = serde_json::from_slice(&map).unwrap();
    let data = map.as_array().unwrap().iter();
    let data: u64 = data
        .filter(|extent| extent["data"] == true)
        .map(|extent| extent["length"].as_u64().unwrap())
        .sum();
    assert!((6 * MIB..8 * MIB).contains(&data), "{data}");
    let sum = digest("sha256", &std::fs::read(&disk).unwrap());
    let out = place.path("out.raw");
    run(longshore()
        .args(["import", "--checksum", &sum, &url])
        .arg(&out));
    super::same(&out, &disk);
    let wrong = format!("sha256:{}", "0".repeat(64));
    let refused = longshore()
        .args(["import", "--checksum", &wrong, &url])
        .arg(place.path("never.raw"))
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    let pid = std::fs::read_to_string(pid).unwrap();
    run(Command::new("kill").arg(pid.trim()));
}

#[test]
fn what_is_no_export_is_refused_at_once() {
    if !have("nbdkit") {
        return;
    }
    let place = Place::new();
    let nowhere = format!("nbd+unix:///x?socket={}", place.path("none").display());
    let once = SourceOptions {
        retries: 0,
        ..options()
    };
    let refused = |url: &str| match source_from(url, &once) {
        Err(longshore_importer::Error::Nbd { source, .. }) => source,
        Err(e) => panic!("{}", chain(&e)),
        Ok(_) => panic!("{url} opened"),
    };
    assert!(matches!(refused(&nowhere), NbdError::Connect { .. }));
    assert!(matches!(refused("nbds://127.0.0.1/"), NbdError::Tls));
    assert!(matches!(refused("nbd+unix:///x"), NbdError::Address { .. }));
    let disk = place.disk("in.raw", 13);
    let args = ["--filter=exportname", "file", disk.to_str().unwrap()];
    let mut args = args.to_vec();
    args.extend(["exportname=a", "exportname-strict=true"]);
    let server = Server::nbdkit(&args);
    let export = |name: &str| format!("nbd+unix:///{name}?socket={}", server.socket().display());
    assert!(matches!(refused(&export("b")), NbdError::Refused { .. }));
    imports(&export("a"), &options(), &disk);
}

#[test]
fn nothing_at_all_is_a_disk_too() {
    if !have("nbdkit") {
        return;
    }
    let place = Place::new();
    std::fs::write(place.path("empty"), b"").unwrap();
    let server = Server::nbdkit(&["null", "0"]);
    imports(&server.url(), &options(), &place.path("empty"));
    // Sizes that are no multiple of anything.
    std::fs::write(place.path("odd"), vec![7; 100_001]).unwrap();
    let server = Server::nbdkit(&["file", place.path("odd").to_str().unwrap()]);
    imports(&server.url(), &options(), &place.path("odd"));
}
