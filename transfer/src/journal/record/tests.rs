use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn facts() -> Facts {
    let mut facts = Facts::default();
    facts.add("source", "http://h/disk".to_owned());
    facts
}

fn image() -> Image {
    Image {
        format: Format::Qcow2,
        around: vec![Around::Archive, Around::Wrapper(Wrapper::Gzip)],
        virtual_size: Some(1 << 40),
    }
}

fn step(gaps: &[(u32, u32)], stream: Option<u64>, state: Option<Vec<u8>>) -> Step {
    let mut at = 0;
    let ranges = gaps.iter().map(|(gap, len)| {
        let start = at + u64::from(*gap);
        at = start + u64::from(*len);
        start..at
    });
    Step {
        ranges: ranges.collect(),
        point: Point {
            stream,
            hash: state.map(|state| HashMark { at: 77, state }),
        },
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = (
        vec((any::<u32>(), 1..u32::MAX), 0..20),
        proptest::option::of(0..u64::MAX - 1),
        proptest::option::of(vec(any::<u8>(), 0..200)),
    );
    vec(
        one.prop_map(|(gaps, stream, state)| step(&gaps, stream, state)),
        0..8,
    )
}

/// A journal, and where each of its records ends.
fn written(steps: &[Step]) -> (Vec<u8>, Vec<usize>) {
    let mut chain = Chain::default();
    let mut bytes = chain.begin(&facts(), &image());
    let mut ends = vec![bytes.len()];
    for step in steps {
        bytes.extend(chain.step(step, None));
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// What a journal with these steps says.
fn said(steps: &[Step]) -> Contents {
    let mut contents = Contents {
        facts: facts(),
        image: Some(image()),
        ..Contents::default()
    };
    for step in steps {
        contents.apply(step.clone());
    }
    contents
}

#[test]
fn every_format_and_wrapper_is_read_as_it_was_written() {
    for format in FORMATS {
        let text = ImageText::from(&Image {
            format,
            around: WRAPPERS.into_iter().map(Around::Wrapper).collect(),
            virtual_size: None,
        });
        let read = text.read().unwrap();
        assert_eq!(read.format, format);
        assert_eq!(read.around.len(), WRAPPERS.len());
    }
    assert!(
        ImageText {
            format: "zip".into(),
            around: vec![],
            virtual_size: None
        }
        .read()
        .is_none()
    );
}

#[test]
fn the_head_of_a_device_is_the_last_one_written() {
    let mut chain = Chain::default();
    let mut bytes = chain.begin(&facts(), &image());
    bytes.extend(chain.step(&Step::default(), Some(&[1; 4096])));
    bytes.extend(chain.step(&Step::default(), Some(&[2; 4096])));
    bytes.extend(chain.step(&Step::default(), None));
    assert_eq!(parse(&bytes).unwrap().contents.head, [2; 4096]);
}

#[test]
fn ranges_beyond_the_most_count_as_not_done() {
    let far = |n: u64| n * 100..n * 100 + 50;
    let mut done = Written::default();
    for n in 0..MOST_RANGES as u64 + 100 {
        remember(&mut done, far(n));
    }
    assert_eq!(done.len(), MOST_RANGES);
    // What joins others still has room.
    remember(&mut done, 50..100);
    assert!(done.covers(&(0..150)));
    remember(&mut done, far(MOST_RANGES as u64 + 7));
    assert!(
        done.covers(&far(MOST_RANGES as u64 + 7)),
        "one has become free"
    );
}

#[test]
fn records_of_another_journal_do_not_count() {
    let steps = [step(&[(0, 100)], None, None)];
    let (bytes, ends) = written(&steps);
    let mut other = Chain::default();
    let mut facts = Facts::default();
    facts.add("source", "http://h/other".to_owned());
    let mut mixed = other.begin(&facts, &image());
    mixed.extend_from_slice(&bytes[ends[0]..]);
    let parsed = parse(&mixed).unwrap();
    assert_eq!(parsed.contents.done, Written::default());
}

proptest! {
    #[test]
    fn what_was_written_is_read(steps in steps()) {
        let (bytes, _) = written(&steps);
        let parsed = parse(&bytes).unwrap();
        prop_assert_eq!(parsed.len, bytes.len() as u64);
        prop_assert_eq!(parsed.contents, said(&steps));
    }

    #[test]
    fn a_torn_journal_says_what_its_whole_records_say(steps in steps(), cut in any::<prop::sample::Index>()) {
        let (bytes, ends) = written(&steps);
        let cut = cut.index(bytes.len() + 1);
        let whole = ends.iter().filter(|end| **end <= cut).count();
        match parse(&bytes[..cut]) {
            Some(parsed) if whole > 0 => {
                prop_assert_eq!(parsed.len, ends[whole - 1] as u64);
                prop_assert_eq!(parsed.contents, said(&steps[..whole - 1]));
            }
            // Facts without an image: there is nothing to go on from.
            Some(parsed) => prop_assert!(parsed.contents.image.is_none()),
            None => prop_assert!(whole == 0),
        }
    }

    #[test]
    fn a_changed_byte_loses_its_record_and_those_after(
        steps in steps(),
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let (mut bytes, ends) = written(&steps);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let before = ends.iter().filter(|end| **end <= at).count();
        match parse(&bytes) {
            Some(parsed) if before > 0 => {
                prop_assert_eq!(parsed.contents, said(&steps[..before - 1]));
            }
            Some(parsed) => prop_assert!(parsed.contents.image.is_none()),
            None => prop_assert!(before == 0),
        }
    }

    #[test]
    fn garbage_is_no_journal_and_no_panic(garbage in vec(any::<u8>(), 0..600), magic in any::<bool>()) {
        let mut bytes = if magic { MAGIC.to_vec() } else { Vec::new() };
        bytes.extend(&garbage);
        prop_assert!(parse(&bytes).is_none());
        let _ = decode(&garbage);
    }

    #[test]
    fn hostile_records_with_right_checks_do_not_panic(
        records in vec((0..6u8, vec(any::<u8>(), 0..80)), 0..8),
        begun in any::<bool>(),
    ) {
        let mut chain = Chain::default();
        let mut bytes = if begun { chain.begin(&facts(), &image()) } else { MAGIC.to_vec() };
        for (kind, payload) in records {
            chain.frame(kind, &payload, &mut bytes);
        }
        if let Some(parsed) = parse(&bytes) {
            prop_assert!(parsed.contents.done.iter().all(|range| range.start < range.end));
        }
    }
}
