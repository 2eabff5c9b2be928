//! What an oVirt engine and its storage do to an image transfer at each point of its life.

use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use longshore_importer::{ImageioError, Retry, SourceOptions, imageio_source};
use longshore_tests::imageio::{Behaviour, PASSWORD};
use longshore_tests::nbd::Server;
use longshore_tests::program::{have, said};
use longshore_transfer::Error;

use super::imageio::{Rig, pause, pod, stopped};
use super::{MIB, Place, chain, import_to, options};

#[test]
fn an_engine_that_is_busy_is_waited_for_or_told_and_leaves_nothing_locked() {
    // (call, how often it is refused, whether the import goes on)
    for (calls, times, goes_on) in [
        ("POST /ovirt-engine/sso/", 1, false),
        ("POST /ovirt-engine/api/imagetransfers", 1, false),
        ("GET /ovirt-engine/api/imagetransfers/", 3, true),
        (
            "POST /ovirt-engine/api/imagetransfers/transfer%2D1/finalize",
            2,
            true,
        ),
    ] {
        let behaviour = Behaviour {
            busy: Some((calls, times)),
            ..Behaviour::default()
        };
        let Some(rig) = Rig::new(61, behaviour) else {
            return;
        };
        match imageio_source(&rig.disk(), &options()) {
            Ok(mut source) => {
                assert!(goes_on, "{calls}");
                rig.imports(source.as_mut(), "in.raw");
            }
            Err(error) => {
                assert!(!goes_on, "{calls}: {}", chain(&error));
                let longshore_importer::Error::Imageio { source, .. } = &error else {
                    panic!("{}", chain(&error));
                };
                assert_eq!(source.retry(), Retry::Transient, "{calls}");
                assert!(chain(&error).contains("the engine is starting"), "{calls}");
                // The same again goes well.
                let mut source = imageio_source(&rig.disk(), &options()).unwrap();
                import_to(source.as_mut(), &rig.place.path("out.raw")).unwrap();
            }
        }
        assert!(rig.engine.is_quiet(), "{calls}: {:?}", rig.engine.calls());
    }
}

#[test]
fn an_engine_that_stays_busy_is_given_up_and_the_transfer_cancelled() {
    let behaviour = Behaviour {
        busy: Some(("GET /ovirt-engine/api/imagetransfers/", u32::MAX)),
        ..Behaviour::default()
    };
    let Some(rig) = Rig::new(62, behaviour) else {
        return;
    };
    let mut disk = rig.disk();
    disk.patience = Duration::from_millis(300);
    let error = Rig::refused(&disk);
    assert!(
        matches!(error, ImageioError::Refused { status: 503, .. }),
        "{}",
        chain(&error)
    );
    rig.ended("cancel");
}

#[test]
fn a_transfer_that_the_system_pauses_midway_is_named_and_cancelled() {
    let Some(rig) = Rig::new(63, Behaviour::default()) else {
        return;
    };
    let few = SourceOptions {
        retries: 0,
        ..options()
    };
    let mut source = imageio_source(&rig.disk(), &few).unwrap();
    rig.engine.pause();
    let error = import_to(source.as_mut(), &rig.place.path("out.raw")).unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{}", chain(&error));
    let text = chain(&error);
    assert!(text.contains("paused_system"), "{text}");
    drop(source);
    rig.ended("cancel");
    assert!(!rig.place.path("out.raw").exists());
}

#[test]
fn a_ticket_is_extended_before_it_runs_out() {
    let Some(rig) = Rig::new(64, Behaviour::default()) else {
        return;
    };
    let mut disk = rig.disk();
    disk.inactivity = Duration::from_secs(4);
    let mut source = imageio_source(&disk, &options()).unwrap();
    let first = rig.engine.expires();
    let until = Instant::now() + Duration::from_mins(1);
    while rig.engine.expires() <= first {
        assert!(Instant::now() < until, "{:?}", rig.engine.calls());
        pause();
    }
    rig.imports(source.as_mut(), "in.raw");
    drop(source);
    rig.ended("finalize");
}

#[test]
fn a_pod_that_is_deleted_while_the_disk_is_locked_leaves_nothing_behind() {
    let behaviour = Behaviour {
        locked: u32::MAX,
        ..Behaviour::default()
    };
    let Some(rig) = Rig::new(65, behaviour) else {
        return;
    };
    let child = pod(&rig).stderr(Stdio::piped()).spawn().unwrap();
    rig.called("POST /ovirt-engine/api/imagetransfers", 2);
    let ended = stopped(child);
    assert_eq!(ended.status.code(), Some(143), "{}", said(&ended));
    assert!(!said(&ended).contains(PASSWORD));
    assert_eq!(rig.engine.count("/cancel"), 0, "{:?}", rig.engine.calls());
    assert!(rig.engine.is_quiet());
}

#[test]
fn a_pod_that_is_deleted_amid_its_copy_cancels_the_transfer() {
    if !have("nbdkit") {
        return;
    }
    let place = Place::new();
    // Without a hole: there is more of it than can be under way at a time.
    std::fs::write(place.path("in.raw"), vec![0xa5; 64 << 20]).unwrap();
    // Each read takes its time, so that there is something left to do when the first is written.
    let slow = |place: &Place| {
        let file = place.path("in.raw");
        let file = file.display().to_string();
        Server::nbdkit(&["-r", "--filter=delay", "file", &file, "delay-read=2"])
    };
    let Some(rig) = Rig::over(place, Behaviour::default(), slow) else {
        return;
    };
    let child = pod(&rig).stderr(Stdio::piped()).spawn().unwrap();
    let written = || {
        let files = std::fs::read_dir(rig.place.path("data")).unwrap();
        files
            .map(|file| {
                file.unwrap()
                    .metadata()
                    .map_or(0, |found| found.blocks() * 512)
            })
            .sum::<u64>()
    };
    let until = Instant::now() + Duration::from_mins(1);
    while written() < MIB {
        assert!(Instant::now() < until, "{:?}", rig.engine.calls());
        pause();
    }
    let ended = stopped(child);
    assert_eq!(ended.status.code(), Some(143), "{}", said(&ended));
    assert!(!said(&ended).contains(PASSWORD));
    rig.ended("cancel");
}
