use std::time::Duration;

use super::*;

/// Skips by name where there is no device; under CI the machine decides what it has, so this is a
/// fact about the host and not a missing tool.
fn device() -> Option<&'static Path> {
    let device = Path::new(DEVICE);
    if std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(device)
        .is_ok()
    {
        return Some(device);
    }
    eprintln!("skipped: {DEVICE} cannot be opened on this machine");
    None
}

#[test]
fn the_probe_ends_soon_on_every_kind_of_device() {
    let Some(device) = device() else { return };
    let started = std::time::Instant::now();
    let outcome = probe::run(device).unwrap();
    eprintln!("{}", judged(outcome, false));
    assert!(
        started.elapsed() < Duration::from_mins(1),
        "took {:?}",
        started.elapsed()
    );
    match outcome {
        // Whoever waits for it may be late.
        Outcome::Fast { .. } => {}
        Outcome::Slow { iterations, ran } => {
            assert!(iterations < LOOP_ITERATIONS);
            assert!(ran >= probe::DEADLINE);
        }
    }
}

#[test]
fn auto_measures_once_per_boot_and_remembers() {
    let Some(device) = device() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("deep/kvm-probe.json");
    let first = resolve_on(device, Accel::Auto, Some(&file)).unwrap();
    let second = resolve_on(device, Accel::Auto, Some(&file)).unwrap();
    assert!(!first.cached);
    assert!(second.cached);
    assert_eq!(
        (first.accelerator, first.reason),
        (second.accelerator, second.reason)
    );
}

#[test]
fn a_verdict_of_another_boot_or_a_torn_file_is_no_answer() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kvm-probe.json");
    let key = cache::Key::of(Path::new("/dev/null")).unwrap();
    let outcome = Outcome::Fast {
        took: Duration::from_micros(900),
    };
    cache::store(&file, key.clone(), outcome).unwrap();
    assert_eq!(cache::load(&file, &key), Some(outcome));

    let text = std::fs::read_to_string(&file).unwrap();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let other = text.replace(boot_id.trim(), "00000000-0000-0000-0000-000000000000");
    assert_ne!(other, text);
    std::fs::write(&file, other).unwrap();
    assert_eq!(cache::load(&file, &key), None);

    std::fs::write(&file, &text[..text.len() / 2]).unwrap();
    assert_eq!(cache::load(&file, &key), None);
}

#[test]
fn auto_falls_back_where_there_is_no_device() {
    let directory = tempfile::tempdir().unwrap();
    let device = directory.path().join("kvm");
    let verdict = resolve_on(&device, Accel::Auto, None).unwrap();
    assert_eq!(verdict.accelerator, Accelerator::Tcg);
    assert_eq!(verdict.reason, Reason::NoDevice);
}

#[test]
fn auto_says_why_a_device_is_unusable_and_does_not_remember_it() {
    let directory = tempfile::tempdir().unwrap();
    let device = directory.path().join("kvm");
    let cache = directory.path().join("cache.json");
    std::fs::write(&device, "not a device").unwrap();
    let verdict = resolve_on(&device, Accel::Auto, Some(&cache)).unwrap();
    assert_eq!(verdict.accelerator, Accelerator::Tcg);
    assert!(
        matches!(verdict.reason, Reason::Unusable { .. }),
        "{verdict}"
    );
    assert!(!cache.exists());
}

#[test]
fn forced_kvm_is_an_error_without_a_device_and_forced_tcg_never_looks() {
    let directory = tempfile::tempdir().unwrap();
    let device = directory.path().join("kvm");
    let error = resolve_on(&device, Accel::Kvm, None).unwrap_err();
    assert!(matches!(error, AccelError::NoDevice { .. }));
    assert_eq!(error.reason(), "KvmMissing");
    let verdict = resolve_on(&device, Accel::Tcg, None).unwrap();
    assert_eq!(
        (verdict.accelerator, verdict.reason),
        (Accelerator::Tcg, Reason::Forced)
    );
}

#[test]
fn a_verdict_reads_as_a_sentence_for_the_user() {
    let slow = Outcome::Slow {
        iterations: 140_000,
        ran: Duration::from_millis(100),
    };
    let text = judged(slow, true).to_string();
    assert!(
        text.starts_with("kvm device emulates: 140000 of 1000000 loop iterations"),
        "{text}"
    );
    assert!(
        text.ends_with("using tcg (measured earlier in this boot)"),
        "{text}"
    );
}

#[test]
fn accelerators_are_read_by_name_and_others_are_refused() {
    assert_eq!("auto".parse::<Accel>().unwrap(), Accel::Auto);
    assert_eq!("kvm".parse::<Accel>().unwrap(), Accel::Kvm);
    assert_eq!("tcg".parse::<Accel>().unwrap(), Accel::Tcg);
    assert!("KVM".parse::<Accel>().is_err());
}
