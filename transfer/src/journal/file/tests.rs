use std::os::unix::fs::PermissionsExt;

use longshore_image::Format;

use super::*;

fn facts(state: &str) -> Facts {
    let mut facts = Facts::default();
    facts.add("state of the source", state.to_owned());
    facts
}

fn image() -> Image {
    Image {
        format: Format::Raw,
        around: Vec::new(),
        virtual_size: Some(1 << 30),
    }
}

fn step(range: std::ops::Range<u64>) -> Step {
    Step {
        ranges: vec![range],
        ..Step::default()
    }
}

fn fits(found: Found) -> Parsed {
    match found {
        Found::Fits(parsed) => *parsed,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn useless(found: Found) -> String {
    match found {
        Found::Useless(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_found_decides_what_is_believed() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::beside(&directory.path().join("disk.raw")).unwrap();
    assert!(place.path().ends_with(".disk.raw.longshore-journal"));
    assert!(matches!(look(&place, &facts("a")), Found::Nothing));
    let mut writing = Writing::begin(place.clone(), facts("a"), image()).unwrap();
    writing.append(step(0..100), None).unwrap();
    let mode = place.path().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(
        fits(look(&place, &facts("a")))
            .contents
            .done
            .covers(&(0..100))
    );
    let why = useless(look(&place, &facts("b")));
    assert_eq!(why, "the state of the source was a and is b");
    // A tail that was not written to its end.
    let whole = std::fs::read(place.path()).unwrap();
    writing.append(step(100..200), None).unwrap();
    let longer = std::fs::read(place.path()).unwrap();
    for len in whole.len()..longer.len() {
        std::fs::write(place.path(), &longer[..len]).unwrap();
        let parsed = fits(look(&place, &facts("a")));
        assert_eq!(parsed.contents.done.total(), 100);
        // It is overwritten by what comes next.
        let mut resumed = Writing::resume(place.clone(), parsed).unwrap();
        resumed.append(step(300..400), None).unwrap();
        let parsed = fits(look(&place, &facts("a")));
        assert_eq!(parsed.contents.done.total(), 200);
        assert!(parsed.contents.done.covers(&(300..400)));
    }
    for garbage in [&b""[..], b"lsjrnl1\n", b"garbage", &[0; 4096]] {
        std::fs::write(place.path(), garbage).unwrap();
        useless(look(&place, &facts("a")));
    }
    std::fs::write(place.path(), [b"lsjrnl2\n", &whole[8..]].concat()).unwrap();
    let why = useless(look(&place, &facts("a")));
    assert_eq!(why, "it was written by another version of longshore");
    let huge = File::create(place.path()).unwrap();
    huge.set_len(MOST_BYTES + 1).unwrap();
    useless(look(&place, &facts("a")));
    discard(&place).unwrap();
    discard(&place).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", place.path()).unwrap();
    useless(look(&place, &facts("a")));
    discard(&place).unwrap();
    std::fs::create_dir(place.path()).unwrap();
    useless(look(&place, &facts("a")));
}

#[test]
fn a_journal_stays_small_however_much_is_added() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::in_directory(&directory.path().join("made"), Path::new("/dev/vda"));
    let mut writing = Writing::begin(place.clone(), facts("a"), image()).unwrap();
    for n in 0..40u64 {
        let head = Some(vec![n as u8; 1 << 20]);
        writing.append(step(n * 10..n * 10 + 10), head).unwrap();
        assert!(place.path().metadata().unwrap().len() <= COMPACT_AT + (2 << 20));
    }
    let parsed = fits(look(&place, &facts("a")));
    assert_eq!(parsed.contents.head, vec![39; 1 << 20]);
    assert!(parsed.contents.done.covers(&(0..400)));
    let names: Vec<_> = place.directory().read_dir().unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn devices_of_the_same_name_have_journals_of_their_own() {
    let place = |path: &str| Place::in_directory(Path::new("/j"), Path::new(path));
    assert_eq!(place("/dev/vg/a"), place("/dev/vg/a"));
    assert_ne!(place("/dev/vg/a"), place("/dev/other/a"));
}
